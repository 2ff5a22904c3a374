// Root finding over anything that evaluates to a value and a slope.
#ifndef JAXSNN_CORE_ROOT_FIND_H_
#define JAXSNN_CORE_ROOT_FIND_H_

#include <cmath>
#include <limits>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

struct ValueSlope {
  double value;
  double slope;
};

struct Root {
  double at;  // kNever: there is none up to the limit
  bool converged;
  double passed = 0;  // of a closed form, see the model
};

// Monotone, Newton converges for every use here, quadratically in the end; the caps turn times
// beyond all scales of a neuron, to which it would walk one time constant per step, into a status.
inline constexpr int kMaxNewtonSteps = 200;
inline constexpr int kMaxBracketSteps = 400;
inline constexpr double kRootTolerance = 2 * std::numeric_limits<double>::epsilon();

// The first root of h in [0, limit], for h(0) < 0 and h concave up to its first maximum: Newton's
// steps from 0 then never pass the first root, and where they meet a falling slope there is no
// root.
template <class Function>
JAXSNN_HD Root MonotoneNewton(const Function& h, double limit) {
  double t = 0;
  for (int step = 0; step < kMaxNewtonSteps; ++step) {
    const ValueSlope at = h(t);
    if (at.value >= 0) return {t, true};
    if (!(at.slope > 0)) return {kNever, true};
    const double delta = -at.value / at.slope;
    t += delta;
    if (t > limit) return {kNever, true};
    if (delta <= kRootTolerance * t) return {t, true};
  }
  return {kNever, false};
}

// The root of h in [low, high], for h(low) < 0 <= h(high): Newton where it stays inside the
// bracket and halves it, bisection elsewhere.
template <class Function>
JAXSNN_HD Root BracketedNewton(const Function& h, double low, double high) {
  double t = low + 0.5 * (high - low);
  for (int step = 0; step < kMaxBracketSteps; ++step) {
    const ValueSlope at = h(t);
    (at.value < 0 ? low : high) = t;
    const double newton = t - at.value / at.slope;
    const bool inside = newton > low && newton < high;  // false for NaN
    const double next = inside && step % 3 != 2 ? newton : low + 0.5 * (high - low);
    if (std::fabs(next - t) <= kRootTolerance * t || high - low <= kRootTolerance * high) {
      return {next, true};
    }
    t = next;
  }
  return {kNever, false};
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_ROOT_FIND_H_
