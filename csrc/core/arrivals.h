// The queue of arrivals in a network with delays.
//
// Spikes over a projection with a single delay arrive in the order in which they were emitted, and
// wait in a line. Elsewhere a spike reaches its targets one delay after the other, in runs of
// targets: for every such spike that is under way a heap holds a single cursor, the run that is
// next. The queue takes memory in proportion to the spikes and not to the synapses.
//
// Arrivals at equal times come in the order of their sources: past spikes of the neurons, inputs,
// spikes of the neurons in this window, each in the order in which they were emitted. A spike that
// is emitted because of an arrival thus arrives behind it even without a delay, and the order of
// all arrivals and spikes follows from their times and sources alone: the reverse sweep walks
// through it backwards without a record of it.
#ifndef JAXSNN_CORE_ARRIVALS_H_
#define JAXSNN_CORE_ARRIVALS_H_

#include <algorithm>
#include <cstdint>

#include "core/projection.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// What arrives at one time from one spike: its targets are order[begin, end), or all neurons.
template <class R>
struct Arrival {
  R time;
  std::int32_t source;
  std::int64_t begin;
  std::int64_t end;
};

enum class Direction { kForward, kBackward };

template <class R, Direction kDirection>
class ArrivalQueue {
  static constexpr bool kForward = kDirection == Direction::kForward;

 public:
  // `own` are the spikes of this window, at most `capacity`: forward, those emitted so far.
  ArrivalQueue(Arena& arena, const Network<R>& network, std::int64_t capacity)
      : p_(network), first_input_(network.n_past), first_own_(network.n_past + network.queue.size) {
    heap_ = arena.Take<Cursor>(first_own_ + capacity);
  }

  // Everything that arrives up to `until`, of `n_own` spikes that are known already.
  void Start(const R* own_time, const std::int32_t* own_index, std::int64_t n_own, double until) {
    own_time_ = own_time;
    own_index_ = own_index;
    until_ = until;
    size_ = 0;
    past_ = Line(p_.recurrent, 0, first_input_);
    input_ = Line(p_.input, first_input_, first_own_);
    own_ = Line(p_.recurrent, first_own_, first_own_ + n_own);
    for (std::int64_t e = 0; e < first_input_ + p_.queue.head; ++e) {
      const bool waits = e < first_input_ ? past_.waits : input_.waits;
      if (!waits && static_cast<double>(TimeOf(e)) < kNever) Load(e, p_.time);
    }
    next_input_ =
        kForward ? first_input_ + p_.queue.head : first_input_ + p_.CountInputs(until) - 1;
    next_own_ = first_own_ + n_own - 1;
    if constexpr (!kForward) {
      longest_input_ = p_.input.LongestDelay();
      longest_own_ = p_.recurrent.LongestDelay();
    }
    Refill();
  }

  // A spike of this window was emitted.
  void Emit(std::int64_t spike) {
    if (!own_.waits) {
      Load(first_own_ + spike, -kNever);
      return Refill();
    }
    own_.end = first_own_ + spike + 1;
    if (own_.head.source != kNoIndex) return;
    own_.next = own_.end - 1;
    Advance(own_);
    FindTop();
  }

  bool empty() const { return top_->source == kNoIndex; }
  // Of the next arrival; kNever where there is none.
  double time() const { return static_cast<double>(top_->time); }
  std::int64_t source() const { return top_->source; }

  // Takes the next arrival out of the queue.
  Arrival<R> Pop() {
    Arrival<R> arrival{top_->time, top_->source, top_->position, top_->position + 1};
    for (Waiting* line : {&past_, &input_, &own_}) {
      if (top_ != &line->head) continue;
      Advance(*line);
      FindTop();
      return arrival;
    }
    const Cursor top = heap_[0];
    std::pop_heap(heap_, heap_ + size_, After);
    --size_;
    const Projection<R>& projection = ProjectionOf(top.source);
    if (projection.per_target()) {
      const R emitted = TimeOf(top.source);
      const R* const sorted = SortedOf(top.source);
      std::int64_t& edge = kForward ? arrival.end : arrival.begin;
      if constexpr (kForward) {
        while (edge < projection.n_neurons && ArrivalTime(emitted, sorted[edge]) == top.time) {
          ++edge;
        }
        if (edge < projection.n_neurons) Push(top.source, emitted, sorted, edge, -kNever);
      } else {
        while (edge > 0 && ArrivalTime(emitted, sorted[edge - 1]) == top.time) --edge;
        if (edge > 0) Push(top.source, emitted, sorted, edge - 1, AfterOf(top.source));
      }
    }
    Refill();
    return arrival;
  }

  bool IsInput(std::int64_t source) const { return source >= first_input_ && !IsOwn(source); }
  bool IsOwn(std::int64_t source) const { return source >= first_own_; }
  std::int64_t InputOf(std::int64_t source) const { return source - first_input_; }
  std::int64_t OwnOf(std::int64_t source) const { return source - first_own_; }

  const Projection<R>& ProjectionOf(std::int64_t source) const {
    return IsInput(source) ? p_.input : p_.recurrent;
  }
  // The row of the projection.
  std::int64_t RowOf(std::int64_t source) const {
    if (IsOwn(source)) return own_index_[OwnOf(source)];
    return IsInput(source) ? p_.queue.index[InputOf(source)] : p_.past_index[source];
  }

 private:
  struct Cursor {
    R time;
    std::int32_t source;
    std::int64_t position;
  };

