// A parallel loop on somebody else's thread pool that can never block it.
#ifndef JAXSNN_CPU_PARALLEL_FOR_H_
#define JAXSNN_CPU_PARALLEL_FOR_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
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

namespace parallel {

// A loop that is being run, alive for as long as anybody looks at it.
//
// Every worker has a range of the tasks that it starts with, and helps others when it is through.
// Loops over the same batch follow each other: this way a worker mostly meets what it wrote itself
// a moment ago, in its own cache.
class Loop {
 public:
  using Body = std::function<void(std::int64_t, std::int64_t)>;

  Loop(std::int64_t n_tasks, std::int64_t n_workers, const Body& body)
      : n_tasks_(n_tasks), n_ranges_(n_workers), body_(&body), ranges_(new Range[n_workers]) {
    for (std::int64_t r = 0; r < n_ranges_; ++r) ranges_[r].next = Begin(r);
  }

  // As one more helper, besides the caller, which is worker 0.
  bool Help() { return Work(1 + helpers_.fetch_add(1)); }
  // Returns whether there was anything left to do.
  bool Work(std::int64_t worker) {
    bool any = false;
    for (std::int64_t k = 0; k < n_ranges_; ++k) {
      const std::int64_t r = (worker + k) % n_ranges_;
      const std::int64_t end = Begin(r + 1);
      std::int64_t done = 0, task;
      for (; (task = ranges_[r].next.fetch_add(1)) < end; ++done) (*body_)(task, worker);
      if (done > 0) done_.fetch_add(done, std::memory_order_release);
      any |= done > 0;
    }
    return any;
  }
  bool done() const { return done_.load(std::memory_order_acquire) == n_tasks_; }

 private:
  struct alignas(64) Range {
    std::atomic<std::int64_t> next;
  };

  std::int64_t Begin(std::int64_t range) const { return n_tasks_ * range / n_ranges_; }

  const std::int64_t n_tasks_;
  const std::int64_t n_ranges_;
  const Body* const body_;  // alive until all tasks are done
  const std::unique_ptr<Range[]> ranges_;
  // Apart from what every worker reads for every task.
  alignas(64) std::atomic<std::int64_t> done_{0};
  std::atomic<std::int64_t> helpers_{0};
};
using SharedLoop = std::shared_ptr<Loop>;

// Helpers that stay awake for a moment after a loop, because the next one often follows at once and
// waking a thread takes longer than many loops last. Each occupies a slot, which goes from null
// over Awake() to a loop that is handed to it.
class Standby {
 public:
  // Hands the loop to helpers that are awake, at most `wanted`. Returns how many took it.
  std::int64_t Offer(const SharedLoop& loop, std::int64_t wanted) {
    std::int64_t taken = 0;
    if (wanted == 0 || n_awake_.load(std::memory_order_relaxed) == 0) return 0;
    auto handle = std::make_unique<SharedLoop>(loop);
    for (auto& slot : slots_) {
      SharedLoop* expected = Awake();
      if (!slot.compare_exchange_strong(expected, handle.get(), std::memory_order_release,
                                        std::memory_order_relaxed)) {
        continue;
      }
      static_cast<void>(handle.release());
      if (++taken == wanted) break;
      handle = std::make_unique<SharedLoop>(loop);
    }
    return taken;
  }

  // Waits for a loop; null if none comes.
  SharedLoop Await() {
    for (auto& slot : slots_) {
      SharedLoop* expected = nullptr;
      if (!slot.compare_exchange_strong(expected, Awake(), std::memory_order_relaxed)) continue;
      n_awake_.fetch_add(1, std::memory_order_relaxed);
      SharedLoop loop = AwaitIn(slot);
      n_awake_.fetch_sub(1, std::memory_order_relaxed);
      return loop;
    }
    return nullptr;
  }

 private:
  using Slot = std::atomic<SharedLoop*>;

  SharedLoop AwaitIn(Slot& slot) {
    constexpr std::chrono::microseconds kPatience(100);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    SharedLoop* found;
    while ((found = slot.load(std::memory_order_acquire)) == Awake()) {
      if (std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
      } else if (slot.compare_exchange_strong(found, nullptr, std::memory_order_acquire)) {
        return nullptr;
      }
    }
    const std::unique_ptr<SharedLoop> handle(found);
    slot.store(nullptr, std::memory_order_relaxed);
    return std::move(*handle);
  }

  SharedLoop* Awake() { return &awake_; }

  std::array<Slot, 64> slots_{};
  SharedLoop awake_;  // its address marks the slot of a helper that waits
  std::atomic<std::int64_t> n_awake_{0};
};

inline Standby standby;

// A helper that comes too late shares its processor with others, and staying awake would only take
// time from them.
inline void Help(SharedLoop loop) {
  while (loop != nullptr && loop->Help()) loop = standby.Await();
}

}  // namespace parallel

// Calls body(task, worker) for every task. The caller works too and takes tasks like its helpers;
// in the end it waits only for tasks that already run on some thread. A helper that comes too late,
// even after this function has returned, finds nothing to claim and touches nothing else. The body
// must not throw.
inline void ParallelFor(ThreadPool& pool, std::int64_t n_tasks, std::int64_t n_workers,
                        const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (n_workers <= 1) {
    for (std::int64_t task = 0; task < n_tasks; ++task) body(task, 0);
    return;
  }
  const auto loop = std::make_shared<parallel::Loop>(n_tasks, n_workers, body);
  const std::int64_t wanted = n_workers - 1;
  for (std::int64_t h = parallel::standby.Offer(loop, wanted); h < wanted; ++h) {
    pool.Schedule([loop] { parallel::Help(loop); });
  }
  loop->Work(0);
  while (!loop->done()) std::this_thread::yield();
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_PARALLEL_FOR_H_
