// The forward sweep of an acyclic layer over one example.
//
// No neuron of the population hears another, so each meets the same sorted input and no event queue
// is needed: all neurons go side by side from arrival to arrival in loops that vectorise, a cheap
// test finds the few that may cross the threshold in between, and only for these is a crossing
// solved. The spikes of one interval are put in order once.
#ifndef JAXSNN_CORE_FORWARD_H_
#define JAXSNN_CORE_FORWARD_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "core/next_crossing.h"
#include "core/problem.h"
#include "core/propagators.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// The record of a window: its own spikes in the order (time, neuron).
template <class R>
struct SpikeLog {
  std::int64_t capacity = 0;
  R* time = nullptr;
  std::int32_t* index = nullptr;
  std::int32_t* position = nullptr;  // the queue's head when the spike happened
  R* current = nullptr;              // the synaptic current of the neuron at its spike
};

// The state in which a window ends.
template <class R>
struct EndState {
  R* v = nullptr;
  R* i = nullptr;
  R* release = nullptr;
  R* time = nullptr;
  std::int32_t* head = nullptr;
  std::int32_t* count = nullptr;  // of spikes in the log
};

template <class Model, class R>
class ForwardSweep {
  using State = typename Model::template Pair<double>;

 public:
  ForwardSweep(Arena& arena, const Problem<R>& problem, std::int64_t capacity)
      : p_(problem), n_(problem.n_neurons), uniform_(problem.uniform_time_constants()) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, n_);
    for (R** lane : {&v_, &i_, &v_next_, &i_next_, &threshold_, &release_}) {
      *lane = arena.Take<R>(n_);
    }
    // One solution per neuron; or one per interval, and one for an interval that is cut short.
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? problem.queue.size + 2 : n_);
    may_cross_ = arena.Take<Mask<R>>(n_);
    candidates_ = arena.Take<std::int32_t>(n_);
    for (double** lane : {&rest_v_, &rest_i_, &rest_dt_}) *lane = arena.Take<double>(n_);
    pending_capacity_ = 2 * (capacity + 1);
    pending_ = arena.Take<Pending>(pending_capacity_);
  }

  // Runs the example to t_max, or to its last spike that the log holds. Requires a checked problem.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end) {
    constants_.Fill(p_);
    if (uniform_) {
      const std::int64_t n_arrivals = CountArrivals();
      FillIntervals<Model, R>(lanes_, constants_[0], p_.queue, n_arrivals, p_.time, p_.t_max);
    }
    if (Sweep(log) == SweepEnd::kOverflow) {
      // The same sweep once more, up to the spike that fills the log, gives the state there.
      stopping_ = true;
      final_ = last_;
      Sweep(log);
      if (outcome_.ok()) {
        outcome_ = {Status::kEventCapacity, Argument::kNone, 0, static_cast<double>(count_)};
      }
    }
    if (!outcome_.failed()) Finish(log, end);
    return outcome_;
  }

 private:
  enum class SweepEnd { kDone, kOverflow };

  struct Pending {
    double time;
    R current;
    std::int32_t index;

    bool operator<(const Pending& other) const {
      return time != other.time ? time < other.time : index < other.index;
    }
  };

  // From `begin` to the next arrival or the horizon of the window.
  struct Interval {
    double begin;
    double horizon;  // crossings are searched up to here
    double stop;     // the state is wanted here: the horizon, or the last spike of the log
    bool closing;    // no arrival follows, so that a crossing at the horizon itself belongs here
    bool last;       // the sweep stops inside
  };

  // How many queue entries arrive in time.
  std::int64_t CountArrivals() const {
    std::int64_t k = p_.queue.head;
    while (p_.queue.TimeAt(k) <= p_.t_max) ++k;
    return k - p_.queue.head;
  }

  // A neuron that nothing happens to from `time` on.
  struct FreeFrom {
    State x;
    double time;
  };

  void Start() {
    now_ = p_.time;
    head_ = p_.queue.head;
    count_ = 0;
    ForNeurons([this](std::int64_t j, double leak, double threshold) {
      v_[j] = static_cast<R>(static_cast<double>(p_.v[j]) - leak);
      threshold_[j] = static_cast<R>(threshold);
    });
    const R now = static_cast<R>(now_);
    Mask<R> clamped = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
      i_[j] = p_.i[j];
      release_[j] = p_.release[j];
      clamped |= static_cast<Mask<R>>(p_.release[j] > now);
    }
    refractory_ = clamped != 0;
    for (std::int64_t j = 0; j < p_.t_ref.size(n_); ++j) refractory_ |= p_.t_ref[j] > 0;
  }

  // body(j, v_leak, threshold), with values that neurons share read once.
  template <class Body>
  void ForNeurons(const Body& body) const {
    if (!p_.v_leak.per_neuron && !p_.v_th.per_neuron) {
      const double leak = p_.v_leak[0], threshold = p_.threshold(0);
      for (std::int64_t j = 0; j < n_; ++j) body(j, leak, threshold);
    } else {
      for (std::int64_t j = 0; j < n_; ++j) body(j, p_.v_leak[j], p_.threshold(j));
    }
  }

  SweepEnd Sweep(const SpikeLog<R>& log) {
    Start();
    for (;;) {
      Interval span;
      const double arrival = p_.queue.TimeAt(head_);
      span.begin = now_;
      span.closing = !(arrival <= p_.t_max);
      span.horizon = span.closing ? p_.t_max : arrival;
      span.last = stopping_ && (final_.time < span.horizon || span.closing);
      span.stop = span.last ? final_.time : span.horizon;
      const R* row = span.closing || span.last ? nullptr : p_.row(head_);
      // Arrivals at one time follow each other without an interval between them.
      if (span.horizon > now_ || span.closing) {
        pending_count_ = 0;
        cut_ = false;
        Advance(span, log, row);
        if (outcome_.failed()) return SweepEnd::kDone;
        if (!Commit(log)) return SweepEnd::kOverflow;
      } else {
        AddRow(row);
      }
      now_ = span.stop;
      if (span.closing || span.last) return SweepEnd::kDone;
      ++head_;
    }
  }

  void AddRow(const R* row) {
    for (std::int64_t j = 0; j < n_; ++j) i_[j] += row[j];
  }

  // All neurons over one interval, then the arrival that ends it, if one does.
  void Advance(const Interval& span, const SpikeLog<R>& log, const R* row) {
    const std::int64_t candidates = FlowAll(span);
    for (std::int64_t c = 0; c < candidates && outcome_.ok(); ++c) {
      const FreeFrom last = AdvanceNeuron(candidates_[c], span, log.capacity);
      rest_v_[c] = last.x.v;
      rest_i_[c] = last.x.i;
      rest_dt_[c] = span.stop - last.time;
    }
    FlowRest(candidates);
    if (span.closing) CrossAtHorizon(candidates, span, log.capacity);
    std::swap(v_, v_next_);
    std::swap(i_, i_next_);
    if (row != nullptr) AddRow(row);
  }

  // The free solution of every neuron into the next lanes. Returns how many neurons may do
  // something else than flow freely, and lists them in order.
  std::int64_t FlowAll(const Interval& span) {
    const double dt = span.stop - span.begin;
    const PropagatorLanes<R> lanes = Solutions(span, dt);
    // Blocks small enough that one neuron with something to do costs few others a second look.
    constexpr std::int64_t kBlock = 64;
    const R now = static_cast<R>(span.begin);
    std::int64_t found = 0;
    for (std::int64_t begin = 0; begin < n_; begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, n_);
      const bool any = uniform_ ? FlowBlock<true>(lanes, begin, end)
                                : FlowBlock<false>(lanes.At(begin), begin, end);
      if (!any && !span.last && !refractory_) continue;
      for (std::int64_t j = begin; j < end; ++j) {
        candidates_[found] = static_cast<std::int32_t>(j);
        found += may_cross_[j] || span.last || (refractory_ && release_[j] > now);
      }
    }
    return found;
  }

  PropagatorLanes<R> Solutions(const Interval& span, double dt) {
    if (!uniform_) {
      for (std::int64_t j = 0; j < n_; ++j) lanes_.template Set<Model>(j, constants_[j], dt);
      return lanes_;
    }
    const std::int64_t k = span.last ? p_.queue.size + 1 : head_ - p_.queue.head;
    if (span.last) lanes_.template Set<Model>(k, constants_[0], dt);
    return lanes_.At(k);
  }

  // Flows a block of neurons and marks those that may cross the threshold on the way. Necessary for
  // a crossing: either v stands at the threshold at one of the ends; or v passed a maximum in
  // between, so that it fell at the end, and v, concave until then, stayed below its first tangent,
  // which must reach the threshold. Returns whether any is marked.
  template <bool kUniform>
  bool FlowBlock(const PropagatorLanes<R>& lanes, std::int64_t begin, std::int64_t end) {
    const R* JAXSNN_RESTRICT v = v_ + begin;
    const R* JAXSNN_RESTRICT i = i_ + begin;
    const R* JAXSNN_RESTRICT threshold = threshold_ + begin;
    const R* JAXSNN_RESTRICT vv = lanes.v_from_v;
    const R* JAXSNN_RESTRICT vi = lanes.v_from_i;
    const R* JAXSNN_RESTRICT ii = lanes.i_from_i;
    const R* JAXSNN_RESTRICT reach = lanes.reach;
    R* JAXSNN_RESTRICT v_next = v_next_ + begin;
    R* JAXSNN_RESTRICT i_next = i_next_ + begin;
    Mask<R>* JAXSNN_RESTRICT marks = may_cross_ + begin;
    // Shared values are read once: a loop that seems to load them each time does not vectorise.
    const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0], reach0 = reach[0];
    Mask<R> any = 0;
    for (std::int64_t j = 0; j < end - begin; ++j) {
      R from_v, from_i, decay, rise;
      if constexpr (kUniform) {
        from_v = vv0, from_i = vi0, decay = ii0, rise = reach0;
      } else {
        from_v = vv[j], from_i = vi[j], decay = ii[j], rise = reach[j];
      }
      const R v_end = from_v * v[j] + from_i * i[j];
      const R i_end = decay * i[j];
      const R higher = v[j] > v_end ? v[j] : v_end;
      const R tangent = v[j] + (i[j] - v[j]) * rise;
      const Mask<R> mark =
          static_cast<Mask<R>>(higher >= threshold[j]) |
          (static_cast<Mask<R>>(i_end < v_end) & static_cast<Mask<R>>(i[j] > threshold[j]) &
           static_cast<Mask<R>>(tangent >= threshold[j]));
      v_next[j] = v_end;
      i_next[j] = i_end;
      marks[j] = mark;
      any |= mark;
    }
    return any != 0;
  }

  // The candidates from their last events to the end of the interval.
  void FlowRest(std::int64_t n) {
    const double* JAXSNN_RESTRICT dt = rest_dt_;
    double* JAXSNN_RESTRICT v = rest_v_;
    double* JAXSNN_RESTRICT i = rest_i_;
    if (uniform_) {
      const auto constants = constants_[0];
      for (std::int64_t c = 0; c < n; ++c) {
        const State end = Model::Flow(Model::Propagate(constants, dt[c]), State{v[c], i[c]});
        v[c] = end.v;
        i[c] = end.i;
      }
    } else {
      for (std::int64_t c = 0; c < n; ++c) {
        const auto p = Model::Propagate(constants_[candidates_[c]], dt[c]);
        const State end = Model::Flow(p, State{v[c], i[c]});
        v[c] = end.v;
        i[c] = end.i;
      }
    }
    for (std::int64_t c = 0; c < n; ++c) {
      v_next_[candidates_[c]] = static_cast<R>(v[c]);
      i_next_[candidates_[c]] = static_cast<R>(i[c]);
    }
  }

  // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
  // rounded to just behind the horizon.
  void CrossAtHorizon(std::int64_t n, const Interval& span, std::int64_t capacity) {
    for (std::int64_t c = 0; c < n; ++c) {
      const std::int32_t j = candidates_[c];
      if (rest_v_[c] < p_.threshold(j) || !Belongs(span.horizon, j, span)) continue;
      if (!Remember({span.horizon, static_cast<R>(rest_i_[c]), j}, capacity)) continue;
      v_next_[j] = static_cast<R>(p_.reset(j));
      release_[j] = static_cast<R>(span.horizon + p_.t_ref[j]);
    }
  }

  // One neuron over the interval, with its spikes and refractory periods, up to the last of them:
  // from there it flows freely.
  FreeFrom AdvanceNeuron(std::int64_t j, const Interval& span, std::int64_t capacity) {
    const auto& constants = constants_[j];
    State x{static_cast<double>(v_[j]), static_cast<double>(i_[j])};
    double t = span.begin;
    for (;;) {
      const double release = static_cast<double>(release_[j]);
      if (release > t) {
        x.v = p_.reset(j);
        if (release > span.stop) {
          x.i = Model::DecayCurrent(constants, x.i, span.stop - t);
          return {x, span.stop};
        }
        x.i = Model::DecayCurrent(constants, x.i, release - t);
        t = release;
      }
      const Root root = NextCrossing<Model>(constants, x, p_.threshold(j), span.horizon - t);
      if (!root.converged) {
        outcome_ = {Status::kNoConvergence, Argument::kNone, j, span.begin};
        break;
      }
      if (!(root.at <= span.horizon - t)) break;
      const double at = std::min(t + root.at, span.horizon);  // the sum may round up
      if (!Belongs(at, j, span)) break;
      x.i = Model::DecayCurrent(constants, x.i, root.at);
      if (!Remember({at, static_cast<R>(x.i), static_cast<std::int32_t>(j)}, capacity)) break;
      x.v = p_.reset(j);
      t = at;
      release_[j] = static_cast<R>(at + p_.t_ref[j]);
    }
    return {x, t};
  }

  // Whether a crossing is one of this interval. One that coincides with the next arrival comes
  // after it, and thus at the start of the next interval.
  bool Belongs(double at, std::int64_t j, const Interval& span) const {
    if (span.closing ? !(at <= span.horizon) : !(at < span.horizon)) return false;
    return !span.last || at < final_.time || (at == final_.time && j <= final_.index);
  }

  // Keeps a spike of this interval. False: it lies behind more spikes than the log can hold. A
  // neuron that fires without end therefore stops here, even where its time no longer advances.
  bool Remember(const Pending& spike, std::int64_t capacity) {
    if (cut_ && !(spike < cutoff_)) return false;
    pending_[pending_count_++] = spike;
    if (pending_count_ == pending_capacity_) {
      const std::int64_t room = capacity - count_;  // one more than fits shows the overflow
      std::nth_element(pending_, pending_ + room, pending_ + pending_count_);
      pending_count_ = room + 1;
      cutoff_ = pending_[room];
      cut_ = true;
    }
    return true;
  }

  // Moves the spikes of this interval to the log. False: they do not fit, and `last_` is the one
  // that fills it.
  bool Commit(const SpikeLog<R>& log) {
    std::sort(pending_, pending_ + pending_count_);
    for (std::int64_t s = 0; s < pending_count_; ++s) {
      if (count_ == log.capacity) return false;
      last_ = pending_[s];
      log.time[count_] = static_cast<R>(last_.time);
      log.index[count_] = last_.index;
      log.position[count_] = static_cast<std::int32_t>(head_);
      log.current[count_] = last_.current;
      ++count_;
    }
    return true;
  }

  void Finish(const SpikeLog<R>& log, const EndState<R>& end) {
    for (std::int64_t s = count_; s < log.capacity; ++s) {
      log.time[s] = static_cast<R>(kNever);
      log.index[s] = kNoIndex;
      log.position[s] = static_cast<std::int32_t>(head_);
      log.current[s] = 0;
    }
    ForNeurons([this, &end](std::int64_t j, double leak, double) {
      end.v[j] = static_cast<R>(static_cast<double>(v_[j]) + leak);
    });
    for (std::int64_t j = 0; j < n_; ++j) {
      end.i[j] = i_[j];
      end.release[j] = release_[j];
    }
    *end.time = static_cast<R>(now_);
    *end.head = static_cast<std::int32_t>(head_);
    *end.count = static_cast<std::int32_t>(count_);
    Outcome finite = CheckFinite(end.i, n_, Argument::kStateI);
    if (finite.ok()) finite = CheckFinite(end.v, n_, Argument::kStateV);
    if (!finite.ok()) outcome_ = finite;
  }

  const Problem<R>& p_;
  const std::int64_t n_;
  const bool uniform_;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *v_next_, *i_next_, *threshold_, *release_;
  PropagatorLanes<R> lanes_;
  Mask<R>* may_cross_;
  double *rest_v_, *rest_i_, *rest_dt_;
  std::int32_t* candidates_;
  Pending* pending_;
  std::int64_t pending_capacity_;

  Outcome outcome_;
  double now_ = 0;
  std::int64_t head_ = 0;
  std::int64_t count_ = 0;
  bool refractory_ = false;
  std::int64_t pending_count_ = 0;
  bool cut_ = false;  // spikes from `cutoff_` on are not needed
  Pending cutoff_{};
  Pending last_{};   // the newest spike of the log
  Pending final_{};  // with `stopping_`, the spike that ends the sweep
  bool stopping_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_FORWARD_H_
