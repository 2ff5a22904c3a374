// The spikes of one interval, put into the order (time, neuron) at its end.
#ifndef JAXSNN_CORE_PENDING_SPIKES_H_
#define JAXSNN_CORE_PENDING_SPIKES_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/registers.h"
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
    for (double** lane : {&pending.time_, &pending.place_, &pending.sorted_}) {
      *lane = arena.Take<double>(pending.capacity_ + kPad);
    }
    pending.bucket_ = arena.Take<std::int32_t>(pending.capacity_ + 1);
    pending.order_ = arena.Take<std::int32_t>(pending.capacity_);
    for (std::int32_t** lane : {&pending.key_, &pending.rank_}) {
      *lane = arena.Take<std::int32_t>(kRanked + kInTurns * kKeys);
      if (*lane != nullptr) std::fill_n(*lane, kRanked + kInTurns * kKeys, 0);
    }
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

  // Puts them in order, for ForEach. All times lie from `begin` to `end`.
  void Sort(double begin, double end) {
    ranked_ = listed_ = false;
    if (size_ < 2) return;
    ranked_ = size_ <= kRanked && Rank(begin, end);
    listed_ = !ranked_ && Distribute();
    if (!ranked_ && !listed_) std::sort(spikes_, spikes_ + size_);
  }
  // body(number, spike) for those whose number in the order is below `limit`, one after the other
  // as it may be.
  template <class Body>
  void ForEach(std::int64_t limit, const Body& body) const {
    if (ranked_) {
      for (std::int64_t s = 0; s < size_; ++s) {
        if (rank_[s] < limit) body(static_cast<std::int64_t>(rank_[s]), spikes_[s]);
      }
      return;
    }
    const std::int64_t n = std::min(size_, limit);
    for (std::int64_t s = 0; s < n; ++s) body(s, spikes_[listed_ ? order_[s] : s]);
  }

 private:
  // Up to this many, to count for each spike how many come before it, in a loop that vectorises, is
  // fastest.
  static constexpr std::int64_t kKeys = kWideLanes<std::int32_t>;
  static constexpr std::int64_t kRanked = 8 * kKeys;
  static constexpr int kInTurns = 4;  // vectors
  static constexpr std::int64_t kPad = 8;

  // Compares times by integers. False: some of these are equal.
  bool Rank(double begin, double end) {
    constexpr double kRange = 1 << 30;
    const double scale = kRange / (end - begin);
    if (!(scale < kNever)) return false;
    for (std::int64_t s = 0; s < size_; ++s) {
      key_[s] = static_cast<std::int32_t>((spikes_[s].time - begin) * scale);
    }
    if (size_ <= kKeys) {
      RankLanes<1>(key_, rank_);
    } else {
      constexpr std::int64_t kRow = kInTurns * kKeys;
      for (std::int64_t s = 0; s < size_; s += kRow) RankLanes<kInTurns>(key_ + s, rank_ + s);
    }
    std::int64_t sum = 0;
    for (std::int64_t s = 0; s < size_; ++s) sum += rank_[s];
    return 2 * sum == size_ * (size_ - 1);
  }

  // How many of all keys come before those in some vectors, the sums of which do not wait for each
  // other.
  template <int kVectors>
  JAXSNN_INLINE void RankLanes(const std::int32_t* keys, std::int32_t* ranks) const {
    using Lanes = Registers<std::int32_t, kWideLanes<std::int32_t>>;
    using Vector = typename Lanes::type;
    Vector some[kVectors], earlier[kVectors];
    Unroll<kVectors>([&](int vector) JAXSNN_INLINE_LAMBDA {
      some[vector] = Lanes::Load(keys + vector * kKeys);
      earlier[vector] = Vector{};
    });
    for (std::int64_t s = 0; s < size_; ++s) {
      const Vector key = Vector{} + key_[s];
      Unroll<kVectors>([&](int vector) JAXSNN_INLINE_LAMBDA {
#if defined(JAXSNN_ISA_avx2)
        earlier[vector] -= key < some[vector];  // a mask of -1
#else
        earlier[vector] = key < some[vector] ? earlier[vector] + 1 : earlier[vector];
#endif
      });
    }
    Unroll<kVectors>([&](int vector) JAXSNN_INLINE_LAMBDA {
      Lanes::Store(earlier[vector], ranks + vector * kKeys);
    });
  }

  // The first and the last time, found in lanes.
  std::pair<double, double> Range() {
    double first[kPad], last[kPad];
    std::fill(time_ + size_, time_ + size_ + kPad, time_[0]);
    for (std::int64_t l = 0; l < kPad; ++l) first[l] = last[l] = time_[0];
    for (std::int64_t s = 0; s < size_; s += kPad) {
      for (std::int64_t l = 0; l < kPad; ++l) {
        const double time = time_[s + l];
        first[l] = time < first[l] ? time : first[l];
        last[l] = time > last[l] ? time : last[l];
      }
    }
    return {*std::min_element(first, first + kPad), *std::max_element(last, last + kPad)};
  }

  // Spreads the spikes over as many buckets as there are spikes, by their times, and puts what is
  // left in order by insertion. False: too many are close together for that.
  bool Distribute() {
    for (std::int64_t s = 0; s < size_; ++s) time_[s] = spikes_[s].time;
    const auto [first, last] = Range();
    const double scale = static_cast<double>(size_ - 1) / (last - first);
    if (!(scale < kNever)) return false;  // all times equal
    std::fill(bucket_, bucket_ + size_ + 1, 0);
    for (std::int64_t s = 0; s < size_; ++s) place_[s] = (time_[s] - first) * scale;
    for (std::int64_t s = 0; s < size_; ++s) ++bucket_[static_cast<std::int64_t>(place_[s]) + 1];
    for (std::int64_t b = 1; b < size_; ++b) bucket_[b] += bucket_[b - 1];
    for (std::int64_t s = 0; s < size_; ++s) {
      const std::int32_t at = bucket_[static_cast<std::int64_t>(place_[s])]++;
      order_[at] = static_cast<std::int32_t>(s);
      sorted_[at] = time_[s];
    }
    std::int64_t moves = 8 * size_;  // more than this, and sorting is faster
    for (std::int64_t s = 1; s < size_ && moves > 0; ++s) {
      const double time = sorted_[s];
      const std::int32_t spike = order_[s];
      std::int64_t at = s;
      for (; at > 0 && !(sorted_[at - 1] < time); --at, --moves) {
        if (sorted_[at - 1] == time && spikes_[order_[at - 1]].neuron <= spikes_[spike].neuron)
          break;
        sorted_[at] = sorted_[at - 1];
        order_[at] = order_[at - 1];
      }
      sorted_[at] = time;
      order_[at] = spike;
    }
    return moves > 0;
  }

  std::int64_t capacity_ = 0;
  Spike* spikes_ = nullptr;
  double *time_ = nullptr, *place_ = nullptr, *sorted_ = nullptr;
  std::int32_t *bucket_ = nullptr, *order_ = nullptr;
  std::int32_t *key_ = nullptr, *rank_ = nullptr;  // of each spike
  std::int64_t size_ = 0;
  bool ranked_ = false;  // in `rank_`
  bool listed_ = false;  // in `order_`
  bool cut_ = false;     // spikes from `cutoff_` on are not needed
  Spike cutoff_{};
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PENDING_SPIKES_H_
