// Neuron by neuron: exact propagation and the next crossing, each with its derivative.
#include "cpu/isa_begin.h"

#include "core/models/cuba_lif.h"
#include "core/next_crossing.h"
#include "core/problem.h"
#include "core/step.h"
#include "cpu/assemble.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

using Model = CubaLif;
using State = Model::Pair<double>;

template <class R>
Problem<R> MakeNeurons(const BatchNeurons<R>& batch, std::int64_t example) {
  Problem<R> p = internal::MakeNeurons(batch.params, example, batch.n_neurons);
  p.v = batch.v[example];
  p.i = batch.i[example];
  return p;
}

template <class R>
Outcome CheckNeurons(const Problem<R>& p) {
  Outcome outcome = CheckParameters(p);
  if (outcome.ok()) outcome = CheckFinite(p.v, p.n_neurons, Argument::kStateV);
  if (outcome.ok()) outcome = CheckFinite(p.i, p.n_neurons, Argument::kStateI);
  return outcome;
}

template <class R>
State StateOf(const Problem<R>& p, std::int64_t j) {
  return {static_cast<double>(p.v[j]) - p.v_leak[j], static_cast<double>(p.i[j])};
}

template <class R>
Model::Constants ConstantsOf(const Problem<R>& p, std::int64_t j) {
  return Model::Prepare(p.tau_mem[j], p.tau_syn[j]);
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void FlowForward(const BatchNeurons<R>& batch, const Batched<R>& v, const Batched<R>& i,
                 const BatchStatus<R>& result) {
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    const Problem<R> p = MakeNeurons(batch, b);
    const Param<R> dt = internal::MakeParam(batch.dt, b, p.n_neurons);
    Outcome outcome = CheckNeurons(p);
    if (outcome.ok()) {
      outcome = internal::CheckEach(dt.data, dt.size(p.n_neurons), Argument::kDt,
                                    [](double x) { return x >= 0 && std::isfinite(x); });
    }
    result.Set(b, outcome);
    for (std::int64_t j = 0; j < p.n_neurons; ++j) {
      const State x = Model::Flow(Model::Propagate(ConstantsOf(p, j), dt[j]), StateOf(p, j));
      v[b][j] = outcome.ok() ? static_cast<R>(x.v + p.v_leak[j]) : static_cast<R>(std::nan(""));
      i[b][j] = outcome.ok() ? static_cast<R>(x.i) : static_cast<R>(std::nan(""));
    }
  }
}

template <Isa isa, class R>
void FlowBackward(const BatchNeurons<R>& batch, const Batched<const R>& ct_v,
                  const Batched<const R>& ct_i, const Batched<R>& v, const Batched<R>& i,
                  const Batched<R>& dt_gradient, const BatchParamGradients<R>& params) {
  std::vector<NeuronGradients> each(static_cast<std::size_t>(batch.n_neurons));
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    const Problem<R> p = MakeNeurons(batch, b);
    const Param<R> dt = internal::MakeParam(batch.dt, b, p.n_neurons);
    for (std::int64_t j = 0; j < p.n_neurons; ++j) {
      const auto constants = ConstantsOf(p, j);
      const auto propagator = Model::Propagate(constants, dt[j]);
      const State a{static_cast<double>(ct_v[b][j]), static_cast<double>(ct_i[b][j])};
      const State x = Model::Flow(propagator, StateOf(p, j));
      const State back = Model::AdjointFlow(propagator, a);
      v[b][j] = static_cast<R>(back.v);
      i[b][j] = static_cast<R>(back.i);
      dt_gradient[b][j] = static_cast<R>(Model::TimeSensitivity(constants, x, a));
      NeuronGradients& own = each[static_cast<std::size_t>(j)] = {};
      if (params.wanted) own.Add(Model::FlowSensitivity(constants, dt[j], StateOf(p, j), a));
    }
    if (params.wanted) {
      WriteGradients(internal::MakeParamGradients(params, b, p.n_neurons), p.n_neurons,
                     each.data());
    }
  }
}

template <Isa isa, class R>
void CrossingForward(const BatchNeurons<R>& batch, const Batched<R>& delay,
                     const BatchStatus<R>& result) {
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    const Problem<R> p = MakeNeurons(batch, b);
    Outcome outcome = CheckNeurons(p);
    for (std::int64_t j = 0; outcome.ok() && j < p.n_neurons; ++j) {
      const Root root =
          NextCrossing<Model>(ConstantsOf(p, j), StateOf(p, j), p.threshold(j), kNever);
      if (!root.converged) outcome = {Status::kNoConvergence, Argument::kNone, j, 0};
      delay[b][j] = static_cast<R>(root.at);
    }
    if (!outcome.ok()) internal::FillNaN(delay[b], p.n_neurons);
    result.Set(b, outcome);
  }
}

// v(t) = threshold defines t: dt = -<dv/dx, dx> / v'(t), the transpose of the flow again.
template <Isa isa, class R>
void CrossingBackward(const BatchNeurons<R>& batch, const Batched<const R>& delay,
                      const Batched<const R>& ct_delay, const Batched<R>& v, const Batched<R>& i,
                      const BatchParamGradients<R>& params) {
  std::vector<NeuronGradients> each(static_cast<std::size_t>(batch.n_neurons));
  for (std::int64_t b = 0; b < batch.n_batch; ++b) {
    const Problem<R> p = MakeNeurons(batch, b);
    for (std::int64_t j = 0; j < p.n_neurons; ++j) {
      const double t = static_cast<double>(delay[b][j]);
      // No crossing, or one that is there already: nothing moves it.
      State back{0, 0};
      NeuronGradients& own = each[static_cast<std::size_t>(j)] = {};
      if (t > 0 && t < kNever) {
        const auto constants = ConstantsOf(p, j);
        const auto propagator = Model::Propagate(constants, t);
        const double current = Model::Flow(propagator, StateOf(p, j)).i;
        const double slope = Model::Rate(constants, {p.threshold(j), current}).v;
        const State a{-static_cast<double>(ct_delay[b][j]) / slope, 0};
        back = Model::AdjointFlow<double>(propagator, a);
        if (params.wanted) own.Add(Model::FlowSensitivity(constants, t, StateOf(p, j), a));
        own.v_th = -a.v;
      } else if (std::isnan(t)) {
        back = {t, t};
        own = {t, t, t, t, t, t};
      }
      v[b][j] = static_cast<R>(back.v);
      i[b][j] = static_cast<R>(back.i);
    }
    if (params.wanted) {
      WriteGradients(internal::MakeParamGradients(params, b, p.n_neurons), p.n_neurons,
                     each.data());
    }
  }
}

#define JAXSNN_INSTANTIATE(R)                                                                      \
  template void FlowForward<kIsa, R>(const BatchNeurons<R>&, const Batched<R>&, const Batched<R>&, \
                                     const BatchStatus<R>&);                                       \
  template void FlowBackward<kIsa, R>(                                                             \
      const BatchNeurons<R>&, const Batched<const R>&, const Batched<const R>&, const Batched<R>&, \
      const Batched<R>&, const Batched<R>&, const BatchParamGradients<R>&);                        \
  template void CrossingForward<kIsa, R>(const BatchNeurons<R>&, const Batched<R>&,                \
                                         const BatchStatus<R>&);                                   \
  template void CrossingBackward<kIsa, R>(const BatchNeurons<R>&, const Batched<const R>&,         \
                                          const Batched<const R>&, const Batched<R>&,              \
                                          const Batched<R>&, const BatchParamGradients<R>&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
