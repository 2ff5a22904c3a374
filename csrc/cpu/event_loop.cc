// Batch drivers of the whole-window sweeps.
#include "cpu/isa_begin.h"

#include "core/adjoint.h"
#include "core/forward.h"
#include "core/models/cuba_lif.h"
#include "cpu/assemble.h"
#include "cpu/reduction.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

// A rough price of one sweep over some neurons, in nanoseconds: it only has to tell a window that
// is worth sharing between threads from one that is not.
template <class R>
double SweepCost(const BatchProblem<R>& batch, std::int64_t capacity, std::int64_t n_neurons) {
  const auto arrivals = static_cast<double>(batch.input_time.core_size() + 1);
  const auto neurons = static_cast<double>(n_neurons);
  return arrivals * (40 + 0.3 * neurons) +
         100 * std::min(static_cast<double>(capacity), 4 * neurons);
}

// How the reverse sweep of a batch is cut into tasks. The cut follows from the shapes alone, so
// that sums come out the same for any number of threads. Wide layers are cut by neurons, which
// share no weight gradient; narrow ones by examples, with a weight gradient per chunk that stays
// small.
struct ReverseCut {
  std::int64_t n_chunks;
  std::int64_t n_blocks;
  std::int64_t block;
};

template <class R>
ReverseCut CutReverse(const BatchProblem<R>& batch, const Batched<R>& weights) {
  constexpr std::int64_t kTasks = 16;  // enough to keep the threads of a desktop busy to the end
  constexpr std::int64_t kBlock = 128;
  constexpr std::int64_t kPartialBytes = 1 << 20;
  std::int64_t chunks = std::min(batch.n_batch, kTasks);
  if (weights.layout().n_slots() == 1) {
    const auto bytes = static_cast<std::int64_t>(sizeof(R)) * weights.core_size();
    chunks = std::min(chunks,
                      std::max<std::int64_t>(1, kPartialBytes / std::max<std::int64_t>(1, bytes)));
  } else if (!weights.layout().full()) {
    chunks = 1;
  }
  if (chunks >= std::min(batch.n_batch, kTasks)) return {chunks, 1, batch.n_neurons};
  const std::int64_t blocks = (batch.n_neurons + kBlock - 1) / kBlock;
  return {chunks, std::max<std::int64_t>(1, blocks), kBlock};
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void EventLoopForward(const BatchProblem<R>& batch, const LoopResults<R>& results,
                      ThreadPool& pool) {
  using Sweep = ForwardSweep<CubaLif, R>;
  if (batch.n_batch == 0) return;
  const internal::WeightCheck<R> weights(batch);
  constexpr double kTaskCost = 5e3;
  const double cost = SweepCost(batch, results.max_events, batch.n_neurons);
  const auto per_task = std::max<std::int64_t>(1, static_cast<std::int64_t>(kTaskCost / cost));
  const std::int64_t n_tasks = (batch.n_batch + per_task - 1) / per_task;
  const std::int64_t workers = NumWorkers(pool, n_tasks, cost * static_cast<double>(batch.n_batch));
  internal::Sweeps<Sweep, R> sweeps(workers, internal::MakeProblem(batch, 0), results.max_events);
  ParallelFor(pool, n_tasks, workers, [&](std::int64_t task, std::int64_t worker) {
    auto& [problem, sweep] = sweeps.of(worker);
    const std::int64_t end = std::min(batch.n_batch, (task + 1) * per_task);
    for (std::int64_t b = task * per_task; b < end; ++b) {
      problem = internal::MakeProblem(batch, b);
      Outcome outcome = internal::CheckExample(problem, weights, b);
      if (outcome.ok()) {
        outcome = sweep.Run(internal::MakeLog(results, b), internal::MakeEnd(results, b));
      }
      if (outcome.failed()) internal::PoisonLoop(results, b, problem.queue.head);
      results.outcome.Set(b, outcome);
    }
  });
}

template <Isa isa, class R>
SpikeCount CountSpikes(const BatchProblem<R>& batch, std::int64_t example, std::int64_t limit) {
  using Sweep = ForwardSweep<CubaLif, R>;
  internal::OwnResults<R> results(limit, batch.n_neurons);
  internal::Sweeps<Sweep, R> sweeps(1, internal::MakeProblem(batch, example), limit);
  const Outcome outcome = sweeps.of(0).sweep.Run(results.log(), results.end());
  return {results.count, outcome.ok()};
}

template <Isa isa, class R>
void EventLoopBackward(const BatchProblem<R>& batch, const LoopResults<R>& results,
                       const BatchCotangents<R>& cotangents, const BatchGradients<R>& gradients,
                       ThreadPool& pool) {
  using Sweep = ReverseSweep<CubaLif, R>;
  const ReverseCut cut = CutReverse(batch, gradients.weights);
  internal::Reduction<R> weights(gradients.weights, cut.n_chunks);
  if (batch.n_batch == 0) return;
  const std::int64_t queue = batch.input_time.core_size();

  // What several blocks contribute to is collected apart and added up in a fixed order below.
  const bool split = cut.n_blocks > 1;
  const std::int64_t times = gradients.want_input_time && split ? batch.n_batch * queue : 0;
  std::vector<R> partial_times(static_cast<std::size_t>(cut.n_blocks * times), R(0));
  std::vector<double> partial_ends(static_cast<std::size_t>(cut.n_blocks * batch.n_batch), 0.0);

  const std::int64_t n_tasks = cut.n_chunks * cut.n_blocks;
  const double cost = SweepCost(batch, results.max_events, batch.n_neurons);
  const std::int64_t workers = NumWorkers(pool, n_tasks, cost * static_cast<double>(batch.n_batch));
  internal::Sweeps<Sweep, R> sweeps(workers, internal::MakeProblem(batch, 0), results.max_events,
                                    std::min(cut.block, batch.n_neurons));

  ParallelFor(pool, n_tasks, workers, [&](std::int64_t task, std::int64_t worker) {
    auto& [problem, sweep] = sweeps.of(worker);
    const std::int64_t chunk = task / cut.n_blocks, block = task % cut.n_blocks;
    const std::int64_t j0 = block * cut.block;
    const std::int64_t j1 = std::min(j0 + cut.block, batch.n_neurons);
    weights.Begin(chunk, batch.n_neurons, j0, j1);
    const std::int64_t end = batch.n_batch * (chunk + 1) / cut.n_chunks;
    for (std::int64_t b = batch.n_batch * chunk / cut.n_chunks; b < end; ++b) {
      problem = internal::MakeProblem(batch, b);
      const Outcome outcome{static_cast<Status>(*results.outcome.status[b])};
      R* t = split ? partial_times.data() + block * times + b * queue : gradients.input_time[b];
      if (!split) std::fill(t, t + queue, R(0));
      if (!gradients.want_input_time) t = nullptr;
      Gradients<R> g = internal::MakeGradients(gradients, b, weights.Of(chunk, b), t);
      if (outcome.failed()) {
        internal::Poison(g, gradients, b, j0, j1);
        g.time = g.t_max = std::numeric_limits<double>::quiet_NaN();
      } else {
        sweep.Run(j0, j1, internal::MakeLog(results, b), internal::MakeEnd(results, b),
                  outcome.status, internal::MakeCotangents(cotangents, b), g);
      }
      partial_ends[static_cast<std::size_t>(block * batch.n_batch + b)] = g.time;
      if (block == 0) *gradients.t_max[b] = static_cast<R>(g.t_max);
    }
  });

  weights.Finish(pool);
  const Batched<R>& total_times = gradients.input_time;
  if (split) std::fill(total_times.data(), total_times.data() + total_times.size(), R(0));
  for (std::int64_t block = 0; split && block < cut.n_blocks; ++block) {
    const R* partial = partial_times.data() + block * times;
    for (std::int64_t k = 0; k < times; ++k) total_times.data()[k] += partial[k];
  }
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    double sum = 0;
    for (std::int64_t block = 0; block < cut.n_blocks; ++block) {
      sum += partial_ends[static_cast<std::size_t>(block * batch.n_batch + b)];
    }
    *gradients.time[b] = static_cast<R>(sum);
  }
}

#define JAXSNN_INSTANTIATE(R)                                                                   \
  template void EventLoopForward<kIsa, R>(const BatchProblem<R>&, const LoopResults<R>&,        \
                                          ThreadPool&);                                         \
  template SpikeCount CountSpikes<kIsa, R>(const BatchProblem<R>&, std::int64_t, std::int64_t); \
  template void EventLoopBackward<kIsa, R>(const BatchProblem<R>&, const LoopResults<R>&,       \
                                           const BatchCotangents<R>&, const BatchGradients<R>&, \
                                           ThreadPool&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
