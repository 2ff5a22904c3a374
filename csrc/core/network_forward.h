// The forward sweep of a network with delays and recurrent connections over one example.
//
// All neurons go side by side from arrival to arrival, in loops that vectorise. A cheap test finds
// the few that may cross the threshold in between, and only for these is a crossing solved. They
// spike in the order of time; a spike that arrives somewhere before the next known arrival ends the
// interval there.
#ifndef JAXSNN_CORE_NETWORK_FORWARD_H_
#define JAXSNN_CORE_NETWORK_FORWARD_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "core/arrivals.h"
#include "core/forward.h"
#include "core/next_crossing.h"
#include "core/projection.h"
#include "core/propagators.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn {

// The populations that the neurons of a network belong to, in order, and the room that the log has
// for the spikes of each.
struct Populations {
  const std::int64_t* sizes;
  const std::int64_t* capacities;
  std::int64_t count;

  std::int64_t capacity() const {
    std::int64_t sum = 0;
    for (std::int64_t p = 0; p < count; ++p) sum += capacities[p];
    return sum;
  }
  std::int64_t Of(std::int64_t neuron) const {
    std::int64_t p = 0;
    for (; neuron >= sizes[p]; ++p) neuron -= sizes[p];
    return p;
  }
};

template <class Model, class R>
class NetworkForward {
  using State = typename Model::template Pair<double>;

