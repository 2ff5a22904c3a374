// The forward sweep of an acyclic layer over one example.
//
// No neuron of the population hears another, so each meets the same sorted input and no event queue
// is needed: neurons go side by side from arrival to arrival in loops that vectorise, a cheap test
// finds the few that may cross the threshold in between, and only for these is a crossing solved.
// Where arrivals are many, blocks of neurons that fit into registers go through the whole window,
// some of them in turns: each up to its next neurons that may cross, and the crossings of all of
// them side by side. Else all neurons are one block.
#ifndef JAXSNN_CORE_FORWARD_H_
#define JAXSNN_CORE_FORWARD_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/flow_lanes.h"
#include "core/problem.h"
#include "core/propagators.h"
#include "core/quiet_lanes.h"
#include "core/spike_log.h"
#include "core/types.h"
#include "core/view.h"
#include "core/walk.h"

namespace jaxsnn::inline JAXSNN_ISA {

template <class Model, class R>
class ForwardSweep {
  using Spike = typename PendingSpikes<R>::Spike;

 public:
  ForwardSweep(Arena& arena, const Problem<R>& problem, std::int64_t capacity)
      : p_(problem),
        uniform_(problem.uniform_time_constants()),
        in_blocks_(problem.n_neurons > kNarrowest && ManyArrivals(problem)),
        constants_(ConstantsTable<Model, R>::Take(arena, uniform_, problem.n_neurons)),
        walk_(arena, problem, constants_, problem.n_neurons),
        pending_(PendingSpikes<R>::Take(arena, capacity)) {
    const std::int64_t n = problem.n_neurons;
    for (R** lane : {&v_, &i_, &v_next_, &i_next_, &threshold_, &release_}) {
      *lane = arena.Take<R>(n);
    }
    // If shared: one per interval, and one for an interval that is cut short.
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? problem.queue.size + 2 : 0);
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, n);
    nothing_ = arena.Take<R>(n);
    longest_ = arena.Take<R>(problem.queue.size / Dips<R>::kStretch + 1);
    may_cross_ = arena.Take<Mask<R>>(n / kFlowBlock + 1);
    turn_ = arena.Take<std::uint8_t>(n);
    if (in_blocks_) {
      gathered_ = SpikesByInterval<R>::Take(arena, capacity, problem.queue.size + 1);
    }
  }

  // Runs the example to t_max, or to its last spike that the log holds. Requires a checked problem,
  // which may become another one of the same sizes between runs.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end) {
    outcome_ = {};
    stopping_ = false;
    constants_.Fill(p_);
    step_.Fill(p_.n_neurons, [this](std::int64_t j) { return constants_[j]; });
    n_arrivals_ = CountArrivals();
    if (uniform_) {
      FillIntervals<Model, R>(lanes_, constants_[0], p_.queue, n_arrivals_, p_.time, p_.t_max);
    }
    FindLongest(n_arrivals_, p_.queue.time + p_.queue.head, p_.time, longest_);
    refractory_ = MayRefract();
    bool complete = in_blocks_ && !refractory_ && RunBlocks(log);
    if (!complete && !outcome_.failed()) complete = RunAll(log);
    if (!complete && !outcome_.failed()) {
      // The same sweep once more, up to the spike that fills the log, gives the state there.
      stopping_ = true;
      final_ = last_;
      RunAll(log);
      if (outcome_.ok()) {
        outcome_ = {Status::kEventCapacity, Argument::kNone, 0, static_cast<double>(count_)};
      }
    }
    if (!outcome_.failed()) Finish(log, end);
    return outcome_;
  }

 private:
  // How many blocks go on in turns, so that what their neurons do between arrivals is worked out
  // side by side: as many as keep their columns of weights in a cache near by.
  static constexpr std::int64_t kTurns = 8;

  // Whether neurons mostly just flow from one arrival to the next, if each fires a few times: then
  // blocks are faster. Spikes of one interval are found faster all at once.
  static bool ManyArrivals(const Problem<R>& problem) {
    return problem.queue.size >= std::max<std::int64_t>(512, 5 * problem.n_neurons);
  }

  // How many queue entries arrive in time.
  std::int64_t CountArrivals() const {
    std::int64_t k = p_.queue.head;
    while (p_.queue.TimeAt(k) <= p_.t_max) ++k;
    return k - p_.queue.head;
  }

  // Whether any neuron is refractory at any time: then each arrival is gone to on its own.
  bool MayRefract() const {
    const R now = static_cast<R>(p_.time);
    Mask<R> any = 0;
    for (std::int64_t j = 0; j < p_.n_neurons; ++j) {
      any |= static_cast<Mask<R>>(p_.release[j] > now);
    }
    for (std::int64_t j = 0; j < p_.t_ref.size(p_.n_neurons); ++j) {
      any |= static_cast<Mask<R>>(p_.t_ref[j] > 0);
    }
    return any != 0;
  }

  // Some blocks after the others. False: the log cannot hold all spikes.
  bool RunBlocks(const SpikeLog<R>& log) {
    Start();
    bool room = true;
    const auto block_of = [this](std::int64_t j) -> NeuronBlock<R>& { return blocks_[turn_[j]]; };
    const auto add = [&](const Spike& spike) {
      room = room && count_ < log.capacity;
      if (room) gathered_.Set(count_++, spike, block_of(spike.neuron).head - p_.queue.head);
      return room;
    };
    for (std::int64_t first = 0; first < p_.n_neurons;) {
      n_blocks_ = 0;
      while (n_blocks_ < kTurns && first < p_.n_neurons) {
        first += StartBlock(first, QuietWidth<R>(p_.n_neurons - first));
      }
      while (Approach()) {
        walk_.Go(block_of, add);
        outcome_ = walk_.outcome();
        if (!room || outcome_.failed()) return false;
        Leave();
      }
    }
    gathered_.Write(count_, n_arrivals_ + 1, p_.queue.head, log);
    return true;
  }

  // All neurons as one block. False: the log cannot hold all spikes, and `last_` is the one that
  // fills it. When stopping there, a neuron that fires without end is left in the middle of it.
  bool RunAll(const SpikeLog<R>& log) {
    Start();
    n_blocks_ = 0;
    StartBlock(0, p_.n_neurons);
    while (Approach()) {
      pending_.Clear();
      walk_.Go([this](std::int64_t) -> NeuronBlock<R>& { return blocks_[0]; },
               [&](const Spike& spike) { return pending_.Add(spike, log.capacity - count_); });
      outcome_ = walk_.outcome();
      if (outcome_.failed() || !(Commit(log) || stopping_)) return false;
      Leave();
    }
    return true;
  }

  void Start() {
    count_ = 0;
    ForNeurons([this](std::int64_t j, double leak, double threshold) {
      v_[j] = static_cast<R>(static_cast<double>(p_.v[j]) - leak);
      threshold_[j] = static_cast<R>(threshold);
    });
    for (std::int64_t j = 0; j < p_.n_neurons; ++j) {
      i_[j] = p_.i[j];
      nothing_[j] = 0;
      release_[j] = p_.release[j];
    }
    walk_.Start(threshold_, release_, refractory_);
  }

  std::int64_t StartBlock(std::int64_t first, std::int64_t n) {
    NeuronBlock<R>& block = blocks_[n_blocks_++];
    block = {first, n, v_ + first, i_ + first, v_next_ + first, i_next_ + first};
    block.now = p_.time;
    block.head = p_.queue.head;
    Mask<R> above = 0;
    for (std::int64_t b = 0; b < n; ++b) {
      above |= static_cast<Mask<R>>(block.v[b] >= threshold_[first + b]);
    }
    block.at_threshold = above != 0;
    std::fill_n(turn_ + first, n, static_cast<std::uint8_t>(n_blocks_ - 1));
    return n;
  }

  // body(neuron, v_leak, threshold), with values that neurons share read once.
  template <class Body>
  void ForNeurons(const Body& body) const {
    if (!p_.v_leak.per_neuron && !p_.v_th.per_neuron) {
      const double leak = p_.v_leak[0], threshold = p_.threshold(0);
      for (std::int64_t j = 0; j < p_.n_neurons; ++j) body(j, leak, threshold);
    } else {
      for (std::int64_t j = 0; j < p_.n_neurons; ++j) body(j, p_.v_leak[j], p_.threshold(j));
    }
  }

  // Every block to the next interval in which some of its neurons are walkers. False: all are done.
  bool Approach() {
    walk_.Begin();
    for (std::int64_t k = 0; k < n_blocks_; ++k) {
      NeuronBlock<R>& block = blocks_[k];
      const std::int64_t others = walk_.count();
      while (!block.done && walk_.count() == others) {
        Enter(block);
        if (walk_.count() == others) Leave(block);
      }
      walk_.Place(block, others);
    }
    return walk_.count() > 0;
  }

  // A block to its next interval in which it is not known to just flow.
  void Enter(NeuronBlock<R>& block) {
    const std::uint64_t may_cross = PassQuietArrivals(block);
    PassSimultaneous(block);
    const double arrival = p_.queue.TimeAt(block.head);
    Interval<R>& span = block.span;
    span = {block.now, arrival, arrival, !(arrival <= p_.t_max), false, final_};
    if (span.closing) span.horizon = p_.t_max;
    span.last = stopping_ && (final_.time < span.horizon || span.closing);
    span.stop = span.last ? final_.time : span.horizon;
    block.row = (span.closing || span.last ? nothing_ : p_.row(block.head)) + block.first;
    if (may_cross == 0) FlowAll(block);
    walk_.Add(block, 0, may_cross);
    block.at_threshold = false;
  }

  // Arrivals at one time follow each other without an interval between them.
  void PassSimultaneous(NeuronBlock<R>& block) {
    const std::int64_t first = block.head;
    while (p_.queue.TimeAt(block.head) <= block.now) ++block.head;
    if (block.head == first) return;
    AddArrivals(block.n, p_.weights + block.first, p_.n_neurons, p_.queue.index + first,
                block.head - first, block.i);
  }

  void Leave(NeuronBlock<R>& block) {
    std::swap(block.v, block.v_next);
    std::swap(block.i, block.i_next);
    block.now = block.span.stop;
    block.done = block.span.closing || block.span.last;
    if (!block.done) {
      ++block.head;
      return;
    }
    now_ = block.now;
    head_ = block.head;
    if (block.v != v_ + block.first) {
      std::copy_n(block.v, block.n, v_ + block.first);
      std::copy_n(block.i, block.n, i_ + block.first);
    }
  }
  void Leave() {
    for (std::int64_t k = 0; k < n_blocks_; ++k) {
      if (!blocks_[k].done) Leave(blocks_[k]);
    }
  }

  // A block past arrivals for as long as no neuron may cross its threshold. Returns which ones may
  // then, if this is known.
  std::uint64_t PassQuietArrivals(NeuronBlock<R>& block) {
    if (refractory_ || stopping_ || block.at_threshold) return 0;
    if (uniform_) return PassQuietOn(SharedSolutions<R>{lanes_}, block);
    return PassQuietOn(
        OwnSolutions<Model, R>{step_, p_.queue.time + p_.queue.head, p_.time, block.first}, block);
  }

  template <class Solutions>
  std::uint64_t PassQuietOn(const Solutions& solutions, NeuronBlock<R>& block) {
    const std::int64_t begin = block.head - p_.queue.head;
    const Passed passed = PassQuiet(
        block.n, solutions, Dips<R>{longest_, step_.dip_rate()}, begin, n_arrivals_,
        p_.queue.index + p_.queue.head, p_.weights + block.first, p_.n_neurons,
        threshold_ + block.first, StateLanes<R>{block.v, block.i, block.v_next, block.i_next});
    if (passed.next > begin) {
      block.head = p_.queue.head + passed.next;
      block.now = p_.queue.TimeAt(block.head - 1);
    }
    return passed.may_cross;
  }

  // The free solution of every neuron of a block, and the arrival, into the next lanes. Those that
  // may do something else than flow freely become walkers.
  void FlowAll(NeuronBlock<R>& block) {
    const PropagatorLanes<R> lanes = Solutions(block);
    const auto flow = uniform_ ? FlowBlocks<R, true> : FlowBlocks<R, false>;
    flow(block.n, lanes, block.v, block.i, threshold_ + block.first, block.row, block.v_next,
         block.i_next, may_cross_);
    const bool everywhere = block.span.last || refractory_;
    for (std::int64_t begin = 0; begin < block.n; begin += kFlowBlock) {
      if (!everywhere && may_cross_[begin / kFlowBlock] == 0) continue;
      FindWalkers(block, uniform_ ? lanes : lanes.At(begin), begin);
    }
  }

  PropagatorLanes<R> Solutions(const NeuronBlock<R>& block) {
    const double dt = block.span.stop - block.now;
    if (!uniform_) return step_.Over(dt, block.first, block.n);
    const std::int64_t k = block.span.last ? p_.queue.size + 1 : block.head - p_.queue.head;
    if (block.span.last) lanes_.template Set<Model>(k, constants_[0], dt);
    return lanes_.At(k);
  }

  // Of a part of the block, with its solutions.
  void FindWalkers(NeuronBlock<R>& block, const PropagatorLanes<R>& lanes, std::int64_t begin) {
    const std::int64_t end = std::min(begin + kFlowBlock, block.n);
    for (std::int64_t b = begin; b < end; b += kMarked<R>) {
      const std::int64_t j = block.first + b;
      std::uint32_t marks = MayCrossBits<R>(
          uniform_ ? lanes : lanes.At(b - begin), !uniform_, block.v + b, block.i + b,
          block.v_next + b, threshold_ + j, release_ + j, static_cast<R>(block.now));
      const std::int64_t size = std::min(kMarked<R>, end - b);
      const std::uint32_t all = (std::uint32_t{1} << size) - 1;
      marks = block.span.last ? all : marks & all;
      walk_.Add(block, b, marks);
    }
  }

  // Moves the spikes of this interval to the log. False: they do not fit, and `last_` is the one
  // that fills it.
  bool Commit(const SpikeLog<R>& log) {
    const NeuronBlock<R>& block = blocks_[0];
    pending_.Sort(block.span.begin, block.span.horizon);
    const std::int64_t n = std::min(pending_.size(), log.capacity - count_);
    pending_.ForEach(n, [&](std::int64_t s, const Spike& spike) {
      log.Set(count_ + s, spike, block.head);
      if (s == n - 1) last_ = spike;
    });
    count_ += n;
    return n == pending_.size();
  }

  void Finish(const SpikeLog<R>& log, const EndState<R>& end) {
    const Spike none{kNever, R(0), kNoIndex};
    for (std::int64_t s = count_; s < log.capacity; ++s) log.Set(s, none, head_);
    ForNeurons([this, &end](std::int64_t j, double leak, double) {
      end.v[j] = static_cast<R>(static_cast<double>(v_[j]) + leak);
    });
    std::copy_n(i_, p_.n_neurons, end.i);
    std::copy_n(release_, p_.n_neurons, end.release);
    *end.time = static_cast<R>(now_);
    *end.head = static_cast<std::int32_t>(head_);
    *end.count = static_cast<std::int32_t>(count_);
    Outcome finite = CheckFinite(end.i, p_.n_neurons, Argument::kStateI);
    if (finite.ok()) finite = CheckFinite(end.v, p_.n_neurons, Argument::kStateV);
    if (!finite.ok()) outcome_ = finite;
  }

  const Problem<R>& p_;
  const bool uniform_;
  const bool in_blocks_;
  ConstantsTable<Model, R> constants_;
  Walk<Model, R> walk_;
  PendingSpikes<R> pending_;  // of an interval of all neurons
  R *v_, *i_, *v_next_, *i_next_, *threshold_, *release_;
  PropagatorLanes<R> lanes_;
  StepPropagators<Model, R> step_;
  R* nothing_;  // a row of zeros
  R* longest_;  // interval in each stretch, see Dips
  Mask<R>* may_cross_;
  SpikesByInterval<R> gathered_;
  NeuronBlock<R> blocks_[kTurns];
  std::uint8_t* turn_;  // the number of each neuron's block

  Outcome outcome_;
  std::int64_t n_blocks_ = 0;  // that take turns
  std::int64_t n_arrivals_ = 0;
  std::int64_t count_ = 0;   // of spikes
  bool refractory_ = false;  // any neuron, at any time
  double now_ = 0;           // at the end
  std::int64_t head_ = 0;
  Spike last_{};   // the newest spike of the log
  Spike final_{};  // with `stopping_`, the spike that ends the sweep
  bool stopping_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_FORWARD_H_
