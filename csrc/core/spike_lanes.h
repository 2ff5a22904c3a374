// Back over spikes of different neurons in one interval, side by side.
#ifndef JAXSNN_CORE_SPIKE_LANES_H_
#define JAXSNN_CORE_SPIKE_LANES_H_

#include <cstdint>

#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// A spike whose time obeys v(t) = threshold. `time_gradient` is all that the loss owes to the time
// through everything but the neuron's own voltage; v_after is the adjoint voltage behind the reset,
// zero where a refractory period follows. Returns the adjoint voltage before the spike.
template <class Model>
JAXSNN_HD JAXSNN_INLINE double AdjointSpike(const typename Model::Constants& constants,
                                            double threshold, double reset, double current,
                                            double time_gradient, double v_after) {
  const double slope_before = Model::Rate(constants, {threshold, current}).v;
  const double slope_after = Model::Rate(constants, {reset, current}).v;
  return -(time_gradient - slope_after * v_after) / slope_before;
}

// The spikes, and the adjoint of each neuron, at the end of the interval and then at its begin.
struct SpikeLanes {
  std::int32_t* neuron = nullptr;
  double *v = nullptr, *i = nullptr, *time = nullptr, *current = nullptr, *gradient = nullptr;

  static SpikeLanes Take(Arena& arena, std::int64_t size) {
    SpikeLanes lanes;
    lanes.neuron = arena.Take<std::int32_t>(size);
    for (double** lane : {&lanes.v, &lanes.i, &lanes.time, &lanes.current, &lanes.gradient}) {
      *lane = arena.Take<double>(size);
    }
    return lanes;
  }
};

namespace internal {

template <class Model, class Constants>
JAXSNN_NOINLINE void RetraceSpikes(std::int64_t n, const Constants& shared, double threshold,
                                   double reset, double low, double high,
                                   const double* JAXSNN_RESTRICT time,
                                   const double* JAXSNN_RESTRICT current,
                                   const double* JAXSNN_RESTRICT gradient,
                                   double* JAXSNN_RESTRICT v, double* JAXSNN_RESTRICT i) {
  using Adjoint = typename Model::template Pair<double>;
  const Constants constants = shared;
  for (std::int64_t m = 0; m < n; ++m) {
    Adjoint a =
        Model::AdjointFlow(Model::Propagate(constants, high - time[m]), Adjoint{v[m], i[m]});
    a.v = AdjointSpike<Model>(constants, threshold, reset, current[m], gradient[m], a.v);
    a = Model::AdjointFlow(Model::Propagate(constants, time[m] - low), a);
    v[m] = a.v;
    i[m] = a.i;
  }
}

}  // namespace internal

// From `high` to `low`, for neurons with the same parameters.
template <class Model, class Constants>
void RetraceSpikes(std::int64_t n, const Constants& constants, double threshold, double reset,
                   double low, double high, const SpikeLanes& lanes) {
  internal::RetraceSpikes<Model>(n, constants, threshold, reset, low, high, lanes.time,
                                 lanes.current, lanes.gradient, lanes.v, lanes.i);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_SPIKE_LANES_H_
