// Elementary functions without branches, so that loops over them vectorise, and without tables or
// instruction sets of their own: IEEE arithmetic only, the same bits everywhere.
#ifndef JAXSNN_CORE_MATH_H_
#define JAXSNN_CORE_MATH_H_

#include <bit>
#include <cstdint>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// What exponential decay over x time constants leaves, and what it takes: e^{-x} and 1 - e^{-x}.
struct Decay {
  double kept;
  double lost;
};

// Both to about one unit in the last place, relative to each, for x >= 0. Beyond 700, where e^{-x}
// is smaller than anything that it is added to, the value at 700.
JAXSNN_HD inline Decay DecayOver(double x) {
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High =
      6.93147180369123816490e-01;  // the sum of both is ln 2, and n times the
  constexpr double kLn2Low = 1.90821492927058770002e-10;  // first is exact for n < 2^20
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  x = x > 700.0 ? 700.0 : x;                     // NaN stays
  // e^{-x} = 2^{-n} e^r with |r| <= ln(2) / 2.
  const double shifted = x * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (n * kLn2High - x) + n * kLn2Low;
  const auto exponent = static_cast<std::uint64_t>(1023) - std::bit_cast<std::uint64_t>(shifted);
  const double scale = std::bit_cast<double>(exponent << 52);
  // e^r - 1 = r + r^2 (1/2! + r/3! + ... + r^11/13!), the rest of which is below 2e-17 r.
  const double r2 = r * r, r4 = r2 * r2;
  const double a = 1.0 / 2 + r * (1.0 / 6), b = 1.0 / 24 + r * (1.0 / 120);
  const double c = 1.0 / 720 + r * (1.0 / 5040), d = 1.0 / 40320 + r * (1.0 / 362880);
  const double e = 1.0 / 3628800 + r * (1.0 / 39916800);
  const double f = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
  const double tail = (a + r2 * b) + r4 * ((c + r2 * d) + r4 * (e + r2 * f));
  const double grown = r + r2 * tail;
  return {scale + scale * grown, (1.0 - scale) - scale * grown};
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_MATH_H_
