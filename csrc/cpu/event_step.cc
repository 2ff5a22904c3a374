// Batch drivers of the single event.
#include "cpu/isa_begin.h"

#include "core/models/cuba_lif.h"
#include "core/step.h"
#include "cpu/assemble.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

using Model = CubaLif;

template <class R>
StepResult<R> MakeResult(const StepResults<R>& results, std::int64_t example) {
  const BatchState<R>& state = results.state;
  return {results.event_time[example],
          results.event_index[example],
          results.event_kind[example],
          state.v[example],
          state.i[example],
          state.release[example],
          state.time[example],
          state.head[example]};
}

template <class R>
std::size_t TableBytes(const BatchProblem<R>& batch) {
  Arena measure(nullptr);
  ConstantsTable<Model, R>::Take(measure, false, batch.n_neurons);
  return measure.used();
}

template <class R>
ConstantsTable<Model, R> MakeTable(std::byte* scratch, const Problem<R>& problem) {
  Arena arena(scratch);
  auto table =
      ConstantsTable<Model, R>::Take(arena, problem.uniform_time_constants(), problem.n_neurons);
  table.Fill(problem);
  return table;
}

// Nanoseconds for a step of a whole batch: a few exponentials per neuron.
template <class R>
double StepCost(const BatchProblem<R>& batch) {
  return 60.0 * static_cast<double>(batch.n_batch * batch.n_neurons);
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void EventStepForward(const BatchProblem<R>& batch, const StepResults<R>& results,
                      ThreadPool& pool) {
  if (batch.n_batch == 0) return;
  const internal::WeightCheck<R> weights(batch);
  const std::int64_t workers = NumWorkers(pool, batch.n_batch, StepCost(batch));
  const internal::Scratch scratch(workers, TableBytes(batch));
  ParallelFor(pool, batch.n_batch, workers, [&](std::int64_t b, std::int64_t worker) {
    const Problem<R> problem = internal::MakeProblem(batch, b);
    Outcome outcome = internal::CheckExample(problem, weights, b);
    if (outcome.ok()) {
      const auto table = MakeTable(scratch.of(worker), problem);
      outcome = StepForward<Model>(problem, table, MakeResult(results, b));
    }
    if (outcome.failed()) {
      internal::Poison(results.state, b, problem.queue.head);
      internal::FillNaN(results.event_time[b], 1);
      *results.event_index[b] = kNoIndex;
      *results.event_kind[b] = static_cast<std::int32_t>(EventKind::kNone);
    }
    results.outcome.Set(b, outcome);
  });
}

template <Isa isa, class R>
void EventStepBackward(const BatchProblem<R>& batch, const StepResults<R>& results,
                       const BatchCotangents<R>& cotangents, const BatchGradients<R>& gradients,
                       ThreadPool& pool) {
  const Batched<R>& total = gradients.weights;
  std::fill(total.data(), total.data() + total.size(), R(0));
  if (batch.n_batch == 0) return;
  const std::int64_t queue = batch.input_time.core_size();
  // One event adds at most one row to the weight gradient, so that examples which share it go one
  // after the other: their part is small beside the flow of the neurons, which is done in parallel.
  std::vector<R> rows(static_cast<std::size_t>(batch.n_batch * batch.n_neurons), R(0));
  const std::int64_t workers = NumWorkers(pool, batch.n_batch, StepCost(batch));
  const internal::Scratch scratch(workers, TableBytes(batch));
  const bool parameters = gradients.params.wanted;
  const auto neurons = static_cast<std::size_t>(parameters ? batch.n_neurons : 0);
  std::vector<NeuronGradients> each(neurons * static_cast<std::size_t>(workers));
  ParallelFor(pool, batch.n_batch, workers, [&](std::int64_t b, std::int64_t worker) {
    const Problem<R> problem = internal::MakeProblem(batch, b);
    NeuronGradients* const own = each.data() + static_cast<std::size_t>(worker) * neurons;
    std::fill(own, own + neurons, NeuronGradients());
    R* const row = rows.data() + b * batch.n_neurons;
    R* const times = gradients.input_time[b];
    std::fill(times, times + queue, R(0));
    Gradients<R> g = internal::MakeGradients(gradients, b, row, times);
    const Outcome outcome{static_cast<Status>(*results.outcome.status[b])};
    if (outcome.failed()) {
      for (R* lane : {row, g.v, g.i, g.release}) internal::FillNaN(lane, batch.n_neurons);
      internal::FillNaN(times, queue);
      g.time = g.t_max = std::numeric_limits<double>::quiet_NaN();
      if (parameters) internal::Poison(gradients.params, b);
    } else {
      const auto table = MakeTable(scratch.of(worker), problem);
      StepBackward<Model>(problem, table, MakeResult(results, b),
                          internal::MakeCotangents(cotangents, b), g, parameters ? own : nullptr);
      if (parameters) {
        WriteGradients(internal::MakeParamGradients(gradients.params, b, batch.n_neurons),
                       batch.n_neurons, own);
      }
    }
    *gradients.time[b] = static_cast<R>(g.time);
    *gradients.t_max[b] = static_cast<R>(g.t_max);
  });
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    const R* const row = rows.data() + b * batch.n_neurons;
    const bool failed = Outcome{static_cast<Status>(*results.outcome.status[b])}.failed();
    const bool input =
        *results.event_kind[b] == static_cast<std::int32_t>(EventKind::kInput) && !failed;
    if (failed) internal::FillNaN(total[b], total.core_size());
    if (!input) continue;
    R* const target = total[b] + *results.event_index[b] * batch.n_neurons;
    for (std::int64_t j = 0; j < batch.n_neurons; ++j) target[j] += row[j];
  }
}

#define JAXSNN_INSTANTIATE(R)                                                                   \
  template void EventStepForward<kIsa, R>(const BatchProblem<R>&, const StepResults<R>&,        \
                                          ThreadPool&);                                         \
  template void EventStepBackward<kIsa, R>(const BatchProblem<R>&, const StepResults<R>&,       \
                                           const BatchCotangents<R>&, const BatchGradients<R>&, \
                                           ThreadPool&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
