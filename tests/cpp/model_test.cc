// The neuron model: exact solution, its transpose, and what events do to the adjoint.
#include <random>

#include "core/adjoint.h"
#include "core/models/cuba_lif.h"
#include "test.h"

namespace {

using Model = jaxsnn::CubaLif;
using Pair = Model::Pair<double>;

// Ratios of the time constants, equal and nearly equal ones among them.
constexpr double kRatios[] = {0.01, 0.3, 0.5,       1 - 1e-3,  1 - 1e-9, 1.0,
                              2.0,  4.0, 1 + 1e-14, 1 + 1e-12, 1 + 1e-6, 100.0};

// In another form, with more digits than double has: the mean decay times sinh(d) / d.
long double Kernel(long double tau_mem, long double tau_syn, long double t) {
  const long double mean = (1 / tau_mem + 1 / tau_syn) / 2;
  const long double d = (1 / tau_syn - 1 / tau_mem) / 2 * t;
  return t / tau_mem * std::exp(-mean * t) * (d == 0 ? 1 : std::sinh(d) / d);
}

void SolutionIsExact() {
  for (const double ratio : kRatios) {
    for (const double t : {0.0, 1e-9, 1e-3, 0.1, 1.0, 7.0, 40.0}) {
      const double tau_syn = 0.7, tau_mem = ratio * tau_syn;
      const auto p = Model::Propagate(Model::Prepare(tau_mem, tau_syn), t);
      // An error of the exponent's argument, t / tau eps, is an error of the result.
      const double tolerance = 4e-16 * (4 + t / tau_syn + t / tau_mem);
      CHECK_NEAR(p.v_from_v, static_cast<double>(std::exp(-static_cast<long double>(t) / tau_mem)),
                 tolerance * p.v_from_v + 1e-300);
      CHECK_NEAR(p.i_from_i, static_cast<double>(std::exp(-static_cast<long double>(t) / tau_syn)),
                 tolerance * p.i_from_i + 1e-300);
      const auto kernel = static_cast<double>(Kernel(tau_mem, tau_syn, t));
      CHECK_NEAR(p.v_from_i, kernel, tolerance * kernel + 1e-300);
    }
  }
}

// For tau_mem = 2 tau_syn one exponential gives the same bits; and behind a crossing, the solution
// over what is left of a time step.
void OneExponentialIsEnough() {
  const auto constants = Model::Prepare(1.4, 0.7);
  CHECK(Model::HasClosedForm(constants));
  const Model::ClosedConstants closed{constants};
  for (const double t : {0.0, 1e-9, 1e-3, 0.1, 1.0, 7.0, 40.0}) {
    const auto p = Model::Propagate(constants, t), one = Model::Propagate(closed, t);
    CHECK(p.v_from_v == one.v_from_v && p.v_from_i == one.v_from_i && p.i_from_i == one.i_from_i);
    for (const double part : {0.0, 1e-6, 0.3, 0.999, 1.0}) {
      const double kept = std::exp(-part * t / 1.4);
      const auto left = Model::PropagateBeyond(closed, kept, t);
      const auto expected = Model::Propagate(constants, (1 - part) * t);
      const double tolerance = 1e-15 * (4 + t);
      CHECK_NEAR(left.v_from_v, expected.v_from_v, tolerance * expected.v_from_v);
      CHECK_NEAR(left.v_from_i, expected.v_from_i, tolerance);
      CHECK_NEAR(left.i_from_i, expected.i_from_i, 2 * tolerance * expected.i_from_i);
    }
  }
}

void AdjointIsTranspose() {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  for (const double ratio : kRatios) {
    for (int n = 0; n < 50; ++n) {
      const auto constants = Model::Prepare(0.7 * ratio, 0.7);
      const auto p = Model::Propagate(constants, std::fabs(normal(random)));
      const Pair x{normal(random), normal(random)}, a{normal(random), normal(random)};
      const Pair forward = Model::Flow(p, x), back = Model::AdjointFlow(p, a);
      CHECK_NEAR(a.v * forward.v + a.i * forward.i, back.v * x.v + back.i * x.i, 1e-14);
      const double h = 1e-5;
      const Pair later = Model::Flow(Model::Propagate(constants, h), x);
      const double difference = (a.v * (later.v - x.v) + a.i * (later.i - x.i)) / h;
      const double scale =
          1 + constants.rate_mem * constants.rate_mem + constants.rate_syn * constants.rate_syn;
      CHECK_NEAR(Model::TimeSensitivity(constants, x, a), difference, 20 * h * scale);
    }
  }
}

// One neuron crosses, is reset and flows on to time 1: the adjoint against central differences.
double VoltageAfterSpike(const Model::Constants& c, double threshold, double reset, Pair start,
                         double* spike, double* current) {
  double low = 0, high = 1;
  for (int n = 0; n < 200; ++n) {
    const double middle = 0.5 * (low + high);
    (Model::Flow(Model::Propagate(c, middle), start).v < threshold ? low : high) = middle;
  }
  *spike = low;
  *current = Model::Flow(Model::Propagate(c, low), start).i;
  return Model::Flow(Model::Propagate(c, 1 - low), {reset, *current}).v;
}

void SpikeJumpMatchesDifferences() {
  for (const double ratio : {0.5, 1.0, 3.0}) {
    const auto c = Model::Prepare(1.1 * ratio, 1.1);
    const double threshold = 0.8, reset = -0.3, time_weight = 0.7;
    const Pair start{0.2, 5.0};
    double spike, current, t, i;
    VoltageAfterSpike(c, threshold, reset, start, &spike, &current);
    // Loss: v(1) + 0.7 t_spike.
    const Pair after = Model::AdjointFlow(Model::Propagate(c, 1 - spike), {1.0, 0.0});
    const double before =
        jaxsnn::AdjointSpike<Model>(c, threshold, reset, current, time_weight, after.v);
    const Pair gradient = Model::AdjointFlow(Model::Propagate(c, spike), {before, after.i});
    const double h = 1e-6;
    const auto loss = [&](Pair x) {
      const double v = VoltageAfterSpike(c, threshold, reset, x, &t, &i);
      return v + time_weight * t;
    };
    CHECK_NEAR(gradient.v, (loss({0.2 + h, 5}) - loss({0.2 - h, 5})) / (2 * h), 1e-8);
    CHECK_NEAR(gradient.i, (loss({0.2, 5 + h}) - loss({0.2, 5 - h})) / (2 * h), 1e-8);
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  SolutionIsExact();
  OneExponentialIsEnough();
  AdjointIsTranspose();
  SpikeJumpMatchesDifferences();
  return test::Report();
}
