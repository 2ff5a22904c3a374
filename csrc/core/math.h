// Elementary functions without branches, so that loops over them vectorise, and without tables or
// instruction sets of their own: IEEE arithmetic only, the same bits everywhere.
#ifndef JAXSNN_CORE_MATH_H_
#define JAXSNN_CORE_MATH_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "core/mul_add.h"
#include "core/registers.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// What exponential decay over x time constants leaves, and what it takes: e^{-x} and 1 - e^{-x}.
template <class R>
struct Decay {
  R kept;
  R lost;
};

// Both to about one unit in the last place, relative to each, for x >= 0. Beyond 700, where e^{-x}
// is smaller than anything that it is added to, the value at 700.
JAXSNN_HD JAXSNN_INLINE Decay<double> DecayOver(double x) {
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High =
      6.93147180369123816490e-01;  // the sum of both is ln 2, and n times the
  constexpr double kLn2Low = 1.90821492927058770002e-10;  // first is exact for n < 2^20
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  x = x > 700.0 ? 700.0 : x;                     // NaN stays
  // e^{-x} = 2^{-n} e^r with |r| <= ln(2) / 2.
  const double shifted = MulAdd(x, kLog2E, kRound);
  const double n = shifted - kRound;
  const double r = MulAdd(n, kLn2Low, MulAdd(n, kLn2High, -x));
  const auto exponent = static_cast<std::uint64_t>(1023) - std::bit_cast<std::uint64_t>(shifted);
  const double scale = std::bit_cast<double>(exponent << 52);
  // e^r - 1 = r + r^2 (1/2! + r/3! + ... + r^11/13!), the rest of which is below 2e-17 r.
  const double r2 = r * r, r4 = r2 * r2;
  const double a = MulAdd(r, 1.0 / 6, 1.0 / 2), b = MulAdd(r, 1.0 / 120, 1.0 / 24);
  const double c = MulAdd(r, 1.0 / 5040, 1.0 / 720), d = MulAdd(r, 1.0 / 362880, 1.0 / 40320);
  const double e = MulAdd(r, 1.0 / 39916800, 1.0 / 3628800);
  const double f = MulAdd(r, 1.0 / 6227020800.0, 1.0 / 479001600);
  const double high = MulAdd(r4, MulAdd(r2, f, e), MulAdd(r2, d, c));
  const double tail = MulAdd(r4, high, MulAdd(r2, b, a));
  const double grown = MulAdd(r2, tail, r);
  return {MulAdd(scale, grown, scale), MulAdd(-scale, grown, 1.0 - scale)};
}

// The same in single precision; beyond 87 the value there.
JAXSNN_HD JAXSNN_INLINE Decay<float> DecayOver(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860677e-6f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  x = x > 87.0f ? 87.0f : x;
  const float shifted = MulAdd(x, kLog2E, kRound);
  const float n = shifted - kRound;
  const float r = MulAdd(n, kLn2Low, MulAdd(n, kLn2High, -x));
  const auto exponent = static_cast<std::uint32_t>(127) - std::bit_cast<std::uint32_t>(shifted);
  const float scale = std::bit_cast<float>(exponent << 23);
  // The rest of the series is below 2e-8 r.
  const float r2 = r * r;
  const float a = MulAdd(r, 1.0f / 6, 1.0f / 2), b = MulAdd(r, 1.0f / 120, 1.0f / 24);
  const float c = MulAdd(r, 1.0f / 5040, 1.0f / 720);
  const float grown = MulAdd(r2, MulAdd(r2, MulAdd(r2, c, b), a), r);
  return {MulAdd(scale, grown, scale), MulAdd(-scale, grown, 1.0f - scale)};
}

// For |x| <= kShort, of numbers or vectors: e^{-x} and (1 - e^{-x}) / x by their series, the rests
// of which are below half a unit in the last place.
inline constexpr double kShort = 0.1;

