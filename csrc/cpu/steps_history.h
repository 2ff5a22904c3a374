// What the way back over a layer in time steps leaves for the gradients of weights.
#ifndef JAXSNN_CPU_STEPS_HISTORY_H_
#define JAXSNN_CPU_STEPS_HISTORY_H_

#include <algorithm>
#include <cstdint>

#include "core/dense.h"
#include "core/view.h"
#include "cpu/lif_steps.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

// Adjoints of the currents over some steps of a block. The rows of a gradient that spikes add them
// to do not fit the nearest cache: this way each is fetched once for all spikes of these steps.
template <class R>
class StepsHistory {
 public:
  static StepsHistory Take(Arena& arena, const BatchSteps<R>& batch) {
    const std::int64_t n_left = std::max(batch.n_inputs, batch.n_sources);
    StepsHistory s;
    s.n_neurons_ = batch.n_neurons;
    s.length_ = Length(batch, n_left);
    const std::int64_t n_rows = kProductRows * s.length_;
    s.adjoints_ = arena.Take<R>(n_rows * s.n_neurons_);
    s.counts_ = arena.Take<std::int64_t>(n_rows);
    s.ends_ = arena.Take<std::int64_t>(n_left + 1);
    s.found_ = arena.Take<std::int32_t>(n_rows * n_left + kIndexRoom);
    s.sorted_ = arena.Take<std::int32_t>(n_rows * n_left);
    return s;
  }

  // Those of a step, from -1 on, of a row of the block. Steps next to each other do not overlap.
  R* At(std::int64_t row, std::int64_t t) const {
    return adjoints_ + (row * length_ + (t + length_) % length_) * n_neurons_;
  }

  // Whether step t, of steps in descending order, was the last that there is room for.
  bool Complete(std::int64_t t) const { return t % length_ == 0; }

  // sums[k, :] += x(row, t)[k] * adjoints of all rows and of the steps kept, from `first` on: in
  // ascending order of rows, and of steps.
  template <class Left>
  void AddOuter(std::int64_t n_rows, std::int64_t first, std::int64_t n_steps, std::int64_t n_left,
                const Left& x, R* sums) {
    const std::int64_t last = std::min(first + length_, n_steps);
    std::fill_n(ends_, n_left + 1, std::int64_t{0});
    std::int64_t total = 0;
    for (std::int64_t row = 0; row < n_rows; ++row) {
      for (std::int64_t t = first; t < last; ++t) {
        std::int32_t* const found = found_ + total;
        const std::int64_t count = FindNonzeros(n_left, x(row, t), found);
        for (std::int64_t c = 0; c < count; ++c) ++ends_[found[c] + 1];
        counts_[row * length_ + (t - first)] = count;
        total += count;
      }
    }
    for (std::int64_t k = 0; k < n_left; ++k) ends_[k + 1] += ends_[k];
    const std::int32_t* found = found_;
    for (std::int64_t row = 0; row < n_rows; ++row) {
      for (std::int64_t t = first; t < last; ++t) {
        const std::int64_t at = row * length_ + (t - first);
        for (std::int64_t c = 0; c < counts_[at]; ++c) {
          sorted_[ends_[*found++]++] = static_cast<std::int32_t>(at);
        }
      }
    }
    for (std::int64_t k = 0, begin = 0; k < n_left; begin = ends_[k++]) {
      const auto factor = [&](std::int32_t at) { return x(at / length_, first + at % length_)[k]; };
      AddRows(n_neurons_, adjoints_, sorted_ + begin, ends_[k] - begin, factor,
              sums + k * n_neurons_);
    }
  }

 private:
  // As many steps as a cache holds beside recurrent weights, in the worst case with all indices.
  static std::int64_t Length(const BatchSteps<R>& batch, std::int64_t n_left) {
    constexpr std::int64_t kBytes = std::int64_t{1} << 19, kIndices = std::int64_t{1} << 18;
    const std::int64_t row = kProductRows * batch.n_neurons * static_cast<std::int64_t>(sizeof(R));
    const std::int64_t indices = std::max<std::int64_t>(kProductRows * n_left, 1);
    const std::int64_t most = std::max<std::int64_t>(batch.n_steps, 2);
    return std::clamp<std::int64_t>(std::min(kBytes / row, kIndices / indices), 2, most);
  }

  std::int64_t n_neurons_ = 0, length_ = 0;
  R* adjoints_ = nullptr;
  std::int64_t *counts_ = nullptr, *ends_ = nullptr;
  std::int32_t *found_ = nullptr, *sorted_ = nullptr;
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_STEPS_HISTORY_H_
