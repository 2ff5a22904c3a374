// The queue of incoming spikes: arrays in time order with a head that moves on.
//
// Order at equal times: an arrival comes before a crossing, arrivals in queue order, crossings in
// neuron order. A refractory period that ends with an arrival ends before it.
#ifndef JAXSNN_CORE_SPIKE_QUEUE_H_
#define JAXSNN_CORE_SPIKE_QUEUE_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

template <class R>
struct SpikeQueue {
  const R* time = nullptr;
  const std::int32_t* index = nullptr;
  std::int64_t size = 0;
  std::int64_t head = 0;

  // The time of an entry, kNever behind the last one.
  JAXSNN_HD double TimeAt(std::int64_t entry) const {
    return entry < size ? static_cast<double>(time[entry]) : kNever;
  }

  // What every sweep relies on: a head inside the queue; times that ascend from `now`; padding
  // (index -1, time +inf) only behind the spikes; every other index the number of an input.
  JAXSNN_HD Outcome Check(double now, std::int64_t n_inputs) const {
    if (head < 0 || head > size) {
      return {Status::kInvalidValue, Argument::kInputHead, 0, static_cast<double>(head)};
    }
    if (Sound(now, n_inputs)) return {};
    double previous = now;
    for (std::int64_t k = head; k < size; ++k) {
      const double at = static_cast<double>(time[k]);
      if (std::isnan(at)) return {Status::kNonFinite, Argument::kInputTime, k, at};
      if (at < previous) return {Status::kUnsortedInput, Argument::kInputTime, k, at};
      const bool padding = index[k] == kNoIndex && at == kNever;
      if (!padding && (index[k] < 0 || index[k] >= n_inputs)) {
        return {Status::kInvalidValue, Argument::kInputIndex, k, static_cast<double>(index[k])};
      }
      previous = at;
    }
    return {};
  }

 private:
  // The same without saying what is wrong, in a loop that vectorises.
  JAXSNN_HD bool Sound(double now, std::int64_t n_inputs) const {
    if (head == size) return true;
    const auto inputs =
        static_cast<std::int32_t>(n_inputs < std::numeric_limits<std::int32_t>::max()
                                      ? n_inputs
                                      : std::numeric_limits<std::int32_t>::max());
    const R* JAXSNN_RESTRICT times = time;
    const std::int32_t* JAXSNN_RESTRICT indices = index;
    Mask<R> sound = static_cast<Mask<R>>(static_cast<double>(times[head]) >= now);
    for (std::int64_t k = head + 1; k < size; ++k) {
      sound &= static_cast<Mask<R>>(times[k] >= times[k - 1]);
    }
    for (std::int64_t k = head; k < size; ++k) {
      const bool input = (indices[k] >= 0) & (indices[k] < inputs);
      const bool padding = (indices[k] == kNoIndex) & (times[k] == static_cast<R>(kNever));
      sound &= static_cast<Mask<R>>(input | padding);
    }
    return sound != 0;
  }
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_SPIKE_QUEUE_H_