  static constexpr Cursor kNone{static_cast<R>(kNever), kNoIndex, 0};

  // Spikes, begin <= source < end, that arrive in the order in which they were emitted, and the
  // first of them.
  struct Waiting {
    bool waits = false;  // else they are in the heap
    R delay = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t next = 0;
    Cursor head = kNone;
  };

  // The order of std's heaps, whose top is the last one.
  static bool After(const Cursor& a, const Cursor& b) {
    if (a.time != b.time) return kForward ? a.time > b.time : a.time < b.time;
    return kForward ? a.source > b.source : a.source < b.source;
  }

  R TimeOf(std::int64_t source) const {
    if (IsOwn(source)) return own_time_[OwnOf(source)];
    return IsInput(source) ? p_.queue.time[InputOf(source)] : p_.past_time[source];
  }
  const R* SortedOf(std::int64_t source) const {
    const Projection<R>& projection = ProjectionOf(source);
    return projection.sorted + projection.delay_row(RowOf(source)) * projection.n_neurons;
  }
  // What arrived before the window has been taken care of.
  double AfterOf(std::int64_t source) const {
    return source < first_input_ + p_.queue.head ? p_.time : -kNever;
  }

  // Puts the first run of a spike into the queue: forward the earliest, backward the latest.
  void Load(std::int64_t source, double after) {
    const Projection<R>& projection = ProjectionOf(source);
    if (projection.n_sources == 0) return;
    const R emitted = TimeOf(source);
    if (!projection.per_target()) {
      const R delay = projection.delays[projection.delay_row(RowOf(source))];
      return Push(source, emitted, &delay, 0, after);
    }
    const R* const sorted = SortedOf(source);
    const R* const behind = sorted + projection.n_neurons;
    const double bound = kForward ? after : until_;
    const R* at = std::upper_bound(sorted, behind, bound, [emitted](double time, R delay) {
      return time < static_cast<double>(ArrivalTime(emitted, delay));
    });
    if constexpr (!kForward) {
      if (at == sorted) return;
      --at;
    }
    if (at < behind) Push(source, emitted, sorted, at - sorted, after);
  }

  void Push(std::int64_t source, R emitted, const R* delays, std::int64_t position, double after) {
    const R time = ArrivalTime(emitted, delays[position]);
    const double at = static_cast<double>(time);
    if (!(at > after && at <= until_ && at < kNever)) return;
    heap_[size_++] = {time, static_cast<std::int32_t>(source), position};
    std::push_heap(heap_, heap_ + size_, After);
  }

  // Lines up spikes over a projection with a single delay.
  Waiting Line(const Projection<R>& projection, std::int64_t begin, std::int64_t end) const {
    Waiting line;
    line.waits = projection.n_delays() == 1 && projection.n_sources > 0;
    if (!line.waits) return line;
    line.delay = *projection.delays;
    line.begin = begin;
    line.end = end;
    line.next = kForward ? begin : end - 1;
    Advance(line);
    return line;
  }

  // The next in a line becomes its head.
  void Advance(Waiting& line) const {
    line.head.source = kNoIndex;
    line.head.time = kNone.time;
    while (kForward ? line.next < line.end : line.next >= line.begin) {
      const std::int64_t source = kForward ? line.next++ : line.next--;
      const R time = ArrivalTime(TimeOf(source), line.delay);
      const double at = static_cast<double>(time);
      const bool begun = at > AfterOf(source), ended = !(at <= until_ && at < kNever);
      if (begun && !ended) {
        line.head = {time, static_cast<std::int32_t>(source), 0};
        return;
      }
      // What follows in the line is later still; backwards, earlier still.
      if (kForward ? ended : !begun) return;
    }
  }

  // Loads every spike that may arrive before the top of the heap.
  void Refill() {
    if constexpr (kForward) {
      while (!input_.waits && next_input_ < first_own_) {
        const double emitted = static_cast<double>(TimeOf(next_input_));
        if (emitted > until_ || (size_ > 0 && emitted > static_cast<double>(heap_[0].time))) break;
        Load(next_input_++, -kNever);
      }
    } else {
      if (!input_.waits) Unwind(next_input_, first_input_ + p_.queue.head, longest_input_);
      if (!own_.waits) Unwind(next_own_, first_own_, longest_own_);
    }
    FindTop();
  }
  void Unwind(std::int64_t& next, std::int64_t first, R longest) {
    for (; next >= first; --next) {
      if (size_ > 0 && ArrivalTime(TimeOf(next), longest) < heap_[0].time) return;
      Load(next, -kNever);
    }
  }

  void FindTop() {
    top_ = size_ > 0 ? heap_ : &kNone;
    for (const Waiting* line : {&past_, &input_, &own_}) {
      if (line->head.source == kNoIndex) continue;
      if (top_->source == kNoIndex || After(*top_, line->head)) top_ = &line->head;
    }
  }

  const Network<R>& p_;
  const std::int64_t first_input_;
  const std::int64_t first_own_;
  const R* own_time_ = nullptr;
  const std::int32_t* own_index_ = nullptr;
  double until_ = 0;
  Cursor* heap_;
  std::int64_t size_ = 0;
  std::int64_t next_input_ = 0;
  std::int64_t next_own_ = 0;
  R longest_input_ = 0;
  R longest_own_ = 0;
  Waiting past_, input_, own_;
  const Cursor* top_ = &kNone;  // not a copy: what was just written in parts is slow to read whole
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_ARRIVALS_H_
