// The gradients of neuron parameters along a reverse sweep: what it keeps for each neuron besides
// the adjoint, and the sums that become the gradients.
#ifndef JAXSNN_CORE_PARAMETER_LANES_H_
#define JAXSNN_CORE_PARAMETER_LANES_H_

#include <algorithm>
#include <cstdint>

#include "core/problem.h"
#include "core/propagators.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Where the gradient of a parameter goes: one value for all neurons, or one each. Written.
template <class R>
struct ParamGradient {
  R* data = nullptr;
  bool per_neuron = false;
};

template <class R>
struct ParameterGradients {
  ParamGradient<R> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref;
};

// Adds up what the neurons contribute to a parameter.
template <class R, class ForNeuron>
void WriteGradient(const ParamGradient<R>& gradient, std::int64_t n, const ForNeuron& value) {
  if (gradient.per_neuron) {
    for (std::int64_t j = 0; j < n; ++j) gradient.data[j] = static_cast<R>(value(j));
    return;
  }
  double sum = 0;
  for (std::int64_t j = 0; j < n; ++j) sum += value(j);
  *gradient.data = static_cast<R>(sum);
}

template <class R>
struct MemoryLanes {
  R *v, *rise, *i, *rest;
};

template <class R>
struct MemoryStepLanes {
  R *v_from_v, *rise_from_v, *i_from_v, *i_from_i, *rest_from_v;
};

// All neurons one time step back; (a_v, a_i) is the adjoint at its end.
template <class R, bool kUniform>
void RecallLanes(const PropagatorLanes<R>& p, const MemoryStepLanes<R>& s, std::int64_t n,
                 const R* JAXSNN_RESTRICT a_v, const R* JAXSNN_RESTRICT a_i, R* JAXSNN_RESTRICT v,
                 R* JAXSNN_RESTRICT rise, R* JAXSNN_RESTRICT i, R* JAXSNN_RESTRICT rest) {
  const R vv = *p.v_from_v, vi = *p.v_from_i, ii = *p.i_from_i;
  const R sv = *s.v_from_v, sr = *s.rise_from_v, siv = *s.i_from_v, sii = *s.i_from_i;
  const R se = *s.rest_from_v;
  for (std::int64_t j = 0; j < n; ++j) {
    const R decay = kUniform ? ii : p.i_from_i[j];
    rise[j] = decay * rise[j] + (kUniform ? sr : s.rise_from_v[j]) * a_v[j] -
              (kUniform ? vi : p.v_from_i[j]) * v[j];
    v[j] = (kUniform ? vv : p.v_from_v[j]) * v[j] + (kUniform ? sv : s.v_from_v[j]) * a_v[j];
    i[j] = decay * i[j] + (kUniform ? siv : s.i_from_v[j]) * a_v[j] +
           (kUniform ? sii : s.i_from_i[j]) * a_i[j];
    rest[j] += (kUniform ? se : s.rest_from_v[j]) * a_v[j];
  }
}

// A row of weights arrives: added to what the currents owe to the time constants.
template <class R>
void AttributeRow(std::int64_t n, const R* JAXSNN_RESTRICT row, const R* JAXSNN_RESTRICT rise,
                  const R* JAXSNN_RESTRICT i, R* JAXSNN_RESTRICT mem, R* JAXSNN_RESTRICT syn) {
  for (std::int64_t j = 0; j < n; ++j) {
    mem[j] += row[j] * rise[j];
    syn[j] += row[j] * i[j];
  }
}

template <class Model, class R>
class ParameterLanes {
  using Constants = typename Model::Constants;
  using State = typename Model::template Pair<double>;

 public:
  using Memory = typename Model::template Memory<double>;

  ParameterLanes(Arena& arena, std::int64_t n_neurons, bool uniform)
      : n_(n_neurons), uniform_(uniform) {
    for (R** lane : {&memory_.v, &memory_.rise, &memory_.i, &memory_.rest, &mem_, &syn_, &v_th_,
                     &v_reset_, &t_ref_}) {
      *lane = arena.Take<R>(n_);
    }
    for (R** lane : {&step_.v_from_v, &step_.rise_from_v, &step_.i_from_v, &step_.i_from_i,
                     &step_.rest_from_v}) {
      *lane = arena.Take<R>(uniform ? 1 : n_);
    }
  }

