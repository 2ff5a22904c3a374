// Gradients with respect to what several examples of a batch share.
#ifndef JAXSNN_CPU_REDUCTION_H_
#define JAXSNN_CPU_REDUCTION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/types.h"
#include "cpu/batch.h"
#include "cpu/parallel_for.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

// Each chunk of the batch adds to a copy of its own, and these are added up in the order of the
// chunks. Where every example has its own, or all are in one chunk, they add to the result.
template <class R>
class Reduction {
 public:
  Reduction(const Batched<R>& total, std::int64_t n_chunks) : total_(total), n_chunks_(n_chunks) {
    if (total.layout().n_slots() == 1 && n_chunks > 1) {
      partial_ = std::make_unique_for_overwrite<R[]>(static_cast<std::size_t>(stride() * n_chunks));
    } else {
      std::fill(total.data(), total.data() + total.size(), R(0));
    }
  }

  // Before anything is added to a chunk; on the thread that does it, whose caches hold it then.
  void Begin(std::int64_t chunk) { Begin(chunk, total_.core_size(), 0, total_.core_size()); }
  // The same for some columns, of rows of that size.
  void Begin(std::int64_t chunk, std::int64_t row_size, std::int64_t from, std::int64_t to) {
    if (!partial_) return;
    R* const part = Part(chunk);
    for (std::int64_t row = 0; row < total_.core_size(); row += row_size) {
      std::fill(part + row + from, part + row + to, R(0));
    }
  }
  R* Of(std::int64_t chunk, std::int64_t example) const {
    return partial_ ? Part(chunk) : total_[example];
  }
  void Finish(ThreadPool& pool) const {
    if (!partial_) return;
    constexpr std::int64_t kBlock = 2048;
    const std::int64_t size = total_.core_size();
    const std::int64_t n_blocks = (size + kBlock - 1) / kBlock;
    const double cost = 0.3 * static_cast<double>(size * n_chunks_);
    ParallelFor(pool, n_blocks, NumWorkers(pool, n_blocks, cost),
                [&](std::int64_t block, std::int64_t) {
                  const std::int64_t begin = block * kBlock;
                  Add(begin, std::min(kBlock, size - begin));
                });
  }

 private:
  // No two chunks, which different threads write to, have a cache line in common.
  std::int64_t stride() const {
    constexpr std::int64_t kLine = 64 / sizeof(R);
    return (total_.core_size() / kLine + 2) * kLine;
  }
  void Add(std::int64_t begin, std::int64_t n) const {
    R* JAXSNN_RESTRICT sum = total_.data() + begin;
    std::copy_n(Part(0) + begin, n, sum);
    for (std::int64_t chunk = 1; chunk < n_chunks_; ++chunk) {
      const R* JAXSNN_RESTRICT part = Part(chunk) + begin;
      for (std::int64_t k = 0; k < n; ++k) sum[k] += part[k];
    }
  }
  R* Part(std::int64_t chunk) const { return partial_.get() + chunk * stride(); }

  const Batched<R>& total_;
  const std::int64_t n_chunks_;
  std::unique_ptr<R[]> partial_;
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_REDUCTION_H_
