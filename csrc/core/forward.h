// The forward sweep of an acyclic layer over one example.
//
// No neuron of the population hears another, so each meets the same sorted input and no event queue
// is needed: neurons go side by side from arrival to arrival in loops that vectorise, a cheap test
// finds the few that may cross the threshold in between, and only for these is a crossing solved.
// Where arrivals are many, blocks of neurons that fit into registers go through the whole window
// one after the other; else all neurons are one block.
#ifndef JAXSNN_CORE_FORWARD_H_
#define JAXSNN_CORE_FORWARD_H_

#include <algorithm>
#include <bit>
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
        walk_(arena, problem, constants_, problem.n_neurons, capacity) {
    const std::int64_t n = problem.n_neurons;
    for (R** lane : {&v_, &i_, &v_next_, &i_next_, &block_.threshold, &block_.release}) {
      *lane = arena.Take<R>(n);
    }
    // If shared: one per interval, and one for an interval that is cut short.
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? problem.queue.size + 2 : 0);
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, n);
    nothing_ = arena.Take<R>(n);
    may_cross_ = arena.Take<Mask<R>>(n / kFlowBlock + 1);
    if (in_blocks_) {
      gathered_ = SpikesByInterval<R>::Take(arena, capacity, problem.queue.size + 1);
    }
  }

  // Runs the example to t_max, or to its last spike that the log holds. Requires a checked problem.
  Outcome Run(const SpikeLog<R>& log, const EndState<R>& end) {
    constants_.Fill(p_);
    n_arrivals_ = CountArrivals();
    if (uniform_) {
      FillIntervals<Model, R>(lanes_, constants_[0], p_.queue, n_arrivals_, p_.time, p_.t_max);
    }
    in_blocks_ = in_blocks_ && !MayRefract();
    bool complete = in_blocks_ && RunBlocks(log, end);
    if (!complete && !outcome_.failed()) {
      in_blocks_ = false;
      complete = RunAll(log, end);
    }
    if (!complete && !outcome_.failed()) {
      // The same sweep once more, up to the spike that fills the log, gives the state there.
      stopping_ = true;
      final_ = last_;
      RunAll(log, end);
      if (outcome_.ok()) {
        outcome_ = {Status::kEventCapacity, Argument::kNone, 0, static_cast<double>(count_)};
      }
    }
    if (!outcome_.failed()) Finish(log, end);
    return outcome_;
  }

 private:
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

  // Block after block. False: the log cannot hold all spikes.
  bool RunBlocks(const SpikeLog<R>& log, const EndState<R>& end) {
    count_ = 0;
    for (std::int64_t first = 0; first < p_.n_neurons; first += n_) {
      if (!SweepBlock(first, QuietWidth<R>(p_.n_neurons - first), log, end)) return false;
    }
    gathered_.Write(count_, n_arrivals_ + 1, p_.queue.head, log);
    return true;
  }

  bool RunAll(const SpikeLog<R>& log, const EndState<R>& end) {
    count_ = 0;
    return SweepBlock(0, p_.n_neurons, log, end);
  }

  // False: the log cannot hold all spikes, and `last_` is the one that fills it.
  bool SweepBlock(std::int64_t first, std::int64_t n, const SpikeLog<R>& log,
                  const EndState<R>& end) {
    block_.first = first;
    n_ = n;
    Start();
    if (!Sweep(log)) return false;
    WriteState(end);
    return !outcome_.failed();
  }

  void Start() {
    now_ = p_.time;
    head_ = p_.queue.head;
    const std::int64_t first = block_.first;
    ForNeurons([this](std::int64_t b, std::int64_t j, double leak, double threshold) {
      v_[b] = static_cast<R>(static_cast<double>(p_.v[j]) - leak);
      block_.threshold[b] = static_cast<R>(threshold);
    });
    Mask<R> above = 0;
    for (std::int64_t b = 0; b < n_; ++b) {
      i_[b] = p_.i[first + b];
      nothing_[b] = 0;
      block_.release[b] = p_.release[first + b];
      above |= static_cast<Mask<R>>(v_[b] >= block_.threshold[b]);
    }
    at_threshold_ = above != 0;
    block_.refractory = !in_blocks_ && MayRefract();
    step_.Fill(n_, [this, first](std::int64_t b) { return constants_[first + b]; });
    walk_.Start(block_);
  }

  // body(neuron of the block, of the layer, v_leak, threshold), with values that neurons share read
  // once.
  template <class Body>
  void ForNeurons(const Body& body) const {
    const std::int64_t first = block_.first;
    if (!p_.v_leak.per_neuron && !p_.v_th.per_neuron) {
      const double leak = p_.v_leak[0], threshold = p_.threshold(0);
      for (std::int64_t b = 0; b < n_; ++b) body(b, first + b, leak, threshold);
    } else {
      for (std::int64_t b = 0; b < n_; ++b) {
        body(b, first + b, p_.v_leak[first + b], p_.threshold(first + b));
      }
    }
  }

  bool Sweep(const SpikeLog<R>& log) {
    for (;;) {
      const std::uint64_t may_cross = PassQuietArrivals();
      const double arrival = p_.queue.TimeAt(head_);
      Interval<R> span{now_, arrival, arrival, !(arrival <= p_.t_max), false, final_};
      if (span.closing) span.horizon = p_.t_max;
      span.last = stopping_ && (final_.time < span.horizon || span.closing);
      span.stop = span.last ? final_.time : span.horizon;
      const R* row = span.closing || span.last ? nothing_ : p_.row(head_) + block_.first;
      // Arrivals at one time follow each other without an interval between them.
      if (span.horizon > now_ || span.closing) {
        Advance(span, may_cross, log.capacity - count_, row);
        if (outcome_.failed()) return true;
        if (!Commit(log)) return false;
      } else {
        AddRow(row);
      }
      now_ = span.stop;
      if (span.closing || span.last) return true;
      ++head_;
    }
  }

  // Passes arrivals for as long as no neuron may cross its threshold. Returns which ones may then,
  // if this is known.
  std::uint64_t PassQuietArrivals() {
    if (block_.refractory || stopping_ || at_threshold_) return 0;
    return uniform_
               ? PassQuietOn(SharedSolutions<R>{lanes_})
               : PassQuietOn(OwnSolutions<Model, R>{step_, p_.queue.time + p_.queue.head, p_.time});
  }

  template <class Solutions>
  std::uint64_t PassQuietOn(const Solutions& solutions) {
    const std::int64_t begin = head_ - p_.queue.head;
    const Passed passed =
        PassQuiet(n_, solutions, begin, n_arrivals_, p_.queue.index + p_.queue.head,
                  p_.weights + block_.first, p_.n_neurons, block_.threshold,
                  StateLanes<R>{v_, i_, v_next_, i_next_});
    if (passed.next > begin) {
      head_ = p_.queue.head + passed.next;
      now_ = p_.queue.TimeAt(head_ - 1);
    }
    return passed.may_cross;
  }

  void AddRow(const R* row) {
    for (std::int64_t b = 0; b < n_; ++b) i_[b] += row[b];
  }

  // All neurons over one interval, and the row that arrives at its end.
  void Advance(const Interval<R>& span, std::uint64_t may_cross, std::int64_t room, const R* row) {
    walk_.Begin(span, room);
    if (may_cross == 0) FlowAll(span, row);
    for (; may_cross != 0; may_cross &= may_cross - 1) AddWalker(std::countr_zero(may_cross));
    at_threshold_ = false;
    if (walk_.count() > 0) {
      walk_.Go(row, v_next_, i_next_);
      at_threshold_ = walk_.at_threshold();
      outcome_ = walk_.outcome();
    }
    std::swap(v_, v_next_);
    std::swap(i_, i_next_);
  }

  // The free solution of every neuron, and the arrival, into the next lanes. Those that may do
  // something else than flow freely become walkers.
  void FlowAll(const Interval<R>& span, const R* row) {
    const PropagatorLanes<R> lanes = Solutions(span, span.stop - span.begin);
    const auto flow = uniform_ ? FlowBlocks<R, true, true> : FlowBlocks<R, false, true>;
    flow(n_, lanes, v_, i_, block_.threshold, row, v_next_, i_next_, may_cross_);
    const bool everywhere = span.last || block_.refractory;
    for (std::int64_t begin = 0; begin < n_; begin += kFlowBlock) {
      if (!everywhere && may_cross_[begin / kFlowBlock] == 0) continue;
      FindWalkers(span, uniform_ ? lanes : lanes.At(begin), begin);
    }
  }

  PropagatorLanes<R> Solutions(const Interval<R>& span, double dt) {
    if (!uniform_) return step_.Over(dt);
    const std::int64_t k = span.last ? p_.queue.size + 1 : head_ - p_.queue.head;
    if (span.last) lanes_.template Set<Model>(k, constants_[0], dt);
    return lanes_.At(k);
  }

  void AddWalker(std::int64_t b) { walk_.Add(b, v_[b], i_[b]); }

  // Of a part of the block.
  void FindWalkers(const Interval<R>& span, const PropagatorLanes<R>& lanes, std::int64_t begin) {
    const std::int64_t end = std::min(begin + kFlowBlock, n_);
    const bool everywhere = span.last;
    for (std::int64_t b = begin; b < end; b += kMarked<R>) {
      std::uint32_t marks = MayCrossBits<R>(uniform_ ? lanes : lanes.At(b - begin), !uniform_,
                                            v_ + b, i_ + b, v_next_ + b, block_.threshold + b,
                                            block_.release + b, static_cast<R>(span.begin));
      const std::int64_t size = std::min(kMarked<R>, end - b);
      const std::uint32_t all = (std::uint32_t{1} << size) - 1;
      marks = everywhere ? all : marks & all;
      for (; marks != 0; marks &= marks - 1) {
        AddWalker(b + std::countr_zero(marks));
      }
    }
  }

  // Moves the spikes of this interval to the log, or to those of other blocks. False: they do not
  // fit, and `last_` is the one that fills it.
  bool Commit(const SpikeLog<R>& log) {
    PendingSpikes<R>& pending = walk_.pending();
    if (pending.size() == 0) return true;
    pending.Sort();
    for (std::int64_t s = 0; s < pending.size(); ++s) {
      if (count_ == log.capacity) return false;
      last_ = pending[s];
      if (in_blocks_) {
        gathered_.Set(count_++, last_, head_ - p_.queue.head);
      } else {
        log.Set(count_++, last_, head_);
      }
    }
    return true;
  }

  void WriteState(const EndState<R>& end) {
    const std::int64_t first = block_.first;
    ForNeurons([this, &end](std::int64_t b, std::int64_t j, double leak, double) {
      end.v[j] = static_cast<R>(static_cast<double>(v_[b]) + leak);
    });
    for (std::int64_t b = 0; b < n_; ++b) {
      end.i[first + b] = i_[b];
      end.release[first + b] = block_.release[b];
    }
  }

  void Finish(const SpikeLog<R>& log, const EndState<R>& end) {
    const Spike none{kNever, R(0), kNoIndex};
    for (std::int64_t s = count_; s < log.capacity; ++s) log.Set(s, none, head_);
    *end.time = static_cast<R>(now_);
    *end.head = static_cast<std::int32_t>(head_);
    *end.count = static_cast<std::int32_t>(count_);
    Outcome finite = CheckFinite(end.i, p_.n_neurons, Argument::kStateI);
    if (finite.ok()) finite = CheckFinite(end.v, p_.n_neurons, Argument::kStateV);
    if (!finite.ok()) outcome_ = finite;
  }

  const Problem<R>& p_;
  const bool uniform_;
  bool in_blocks_;
  ConstantsTable<Model, R> constants_;
  Walk<Model, R> walk_;
  BlockLanes<R> block_;
  R *v_, *i_, *v_next_, *i_next_;
  PropagatorLanes<R> lanes_;
  StepPropagators<Model, R> step_;
  R* nothing_;  // a row of zeros
  Mask<R>* may_cross_;
  SpikesByInterval<R> gathered_;

  Outcome outcome_;
  std::int64_t n_ = 0;  // of neurons in the block
  std::int64_t n_arrivals_ = 0;
  std::int64_t count_ = 0;  // of spikes
  double now_ = 0;
  std::int64_t head_ = 0;
  bool at_threshold_ = false;  // any neuron, now
  Spike last_{};               // the newest spike of the log
  Spike final_{};              // with `stopping_`, the spike that ends the sweep
  bool stopping_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_FORWARD_H_
