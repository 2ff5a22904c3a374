// The next time at which a neuron reaches its threshold.
#ifndef JAXSNN_CORE_NEXT_CROSSING_H_
#define JAXSNN_CORE_NEXT_CROSSING_H_

#include <cmath>

#include "core/root_find.h"
#include "core/types.h"

namespace jaxsnn {

namespace internal {

// v(t) - threshold and its slope, along the free solution from x.
template <class Model>
struct ThresholdDistance {
  typename Model::Constants constants;
  typename Model::template Pair<double> x;
  double threshold;

  JAXSNN_HD ValueSlope operator()(double t) const {
    if (t == 0) return {x.v - threshold, Model::Rate(constants, x).v};
    const auto at = Model::Flow(Model::Propagate(constants, t), x);
    return {at.v - threshold, Model::Rate(constants, at).v};
  }
};

}  // namespace internal

// The time from now, at most `limit`, at which v reaches `threshold` from below; kNever if it does
// not. A neuron that stands at or above the threshold is there at once. All voltages relative to
// the leak potential.
template <class Model>
JAXSNN_HD Root NextCrossing(const typename Model::Constants& constants,
                            const typename Model::template Pair<double>& x, double threshold,
                            double limit) {
  if (x.v >= threshold) return {0, true};
  const internal::ThresholdDistance<Model> distance{constants, x, threshold};
  if (threshold >= 0) {
    // v only ever rises towards i, and i only falls: no exponential is needed to rule most out.
    if (!(x.i > threshold)) return {kNever, true};
    if constexpr (requires { Model::ClosedFormCrossing(constants, x, threshold); }) {
      if (Model::HasClosedForm(constants)) {
        return {Model::ClosedFormCrossing(constants, x, threshold), true};
      }
    }
    return MonotoneNewton(distance, limit);
  }
  // Leak above threshold: v ends above it, so it crosses once and has crossed by `limit` exactly if
  // it stands above it there. Before that it may dip, which the bracket does not mind.
  double high = limit;
  if (!std::isfinite(limit)) {
    high = 1 / constants.slow;
    while (std::isfinite(high) && distance(high).value < 0) high *= 2;
  }
  if (!(distance(high).value >= 0)) return {kNever, true};
  return BracketedNewton(distance, 0, high);
}

}  // namespace jaxsnn

#endif  // JAXSNN_CORE_NEXT_CROSSING_H_
