// The elementary functions against the standard library in more digits than double has.
#include <cfloat>
#include <random>

#include "core/math.h"
#include "test.h"

namespace {

// Distance in units in the last place of the exact value.
double Ulps(double got, long double exact) {
  const auto rounded = static_cast<double>(exact);
  if (got == rounded) return 0;
  const double above = std::nextafter(std::fabs(rounded), INFINITY);
  return static_cast<double>(std::fabs(got - exact) / (above - std::fabs(rounded)));
}

void Log1pIsExact() {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> u(0, 1);
  const auto compare = [](double x) {
    const double ulps = Ulps(jaxsnn::Log1p(x), std::log1p(static_cast<long double>(x)));
    CHECK(ulps < 2);
  };
  for (int n = 0; n < 200000; ++n) {
    compare(-u(random));
    compare(4 * u(random));
    compare((n % 2 == 0 ? 1 : -1) * std::pow(10, -16 * u(random)) * 0.999);  // towards 0
    compare(-1 + std::pow(10, -15.5 * u(random)));                           // towards -1
    compare(std::pow(10, 300 * u(random)));
  }
  for (const double x : {-0.5, -0.25, 1.0, 3.0, -1 + DBL_EPSILON / 2, DBL_EPSILON, -DBL_EPSILON,
                         std::sqrt(0.5) - 1, std::sqrt(2.0) - 1, 1e-300, -1e-300, 1e300}) {
    for (const double near : {std::nextafter(x, -1), x, std::nextafter(x, INFINITY)}) {
      if (near > -1) compare(near);
    }
  }
  CHECK(jaxsnn::Log1p(0) == 0);
}

void DecayIsExact() {
  std::mt19937_64 random(4);
  std::uniform_real_distribution<double> u(0, 1);
  for (int n = 0; n < 100000; ++n) {
    // Up to 650: beyond, the last digits are denormal and may be flushed.
    const double x = n % 2 == 0 ? 650 * u(random) : std::pow(10, -18 * u(random));
    const jaxsnn::Decay<double> decay = jaxsnn::DecayOver(x);
    CHECK(Ulps(decay.kept, std::exp(-static_cast<long double>(x))) < 3);
    CHECK(Ulps(decay.lost, -std::expm1(-static_cast<long double>(x))) < 3);
  }
  CHECK(jaxsnn::DecayOver(0.0).kept == 1);
  CHECK(jaxsnn::DecayOver(0.0).lost == 0);
  CHECK(jaxsnn::DecayOver(1e6).kept == jaxsnn::DecayOver(700.0).kept);
  CHECK(jaxsnn::DecayOver(std::numeric_limits<double>::infinity()).lost == 1);
  CHECK(std::isnan(jaxsnn::DecayOver(std::numeric_limits<double>::quiet_NaN()).kept));
}

void DecayInSinglePrecision() {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> u(0, 1);
  const double ulp = std::numeric_limits<float>::epsilon();
  for (int n = 0; n < 100000; ++n) {
    // Up to 69, as above.
    const auto x = static_cast<float>(n % 2 == 0 ? 69 * u(random) : std::pow(10, -18 * u(random)));
    const jaxsnn::Decay<float> decay = jaxsnn::DecayOver(x);
    const double kept = std::exp(-static_cast<double>(x));
    const double lost = -std::expm1(-static_cast<double>(x));
    CHECK(std::fabs(static_cast<double>(decay.kept) - kept) < 1.5 * ulp * kept);
    CHECK(std::fabs(static_cast<double>(decay.lost) - lost) < 1.5 * ulp * lost);
  }
  CHECK(jaxsnn::DecayOver(0.0f).kept == 1);
  CHECK(jaxsnn::DecayOver(0.0f).lost == 0);
  CHECK(jaxsnn::DecayOver(1e6f).kept == jaxsnn::DecayOver(87.0f).kept);
  CHECK(std::isnan(jaxsnn::DecayOver(std::numeric_limits<float>::quiet_NaN()).kept));
}

void SumsAreComplete() {
  for (int n = 0; n < 40; ++n) {
    const double sum =
        jaxsnn::SumOf(n, [](std::int64_t k) { return static_cast<double>((k + 1) * (k + 1)); });
    CHECK(sum == n * (n + 1) * (2 * n + 1) / 6);
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  Log1pIsExact();
  DecayIsExact();
  DecayInSinglePrecision();
  SumsAreComplete();
  return test::Report();
}
