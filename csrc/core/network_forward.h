// The forward sweep of a network with delays and recurrent connections over one example.
//
// One event after the other: all neurons go side by side to the next arrival or to the first
// crossing before it, in loops that vectorise. A bound on how soon a neuron can cross, one rough
// division for each, leaves few whose crossing is solved. Each of these waits for the one before,
// so that two examples in turns take less time than one after the other.
#ifndef JAXSNN_CORE_NETWORK_FORWARD_H_
#define JAXSNN_CORE_NETWORK_FORWARD_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "core/arrivals.h"
#include "core/flow_lanes.h"
#include "core/lanes.h"
#include "core/math.h"
#include "core/maxima.h"
#include "core/next_crossing.h"
#include "core/projection.h"
#include "core/propagators.h"
#include "core/spike_log.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

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

// What is to be seen of the voltages of a network.
template <class R>
struct Views {
  R* probe_v = nullptr;  // [n_probes, n_neurons]
  R* probe_i = nullptr;
  MaximumLog<R> maximum;
};

template <class Model, class R>
class NetworkForward {
  using State = typename Model::template Pair<double>;

 public:
  NetworkForward(Arena& arena, const Network<R>& network, const Populations& populations)
      : p_(network),
        populations_(populations),
        n_(network.n_neurons),
        n_lanes_(PaddedLanes(n_)),
        uniform_(network.uniform_time_constants()),
        arrivals_(arena, network, populations.capacity()),
        maxima_(arena, n_) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, n_);
    for (R** lane : {&v_, &i_, &v_next_, &i_next_, &threshold_, &scale_, &release_, &wait_}) {
      *lane = arena.Take<R>(n_lanes_);
    }
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, n_lanes_);
    for (std::int32_t** list : {&refractory_, &crossing_}) *list = arena.Take<std::int32_t>(n_);
    before_ = arena.Take<State>(n_);
    counts_ = arena.Take<std::int64_t>(populations.count);
  }

  // Runs the example to t_max, or to the last spike for which its population has room. Requires a
  // checked network.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end, const Views<R>& views) {
    Begin(log, views);
    while (Step()) {
    }
    return End(end);
  }

  // The same in parts. A step, to the next crossing or arrival, consists of three; these are
  // functions of their own, for inlined twice into RunTogether they would run out of registers.
  void Begin(const SpikeLog<R>& log, const Views<R>& views) {
    constants_.Fill(p_);
    step_.Fill(n_lanes_, [this](std::int64_t j) { return constants_[j < n_ ? j : 0]; });
    log_ = log;
    views_ = views;
    track_ = views.maximum.v != nullptr;
    Start();
  }

  // All that happens before a crossing is to be searched for, and bounds on when neurons cross.
  JAXSNN_NOINLINE void Approach() {
    while (PassEvent()) {
    }
    const auto bound = any_tonic_ ? BoundCrossings<R, true> : BoundCrossings<R, false>;
    soonest_ = bound(n_lanes_, v_, i_, threshold_, scale_, wait_, others_);
  }

  // The first crossing before anything else happens.
  JAXSNN_NOINLINE void Search() {
    const double stop = std::min(arrivals_.time(), ProbeTime());
    closing_ = stop == kNever;
    horizon_ = closing_ ? p_.t_max : stop;
    next_ = FirstCrossing(horizon_);
  }

  // To that crossing, or to what happens first. Returns whether there may be another step.
  JAXSNN_NOINLINE bool Proceed() {
    if (outcome_.failed()) return false;
    // One that coincides with an arrival or a probe comes after it.
    if (closing_ ? next_.time <= horizon_ : next_.time < horizon_) {
      if (!HasRoom(next_.neuron)) return false;
      quiet_ = false;
      Flow(next_.time, next_);
      Raise();
      Spike(next_.neuron);
      return true;
    }
    quiet_ = true;
    // A crossing that was rounded to just behind the end of the window shows up there.
    const bool more = !closing_ || now_ < horizon_;
    if (more) Flow(horizon_);
    if (next_.time == horizon_) Raise();
    return more;
  }

  bool Step() {
    Approach();
    Search();
    return Proceed();
  }

  Outcome End(const EndState<R>& end) {
    if (outcome_.status == Status::kEventCapacity) {
      // The same once more, up to the last spike that was recorded, gives the state there.
      const std::int64_t recorded = count_;
      Start();
      while (count_ < recorded && Step()) {
      }
      while (arrivals_.time() <= now_) Deliver(arrivals_.Pop());
    }
    if (!outcome_.failed()) Finish(end);
    return outcome_;
  }

 private:
  struct Crossing {
    double time;  // kNever: none
    std::int64_t neuron;
    // Before rounding, from now, and of a closed form what it passed until then; else 0.
    double at = 0;
    double passed = 0;
  };

  void Start() {
    now_ = p_.time;
    count_ = n_refractory_ = next_probe_ = 0;
    any_tonic_ = quiet_ = false;
    std::fill(counts_, counts_ + populations_.count, 0);
    for (std::int64_t j = 0; j < n_; ++j) {
      const bool clamped = static_cast<double>(p_.release[j]) > now_;
      const double v = static_cast<double>(p_.v[j]) - p_.v_leak[j];
      v_[j] = static_cast<R>(clamped ? p_.reset(j) : v);
      i_[j] = p_.i[j];
      threshold_[j] = static_cast<R>(p_.threshold(j));
      any_tonic_ |= threshold_[j] < 0;
      scale_[j] = BoundScale<R>(p_.tau_mem[j]);
      release_[j] = p_.release[j];
      if (clamped) refractory_[n_refractory_++] = static_cast<std::int32_t>(j);
    }
    // Lanes without a neuron never do anything.
    for (std::int64_t j = n_; j < n_lanes_; ++j) {
      v_[j] = i_[j] = v_next_[j] = i_next_[j] = 0;
      threshold_[j] = static_cast<R>(kNever);
      scale_[j] = 1;
    }
    arrivals_.Start(log_.time, log_.index, 0, p_.t_max);
    if (track_) maxima_.Start(v_, i_, now_);
  }

  // Something that happens now, or an arrival before which no neuron crosses. Returns whether there
  // was any.
  bool PassEvent() {
    if (arrivals_.time() <= now_) {
      Deliver(arrivals_.Pop());
      return true;
    }
    if (ProbeTime() <= now_) {
      Probe();
      return true;
    }
    return quiet_ && PassArrival();
  }

  void Deliver(const Arrival<R>& arrival) {
    const Projection<R>& projection = arrivals_.ProjectionOf(arrival.source);
    const std::int64_t source = arrivals_.RowOf(arrival.source);
    const R* const row = projection.row(source);
    if (!projection.per_target()) return ArriveLanes(n_, row, i_);
    const std::int32_t* const order = projection.order + projection.delay_row(source) * n_;
    for (std::int64_t k = arrival.begin; k < arrival.end; ++k) i_[order[k]] += row[order[k]];
  }

  // Goes to the next arrival and lets it arrive, all in one, if no neuron may cross its threshold
  // before and nothing else is to be looked at. To be tried where crossings are rare: what it did
  // in vain is done again.
  bool PassArrival() {
    const double time = arrivals_.time();
    if (track_ || n_refractory_ > 0 || time == kNever || ProbeTime() < time) return false;
    const Projection<R>& projection = arrivals_.ProjectionOf(arrivals_.source());
    if (projection.per_target()) return false;
    const R* const row = projection.row(arrivals_.RowOf(arrivals_.source()));
    const auto pass = n_ < kManyNeurons ? PassOf<kLaneWidth<R>>() : PassOf<kWideLanes<R>>();
    if (!pass(step_.Over(time - now_), n_, v_, i_, threshold_, row, v_next_, i_next_)) {
      return quiet_ = false;
    }
    arrivals_.Pop();
    std::swap(v_, v_next_);
    std::swap(i_, i_next_);
    now_ = time;
    return true;
  }

  // For few neurons the rest counts, scalar code for the most part, which vectors of 64 bytes slow.
  static constexpr std::int64_t kManyNeurons = 192;
  template <int kWidth>
  auto PassOf() const {
    return uniform_ ? PassLanes<R, true, kWidth> : PassLanes<R, false, kWidth>;
  }

  double ProbeTime() const {
    return next_probe_ < p_.n_probes ? static_cast<double>(p_.probe_time[next_probe_]) : kNever;
  }

  // The state of all neurons now, behind the arrivals of this time.
  void Probe() {
    R* const v = views_.probe_v + next_probe_ * n_;
    R* const i = views_.probe_i + next_probe_ * n_;
    for (std::int64_t j = 0; j < n_; ++j) {
      v[j] = static_cast<R>(static_cast<double>(v_[j]) + p_.v_leak[j]);
      i[j] = i_[j];
    }
    ++next_probe_;
  }

  // The first crossing up to the horizon, that of the first neuron where several coincide; all of
  // these are remembered.
  Crossing FirstCrossing(double horizon) {
    n_crossing_ = 0;
    Crossing first{kNever, 0};
    double limit = horizon - now_;
    const Soonest<R> likely = soonest_;
    if (static_cast<double>(likely.time) > limit) return first;
    const auto solve = [&](std::int64_t j) {
      const Crossing crossing = CrossingOf(j, horizon);
      const double at = crossing.time;
      if (at == kNever || at > first.time) return;
      if (at < first.time) {
        n_crossing_ = 0;
        first = crossing;
        // A crossing a little later may be rounded to the same time.
        limit = std::min(limit, static_cast<double>(NextUp(static_cast<R>(at))) - now_);
      }
      first.neuron = std::min(first.neuron, j);
      crossing_[n_crossing_++] = static_cast<std::int32_t>(j);
    };
    solve(likely.neuron);
    if (!AnyLane(LaneVector<R>::Load(others_) <= static_cast<R>(limit))) return first;
    for (std::int64_t begin = 0; begin < n_lanes_; begin += kLaneBlock) {
      if (CountWithin(kLaneBlock, wait_ + begin, static_cast<R>(limit)) == 0) continue;
      for (std::int64_t j = begin; j < std::min(begin + kLaneBlock, n_); ++j) {
        if (wait_[j] <= static_cast<R>(limit) && j != likely.neuron) solve(j);
      }
    }
    return first;
  }

  // The neurons that cross now stand at their thresholds, whatever rounding has made of them: all
  // are going to spike, also if something inhibits them at this very time.
  void Raise() {
    for (std::int64_t k = 0; k < n_crossing_; ++k) {
      const std::int64_t j = crossing_[k];
      R least = static_cast<R>(p_.threshold(j));
      if (static_cast<double>(least) < p_.threshold(j)) {
        least = NextUp(least);
      }
      v_[j] = std::max(v_[j], least);
    }
  }

  // When a neuron crosses, up to the horizon.
  Crossing CrossingOf(std::int64_t j, double horizon) {
    const double free = std::max(static_cast<double>(release_[j]), now_);
    if (free > horizon) return {kNever, j};
    const State x = StateAt(j, {static_cast<double>(v_[j]), static_cast<double>(i_[j])}, free);
    const Root root = NextCrossing<Model>(constants_[j], x, p_.threshold(j), horizon - free);
    if (!root.converged) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, j, now_};
      return {kNever, j};
    }
    if (!(root.at <= horizon - free)) return {kNever, j};
    // Rounded, so that the order of all events follows from the recorded times.
    const double time = std::min(static_cast<double>(static_cast<R>(free + root.at)), horizon);
    return {time, j, root.at, free > now_ ? 0 : root.passed};
  }

  // The state of a neuron at `time` from that now, refractory period included.
  State StateAt(std::int64_t j, const State& x, double time) const {
    const auto& constants = constants_[j];
    const double release = static_cast<double>(release_[j]);
    if (time == now_) return x;
    if (release >= time) return {p_.reset(j), Model::DecayCurrent(constants, x.i, time - now_)};
    if (release > now_) {
      return Model::Flow(Model::Propagate(constants, time - release),
                         {p_.reset(j), Model::DecayCurrent(constants, x.i, release - now_)});
    }
    return Model::Flow(Model::Propagate(constants, time - now_), x);
  }

  // All neurons to `time`, that of a crossing if one is given.
  void Flow(double time, const Crossing& crossing = {kNever, 0}) {
    if (track_) maxima_.Leave(v_, i_, now_);
    if (time > now_) {
      for (std::int64_t k = 0; k < n_refractory_; ++k) {
        const std::int64_t j = refractory_[k];
        before_[k] = {static_cast<double>(v_[j]), static_cast<double>(i_[j])};
      }
      FlowAll(time - now_, crossing);
      for (std::int64_t k = 0; k < n_refractory_; ++k) {
        const std::int32_t j = refractory_[k];
        const State x = StateAt(j, before_[k], time);
        v_[j] = static_cast<R>(x.v);
        i_[j] = static_cast<R>(x.i);
      }
      if (track_) Track(time);
      const auto released = [&](std::int32_t j) {
        return !(static_cast<double>(release_[j]) > time);
      };
      n_refractory_ =
          std::remove_if(refractory_, refractory_ + n_refractory_, released) - refractory_;
    }
    now_ = time;
  }

  // The maxima on the way to `time`.
  void Track(double time) {
    for (std::int64_t j = 0; j < n_; ++j) {
      const double free = std::max(static_cast<double>(release_[j]), now_);
      if (free >= time) continue;  // it stands at its reset
      const State& now = maxima_.before(j);
      const State x = free > now_ ? StateAt(j, now, free) : now;
      maxima_.Follow(j, constants_[j], p_.threshold(j), x, free,
                     {static_cast<double>(v_[j]), static_cast<double>(i_[j])}, time);
    }
  }

  void FlowAll(double dt, const Crossing& crossing) {
    if constexpr (internal::kHasClosedForm<Model>) {
      // The crossing has done most of the work.
      if (uniform_ && crossing.passed > 0) {
        const auto p = Model::PropagateNear(constants_[0], {crossing.at, crossing.passed}, dt);
        return FlowLanes<R, true>(step_.Set(p), n_lanes_, v_, i_);
      }
    }
    const auto flow = uniform_ ? FlowLanes<R, true> : FlowLanes<R, false>;
    flow(step_.Over(dt), n_lanes_, v_, i_);
  }

  // Whether the log can take another spike of a neuron.
  bool HasRoom(std::int64_t neuron) {
    const std::int64_t population = populations_.Of(neuron);
    const std::int64_t capacity = populations_.capacities[population];
    if (counts_[population]++ < capacity) return true;
    outcome_ = {Status::kEventCapacity, Argument::kNone, population, static_cast<double>(capacity)};
    return false;
  }

  // A neuron crosses its threshold now.
  void Spike(std::int64_t j) {
    log_.time[count_] = static_cast<R>(now_);
    log_.index[count_] = static_cast<std::int32_t>(j);
    log_.current[count_] = i_[j];
    if (track_) maxima_.Spike(j, p_.threshold(j), now_);
    v_[j] = static_cast<R>(p_.reset(j));
    release_[j] = static_cast<R>(now_ + p_.t_ref[j]);
    if (static_cast<double>(release_[j]) > now_) {
      refractory_[n_refractory_++] = static_cast<std::int32_t>(j);
    }
    arrivals_.Emit(count_++);
  }

  void Finish(const EndState<R>& end) {
    for (std::int64_t s = count_; s < log_.capacity; ++s) {
      log_.time[s] = static_cast<R>(kNever);
      log_.index[s] = kNoIndex;
      log_.current[s] = 0;
    }
    for (std::int64_t j = 0; j < n_; ++j) {
      end.v[j] = static_cast<R>(static_cast<double>(v_[j]) + p_.v_leak[j]);
      end.i[j] = i_[j];
      end.release[j] = release_[j];
    }
    if (track_) {
      maxima_.Leave(v_, i_, now_);
      maxima_.Write(views_.maximum, p_.v_leak);
    }
    // Probes behind the last spike that was recorded saw nothing.
    const std::int64_t seen = next_probe_ * n_, all = p_.n_probes * n_;
    for (R* view : {views_.probe_v, views_.probe_i}) {
      std::fill(view + seen, view + all, std::numeric_limits<R>::quiet_NaN());
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
  const std::int64_t n_, n_lanes_;
  const bool uniform_;
  ArrivalQueue<R, Direction::kForward> arrivals_;
  MaximumTracker<Model, R> maxima_;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *v_next_, *i_next_, *threshold_, *scale_, *release_, *wait_;
  StepPropagators<Model, R> step_;
  std::int32_t *refractory_, *crossing_;
  State* before_;
  std::int64_t* counts_;

  Outcome outcome_;
  double now_ = 0;
  std::int64_t count_ = 0;
  std::int64_t n_refractory_ = 0;
  std::int64_t n_crossing_ = 0;  // of the neurons that cross first
  std::int64_t next_probe_ = 0;
  // Of the present step: how soon neurons may cross, the first that does, and up to when it counts.
  Soonest<R> soonest_{};
  R others_[kLaneWidth<R>];
  Crossing next_{kNever, 0};
  double horizon_ = 0;
  bool closing_ = false;  // at the end of the window

  SpikeLog<R> log_{};
  Views<R> views_;
  bool track_ = false;
  bool quiet_ = false;  // no neuron crossed before the last arrival
  bool any_tonic_ = false;
};

// Runs one example, or two in turns, after their Begin(); null for none.
template <class Sweep>
void RunTogether(Sweep* a, Sweep* b) {
  bool more_a = a != nullptr, more_b = b != nullptr;
  while (more_a && more_b) {
    a->Approach();
    b->Approach();
    a->Search();
    b->Search();
    more_a = a->Proceed();
    more_b = b->Proceed();
  }
  while (more_a) more_a = a->Step();
  while (more_b) more_b = b->Step();
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_NETWORK_FORWARD_H_