namespace internal {

// The first kTerms of x^n / (n + kFirst)!, with alternating signs.
template <int kFirst, int kTerms, class T>
JAXSNN_HD JAXSNN_INLINE T ExponentialSeries(const T& x) {
  using R = Lane<T>;
  constexpr auto kSeries = [] {
    std::array<double, kTerms> series{};
    double factorial = 1;
    for (int k = 2; k < kFirst; ++k) factorial *= k;
    for (int k = 0; k < kTerms; ++k) {
      if (k + kFirst > 0) factorial *= k + kFirst;
      series[static_cast<std::size_t>(k)] = (k % 2 == 0 ? 1 : -1) / factorial;
    }
    return series;
  }();
  T sum = T{} + R(kSeries[kTerms - 1]);
  for (int k = kTerms - 2; k >= 0; --k) {
    sum = MulAdd(x, sum, T{} + R(kSeries[static_cast<std::size_t>(k)]));
  }
  return sum;
}

}  // namespace internal

template <class T>
JAXSNN_HD JAXSNN_INLINE T ShortKept(const T& x) {
  return internal::ExponentialSeries<0, sizeof(Lane<T>) == 8 ? 11 : 6>(x);
}
template <class T>
JAXSNN_HD JAXSNN_INLINE T ShortRise(const T& x) {
  return internal::ExponentialSeries<1, sizeof(Lane<T>) == 8 ? 10 : 5>(x);
}

// The next larger number that is not denormal, for finite x.
template <class R>
JAXSNN_HD JAXSNN_INLINE R NextUp(R x) {
  constexpr R kTiny = std::numeric_limits<R>::min();
  if (x >= 0 && x < kTiny) return kTiny;
  if (x < 0 && x >= -kTiny) return 0;
  const auto bits = std::bit_cast<Mask<R>>(x);
  return std::bit_cast<R>(x > 0 ? bits + 1 : bits - 1);
}

// The sum of term(0) ... term(n - 1), in eight partial sums that a vector can hold: the order is
// the same everywhere.
template <class Term>
JAXSNN_INLINE double SumOf(std::int64_t n, const Term& term) {
  constexpr std::int64_t kLanes = 8, kSome = 64;
  double part[kLanes] = {}, some[kSome];
  for (std::int64_t k = 0; k < n; k += kSome) {
    const std::int64_t m = n - k < kSome ? n - k : kSome;
    for (std::int64_t l = 0; l < m; ++l) some[l] = term(k + l);
    for (std::int64_t l = m; l % kLanes != 0; ++l) some[l] = 0;
#if defined(JAXSNN_VECTORS)
    using Lanes = Registers<double, kLanes>;
    auto sum = Lanes::Load(part);
    for (std::int64_t l = 0; l < m; l += kLanes) sum += Lanes::Load(some + l);
    Lanes::Store(sum, part);
#else
    for (std::int64_t l = 0; l < m; ++l) part[l % kLanes] += some[l];
#endif
  }
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

// log(1 + x) to about one unit in the last place, for -1 < x < 2^1000.
JAXSNN_HD JAXSNN_INLINE double Log1p(double x) {
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr std::uint64_t kOne = 0x3ff0000000000000, kMantissa = 0x000fffffffffffff;
  constexpr std::uint64_t kRootHalf = 0x3fe6a09e667f3bcd;  // sqrt(1/2)
  constexpr std::uint64_t kShift52 = 0x4330000000000000;   // 2^52, whose last bit counts ones
  // 1 + x = 2^n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and `lost` what the sum rounded off.
  const double sum = 1.0 + x;
  const double lost = x > 1.0 ? 1.0 - (sum - x) : x - (sum - 1.0);
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(sum) + (kOne - kRootHalf);
  const double n = std::bit_cast<double>((bits >> 52) | kShift52) - (4503599627370496.0 + 1023.0);
  const bool scaled = n != 0.0;
  const double reduced = std::bit_cast<double>((bits & kMantissa) + kRootHalf) - 1.0;
  const double f = scaled ? reduced : x;
  // log(1 + f) = f - f^2/2 + s (f^2/2 + s^2 p(s^2)) with s = f / (2 + f); the odd series of
  // log((1+s) / (1-s)), its coefficients fitted on this range (fdlibm).
  const double inverse = 1.0 / ((2.0 + f) * sum);
  const double s = f * sum * inverse;
  const double z = s * s, w = z * z;
  const double even = w * (3.999999999940941908e-01 +
                           w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const double odd = z * (6.666666666666735130e-01 +
                          w * (2.857142874366239149e-01 +
                               w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double half = 0.5 * f * f;
  const double tail = n * kLn2Low + (scaled ? lost * (2.0 + f) * inverse : 0.0);
  return n * kLn2High - ((half - (s * (half + (even + odd)) + tail)) - f);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_MATH_H_
