// Exactly one event over one example, forward and adjoint: find the next crossing, integrate all
// neurons to it or to the next arrival, whichever is first, and apply the discontinuity.
#ifndef JAXSNN_CORE_STEP_H_
#define JAXSNN_CORE_STEP_H_

#include <algorithm>
#include <cstdint>

#include "core/adjoint.h"
#include "core/next_crossing.h"
#include "core/parameter_lanes.h"
#include "core/problem.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// What a step did. The numbers are part of the Python interface.
enum class EventKind : std::int32_t {
  kNone = 0,   // nothing happens before t_max, where the state now stands
  kInput = 1,  // a queued spike arrived
  kSpike = 2,  // a neuron crossed its threshold
};

template <class R>
struct StepResult {
  R* event_time;
  std::int32_t* event_index;  // of the input or the neuron
  std::int32_t* event_kind;
  R* v;
  R* i;
  R* release;
  R* time;
  std::int32_t* head;
};

namespace internal {

// The state of one neuron at `time`, refractory periods included.
template <class Model, class R>
JAXSNN_HD typename Model::template Pair<double> FlowNeuron(
    const Problem<R>& p, const typename Model::Constants& constants, std::int64_t j, double time) {
  const double release = static_cast<double>(p.release[j]);
  const double i = static_cast<double>(p.i[j]);
  if (release > time) return {p.reset(j), Model::DecayCurrent(constants, i, time - p.time)};
  if (release > p.time) {
    return Model::Flow(Model::Propagate(constants, time - release),
                       {p.reset(j), Model::DecayCurrent(constants, i, release - p.time)});
  }
  return Model::Flow(Model::Propagate(constants, time - p.time),
                     {static_cast<double>(p.v[j]) - p.v_leak[j], i});
}

}  // namespace internal

// Requires a checked problem.
template <class Model, class R>
Outcome StepForward(const Problem<R>& p, const ConstantsTable<Model, R>& constants,
                    const StepResult<R>& out) {
  const double arrival = p.queue.TimeAt(p.queue.head);
  const bool closing = !(arrival <= p.t_max);
  const double horizon = closing ? p.t_max : arrival;
  double time = horizon;
  std::int64_t spiking = kNoIndex;
  for (std::int64_t j = 0; j < p.n_neurons; ++j) {
    const double free = std::max(static_cast<double>(p.release[j]), p.time);
    if (free > time) continue;
    const auto x = internal::FlowNeuron<Model>(p, constants[j], j, free);
    const Root root = NextCrossing<Model>(constants[j], x, p.threshold(j), time - free);
    if (!root.converged) return {Status::kNoConvergence, Argument::kNone, j, p.time};
    const double at = free + root.at;
    // At the horizon itself: an arrival comes first, the end of the window does not.
    if (at < time || (at == time && closing && spiking == kNoIndex)) {
      time = at;
      spiking = j;
    }
  }
  // A crossing that was rounded to just behind the end of the window.
  for (std::int64_t j = 0; closing && spiking == kNoIndex && j < p.n_neurons; ++j) {
    if (static_cast<double>(p.release[j]) > time) continue;
    const auto x = internal::FlowNeuron<Model>(p, constants[j], j, time);
    if (x.v >= p.threshold(j)) spiking = j;
  }
  const bool spike = spiking != kNoIndex;
  const bool input = !spike && !closing;
  const R* row = input ? p.row(p.queue.head) : nullptr;
  for (std::int64_t j = 0; j < p.n_neurons; ++j) {
    const auto x = internal::FlowNeuron<Model>(p, constants[j], j, time);
    out.v[j] = static_cast<R>(x.v + p.v_leak[j]);
    out.i[j] = static_cast<R>(x.i) + (input ? row[j] : R(0));
    out.release[j] = p.release[j];
  }
  if (spike) {
    out.v[spiking] = static_cast<R>(p.v_reset[spiking]);
    out.release[spiking] = static_cast<R>(time + p.t_ref[spiking]);
  }
  const EventKind kind = spike ? EventKind::kSpike : input ? EventKind::kInput : EventKind::kNone;
  *out.event_kind = static_cast<std::int32_t>(kind);
  *out.event_index = spike   ? static_cast<std::int32_t>(spiking)
                     : input ? p.queue.index[p.queue.head]
                             : kNoIndex;
  *out.event_time = static_cast<R>(kind == EventKind::kNone ? kNever : time);
  *out.time = static_cast<R>(time);
  *out.head = static_cast<std::int32_t>(p.queue.head + (input ? 1 : 0));
  Outcome finite = CheckFinite(out.i, p.n_neurons, Argument::kStateI);
  if (finite.ok()) finite = CheckFinite(out.v, p.n_neurons, Argument::kStateV);
  return finite;
}

// What a neuron contributes to the gradients of its parameters.
struct NeuronGradients {
  double tau_mem = 0, tau_syn = 0, v_th = 0, v_leak = 0, v_reset = 0, t_ref = 0;

  // A free flow.
  template <class FlowGradients>
  void Add(const FlowGradients& flow) {
    tau_mem += flow.tau_mem;
    tau_syn += flow.tau_syn;
    v_leak += flow.v_leak;
  }
};

