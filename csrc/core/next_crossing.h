// The next time at which a neuron reaches its threshold.
#ifndef JAXSNN_CORE_NEXT_CROSSING_H_
#define JAXSNN_CORE_NEXT_CROSSING_H_

#include <algorithm>
#include <cmath>

#include "core/root_find.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

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

// v rises towards i, which falls but stays positive: v is concave as long as it rises, and stays
// below its first tangent, which has to reach the threshold. No branches: loops over it vectorise.
template <class Model>
JAXSNN_HD JAXSNN_INLINE bool MayRise(const typename Model::Constants& constants,
                                     const typename Model::template Pair<double>& x,
                                     double threshold, double limit) {
  const double tangent = x.v + Model::Rate(constants, x).v * limit;
  return (x.v < threshold) & (x.i >= 0) & (x.i > threshold) & !(tangent < threshold);
}

template <class Model>
inline constexpr bool kHasClosedForm =
    requires(typename Model::Constants constants, typename Model::template Pair<double> x) {
      Model::ClosedFormCrossing(constants, x, 0.0);
    };

inline constexpr double kForgotten = 700;  // time constants after which nothing is left to rise

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
  if (x.i >= 0 && x.i > threshold) {
    if (!internal::MayRise<Model>(constants, x, threshold, limit)) return {kNever, true};
    if constexpr (internal::kHasClosedForm<Model>) {
      if (Model::HasClosedForm(constants)) {
        const auto crossing = Model::ClosedFormCrossing(constants, x, threshold);
        return {crossing.at <= limit ? crossing.at : kNever, true, crossing.passed};
      }
    }
    return MonotoneNewton(distance, std::min(limit, internal::kForgotten / constants.slow));
  }
  // v only ever rises towards the larger of i and rest.
  if (threshold >= 0) return {kNever, true};
  // Leak above threshold and an inhibitory current: v may dip first, but ends above the threshold,
  // so that it crosses once and has crossed by `limit` exactly if it stands above it there.
  double high = limit;
  if (!std::isfinite(limit)) {
    high = 1 / constants.slow;
    while (std::isfinite(high) && distance(high).value < 0) high *= 2;
  }
  if (!(distance(high).value >= 0)) return {kNever, true};
  return BracketedNewton(distance, 0, high);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_NEXT_CROSSING_H_
