// Lists of spikes: several as one in time order, those of some channels, or the first of each.
#ifndef JAXSNN_CPU_GATHER_SPIKES_H_
#define JAXSNN_CPU_GATHER_SPIKES_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/batch.h"
#include "cpu/parallel_for.h"

namespace jaxsnn {

// What is gathered: all spikes in time order, all as they stand, or the first one of each channel
// as it stands.
enum class Gather : std::int64_t { kInTimeOrder = 0, kAsTheyStand = 1, kFirstOfEach = 2 };

template <class R>
struct GatherProblem {
  std::int64_t n_batch = 1;
  Batched<const R> time;
  Batched<const std::int32_t> index;  // -1 for padding
  std::vector<std::int64_t> parts;    // lengths of the lists, which stand one behind the other
  std::int64_t begin = 0, end = 0;    // channels to gather, counted from the first one
  Gather rule = Gather::kInTimeOrder;
};

// Free places are padding: inf, or NaN where a list has NaN for a window that failed. Of the first
// ones, place k belongs to the k-th channel.
template <class R>
struct GatherResults {
  std::int64_t size = 0;
  Batched<R> time;
  Batched<std::int32_t> index;
  Batched<std::int32_t> position;  // of each spike in the lists, -1 for padding
  Batched<std::int32_t> count;     // of all spikes, of which the first `size` are there
};

namespace internal {

// Positions of the spikes of one example, in the order of the result; `spare` is as long.
template <class R>
std::int32_t* GatherPositions(const GatherProblem<R>& problem, std::int64_t example,
                              std::int32_t* positions, std::int32_t* spare) {
  const R* const time = problem.time[example];
  const std::int32_t* const index = problem.index[example];
  const auto earlier = [time](std::int32_t a, std::int32_t b) { return time[a] < time[b]; };
  std::int32_t* end = positions;
  std::int32_t at = 0;
  for (const std::int64_t size : problem.parts) {
    std::int32_t* const own = end;
    for (const auto stop = at + static_cast<std::int32_t>(size); at < stop; ++at) {
      if (index[at] >= problem.begin && index[at] < problem.end) *end++ = at;
    }
    if (problem.rule != Gather::kInTimeOrder) continue;
    if (!std::is_sorted(own, end, earlier)) std::stable_sort(own, end, earlier);
    if (own == positions || own == end || !earlier(*own, own[-1])) continue;
    std::copy(positions, end, spare);
    const auto n_before = own - positions;
    std::merge(spare, spare + n_before, spare + n_before, spare + (end - positions), positions,
               earlier);
  }
  return end;
}

template <class R>
bool HasNaN(const R* time, std::int64_t length) {
  return std::any_of(time, time + length, [](R t) { return std::isnan(t); });
}

template <class R>
void GatherFirst(const GatherProblem<R>& problem, const GatherResults<R>& results,
                 std::int64_t example) {
  const std::int64_t length = problem.time.core_size();
  const R* const from = problem.time[example];
  const std::int32_t* const from_index = problem.index[example];
  R* const time = results.time[example];
  std::int32_t* const index = results.index[example];
  std::int32_t* const position = results.position[example];
  const bool failed = HasNaN(from, length);
  std::fill(time, time + results.size,
            failed ? std::numeric_limits<R>::quiet_NaN() : std::numeric_limits<R>::infinity());
  std::fill(index, index + results.size, -1);
  std::fill(position, position + results.size, -1);
  std::int32_t count = 0;
  for (std::int64_t at = 0; !failed && at < length; ++at) {
    const std::int64_t k = from_index[at] - problem.begin;
    if (k < 0 || k >= std::min(problem.end - problem.begin, results.size)) continue;
    if (position[k] >= 0) continue;
    time[k] = from[at];
    index[k] = static_cast<std::int32_t>(k);
    position[k] = static_cast<std::int32_t>(at);
    ++count;
  }
  *results.count[example] = count;
}

}  // namespace internal

template <class R>
void GatherSpikes(const GatherProblem<R>& problem, const GatherResults<R>& results,
                  ThreadPool& pool) {
  const std::int64_t length = problem.time.core_size();
  const double cost = 10.0 * static_cast<double>((length + results.size) * problem.n_batch);
  const std::int64_t workers = NumWorkers(pool, problem.n_batch, cost);
  std::vector<std::int32_t> scratch(static_cast<std::size_t>(2 * workers * length));
  ParallelFor(pool, problem.n_batch, workers, [&](std::int64_t b, std::int64_t worker) {
    if (problem.rule == Gather::kFirstOfEach) return internal::GatherFirst(problem, results, b);
    std::int32_t* const positions = scratch.data() + 2 * worker * length;
    const auto n = static_cast<std::int64_t>(
        internal::GatherPositions(problem, b, positions, positions + length) - positions);
    const R* const from = problem.time[b];
    const std::int32_t* const from_index = problem.index[b];
    R* const time = results.time[b];
    std::int32_t* const index = results.index[b];
    std::int32_t* const position = results.position[b];
    const std::int64_t kept = std::min(n, results.size);
    for (std::int64_t k = 0; k < kept; ++k) {
      time[k] = from[positions[k]];
      index[k] = from_index[positions[k]] - static_cast<std::int32_t>(problem.begin);
    }
    std::copy(positions, positions + kept, position);
    if (kept < results.size) {
      const bool failed = internal::HasNaN(from, length);
      std::fill(time + kept, time + results.size,
                failed ? std::numeric_limits<R>::quiet_NaN() : std::numeric_limits<R>::infinity());
      std::fill(index + kept, index + results.size, -1);
      std::fill(position + kept, position + results.size, -1);
    }
    *results.count[b] = static_cast<std::int32_t>(n);
  });
}

// The gradient of the times of the lists, from that of the gathered ones.
template <class R>
void GatherSpikesBackward(const GatherResults<R>& results, const Batched<const R>& cotangent,
                          std::int64_t n_batch, const Batched<R>& gradient, ThreadPool& pool) {
  const std::int64_t length = gradient.core_size();
  const double cost = 3.0 * static_cast<double>((length + results.size) * n_batch);
  ParallelFor(pool, n_batch, NumWorkers(pool, n_batch, cost), [&](std::int64_t b, std::int64_t) {
    R* const out = gradient[b];
    const std::int32_t* const position = results.position[b];
    const R* const given = cotangent[b];
    std::fill(out, out + length, R(0));
    for (std::int64_t k = 0; k < results.size; ++k) {
      if (position[k] >= 0) out[position[k]] = given[k];
    }
  });
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_GATHER_SPIKES_H_
