// The parallel loop on a pool of real threads, and the layout of broadcast batches.
#include <atomic>
#include <thread>
#include <vector>

#include "cpu/batch.h"
#include "cpu/parallel_for.h"
#include "pool.h"
#include "test.h"

namespace {

void EveryTaskOnce() {
  test::Pool pool(3);
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::vector<int> done(97, 0);
    std::vector<std::vector<int>> per_worker(4);
    jaxsnn::ParallelFor(pool, 97, 4, [&](std::int64_t task, std::int64_t worker) {
      done[static_cast<std::size_t>(task)] += 1;
      per_worker[static_cast<std::size_t>(worker)].push_back(static_cast<int>(task));
    });
    std::size_t total = 0;
    for (const auto& tasks : per_worker) total += tasks.size();
    CHECK(total == done.size());
    for (const int count : done) CHECK(count == 1);
  }
}

// Loops called from the pool's own workers, more of them than there are threads: none may wait for
// a helper that cannot start.
void NestedLoopsDoNotBlock() {
  test::Pool pool(2);
  std::atomic<int> finished{0}, sum{0};
  constexpr int kLoops = 12;
  for (int loop = 0; loop < kLoops; ++loop) {
    pool.Schedule([&] {
      jaxsnn::ParallelFor(pool, 50, 2,
                          [&](std::int64_t task, std::int64_t) { sum += static_cast<int>(task); });
      ++finished;
    });
  }
  while (finished.load() < kLoops) std::this_thread::yield();
  CHECK(sum.load() == kLoops * 49 * 50 / 2);
}

void SmallWorkStaysWithTheCaller() {
  test::Pool pool(4);
  CHECK(jaxsnn::NumWorkers(pool, 100, 1e3) == 1);
  CHECK(jaxsnn::NumWorkers(pool, 100, 1e9) == 4);
  CHECK(jaxsnn::NumWorkers(pool, 2, 1e9) == 2);
  CHECK(jaxsnn::NumWorkers(pool, 0, 1e9) == 1);
}

void LayoutsBroadcast() {
  const jaxsnn::BatchLayout full({4, 5}, {4, 5}), shared({4, 5}, {1, 1}), rows({4, 5}, {4, 1}),
      columns({4, 5}, {1, 5});
  CHECK(full.full() && full.n_slots() == 20 && full.Slot(13) == 13);
  CHECK(!shared.full() && shared.n_slots() == 1 && shared.Slot(13) == 0);
  CHECK(!rows.full() && rows.n_slots() == 4 && rows.Slot(13) == 2);
  CHECK(!columns.full() && columns.n_slots() == 5 && columns.Slot(13) == 3);
  const jaxsnn::BatchLayout scalar({}, {});
  CHECK(scalar.full() && scalar.n_slots() == 1 && scalar.Slot(0) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  EveryTaskOnce();
  NestedLoopsDoNotBlock();
  SmallWorkStaysWithTheCaller();
  LayoutsBroadcast();
  return test::Report();
}