// Adds them up, or writes them for each neuron.
template <class R>
void WriteGradients(const ParameterGradients<R>& gradients, std::int64_t n,
                    const NeuronGradients* each) {
  const auto write = [&](const ParamGradient<R>& gradient, double NeuronGradients::* member) {
    WriteGradient(gradient, n, [&](std::int64_t j) { return each[j].*member; });
  };
  write(gradients.tau_mem, &NeuronGradients::tau_mem);
  write(gradients.tau_syn, &NeuronGradients::tau_syn);
  write(gradients.v_th, &NeuronGradients::v_th);
  write(gradients.v_leak, &NeuronGradients::v_leak);
  write(gradients.v_reset, &NeuronGradients::v_reset);
  write(gradients.t_ref, &NeuronGradients::t_ref);
}

// `ct.spike_time` is the cotangent of the one event time. `gradients.weights` is the one row that
// an arrival touches; the rest of it is zero. `each` has an entry for every neuron, all zero; null:
// not asked for.
template <class Model, class R>
void StepBackward(const Problem<R>& p, const ConstantsTable<Model, R>& constants,
                  const StepResult<R>& out, const Cotangents<R>& ct, Gradients<R>& gradients,
                  NeuronGradients* each) {
  using Adjoint = typename Model::template Pair<double>;
  const auto kind = static_cast<EventKind>(*out.event_kind);
  const double time = static_cast<double>(*out.time);
  const std::int64_t spiking = kind == EventKind::kSpike ? *out.event_index : kNoIndex;
  const auto behind = [&](std::int64_t j) -> Adjoint {  // the adjoint right before the event
    const bool clamped = static_cast<double>(p.release[j]) > time;
    const bool voltage = !clamped && j != spiking;
    return {voltage ? static_cast<double>(ct.v[j]) : 0.0, static_cast<double>(ct.i[j])};
  };

  const auto flows = [&](std::int64_t j, double dt, const Adjoint& x, const Adjoint& a) {
    if (each != nullptr) each[j].Add(Model::FlowSensitivity(constants[j], dt, x, a));
  };

  // What the loss owes to the time of the event.
  double time_gradient = ct.time;
  if (kind != EventKind::kNone) time_gradient += static_cast<double>(*ct.spike_time);
  for (std::int64_t j = 0; j < p.n_neurons; ++j) {
    const auto x = internal::FlowNeuron<Model>(p, constants[j], j, time);
    time_gradient += Model::TimeSensitivity(constants[j], x, behind(j));
    gradients.release[j] = j == spiking ? R(0) : ct.release[j];
    const bool at_reset = j == spiking || static_cast<double>(p.release[j]) > time;
    if (each != nullptr && at_reset) each[j].v_reset += static_cast<double>(ct.v[j]);
  }
  gradients.time = 0;
  gradients.t_max = 0;
  double spiking_v = 0;
  if (kind == EventKind::kSpike) {
    time_gradient += static_cast<double>(ct.release[spiking]);
    if (each != nullptr) each[spiking].t_ref += static_cast<double>(ct.release[spiking]);
    const auto x = internal::FlowNeuron<Model>(p, constants[spiking], spiking, time);
    if (BeganAbove(p, spiking, time) || !(x.i > p.threshold(spiking))) {
      gradients.time += time_gradient;  // no crossing: it stood at the threshold from the start
    } else {
      spiking_v = AdjointSpike<Model>(constants[spiking], p.threshold(spiking), p.reset(spiking),
                                      x.i, time_gradient, 0);
      if (each != nullptr) each[spiking].v_th -= spiking_v;
    }
  } else if (kind == EventKind::kInput) {
    for (std::int64_t j = 0; j < p.n_neurons; ++j) gradients.weights[j] = ct.i[j];
    gradients.input_time[p.queue.head] = static_cast<R>(time_gradient);
  } else {
    gradients.t_max = time_gradient;
  }

  for (std::int64_t j = 0; j < p.n_neurons; ++j) {
    const auto& c = constants[j];
    Adjoint a = behind(j);
    if (j == spiking) a.v = spiking_v;
    const double release = static_cast<double>(p.release[j]);
    const double i = static_cast<double>(p.i[j]);
    const Adjoint start{static_cast<double>(p.v[j]) - p.v_leak[j], i};
    if (release > time) {
      flows(j, time - p.time, {0, i}, {0, a.i});
      a = {0, Model::DecayCurrent(c, a.i, time - p.time)};
    } else if (release > p.time) {
      const Adjoint at_release{p.reset(j), Model::DecayCurrent(c, i, release - p.time)};
      flows(j, time - release, at_release, a);
      a = Model::AdjointFlow(Model::Propagate(c, time - release), a);
      if (each != nullptr) each[j].v_reset += a.v;
      flows(j, release - p.time, {0, i}, {0, a.i});
      const double current = Model::DecayCurrent(c, i, release - p.time);
      gradients.release[j] += static_cast<R>(AdjointRelease<Model>(c, p.reset(j), current, a.v));
      a = {0, Model::DecayCurrent(c, a.i, release - p.time)};
    } else {
      flows(j, time - p.time, start, a);
      a = Model::AdjointFlow(Model::Propagate(c, time - p.time), a);
    }
    gradients.v[j] = static_cast<R>(a.v);
    gradients.i[j] = static_cast<R>(a.i);
    gradients.time -= Model::TimeSensitivity(c, start, a);
  }
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_STEP_H_
