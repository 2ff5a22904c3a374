// How the way back over layers in time steps is cut into tasks, and where their gradients are
// summed.
#ifndef JAXSNN_CPU_STEPS_PLAN_H_
#define JAXSNN_CPU_STEPS_PLAN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/dense.h"
#include "cpu/huge_pages.h"
#include "cpu/lif_steps.h"
#include "cpu/parallel_for.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

// Examples that go back side by side: they share weights, and where their gradients go.
struct Block {
  std::int64_t begin, end;
};

// Blocks that add to the same sums, one after the other.
template <class R>
struct Group {
  std::int64_t begin, end;  // blocks
  R *weights, *recurrent;   // the slots of the gradients
  R *weight_sums, *recurrent_sums;
};

// All blocks and groups of a batch, which its shape alone decides, and the sums of the groups.
template <class R>
class Plan {
 public:
  Plan(const BatchSteps<R>& batch, const BatchStepsGradients<R>& gradients) : batch_(batch) {
    for (std::int64_t b = 0; b < batch.n_batch;) {
      const std::int64_t begin = b;
      const auto shared = [&](std::int64_t other) {
        return batch.weights[other] == batch.weights[begin] &&
               batch.recurrent[other] == batch.recurrent[begin] &&
               gradients.weights[other] == gradients.weights[begin] &&
               gradients.recurrent[other] == gradients.recurrent[begin];
      };
      while (b < batch.n_batch && shared(b)) ++b;
      AddRun(begin, b, gradients);
    }
    std::unordered_map<const R*, std::int64_t> of_weights, of_recurrent;
    for (const Group<R>& group : groups) {
      ++of_weights[group.weights];
      ++of_recurrent[group.recurrent];
    }
    const std::int64_t weights = batch.n_inputs * batch.n_neurons;
    const std::int64_t recurrent = batch.n_sources * batch.n_neurons;
    std::int64_t size = 0;
    const auto offset = [&size](std::int64_t n) { return (size += n) - n; };
    std::vector<std::pair<std::int64_t, std::int64_t>> offsets;
    for (const Group<R>& group : groups) {
      offsets.emplace_back(of_weights[group.weights] > 1 ? offset(weights) : -1,
                           of_recurrent[group.recurrent] > 1 ? offset(recurrent) : -1);
    }
    partial_ = std::make_unique_for_overwrite<R[]>(static_cast<std::size_t>(size));
    AdviseHugePages(partial_.get(), size);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto [w, r] = offsets[g];
      groups[g].weight_sums = w < 0 ? groups[g].weights : partial_.get() + w;
      groups[g].recurrent_sums = r < 0 ? groups[g].recurrent : partial_.get() + r;
    }
  }

  void Clear(const Group<R>& group) const {
    std::fill_n(group.weight_sums, batch_.n_inputs * batch_.n_neurons, R(0));
    std::fill_n(group.recurrent_sums, batch_.n_sources * batch_.n_neurons, R(0));
  }

  // Adds up the sums of the groups in ascending order.
  void Reduce(ThreadPool& pool) const {
    ReduceInto(pool, batch_.n_inputs * batch_.n_neurons, &Group<R>::weights,
               &Group<R>::weight_sums);
    ReduceInto(pool, batch_.n_sources * batch_.n_neurons, &Group<R>::recurrent,
               &Group<R>::recurrent_sums);
  }

  std::vector<Block> blocks;
  std::vector<Group<R>> groups;

 private:
  // Enough groups to share the work, and no more than there is memory for.
  void AddRun(std::int64_t begin, std::int64_t end, const BatchStepsGradients<R>& gradients) {
    constexpr std::int64_t kFewGroups = 16, kManyGroups = 256, kValues = std::int64_t{1} << 24;
    const std::int64_t size = (batch_.n_inputs + batch_.n_sources) * batch_.n_neurons;
    const std::int64_t most =
        std::clamp(kValues / std::max<std::int64_t>(size, 1), kFewGroups, kManyGroups);
    const std::int64_t n_blocks = (end - begin + kProductRows - 1) / kProductRows;
    const std::int64_t each = (n_blocks + most - 1) / most;
    for (std::int64_t first = 0; first < n_blocks; first += each) {
      const auto at = static_cast<std::int64_t>(blocks.size());
      const std::int64_t last = std::min(first + each, n_blocks);
      for (std::int64_t k = first; k < last; ++k) {
        const std::int64_t from = begin + k * kProductRows;
        blocks.push_back({from, std::min(from + kProductRows, end)});
      }
      groups.push_back({at, static_cast<std::int64_t>(blocks.size()), gradients.weights[begin],
                        gradients.recurrent[begin], nullptr, nullptr});
    }
  }

  void ReduceInto(ThreadPool& pool, std::int64_t size, R* Group<R>::* slot,
                  R* Group<R>::* sums) const {
    constexpr std::int64_t kChunk = 8192;
    const std::int64_t n_tasks = (size + kChunk - 1) / kChunk;
    const double cost = 0.2 * static_cast<double>(size * static_cast<std::int64_t>(groups.size()));
    const std::int64_t workers = NumWorkers(pool, n_tasks, cost);
    ParallelFor(pool, n_tasks, workers, [&](std::int64_t task, std::int64_t) {
      const std::int64_t from = task * kChunk, n = std::min(kChunk, size - from);
      const R* cleared = nullptr;
      for (const Group<R>& group : groups) {
        R* const out = group.*slot;
        if (group.*sums == out) continue;
        if (out != cleared) {
          Start(group, slot, from, n);
          cleared = out;
        }
        AddScaled(n, R(1), group.*sums + from, out + from);
      }
    });
  }

  // Clears a slot at the first group that adds to it.
  void Start(const Group<R>& group, R* Group<R>::* slot, std::int64_t from, std::int64_t n) const {
    const auto same = [&](const Group<R>& other) { return other.*slot == group.*slot; };
    if (&*std::find_if(groups.begin(), groups.end(), same) != &group) return;
    std::fill_n(group.*slot + from, n, R(0));
  }

  const BatchSteps<R>& batch_;
  std::unique_ptr<R[]> partial_;
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_STEPS_PLAN_H_
