// A parallel loop on somebody else's thread pool that can never block it.
#ifndef JAXSNN_CPU_PARALLEL_FOR_H_
#define JAXSNN_CPU_PARALLEL_FOR_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace jaxsnn {

class ThreadPool {
 public:
  virtual ~ThreadPool() = default;
  virtual std::int64_t num_threads() const = 0;
  virtual void Schedule(std::function<void()> task) = 0;
};

// How many workers a loop should have: no more than it has tasks, and none but the caller where the
// whole loop costs less than waking others up, about 20 us.
inline std::int64_t NumWorkers(const ThreadPool& pool, std::int64_t n_tasks, double nanoseconds) {
  constexpr double kWorthSharing = 2e4;
  if (nanoseconds < kWorthSharing) return 1;
  return std::max<std::int64_t>(1, std::min(pool.num_threads(), n_tasks));
}

// Calls body(task, worker) for every task. The caller works too and claims tasks like its helpers;
// in the end it waits only for tasks that already run on some thread. A helper that the pool starts
// too late, even after this function has returned, finds nothing to claim and touches nothing else.
// The body must not throw.
inline void ParallelFor(ThreadPool& pool, std::int64_t n_tasks, std::int64_t n_workers,
                        const std::function<void(std::int64_t, std::int64_t)>& body) {
  struct Shared {
    std::atomic<std::int64_t> claimed{0};
    std::atomic<std::int64_t> done{0};
    std::atomic<std::int64_t> helpers{0};
  };
  const auto shared = std::make_shared<Shared>();
  const auto* const shared_body = &body;  // alive until all tasks are done
  const auto work = [shared, shared_body, n_tasks](std::int64_t worker) {
    std::int64_t task;
    while ((task = shared->claimed.fetch_add(1)) < n_tasks) {
      (*shared_body)(task, worker);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (std::int64_t h = 1; h < n_workers; ++h) {
    pool.Schedule([shared, work] { work(1 + shared->helpers.fetch_add(1)); });
  }
  work(0);
  while (shared->done.load(std::memory_order_acquire) < n_tasks) std::this_thread::yield();
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_PARALLEL_FOR_H_