 public:
  NetworkForward(Arena& arena, const Network<R>& network, const Populations& populations)
      : p_(network),
        populations_(populations),
        n_(network.n_neurons),
        uniform_(network.uniform_time_constants()),
        arrivals_(arena, network, populations.capacity()) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, n_);
    for (R** lane : {&v_, &i_, &v_next_, &i_next_, &threshold_, &release_}) {
      *lane = arena.Take<R>(n_);
    }
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? 1 : n_);
    may_cross_ = arena.Take<Mask<R>>(n_);
    candidates_ = arena.Take<Candidate>(n_);
    counts_ = arena.Take<std::int64_t>(populations.count);
  }

  // Runs the example to t_max, or to the last spike for which its population has room. Requires a
  // checked network.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end) {
    constants_.Fill(p_);
    Sweep(log);
    if (outcome_.status == Status::kEventCapacity) {
      // The same sweep once more, up to the last spike that was recorded, gives the state there.
      last_spike_ = count_;
      Sweep(log);
    }
    if (!outcome_.failed()) Finish(log, end);
    return outcome_;
  }

 private:
  // A neuron that may spike in the current interval.
  struct Candidate {
    std::int64_t neuron;
    State x;  // at `from`, its last event or the begin of the interval
    double from;
    double crossing;  // kNever: none in this interval
  };

  void Sweep(const SpikeLog<R>& log) {
    Start(log);
    bool more = true;
    while (more) {
      const bool closing = !(arrivals_.time() <= p_.t_max);
      more = Advance(closing ? p_.t_max : arrivals_.time(), closing, log);
      while (arrivals_.time() <= now_) Deliver(arrivals_.Pop());
    }
  }

  void Start(const SpikeLog<R>& log) {
    now_ = p_.time;
    count_ = 0;
    std::fill(counts_, counts_ + populations_.count, 0);
    refractory_ = false;
    for (std::int64_t j = 0; j < n_; ++j) {
      v_[j] = static_cast<R>(static_cast<double>(p_.v[j]) - p_.v_leak[j]);
      i_[j] = p_.i[j];
      threshold_[j] = static_cast<R>(p_.threshold(j));
      release_[j] = p_.release[j];
      refractory_ |= static_cast<double>(p_.release[j]) > now_;
    }
    for (std::int64_t j = 0; j < p_.t_ref.size(n_); ++j) refractory_ |= p_.t_ref[j] > 0;
    arrivals_.Start(log.time, log.index, 0, p_.t_max);
    while (arrivals_.time() <= now_) Deliver(arrivals_.Pop());
  }

  void Deliver(const Arrival<R>& arrival) {
    const Projection<R>& projection = arrivals_.ProjectionOf(arrival.source);
    const std::int64_t source = arrivals_.RowOf(arrival.source);
    const R* JAXSNN_RESTRICT row = projection.row(source);
    if (!projection.per_target()) {
      R* JAXSNN_RESTRICT i = i_;
      for (std::int64_t j = 0; j < n_; ++j) i[j] += row[j];
      return;
    }
    const std::int32_t* const order = projection.order + projection.delay_row(source) * n_;
    for (std::int64_t k = arrival.begin; k < arrival.end; ++k) i_[order[k]] += row[order[k]];
  }

  // All neurons up to the horizon, or to an earlier arrival of a spike on the way. Returns whether
  // there is anything left to do.
  bool Advance(double horizon, bool closing, const SpikeLog<R>& log) {
    const double known_horizon = horizon;
    FlowAll(horizon - now_);
    const std::int64_t n = FindCandidates(horizon, closing);
    bool last = false;
    while (Candidate* next = last ? nullptr : Earliest(n)) {
      if (closing ? next->crossing > horizon : next->crossing >= horizon) break;
      if (!Spike(*next, log)) return false;
      last = count_ == last_spike_;
      if (arrivals_.time() <= horizon || last) {
        horizon = last ? next->from : arrivals_.time();
        closing = false;
      }
      next->crossing = Crossing(*next, horizon, closing);
    }
    if (outcome_.failed()) return false;
    if (horizon != known_horizon) FlowAll(horizon - now_);
    const bool at_threshold = FlowCandidates(n, horizon);
    std::swap(v_, v_next_);
    std::swap(i_, i_next_);
    now_ = horizon;
    // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
    // rounded to just behind the horizon.
    return !last && (!closing || at_threshold);
  }

  // The free solution of all neurons into the next lanes, with a mark for those that may cross the
  // threshold on the way. Necessary for a crossing: either v stands at the threshold at one of the
  // ends; or v passed a maximum in between, so that it fell at the end, and v, concave until then,
  // stayed below its first tangent, which must reach the threshold.
  void FlowAll(double dt) {
    if (uniform_) {
      lanes_.template Set<Model>(0, constants_[0], dt);
      FlowLanes<true>();
    } else {
      for (std::int64_t j = 0; j < n_; ++j) lanes_.template Set<Model>(j, constants_[j], dt);
      FlowLanes<false>();
    }
  }

  template <bool kUniform>
  void FlowLanes() {
    const R* JAXSNN_RESTRICT v = v_;
    const R* JAXSNN_RESTRICT i = i_;
    const R* JAXSNN_RESTRICT threshold = threshold_;
    const R* JAXSNN_RESTRICT vv = lanes_.v_from_v;
    const R* JAXSNN_RESTRICT vi = lanes_.v_from_i;
    const R* JAXSNN_RESTRICT ii = lanes_.i_from_i;
    const R* JAXSNN_RESTRICT reach = lanes_.reach;
    R* JAXSNN_RESTRICT v_next = v_next_;
    R* JAXSNN_RESTRICT i_next = i_next_;
    Mask<R>* JAXSNN_RESTRICT marks = may_cross_;
    // Shared values are read once: a loop that seems to load them each time does not vectorise.
    const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0], reach0 = reach[0];
    Mask<R> any = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
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
    any_mark_ = any != 0;
  }

  // Lists the neurons that may do something else than flow freely, and solves for their crossings.
  std::int64_t FindCandidates(double horizon, bool closing) {
    if (!any_mark_ && !refractory_) return 0;
    const R now = static_cast<R>(now_);
    std::int64_t n = 0;
    for (std::int64_t j = 0; j < n_ && !outcome_.failed(); ++j) {
      if (!may_cross_[j] && !(refractory_ && release_[j] > now)) continue;
      Candidate& c = candidates_[n++];
      c = {j, {static_cast<double>(v_[j]), static_cast<double>(i_[j])}, now_, kNever};
      c.crossing = Crossing(c, horizon, closing);
    }
    return n;
  }

  // The state of a candidate at `time`, refractory period included.
  State StateAt(const Candidate& c, double time) const {
    const auto& constants = constants_[c.neuron];
    const double release = static_cast<double>(release_[c.neuron]);
    if (release >= time && release > c.from) {
      return {p_.reset(c.neuron), Model::DecayCurrent(constants, c.x.i, time - c.from)};
    }
    if (release > c.from) {
      return Model::Flow(
          Model::Propagate(constants, time - release),
          {p_.reset(c.neuron), Model::DecayCurrent(constants, c.x.i, release - c.from)});
    }
    return Model::Flow(Model::Propagate(constants, time - c.from), c.x);
  }

  double Crossing(const Candidate& c, double horizon, bool closing) {
    const double free = std::max(static_cast<double>(release_[c.neuron]), c.from);
    if (free > horizon) return kNever;
    const State x = free > c.from ? StateAt(c, free) : c.x;
    const Root root =
        NextCrossing<Model>(constants_[c.neuron], x, p_.threshold(c.neuron), horizon - free);
    if (!root.converged) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, c.neuron, now_};
      return kNever;
    }
    // Rounded, so that the order of all events follows from the recorded times.
    const double at = std::min(static_cast<double>(static_cast<R>(free + root.at)), horizon);
    return root.at <= horizon - free && (closing || at < horizon) ? at : kNever;
  }

  // The candidate that crosses first, the first one of several; null if none does.
  Candidate* Earliest(std::int64_t n) {
    Candidate* earliest = nullptr;
    double crossing = kNever;
    for (std::int64_t c = 0; c < n; ++c) {
      if (candidates_[c].crossing < crossing) {
        crossing = candidates_[c].crossing;
        earliest = &candidates_[c];
      }
    }
    return earliest;
  }

  // Records the spike of a candidate. False: its population has no room for it.
  bool Spike(Candidate& c, const SpikeLog<R>& log) {
    const std::int64_t population = populations_.Of(c.neuron);
    const std::int64_t capacity = populations_.capacities[population];
    if (counts_[population] == capacity) {
      outcome_ = {Status::kEventCapacity, Argument::kNone, population,
                  static_cast<double>(capacity)};
      return false;
    }
    ++counts_[population];
    const double time = c.crossing;
    // By the same formula as for neurons that go on, so that equal ones stay equal.
    const double current = StateAt(c, time).i;
    log.time[count_] = static_cast<R>(time);
    log.index[count_] = static_cast<std::int32_t>(c.neuron);
    log.current[count_] = static_cast<R>(current);
    c.x = {p_.reset(c.neuron), current};
    c.from = time;
    release_[c.neuron] = static_cast<R>(time + p_.t_ref[c.neuron]);
    arrivals_.Emit(count_++);
    return true;
  }

  // Puts the candidates where they stand at the horizon. Returns whether one of them stands at its
  // threshold, as one does that crosses at the horizon, whatever rounding makes of its voltage.
  bool FlowCandidates(std::int64_t n, double horizon) {
    bool at_threshold = false;
    for (std::int64_t k = 0; k < n; ++k) {
      const Candidate& c = candidates_[k];
      const State x = StateAt(c, horizon);
      R v = static_cast<R>(x.v);
      if (c.crossing <= horizon) v = std::max(v, LowestAtThreshold(c.neuron));
      v_next_[c.neuron] = v;
      i_next_[c.neuron] = static_cast<R>(x.i);
      at_threshold |= static_cast<double>(v) >= p_.threshold(c.neuron);
    }
    return at_threshold;
  }

  R LowestAtThreshold(std::int64_t j) const {
    const R v = static_cast<R>(p_.threshold(j));
    const bool below = static_cast<double>(v) < p_.threshold(j);
    return below ? std::nextafter(v, std::numeric_limits<R>::infinity()) : v;
  }

  void Finish(const SpikeLog<R>& log, const EndState<R>& end) {
    for (std::int64_t s = count_; s < log.capacity; ++s) {
      log.time[s] = static_cast<R>(kNever);
      log.index[s] = kNoIndex;
      log.current[s] = 0;
    }
    for (std::int64_t j = 0; j < n_; ++j) {
      end.v[j] = static_cast<R>(static_cast<double>(v_[j]) + p_.v_leak[j]);
      end.i[j] = i_[j];
      end.release[j] = release_[j];
    }
    *end.time = static_cast<R>(now_);
    *end.head = static_cast<std::int32_t>(p_.CountInputs(now_));
    *end.count = static_cast<std::int32_t>(count_);
    Outcome finite = CheckFinite(end.i, n_, Argument::kStateI);
    if (finite.ok()) finite = CheckFinite(end.v, n_, Argument::kStateV);
    if (!finite.ok()) outcome_ = finite;
  }

  const Network<R>& p_;
  const Populations& populations_;
  const std::int64_t n_;
  const bool uniform_;
  ArrivalQueue<R, Direction::kForward> arrivals_;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *v_next_, *i_next_, *threshold_, *release_;
  PropagatorLanes<R> lanes_;
  Mask<R>* may_cross_;
  Candidate* candidates_;
  std::int64_t* counts_;

  Outcome outcome_;
  double now_ = 0;
  std::int64_t count_ = 0;
  std::int64_t last_spike_ = kNoIndex;  // after how many spikes to stop
  bool refractory_ = false;
  bool any_mark_ = false;
};

}  // namespace jaxsnn

#endif  // JAXSNN_CORE_NETWORK_FORWARD_H_
