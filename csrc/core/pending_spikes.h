// The spikes of one interval, put into the order (time, neuron) at its end.
#ifndef JAXSNN_CORE_PENDING_SPIKES_H_
#define JAXSNN_CORE_PENDING_SPIKES_H_

#include <algorithm>
#include <cstdint>

#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

template <class R>
class PendingSpikes {
 public:
  struct Spike {
    double time;
    R current;
    std::int32_t neuron;

    bool operator<(const Spike& other) const {
      return time != other.time ? time < other.time : neuron < other.neuron;
    }
  };

  // For a record that holds up to `room` further spikes.
  static PendingSpikes Take(Arena& arena, std::int64_t room) {
    PendingSpikes pending;
    pending.capacity_ = 2 * (room + 1);
    pending.spikes_ = arena.Take<Spike>(pending.capacity_);
    const std::int64_t ranked = std::min(pending.capacity_, kRanked) + kPad;
    for (double** lane : {&pending.time_, &pending.rank_}) *lane = arena.Take<double>(ranked);
    pending.order_ = arena.Take<std::int32_t>(ranked);
    return pending;
  }

  void Clear() {
    size_ = 0;
    cut_ = false;
  }
  std::int64_t size() const { return size_; }

  // False: the spike lies behind more spikes than the record has room for, and is not kept. A
  // neuron that fires without end therefore stops here, even where its time no longer advances.
  bool Add(const Spike& spike, std::int64_t room) {
    if (cut_ && !(spike < cutoff_)) return false;
    spikes_[size_++] = spike;
    if (size_ == capacity_) {  // one more than fits shows the overflow
      std::nth_element(spikes_, spikes_ + room, spikes_ + size_);
      size_ = room + 1;
      cutoff_ = spikes_[room];
      cut_ = true;
    }
    return true;
  }

  // Puts them in order, for operator[].
  void Sort() {
    ranked_ = size_ <= kRanked && Rank();
    if (!ranked_) std::sort(spikes_, spikes_ + size_);
  }
  const Spike& operator[](std::int64_t s) const { return spikes_[ranked_ ? order_[s] : s]; }

 private:
  // Up to this many, to count for each spike how many come before it, in a loop that vectorises, is
  // faster than sorting.
  static constexpr std::int64_t kRanked = 128;
  static constexpr std::int64_t kPad = 8;

  // False: some times are equal.
  bool Rank() {
    const std::int64_t padded = (size_ + kPad - 1) / kPad * kPad;
    double* JAXSNN_RESTRICT time = time_;
    double* JAXSNN_RESTRICT rank = rank_;
    for (std::int64_t s = 0; s < size_; ++s) {
      time[s] = spikes_[s].time;
      rank[s] = 0;
    }
    for (std::int64_t s = size_; s < padded; ++s) time[s] = rank[s] = 0;
    for (std::int64_t other = 0; other < size_; ++other) {
      const double other_time = time[other];
      for (std::int64_t s = 0; s < padded; ++s) rank[s] += other_time < time[s] ? 1.0 : 0.0;
    }
    std::int64_t sum = 0;
    for (std::int64_t s = 0; s < size_; ++s) {
      const auto at = static_cast<std::int64_t>(rank[s]);
      order_[at] = static_cast<std::int32_t>(s);
      sum += at;
    }
    return 2 * sum == size_ * (size_ - 1);
  }

  std::int64_t capacity_ = 0;
  Spike* spikes_ = nullptr;
  double *time_ = nullptr, *rank_ = nullptr;
  std::int32_t* order_ = nullptr;
  std::int64_t size_ = 0;
  bool ranked_ = false;
  bool cut_ = false;  // spikes from `cutoff_` on are not needed
  Spike cutoff_{};
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PENDING_SPIKES_H_