  void Start() {
    for (R* lane :
         {memory_.v, memory_.rise, memory_.i, memory_.rest, mem_, syn_, v_th_, v_reset_, t_ref_}) {
      std::fill(lane, lane + n_, R(0));
    }
  }

  // The time step of neuron j, or of all where they share their time constants.
  void SetStep(std::int64_t j, const Constants& constants, double dt) {
    const auto step = Model::Remember(constants, Model::Propagate(constants, dt), dt);
    step_.v_from_v[j] = static_cast<R>(step.v_from_v);
    step_.rise_from_v[j] = static_cast<R>(step.rise_from_v);
    step_.i_from_v[j] = static_cast<R>(step.i_from_v);
    step_.i_from_i[j] = static_cast<R>(step.i_from_i);
    step_.rest_from_v[j] = static_cast<R>(step.rest_from_v);
  }

  // All neurons over that step.
  void FlowBack(const PropagatorLanes<R>& p, const R* a_v, const R* a_i) {
    const auto recall = uniform_ ? RecallLanes<R, true> : RecallLanes<R, false>;
    recall(p, step_, n_, a_v, a_i, memory_.v, memory_.rise, memory_.i, memory_.rest);
  }

  Memory Get(std::int64_t j) const {
    return {static_cast<double>(memory_.v[j]), static_cast<double>(memory_.rise[j]),
            static_cast<double>(memory_.i[j]), static_cast<double>(memory_.rest[j])};
  }
  void Put(std::int64_t j, const Memory& memory) {
    memory_.v[j] = static_cast<R>(memory.v);
    memory_.rise[j] = static_cast<R>(memory.rise);
    memory_.i[j] = static_cast<R>(memory.i);
    memory_.rest[j] = static_cast<R>(memory.rest);
  }

  // The voltage is set to the reset: what it was before is forgotten.
  void Reset(std::int64_t j, double reset, double a_v, Memory& memory) {
    mem_[j] -= static_cast<R>(reset * memory.v);
    memory.v = 0;
    AtReset(j, a_v);
  }
  void AtReset(std::int64_t j, double a_v) { v_reset_[j] += static_cast<R>(a_v); }
  void Threshold(std::int64_t j, double gradient) { v_th_[j] += static_cast<R>(gradient); }
  void Release(std::int64_t j, double gradient) { t_ref_[j] += static_cast<R>(gradient); }

  void Arrive(const R* row) { AttributeRow(n_, row, memory_.rise, memory_.i, mem_, syn_); }
  void Arrive(std::int64_t j, R weight) {
    mem_[j] += weight * memory_.rise[j];
    syn_[j] += weight * memory_.i[j];
  }

  // The start of the window, with neuron j in state x.
  void Begin(std::int64_t j, const State& x) {
    mem_[j] += static_cast<R>(x.i) * memory_.rise[j] - static_cast<R>(x.v) * memory_.v[j];
    syn_[j] += static_cast<R>(x.i) * memory_.i[j];
  }

  template <class Table>
  void Write(const Table& constants, const ParameterGradients<R>& gradients) const {
    const auto lane = [](const R* values) {
      return [values](std::int64_t j) { return static_cast<double>(values[j]); };
    };
    WriteGradient(gradients.tau_mem, n_, [&](std::int64_t j) {
      return -static_cast<double>(mem_[j]) * constants[j].rate_mem * constants[j].rate_mem;
    });
    WriteGradient(gradients.tau_syn, n_, [&](std::int64_t j) {
      return static_cast<double>(syn_[j]) * constants[j].rate_syn * constants[j].rate_syn;
    });
    WriteGradient(gradients.v_th, n_, lane(v_th_));
    WriteGradient(gradients.v_leak, n_, lane(memory_.rest));
    WriteGradient(gradients.v_reset, n_, lane(v_reset_));
    WriteGradient(gradients.t_ref, n_, lane(t_ref_));
  }

 private:
  const std::int64_t n_;
  const bool uniform_;
  MemoryLanes<R> memory_;
  MemoryStepLanes<R> step_;
  R *mem_, *syn_, *v_th_, *v_reset_, *t_ref_;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PARAMETER_LANES_H_
