// The crossing search against a dense scan, and the closed form against Newton's method.
#include <random>

#include "core/crossing_lanes.h"
#include "core/models/cuba_lif.h"
#include "core/next_crossing.h"
#include "core/quiet_lanes.h"
#include "test.h"

namespace {

using jaxsnn::CubaLif;
using jaxsnn::kNever;
using jaxsnn::NextCrossing;
using Pair = CubaLif::Pair<double>;

// The same neuron without its closed form.
struct General : CubaLif {
  static double ClosedFormCrossing() = delete;
};

double Voltage(const CubaLif::Constants& c, Pair x, double t) {
  return CubaLif::Flow(CubaLif::Propagate(c, t), x).v;
}

// The first of many small steps that ends above the threshold, then bisection.
double Scan(const CubaLif::Constants& c, Pair x, double threshold, double limit) {
  constexpr int kSteps = 20000;
  for (int n = 1; n <= kSteps; ++n) {
    double low = limit * (n - 1) / kSteps, high = limit * n / kSteps;
    if (Voltage(c, x, high) < threshold) continue;
    for (int b = 0; b < 80; ++b) {
      const double middle = 0.5 * (low + high);
      (Voltage(c, x, middle) < threshold ? low : high) = middle;
    }
    return high;
  }
  return kNever;
}

// No crossing of an interval escapes the cheap tests in front of the search, whether the neuron
// ends above its threshold or has fallen below it again; and few that may cross do not.
void IsForeseen() {
  using jaxsnn::Dips;
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  int crossed = 0, fallen = 0, in_vain = 0;
  for (int n = 0; n < 200000; ++n) {
    const double tau_syn = 0.2 + uniform(random);
    const double tau_mem = n % 3 == 0 ? tau_syn : tau_syn * std::pow(10, 2 * uniform(random) - 1);
    const auto c = CubaLif::Prepare(tau_mem, tau_syn);
    const double threshold = n % 4 == 3 ? -0.3 * uniform(random) - 0.01 : 0.2 + uniform(random);
    // Near the threshold, with currents that take some of them just across it and back.
    const double dt = std::pow(10, 3 * uniform(random) - 3);
    const double below = dt * uniform(random);
    const Pair x{threshold - below, threshold + 4 * below * (tau_mem / dt) * uniform(random) +
                                        2 * dt * (uniform(random) - 0.2)};
    const auto p = CubaLif::Propagate(c, dt);
    const Pair end = CubaLif::Flow(p, x);
    const double longest[] = {dt};
    const double least = Dips<double>{longest, c.rate_mem * c.rate_syn / 2}.Least(0);
    const bool above_bar = end.v >= std::min(threshold, least * threshold);
    const bool may = jaxsnn::MayCross(x.v, x.i, end.v, end.i, threshold, dt * c.rate_mem,
                                      jaxsnn::Dip<double>(p.v_from_v, p.v_from_i));
    CHECK(above_bar || !may);
    if (NextCrossing<CubaLif>(c, x, threshold, dt).at <= dt) {
      ++crossed;
      fallen += end.v < threshold ? 1 : 0;
      CHECK(may);
    } else {
      in_vain += may ? 1 : 0;
    }
  }
  CHECK(crossed > 20000 && fallen > 1000);
  CHECK(10 * in_vain < crossed);
}

void MatchesScan() {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  int crossings = 0, none = 0;
  for (int n = 0; n < 1500; ++n) {
    const double tau_syn = 0.2 + uniform(random);
    double tau_mem = tau_syn * std::pow(10, 2 * uniform(random) - 1);
    if (n % 5 == 0) tau_mem = tau_syn * (1 + 1e-3 * std::pow(10, -12 * uniform(random)));
    if (n % 5 == 1) tau_mem = 2 * tau_syn;
    const auto c = CubaLif::Prepare(tau_mem, tau_syn);
    const double threshold = n % 4 == 3 ? -0.3 * uniform(random) - 0.01 : 0.2 + uniform(random);
    const Pair x{threshold - 2 * uniform(random) - 1e-3, 12 * uniform(random) - 3};
    const double limit = 8 * (tau_mem + tau_syn);
    const double expected = Scan(c, x, threshold, limit);
    const auto root = NextCrossing<CubaLif>(c, x, threshold, limit);
    CHECK(root.converged);
    const double got = root.at <= limit ? root.at : kNever;
    // A maximum that touches the threshold between two scan steps is nobody's mistake.
    const bool grazing = std::isfinite(got) != std::isfinite(expected) && std::isfinite(got) &&
                         Voltage(c, x, got + limit / 20000) < threshold;
    if (grazing) continue;
    CHECK_NEAR(got, expected, 1e-9 * limit);
    (std::isfinite(got) ? crossings : none)++;
    if (!std::isfinite(got)) continue;
    const double slope =
        CubaLif::Rate(c, {threshold, CubaLif::Flow(CubaLif::Propagate(c, got), x).i}).v;
    CHECK_NEAR((Voltage(c, x, got) - threshold) / slope, 0, 1e-13 * (1 + 1 / slope) * limit);
    const auto general = NextCrossing<General>(c, {x.v, x.i}, threshold, limit);
    CHECK_NEAR(general.at, root.at, 1e-12 * (1 + 1 / slope));
  }
  CHECK(crossings > 300);
  CHECK(none > 300);
}

// Blocks of neurons against one neuron at a time, to the last bit.
template <class Model>
void LanesMatchOneByOne(double ratio) {
  constexpr int kSize = 16;
  std::mt19937_64 random(9);
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto c = Model::Prepare(ratio * 0.7, 0.7);
  const bool closed_form = jaxsnn::internal::kHasClosedForm<Model> && Model::HasClosedForm(c);
  int found = 0, none = 0;
  for (int n = 0; n < 2000; ++n) {
    jaxsnn::CrossingBlock<kSize> block;
    for (int l = 0; l < kSize; ++l) {
      const bool dip = n % 4 == 3 && uniform(random) < 0.5;
      block.threshold[l] = dip ? -0.3 * uniform(random) - 0.01 : 0.2 + uniform(random);
      block.v[l] = block.threshold[l] - 2 * uniform(random) + 0.1;
      block.i[l] = 12 * uniform(random) - 3;
      block.limit[l] = n % 3 == 0 ? 20.0 : 3 * uniform(random);
      if (n % 50 == 0) block.limit[l] = 0;
    }
    const jaxsnn::CrossingBlock<kSize> searched = block;
    const int failed =
        jaxsnn::NextCrossings<Model>([&c](int) -> const auto& { return c; }, closed_form, block);
    CHECK(failed == jaxsnn::kNoIndex);
    for (int l = 0; l < kSize; ++l) {
      const auto root = NextCrossing<Model>(c, {searched.v[l], searched.i[l]},
                                            searched.threshold[l], searched.limit[l]);
      CHECK(block.at[l] == root.at);
      const double kept = root.at <= searched.limit[l] ? std::exp(-root.at * c.rate_mem) : 1.0;
      if (closed_form) CHECK_NEAR(block.kept[l], kept, 1e-15);
      (root.at <= searched.limit[l] ? found : none)++;
    }
  }
  CHECK(found > 1000);
  CHECK(none > 1000);
}

void Corners() {
  const auto c = CubaLif::Prepare(2, 1);
  CHECK(NextCrossing<CubaLif>(c, {1, 0}, 1, kNever).at == 0);  // stands at the threshold
  CHECK(NextCrossing<CubaLif>(c, {1.5, -3}, 1, kNever).at == 0);
  CHECK(NextCrossing<CubaLif>(c, {0, 0}, 1, kNever).at == kNever);
  CHECK(NextCrossing<CubaLif>(c, {0, 1}, 1, kNever).at == kNever);
  CHECK(NextCrossing<CubaLif>(c, {-1e6, 1e3}, 1, kNever).at == kNever);
  CHECK(NextCrossing<General>(c, {-1e6, 1e3}, 1, kNever).at == kNever);
  CHECK(NextCrossing<CubaLif>(c, {0, 1e300}, 1, kNever).at < 1e-290);
  CHECK(NextCrossing<General>(c, {0, 1e300}, 1, kNever).at < 1e-290);
  // Exactly grazing: with both roots in one place, v = u - u^2 / ... touches its maximum.
  const auto root = NextCrossing<CubaLif>(c, {0, 4}, 1, kNever);
  CHECK_NEAR(root.at, 2 * std::log(2.0), 1e-7);
  // Leak above threshold: without input the neuron charges towards 0.
  CHECK_NEAR(NextCrossing<CubaLif>(c, {-1, 0}, -0.5, kNever).at, 2 * std::log(2.0), 1e-14);
  CHECK(NextCrossing<CubaLif>(c, {-1, 0}, -0.5, 1.0).at == kNever);
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  MatchesScan();
  IsForeseen();
  LanesMatchOneByOne<CubaLif>(2.0);
  for (const double ratio : {0.1, 1.0, 2.0, 3.0}) LanesMatchOneByOne<General>(ratio);
  Corners();
  return test::Report();
}
