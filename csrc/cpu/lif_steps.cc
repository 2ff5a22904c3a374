// Batch driver of layers in time steps: the way forward takes one sample after the other, the way
// back a few of them side by side, so that products with recurrent weights are matrix products.
#include "cpu/lif_steps.h"

#include <unordered_map>

#include "cpu/huge_pages.h"
#include "cpu/isa_begin.h"

#include "core/dense.h"
#include "core/lif_steps.h"
#include "cpu/assemble.h"
#include "cpu/steps_backward.h"
#include "cpu/steps_plan.h"
#include "cpu/steps_projection.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

using internal::BackwardScratch;
using internal::Block;
using internal::BlockSweep;
using internal::CurrentRows;
using internal::Group;
using internal::Plan;
using internal::Scratch;
using internal::StepsPanels;

// Nanoseconds for a pass over all examples: elementwise work, a scan of the inputs, and rows.
template <class R>
double PassCost(const BatchSteps<R>& batch) {
  const auto steps = static_cast<double>(batch.n_batch * batch.n_steps);
  const auto neurons = static_cast<double>(batch.n_neurons);
  return steps * (10 + 0.5 * neurons + 0.1 * static_cast<double>(batch.n_inputs));
}

// Forward

template <class R>
struct ForwardScratch {
  R *lanes, *v, *i;
  std::int32_t* hold;
  CurrentRows<R> rows;

  static ForwardScratch Take(Arena& arena, const BatchSteps<R>& batch, StepsPanels<R>* panels) {
    ForwardScratch s;
    s.lanes = arena.Take<R>(6 * batch.n_neurons);
    s.v = arena.Take<R>(batch.n_neurons);
    s.i = arena.Take<R>(batch.n_neurons);
    s.hold = arena.Take<std::int32_t>(batch.n_neurons);
    s.rows = CurrentRows<R>::Take(arena, batch, panels);
    return s;
  }
};

template <class R, bool kBefore, bool kHold>
void ForwardExample(const BatchSteps<R>& batch, const BatchStepsResults<R>& results, std::int64_t b,
                    ForwardScratch<R>& s) {
  const std::int64_t n = batch.n_neurons;
  const StepLanes<R> lanes = internal::MakeLanes(batch, b, s.lanes);
  std::copy_n(batch.v[b], n, s.v);
  std::copy_n(batch.i[b], n, s.i);
  std::copy_n(batch.hold[b], n, s.hold);
  const R* before = batch.spikes[b];
  for (std::int64_t t = 0; t < batch.n_steps; ++t) {
    R* const z = results.spikes[b] + t * n;
    const R* const arriving = s.rows.At(batch, b, t, before);
    StepLanesForward<R, kBefore, kHold>(lanes, batch.refractory, n, arriving, s.v, s.i, s.hold,
                                        results.voltage[b] + t * n, z);
    before = z;
  }
  std::copy_n(s.v, n, results.v[b]);
  std::copy_n(s.i, n, results.i[b]);
  std::copy_n(s.hold, n, results.hold[b]);
}

// Backward

// The panels that a block needs, made anew where its weights are not those of the block before.
template <class R>
void PreparePanels(const BatchSteps<R>& batch, const BatchStepsGradients<R>& gradients,
                   std::int64_t example, BackwardScratch<R>& s, const R*& weights,
                   const R*& recurrent) {
  const std::int64_t n = batch.n_neurons;
  if (batch.n_sources > 0 && recurrent != batch.recurrent[example]) {
    recurrent = batch.recurrent[example];
    PackPanels<R, true>(n, n, recurrent, s.recurrent_panels);
  }
  if (gradients.want_inputs && weights != batch.weights[example]) {
    weights = batch.weights[example];
    PackPanels<R, true>(n, batch.n_inputs, weights, s.weight_panels);
  }
}

