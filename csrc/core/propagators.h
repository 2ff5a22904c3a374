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

template <class Model, class R>
JAXSNN_NOINLINE void PropagateShortLanes(std::int64_t n, const R* JAXSNN_RESTRICT rate_mem,
                                         const R* JAXSNN_RESTRICT difference, R dt,
                                         R* JAXSNN_RESTRICT v_from_v, R* JAXSNN_RESTRICT v_from_i,
                                         R* JAXSNN_RESTRICT i_from_i, R* JAXSNN_RESTRICT reach) {
  for (std::int64_t j = 0; j < n; ++j) {
    const auto p = Model::PropagateShort(rate_mem[j], difference[j], dt);
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
    for (R** rate : {&step.slow_, &step.gap_, &step.rate_mem_, &step.ratio_, &step.difference_}) {
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
    double product = shared_.rate_mem * shared_.rate_syn;
    for (std::int64_t j = 0; !uniform_ && j < n_; ++j) {
      const typename Model::Constants& own = constants(j);
      fastest_ = std::max(fastest_, own.slow + own.gap);
      product = std::max(product, own.rate_mem * own.rate_syn);
      slow_[j] = static_cast<R>(own.slow);
      gap_[j] = static_cast<R>(own.gap);
      rate_mem_[j] = static_cast<R>(own.rate_mem);
      ratio_[j] = static_cast<R>(own.ratio);
      difference_[j] = static_cast<R>(own.rate_mem < own.rate_syn ? own.gap : -own.gap);
    }
    dip_rate_ = static_cast<R>(product / 2);
  }

  const PropagatorLanes<R>& Over(double dt) {
    Over(dt, 0, n_);
    return lanes_;
  }
  // Of n neurons from number `first` on.
  PropagatorLanes<R> Over(double dt, std::int64_t first, std::int64_t n) {
    if (uniform_) {
      lanes_.template Set<Model>(0, shared_, dt);
      return lanes_;
    }
    const PropagatorLanes<R> some = lanes_.At(first);
    if (IsShort(dt)) {
      internal::PropagateShortLanes<Model>(n, rate_mem_ + first, difference_ + first,
                                           static_cast<R>(dt), some.v_from_v, some.v_from_i,
                                           some.i_from_i, some.reach);
    } else {
      internal::PropagateLanes<Model>(n, slow_ + first, gap_ + first, rate_mem_ + first,
                                      ratio_ + first, static_cast<R>(dt), some.v_from_v,
                                      some.v_from_i, some.i_from_i, some.reach);
    }
    return some;
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
  R dip_rate() const { return dip_rate_; }  // see Dips
  // Of every neuron, unless they share them.
  const R* rate_mem() const { return rate_mem_; }
  const R* difference() const { return difference_; }  // rate_syn - rate_mem

 private:
  std::int64_t n_ = 0;
  bool uniform_ = true;
  double fastest_ = 0;  // of all rates
  R dip_rate_ = 0;
  PropagatorLanes<R> lanes_;
  typename Model::Constants shared_{};
  R *slow_ = nullptr, *gap_ = nullptr, *rate_mem_ = nullptr, *ratio_ = nullptr;
  R* difference_ = nullptr;
};

namespace internal {

template <class Model, class R, class Constants>
JAXSNN_NOINLINE void PropagateEach(std::int64_t n, const double* JAXSNN_RESTRICT dt,
                                   const Constants& shared, R* JAXSNN_RESTRICT v_from_v,
                                   R* JAXSNN_RESTRICT v_from_i, R* JAXSNN_RESTRICT i_from_i,
                                   R* JAXSNN_RESTRICT reach) {
  const Constants constants = shared;
  for (std::int64_t k = 0; k < n; ++k) {
    const auto p = Model::Propagate(constants, dt[k]);
    v_from_v[k] = static_cast<R>(p.v_from_v);
    v_from_i[k] = static_cast<R>(p.v_from_i);
    i_from_i[k] = static_cast<R>(p.i_from_i);
    reach[k] = static_cast<R>(dt[k] * constants.rate_mem);
  }
}

}  // namespace internal

// The solutions over n intervals.
template <class Model, class R>
void PropagateEach(std::int64_t n, const double* dt, const typename Model::Constants& constants,
                   const PropagatorLanes<R>& lanes) {
  WithConstants<Model>(constants, [&](const auto& shared) {
    internal::PropagateEach<Model>(n, dt, shared, lanes.v_from_v, lanes.v_from_i, lanes.i_from_i,
                                   lanes.reach);
  });
}

// Interval k ends at queue entry head + k; the last one, number `n_arrivals`, at `end`.
template <class Model, class R>
void FillIntervals(PropagatorLanes<R> lanes, const typename Model::Constants& constants,
                   const SpikeQueue<R>& queue, std::int64_t n_arrivals, double begin, double end) {
  constexpr std::int64_t kSome = 64;
  double dt[kSome];
  const R* const time = queue.time + queue.head;
  for (std::int64_t k = 0; k < n_arrivals; k += kSome) {
    const std::int64_t n = std::min(kSome, n_arrivals - k);
    dt[0] = static_cast<double>(time[k]) - (k > 0 ? static_cast<double>(time[k - 1]) : begin);
    for (std::int64_t l = 1; l < n; ++l) {
      dt[l] = static_cast<double>(time[k + l]) - static_cast<double>(time[k + l - 1]);
    }
    PropagateEach<Model>(n, dt, constants, lanes.At(k));
  }
  const double last = n_arrivals > 0 ? static_cast<double>(time[n_arrivals - 1]) : begin;
  lanes.template Set<Model>(n_arrivals, constants, end - last);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PROPAGATORS_H_
