// What a window leaves behind.
#ifndef JAXSNN_CORE_SPIKE_LOG_H_
#define JAXSNN_CORE_SPIKE_LOG_H_

#include <algorithm>
#include <cstdint>

#include "core/pending_spikes.h"
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

  void Set(std::int64_t s, const typename PendingSpikes<R>::Spike& spike, std::int64_t head) const {
    time[s] = static_cast<R>(spike.time);
    index[s] = spike.neuron;
    position[s] = static_cast<std::int32_t>(head);
    current[s] = spike.current;
  }
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

// The spikes of neurons that went through the window block after block, which the log wants in the
// order of time: sorted by the interval between arrivals that they lie in, in time linear in their
// number.
template <class R>
class SpikesByInterval {
  using Spike = typename PendingSpikes<R>::Spike;

 public:
  static SpikesByInterval Take(Arena& arena, std::int64_t capacity, std::int64_t n_intervals) {
    SpikesByInterval gathered;
    gathered.spikes_ = arena.Take<Spike>(capacity);
    gathered.interval_ = arena.Take<std::int32_t>(capacity);
    gathered.sorted_ = arena.Take<Spike>(capacity);
    gathered.end_ = arena.Take<std::int32_t>(n_intervals + 1);
    return gathered;
  }

  void Set(std::int64_t s, const Spike& spike, std::int64_t interval) {
    spikes_[s] = spike;
    interval_[s] = static_cast<std::int32_t>(interval);
  }

  // Writes the first `count` to the log, the interval numbers counted from `head`.
  void Write(std::int64_t count, std::int64_t n_intervals, std::int64_t head,
             const SpikeLog<R>& log) {
    std::fill(end_, end_ + n_intervals + 1, 0);
    for (std::int64_t s = 0; s < count; ++s) ++end_[interval_[s] + 1];
    for (std::int64_t k = 0; k < n_intervals; ++k) end_[k + 1] += end_[k];
    for (std::int64_t s = 0; s < count; ++s) sorted_[end_[interval_[s]]++] = spikes_[s];
    std::int64_t begin = 0;
    for (std::int64_t k = 0; k < n_intervals; ++k) {
      const std::int64_t end = end_[k];
      if (end - begin > 1) std::sort(sorted_ + begin, sorted_ + end);
      for (; begin < end; ++begin) log.Set(begin, sorted_[begin], head + k);
    }
  }

 private:
  Spike *spikes_ = nullptr, *sorted_ = nullptr;
  std::int32_t* interval_ = nullptr;
  std::int32_t* end_ = nullptr;  // of each interval, in sorted order
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_SPIKE_LOG_H_