// Calls body.operator()<shape>().
template <class Body>
void OnShape(int shape, const Body& body) {
  using enum SurrogateShape;
  switch (static_cast<SurrogateShape>(shape)) {
    case kSuperspike:
      return body.template operator()<kSuperspike>();
    case kSigmoid:
      return body.template operator()<kSigmoid>();
    case kArctan:
      return body.template operator()<kArctan>();
    case kTriangle:
      return body.template operator()<kTriangle>();
    case kGaussian:
      return body.template operator()<kGaussian>();
  }
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void LifStepsForward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                     ThreadPool& pool) {
  if (batch.n_batch == 0) return;
  AdviseHugePages(results.spikes.data(), results.spikes.size());
  AdviseHugePages(results.voltage.data(), results.voltage.size());
  const std::int64_t workers = NumWorkers(pool, batch.n_batch, PassCost(batch));
  std::vector<StepsPanels<R>> panels(static_cast<std::size_t>(workers));
  Arena measure(nullptr);
  ForwardScratch<R>::Take(measure, batch, nullptr);
  const Scratch scratch(workers, measure.used());
  ParallelFor(pool, batch.n_batch, workers, [&](std::int64_t b, std::int64_t worker) {
    Arena arena(scratch.of(worker));
    auto own = ForwardScratch<R>::Take(arena, batch, &panels[static_cast<std::size_t>(worker)]);
    const bool hold = batch.refractory > 0;
    const auto run =
        batch.jump_first
            ? (hold ? ForwardExample<R, true, true> : ForwardExample<R, true, false>)
            : (hold ? ForwardExample<R, false, true> : ForwardExample<R, false, false>);
    run(batch, results, b, own);
  });
}

template <Isa isa, class R>
void LifStepsBackward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                      const BatchStepsCotangents<R>& cotangents,
                      const BatchStepsGradients<R>& gradients, ThreadPool& pool) {
  if (batch.n_batch == 0) {
    std::fill_n(gradients.weights.data(), gradients.weights.size(), R(0));
    std::fill_n(gradients.recurrent.data(), gradients.recurrent.size(), R(0));
    return;
  }
  if (gradients.want_inputs) {
    AdviseHugePages(gradients.inputs.data(), gradients.inputs.size());
  }
  const Plan<R> plan(batch, gradients);
  const auto n_groups = static_cast<std::int64_t>(plan.groups.size());
  const std::int64_t workers = NumWorkers(pool, n_groups, 3 * PassCost(batch));
  struct Worker {
    const R* weights = nullptr;
    const R* recurrent = nullptr;
    StepsPanels<R> panels;
  };
  std::vector<Worker> made(static_cast<std::size_t>(workers));
  Arena measure(nullptr);
  BackwardScratch<R>::Take(measure, batch, gradients, nullptr);
  const Scratch scratch(workers, measure.used());
  ParallelFor(pool, n_groups, workers, [&](std::int64_t g, std::int64_t worker) {
    const Group<R>& group = plan.groups[static_cast<std::size_t>(g)];
    Worker& own = made[static_cast<std::size_t>(worker)];
    Arena arena(scratch.of(worker));
    auto room = BackwardScratch<R>::Take(arena, batch, gradients, &own.panels);
    plan.Clear(group);
    for (std::int64_t k = group.begin; k < group.end; ++k) {
      const Block& block = plan.blocks[static_cast<std::size_t>(k)];
      PreparePanels(batch, gradients, block.begin, room, own.weights, own.recurrent);
      OnShape(batch.shape, [&]<SurrogateShape kShape>() {
        BlockSweep<R, kShape>(batch, results, cotangents, gradients, block, group, room).Run();
      });
    }
  });
  plan.Reduce(pool);
}

#define JAXSNN_INSTANTIATE(R)                                                                \
  template void LifStepsForward<kIsa, R>(const BatchSteps<R>&, const BatchStepsResults<R>&,  \
                                         ThreadPool&);                                       \
  template void LifStepsBackward<kIsa, R>(const BatchSteps<R>&, const BatchStepsResults<R>&, \
                                          const BatchStepsCotangents<R>&,                    \
                                          const BatchStepsGradients<R>&, ThreadPool&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
