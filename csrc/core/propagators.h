// The exact solutions over the intervals of a window, for neurons that share their time constants:
// computed for all intervals at once, in loops that vectorise, and read by both sweeps.
#ifndef JAXSNN_CORE_PROPAGATORS_H_
#define JAXSNN_CORE_PROPAGATORS_H_

#include <algorithm>
#include <cstdint>

#include "core/math.h"
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

namespace internal {

template <class Model, bool kIsShort, class R>
JAXSNN_NOINLINE void PropagateLanes(std::int64_t n, const R* JAXSNN_RESTRICT slow,
                                    const R* JAXSNN_RESTRICT gap, const R* JAXSNN_RESTRICT rate_mem,
                                    const R* JAXSNN_RESTRICT ratio, R dt,
                                    R* JAXSNN_RESTRICT v_from_v, R* JAXSNN_RESTRICT v_from_i,
                                    R* JAXSNN_RESTRICT i_from_i, R* JAXSNN_RESTRICT reach) {
  for (std::int64_t j = 0; j < n; ++j) {
    const auto p = Model::template Propagate<kIsShort>(slow[j], gap[j], rate_mem[j], ratio[j], dt);
    v_from_v[j] = p.v_from_v;
    v_from_i[j] = p.v_from_i;
    i_from_i[j] = p.i_from_i;
    reach[j] = dt * rate_mem[j];
  }
}

}  // namespace internal

// The solutions over one time step: one that all neurons share, or one for each, computed side by
// side in the precision at hand.
template <class Model, class R>
class StepPropagators {
 public:
  static StepPropagators Take(Arena& arena, bool uniform, std::int64_t n_lanes) {
    StepPropagators step;
    step.n_ = uniform ? 1 : n_lanes;
    step.uniform_ = uniform;
    step.lanes_ = PropagatorLanes<R>::Take(arena, step.n_);
    for (R** rate : {&step.slow_, &step.gap_, &step.rate_mem_, &step.ratio_}) {
      *rate = arena.Take<R>(uniform ? 0 : n_lanes);
    }
    return step;
  }

  // With constants(lane) for every one of n lanes, at most those there is room for.
  template <class ConstantsOf>
  void Fill(std::int64_t n, const ConstantsOf& constants) {
    shared_ = constants(0);
    if (!uniform_) n_ = n;
    fastest_ = 0;
    for (std::int64_t j = 0; !uniform_ && j < n_; ++j) {
      const typename Model::Constants& own = constants(j);
      fastest_ = std::max(fastest_, own.slow + own.gap);
      slow_[j] = static_cast<R>(own.slow);
      gap_[j] = static_cast<R>(own.gap);
      rate_mem_[j] = static_cast<R>(own.rate_mem);
      ratio_[j] = static_cast<R>(own.ratio);
    }
  }

  const PropagatorLanes<R>& Over(double dt) {
    if (uniform_) {
      lanes_.template Set<Model>(0, shared_, dt);
    } else {
      const auto propagate = IsShort(dt) ? internal::PropagateLanes<Model, true, R>
                                         : internal::PropagateLanes<Model, false, R>;
      propagate(n_, slow_, gap_, rate_mem_, ratio_, static_cast<R>(dt), lanes_.v_from_v,
                lanes_.v_from_i, lanes_.i_from_i, lanes_.reach);
    }
    return lanes_;
  }

  // A solution that all neurons share.
  template <class Propagator>
  const PropagatorLanes<R>& Set(const Propagator& p) {
    lanes_.v_from_v[0] = static_cast<R>(p.v_from_v);
    lanes_.v_from_i[0] = static_cast<R>(p.v_from_i);
    lanes_.i_from_i[0] = static_cast<R>(p.i_from_i);
    return lanes_;
  }
  // Whether a step is short compared to all time constants.
  bool IsShort(double dt) const { return dt * fastest_ < kShort; }
  // Of every neuron, unless they share them.
  const R* slow() const { return slow_; }
  const R* gap() const { return gap_; }
  const R* rate_mem() const { return rate_mem_; }
  const R* ratio() const { return ratio_; }

 private:
  std::int64_t n_ = 0;
  bool uniform_ = true;
  double fastest_ = 0;  // of all rates
  PropagatorLanes<R> lanes_;
  typename Model::Constants shared_{};
  R *slow_ = nullptr, *gap_ = nullptr, *rate_mem_ = nullptr, *ratio_ = nullptr;
};

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
