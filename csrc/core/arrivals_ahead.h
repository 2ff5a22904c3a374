// The arrivals of a reverse sweep, some of them ahead of the sweep, which is possible as all are
// known: with the solutions over the intervals between them, in a loop that vectorises.
#ifndef JAXSNN_CORE_ARRIVALS_AHEAD_H_
#define JAXSNN_CORE_ARRIVALS_AHEAD_H_

#include <cstdint>

#include "core/arrivals.h"
#include "core/propagators.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

template <class Model, class R>
class ArrivalsAhead {
  using Queue = ArrivalQueue<R, Direction::kBackward>;

 public:
  // `uniform`: the neurons share their time constants; else there are no solutions.
  ArrivalsAhead(Arena& arena, const Network<R>& network, std::int64_t capacity, bool uniform)
      : queue_(arena, network, capacity), uniform_(uniform) {
    arrivals_ = arena.Take<Arrival<R>>(kAhead);
    dt_ = arena.Take<double>(kAhead);
    lanes_ = PropagatorLanes<R>::Take(arena, uniform ? kAhead : 0);
  }

  // Everything that arrives up to `end`, of `n_own` spikes.
  void Start(const R* own_time, const std::int32_t* own_index, std::int64_t n_own, double end,
             const typename Model::Constants& shared) {
    shared_ = shared;
    last_ = end;
    queue_.Start(own_time, own_index, n_own, end);
    Refill();
  }

  bool empty() const { return next_ == size_; }
  // The next one, in the order of the sweep.
  const Arrival<R>& first() const { return arrivals_[next_]; }
  // Takes it.
  Arrival<R> Pop() {
    const Arrival<R> arrival = first();
    before_ = static_cast<double>(arrival.time);
    if (++next_ == size_) Refill();
    return arrival;
  }

  // Whether the time from `high` back to `low` is that between the last arrival, or the end of the
  // window, and the next one, over which solution() is.
  bool HasSolution(double high, double low) const {
    return uniform_ && !empty() && high == before_ && low == static_cast<double>(first().time);
  }
  PropagatorLanes<R> solution() const { return lanes_.At(next_); }

  const Queue& queue() const { return queue_; }

 private:
  static constexpr std::int64_t kAhead = 32;

  void Refill() {
    before_ = last_;
    next_ = size_ = 0;
    for (; size_ < kAhead && !queue_.empty(); ++size_) {
      arrivals_[size_] = queue_.Pop();
      const double time = static_cast<double>(arrivals_[size_].time);
      dt_[size_] = last_ - time;
      last_ = time;
    }
    if (uniform_) PropagateEach<Model>(size_, dt_, shared_, lanes_);
  }

  Queue queue_;
  const bool uniform_;
  typename Model::Constants shared_{};
  Arrival<R>* arrivals_;
  double* dt_;  // back to each arrival from the one before
  PropagatorLanes<R> lanes_;
  std::int64_t next_ = 0, size_ = 0;
  double before_ = 0;  // the time of the arrival taken last
  double last_ = 0;    // that of the last one out of the queue
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_ARRIVALS_AHEAD_H_
