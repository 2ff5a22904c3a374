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
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/crossing_lanes.h"
#include "core/flow_lanes.h"
#include "core/pending_spikes.h"
#include "core/problem.h"
#include "core/propagators.h"
#include "core/registers.h"
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
    // If shared: one per interval, and one for an interval that is cut short.
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? problem.queue.size + 2 : 0);
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, n_);
    nothing_ = arena.Take<R>(n_);
    may_cross_ = arena.Take<Mask<R>>(n_ / kFlowBlock + 1);
    walkers_ = Walkers::Take(arena, n_ + CrossingBlock::kSize);
    rest_ = Walkers::Take(arena, n_);
    pending_ = PendingSpikes<R>::Take(arena, capacity);
  }

  // Runs the example to t_max, or to its last spike that the log holds. Requires a checked problem.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end) {
    constants_.Fill(p_);
    closed_form_ = ClosedForm();
    step_.Fill([this](std::int64_t j) { return constants_[j]; });
    if (uniform_) {
      n_arrivals_ = CountArrivals();
      FillIntervals<Model, R>(lanes_, constants_[0], p_.queue, n_arrivals_, p_.time, p_.t_max);
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

  using Spike = typename PendingSpikes<R>::Spike;

  // Neurons on their own way through an interval: each stands at a time of its own.
  struct Walkers {
    std::int32_t* neuron = nullptr;
    double *v = nullptr, *i = nullptr, *time = nullptr;

    static Walkers Take(Arena& arena, std::int64_t size) {
      Walkers walkers;
      walkers.neuron = arena.Take<std::int32_t>(size);
      for (double** lane : {&walkers.v, &walkers.i, &walkers.time})
        *lane = arena.Take<double>(size);
      return walkers;
    }
    void Set(std::int64_t k, std::int32_t j, const State& x, double at) {
      neuron[k] = j;
      v[k] = x.v;
      i[k] = x.i;
      time[k] = at;
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

  // Whether every neuron has a closed form for its crossings.
  bool ClosedForm() const {
    if constexpr (internal::kHasClosedForm<Model>) {
      for (std::int64_t j = 0; j < (uniform_ ? 1 : n_); ++j) {
        if (!Model::HasClosedForm(constants_[j])) return false;
      }
      return true;
    }
    return false;
  }

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
      nothing_[j] = 0;
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
      PassQuietArrivals();
      Interval span;
      const double arrival = p_.queue.TimeAt(head_);
      span.begin = now_;
      span.closing = !(arrival <= p_.t_max);
      span.horizon = span.closing ? p_.t_max : arrival;
      span.last = stopping_ && (final_.time < span.horizon || span.closing);
      span.stop = span.last ? final_.time : span.horizon;
      const R* row = span.closing || span.last ? nothing_ : p_.row(head_);
      // Arrivals at one time follow each other without an interval between them.
      if (span.horizon > now_ || span.closing) {
        pending_.Clear();
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

  // Passes arrivals for as long as no neuron may cross its threshold.
  void PassQuietArrivals() {
#if defined(__GNUC__)
    if (!uniform_ || refractory_ || stopping_) return;
    if (n_ <= 4) {
      PassInRegisters<4>();
    } else if (n_ <= 8) {
      PassInRegisters<8>();
    } else if (n_ <= 16) {
      PassInRegisters<16>();
    }
#endif
  }

#if defined(__GNUC__)
  // The neurons of a narrow layer stay in registers from arrival to arrival. Lanes without a neuron
  // repeat the last one.
  template <int kWidth>
  void PassInRegisters() {
    // Compilers take comparisons of vectors longer than a register apart, lane by lane.
    constexpr int kFit = static_cast<int>(kRegisterBytes / sizeof(R));
    constexpr int kLanes = kWidth < kFit ? kWidth : kFit;
    constexpr int kParts = kWidth / kLanes;
    using Lanes = Registers<R, kLanes>;
    typename Lanes::type v[kParts], i[kParts], threshold[kParts], v_end[kParts], i_end[kParts];
    std::int64_t neuron[kWidth];
    for (int l = 0; l < kWidth; ++l) neuron[l] = std::min<std::int64_t>(l, n_ - 1);
    for (int part = 0; part < kParts; ++part) {
      v[part] = Lanes::Gather(v_, neuron + part * kLanes);
      i[part] = Lanes::Gather(i_, neuron + part * kLanes);
      threshold[part] = Lanes::Gather(threshold_, neuron + part * kLanes);
    }
    const PropagatorLanes<R> lanes = lanes_.At(-p_.queue.head);
    const std::int64_t first = head_, end = p_.queue.head + n_arrivals_;
    std::int64_t k = head_;
    for (; k < end; ++k) {
      const R vv = lanes.v_from_v[k], vi = lanes.v_from_i[k], ii = lanes.i_from_i[k];
      bool any = false;
      for (int part = 0; part < kParts; ++part) {
        v_end[part] = vv * v[part] + vi * i[part];
        i_end[part] = ii * i[part];
        any |= AnyLane(
            MayCross(v[part], i[part], v_end[part], i_end[part], threshold[part], lanes.reach[k]));
      }
      if (any) break;
      const R* const row = p_.row(k);
      for (int part = 0; part < kParts; ++part) {
        v[part] = v_end[part];
        i[part] = i_end[part] + Lanes::Gather(row, neuron + part * kLanes);
      }
    }
    if (k == first) return;
    for (int l = 0; l < kWidth; ++l) {
      v_[neuron[l]] = v[l / kLanes][l % kLanes];
      i_[neuron[l]] = i[l / kLanes][l % kLanes];
    }
    head_ = k;
    now_ = p_.queue.TimeAt(k - 1);
  }
#endif

  void AddRow(const R* row) {
    for (std::int64_t j = 0; j < n_; ++j) i_[j] += row[j];
  }

  // All neurons over one interval, and the row that arrives at its end.
  void Advance(const Interval& span, const SpikeLog<R>& log, const R* row) {
    const std::int64_t n = FlowAll(span, row);
    if (n > 0) {
      const std::int64_t room = log.capacity - count_;
      if (uniform_) {
        const auto constants = constants_[0];
        Walk(n, span, room, row, [&constants](std::int64_t) -> const auto& { return constants; });
      } else {
        Walk(n, span, room, row, [this](std::int64_t j) -> const auto& { return constants_[j]; });
      }
    }
    std::swap(v_, v_next_);
    std::swap(i_, i_next_);
  }

  // The free solution of every neuron, and the arrival, into the next lanes. Those that may do
  // something else than flow freely become walkers, in order; returns how many.
  std::int64_t FlowAll(const Interval& span, const R* row) {
    const PropagatorLanes<R> lanes = Solutions(span, span.stop - span.begin);
    const auto flow = uniform_ ? FlowBlocks<R, true> : FlowBlocks<R, false>;
    flow(n_, lanes, v_, i_, threshold_, row, v_next_, i_next_, may_cross_);
    const bool everywhere = span.last || refractory_;
    std::int64_t found = 0;
    for (std::int64_t begin = 0; begin < n_; begin += kFlowBlock) {
      if (!everywhere && may_cross_[begin / kFlowBlock] == 0) continue;
      found = FindWalkers(span, uniform_ ? lanes : lanes.At(begin), begin, found);
    }
    for (std::int64_t k = 0; k < found; ++k) {
      const std::int32_t j = walkers_.neuron[k];
      walkers_.Set(k, j, {static_cast<double>(v_[j]), static_cast<double>(i_[j])}, span.begin);
    }
    return found;
  }

  PropagatorLanes<R> Solutions(const Interval& span, double dt) {
    if (!uniform_) return step_.Over(dt);
    const std::int64_t k = span.last ? p_.queue.size + 1 : head_ - p_.queue.head;
    if (span.last) lanes_.template Set<Model>(k, constants_[0], dt);
    return lanes_.At(k);
  }

  // Whether a neuron, or which lanes of a vector, may cross the threshold on the way to (v_end,
  // i_end). Necessary for that: either v stands at the threshold at one of the ends; or v passed a
  // maximum in between, so that it fell at the end, and v, concave until then, stayed below its
  // first tangent, which must reach the threshold.
  template <class T>
  JAXSNN_INLINE static auto MayCross(const T& v, const T& i, const T& v_end, const T& i_end,
                                     const T& threshold, R reach) {
    const T tangent = v + (i - v) * reach;
    return (v >= threshold) | (v_end >= threshold) |
           ((i_end < v_end) & (i > threshold) & (tangent >= threshold));
  }

  // Lists the neurons of a block that may do something else than flow freely.
  std::int64_t FindWalkers(const Interval& span, const PropagatorLanes<R>& lanes,
                           std::int64_t begin, std::int64_t found) {
    const R now = static_cast<R>(span.begin);
    const std::int64_t size = std::min(kFlowBlock, n_ - begin);
    Mask<R> marks[kFlowBlock];
    for (std::int64_t k = 0; k < size; ++k) {
      const std::int64_t j = begin + k, own = uniform_ ? 0 : k;
      marks[k] = static_cast<Mask<R>>(MayCross(
          v_[j], i_[j], v_next_[j], lanes.i_from_i[own] * i_[j], threshold_[j], lanes.reach[own]));
    }
    for (std::int64_t k = 0; k < size; ++k) {
      marks[k] |= static_cast<Mask<R>>(span.last | (release_[begin + k] > now));
    }
    for (std::int64_t k = 0; k < size; ++k) {
      walkers_.neuron[found] = static_cast<std::int32_t>(begin + k);
      found += marks[k];
    }
    return found;
  }

  // Walkers go on from spike to spike, all in step, until none of them spikes any more.
  template <class ConstantsOf>
  void Walk(std::int64_t n, const Interval& span, std::int64_t room, const R* row,
            const ConstantsOf& constants) {
    n_rest_ = 0;
    while (n > 0) {
      if (refractory_) n = Release(n, span);
      std::int64_t spiking = 0;
      for (std::int64_t k = 0; k < n; k += CrossingBlock::kSize) {
        spiking = Step(k, std::min<std::int64_t>(n - k, CrossingBlock::kSize), spiking, span, room,
                       constants);
        if (outcome_.failed()) return;
      }
      n = spiking;
    }
    FlowRest(span, constants);
    if (span.closing) CrossAtHorizon(span, room);
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const std::int32_t j = rest_.neuron[k];
      v_next_[j] = static_cast<R>(rest_.v[k]);
      i_next_[j] = static_cast<R>(rest_.i[k]) + row[j];
    }
  }

  void Rest(std::int32_t j, const State& x, double time) { rest_.Set(n_rest_++, j, x, time); }

  // Takes walkers to the end of their refractory periods. Those that are refractory to the end of
  // the interval rest; returns how many do not.
  std::int64_t Release(std::int64_t n, const Interval& span) {
    std::int64_t left = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int32_t j = walkers_.neuron[k];
      State x{walkers_.v[k], walkers_.i[k]};
      double time = walkers_.time[k];
      const double release = static_cast<double>(release_[j]);
      if (release > time) {
        const double until = std::min(release, span.stop);
        x = {p_.reset(j), Model::DecayCurrent(constants_[j], x.i, until - time)};
        time = until;
      }
      if (release > span.stop) {
        Rest(j, x, time);
      } else {
        walkers_.Set(left++, j, x, time);
      }
    }
    return left;
  }

  // The next spikes of walkers [first, first + n). Those that spike and may do so again become
  // walkers from number `spiking` on; the others rest. Returns the number behind the last.
  template <class ConstantsOf>
  std::int64_t Step(std::int64_t first, std::int64_t n, std::int64_t spiking, const Interval& span,
                    std::int64_t room, const ConstantsOf& constants) {
    constexpr int kSize = CrossingBlock::kSize;
    CrossingBlock block;
    double current[kSize];
    const double horizon = span.horizon;
    for (int l = 0; l < kSize; ++l) {
      block.v[l] = walkers_.v[first + l];
      block.i[l] = walkers_.i[first + l];
      block.limit[l] = horizon - walkers_.time[first + l];
    }
    for (std::int64_t l = 0; l < n; ++l) {
      block.threshold[l] = static_cast<double>(threshold_[walkers_.neuron[first + l]]);
    }
    // Lanes that no walker is in repeat the last one.
    for (std::int64_t l = n; l < kSize; ++l) {
      walkers_.neuron[first + l] = walkers_.neuron[first + n - 1];
      block.v[l] = block.v[n - 1];
      block.i[l] = block.i[n - 1];
      block.threshold[l] = block.threshold[n - 1];
      block.limit[l] = block.limit[n - 1];
    }
    const std::int32_t* const neuron = walkers_.neuron + first;
    const auto constants_of = [neuron, &constants](std::int64_t l) -> const auto& {
      return constants(neuron[l]);
    };
    const int failed = NextCrossings<Model>(constants_of, closed_form_, block);
    if (failed != kNoIndex) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, neuron[failed], span.begin};
      return 0;
    }
    std::int64_t any = 0;
    for (int l = 0; l < kSize; ++l) {
      any |= static_cast<std::int64_t>(block.at[l] <= block.limit[l]);
    }
    for (std::int64_t l = 0; any != 0 && l < kSize; ++l) {
      current[l] = Model::DecayCurrent(constants_of(l), block.i[l], block.at[l]);
    }
    for (std::int64_t l = 0; l < n; ++l) {
      const std::int32_t j = neuron[l];
      const double time = walkers_.time[first + l];
      const double at = std::min(time + block.at[l], horizon);  // the sum may round up
      if (!(block.at[l] <= block.limit[l] && Belongs(at, j, span) &&
            pending_.Add({at, static_cast<R>(current[l]), j}, room))) {
        Rest(j, {block.v[l], block.i[l]}, time);
        continue;
      }
      const State x{p_.reset(j), current[l]};
      release_[j] = static_cast<R>(at + p_.t_ref[j]);
      if (refractory_ || block.threshold[l] < 0 ||
          internal::MayRise<Model>(constants_of(l), x, block.threshold[l], horizon - at)) {
        walkers_.Set(spiking++, j, x, at);
      } else {
        Rest(j, x, at);  // cannot spike again
      }
    }
    return spiking;
  }

  // Those that rest, to the end of the interval.
  template <class ConstantsOf>
  void FlowRest(const Interval& span, const ConstantsOf& constants) {
    const std::int32_t* JAXSNN_RESTRICT neuron = rest_.neuron;
    const double* JAXSNN_RESTRICT time = rest_.time;
    double* JAXSNN_RESTRICT v = rest_.v;
    double* JAXSNN_RESTRICT i = rest_.i;
    const double stop = span.stop;
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const State end =
          Model::Flow(Model::Propagate(constants(neuron[k]), stop - time[k]), State{v[k], i[k]});
      v[k] = end.v;
      i[k] = end.i;
    }
  }

  // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
  // rounded to just behind the horizon.
  void CrossAtHorizon(const Interval& span, std::int64_t room) {
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const std::int32_t j = rest_.neuron[k];
      if (rest_.v[k] < p_.threshold(j) || !Belongs(span.horizon, j, span)) continue;
      if (!pending_.Add({span.horizon, static_cast<R>(rest_.i[k]), j}, room)) continue;
      rest_.v[k] = p_.reset(j);
      release_[j] = static_cast<R>(span.horizon + p_.t_ref[j]);
    }
  }

  // Whether a crossing is one of this interval. One that coincides with the next arrival comes
  // after it, and thus at the start of the next interval.
  bool Belongs(double at, std::int64_t j, const Interval& span) const {
    if (span.closing ? !(at <= span.horizon) : !(at < span.horizon)) return false;
    return !span.last || at < final_.time || (at == final_.time && j <= final_.neuron);
  }

  // Moves the spikes of this interval to the log. False: they do not fit, and `last_` is the one
  // that fills it.
  bool Commit(const SpikeLog<R>& log) {
    pending_.Sort();
    for (std::int64_t s = 0; s < pending_.size(); ++s) {
      if (count_ == log.capacity) return false;
      last_ = pending_[s];
      log.time[count_] = static_cast<R>(last_.time);
      log.index[count_] = last_.neuron;
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
  StepPropagators<Model, R> step_;
  R* nothing_;  // a row of zeros
  Mask<R>* may_cross_;
  Walkers walkers_, rest_;
  PendingSpikes<R> pending_;

  Outcome outcome_;
  double now_ = 0;
  std::int64_t n_arrivals_ = 0;
  std::int64_t head_ = 0;
  std::int64_t count_ = 0;
  bool refractory_ = false;
  bool closed_form_ = false;
  std::int64_t n_rest_ = 0;
  Spike last_{};   // the newest spike of the log
  Spike final_{};  // with `stopping_`, the spike that ends the sweep
  bool stopping_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_FORWARD_H_
