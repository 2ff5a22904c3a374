// The exact solutions over the intervals of a window, for neurons that share their time constants:
// computed for all intervals at once, in loops that vectorise, and read by both sweeps.
#ifndef JAXSNN_CORE_PROPAGATORS_H_
#define JAXSNN_CORE_PROPAGATORS_H_

#include <cstdint>

#include "core/problem.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Lanes of solutions, one per interval or one per neuron.
template <class R>
struct PropagatorLanes {
  R* v_from_v = nullptr;
  R* v_from_i = nullptr;
  R* i_from_i = nullptr;
  R* reach = nullptr;  // the time step in units of tau_mem

  static PropagatorLanes Take(Arena& arena, std::int64_t size) {
    PropagatorLanes lanes;
    for (R** lane : {&lanes.v_from_v, &lanes.v_from_i, &lanes.i_from_i, &lanes.reach}) {
      *lane = arena.Take<R>(size);
    }
    return lanes;
  }
  template <class Model>
  JAXSNN_INLINE void Set(std::int64_t k, const typename Model::Constants& constants, double dt) {
    const auto p = Model::Propagate(constants, dt);
    v_from_v[k] = static_cast<R>(p.v_from_v);
    v_from_i[k] = static_cast<R>(p.v_from_i);
    i_from_i[k] = static_cast<R>(p.i_from_i);
    reach[k] = static_cast<R>(dt * constants.rate_mem);
  }
  PropagatorLanes At(std::int64_t k) const {
    return {v_from_v + k, v_from_i + k, i_from_i + k, reach + k};
  }
};

// The rates of neurons that differ in their time constants.
template <class Model, class R>
struct RateLanes {
  R *slow = nullptr, *gap = nullptr, *rate_mem = nullptr, *ratio = nullptr;

  static RateLanes Take(Arena& arena, std::int64_t size) {
    RateLanes lanes;
    for (R** lane : {&lanes.slow, &lanes.gap, &lanes.rate_mem, &lanes.ratio}) {
      *lane = arena.Take<R>(size);
    }
    return lanes;
  }
  void Set(std::int64_t j, const typename Model::Constants& constants) {
    slow[j] = static_cast<R>(constants.slow);
    gap[j] = static_cast<R>(constants.gap);
    rate_mem[j] = static_cast<R>(constants.rate_mem);
    ratio[j] = static_cast<R>(constants.ratio);
  }
};

namespace internal {

template <class Model, class R>
JAXSNN_NOINLINE void PropagateLanes(std::int64_t n, const R* JAXSNN_RESTRICT slow,
                                    const R* JAXSNN_RESTRICT gap, const R* JAXSNN_RESTRICT rate_mem,
                                    const R* JAXSNN_RESTRICT ratio, R dt,
                                    R* JAXSNN_RESTRICT v_from_v, R* JAXSNN_RESTRICT v_from_i,
                                    R* JAXSNN_RESTRICT i_from_i, R* JAXSNN_RESTRICT reach) {
  for (std::int64_t j = 0; j < n; ++j) {
    const auto p = Model::Propagate(slow[j], gap[j], rate_mem[j], ratio[j], dt);
    v_from_v[j] = p.v_from_v;
    v_from_i[j] = p.v_from_i;
    i_from_i[j] = p.i_from_i;
    reach[j] = dt * rate_mem[j];
  }
}

}  // namespace internal

// The solutions of n neurons over one time step.
template <class Model, class R>
void SetPropagators(const RateLanes<Model, R>& rates, std::int64_t n, double dt,
                    const PropagatorLanes<R>& lanes) {
  internal::PropagateLanes<Model>(n, rates.slow, rates.gap, rates.rate_mem, rates.ratio,
                                  static_cast<R>(dt), lanes.v_from_v, lanes.v_from_i,
                                  lanes.i_from_i, lanes.reach);
}

// Interval k ends at queue entry head + k; the last one, number `n_arrivals`, at `end`.
template <class Model, class R>
void FillIntervals(PropagatorLanes<R> lanes, const typename Model::Constants& constants,
                   const SpikeQueue<R>& queue, std::int64_t n_arrivals, double begin, double end) {
  if (n_arrivals == 0) {
    lanes.template Set<Model>(0, constants, end - begin);
    return;
  }
  const R* time = queue.time + queue.head;
  lanes.template Set<Model>(0, constants, static_cast<double>(time[0]) - begin);
  for (std::int64_t k = 1; k < n_arrivals; ++k) {
    lanes.template Set<Model>(k, constants,
                              static_cast<double>(time[k]) - static_cast<double>(time[k - 1]));
  }
  lanes.template Set<Model>(n_arrivals, constants, end - static_cast<double>(time[n_arrivals - 1]));
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PROPAGATORS_H_
