// One example of what the sweeps solve: a population of neurons, its incoming spikes and a horizon.
#ifndef JAXSNN_CORE_PROBLEM_H_
#define JAXSNN_CORE_PROBLEM_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/spike_queue.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

template <class R>
struct Problem {
  Param<R> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref;
  const R* weights = nullptr;  // [n_inputs, n_neurons]
  std::int64_t n_inputs = 0;
  std::int64_t n_neurons = 0;
  // The state at `time`. A neuron is refractory while its release lies ahead.
  const R* v = nullptr;
  const R* i = nullptr;
  const R* release = nullptr;
  double time = 0;
  SpikeQueue<R> queue;
  double t_max = 0;

  JAXSNN_HD bool uniform_time_constants() const {
    return !tau_mem.per_neuron && !tau_syn.per_neuron;
  }
  // Relative to the leak potential, as the models have it.
  JAXSNN_HD double threshold(std::int64_t j) const { return v_th[j] - v_leak[j]; }
  JAXSNN_HD double reset(std::int64_t j) const { return v_reset[j] - v_leak[j]; }
  JAXSNN_HD const R* row(std::int64_t entry) const {
    return weights + static_cast<std::int64_t>(queue.index[entry]) * n_neurons;
  }
};

// The solutions over a time step that all neurons share, or one per neuron.
template <class Model, class R>
class ConstantsTable {
 public:
  static ConstantsTable Take(Arena& arena, bool uniform, std::int64_t n_neurons) {
    ConstantsTable table;
    table.uniform_ = uniform;
    table.data_ = arena.Take<typename Model::Constants>(uniform ? 1 : n_neurons);
    return table;
  }
  void Fill(const Problem<R>& problem) {
    const std::int64_t n = uniform_ ? 1 : problem.n_neurons;
    for (std::int64_t j = 0; j < n; ++j) {
      data_[j] = Model::Prepare(problem.tau_mem[j], problem.tau_syn[j]);
    }
  }
  const typename Model::Constants& operator[](std::int64_t j) const {
    return data_[uniform_ ? 0 : j];
  }
  bool uniform() const { return uniform_; }

 private:
  typename Model::Constants* data_ = nullptr;
  bool uniform_ = true;
};

// body(constants), those that have a closed form for crossings as a type of their own, for which
// less is to be computed.
template <class Model, class Body>
JAXSNN_INLINE void WithConstants(const typename Model::Constants& constants, const Body& body) {
  if (Model::HasClosedForm(constants)) {
    body(typename Model::ClosedConstants{constants});
  } else {
    body(constants);
  }
}

// The constants in loops that vectorise: those that all neurons share ...
template <class Constants>
struct SharedConstants {
  Constants constants;

  const Constants& operator()(std::int64_t) const { return constants; }
  template <int kSize, class NeuronOf>
  const SharedConstants& Lanes(std::int64_t, const NeuronOf&) const {
    return *this;
  }
};

// ... or those of each neuron, counted from the first of a block, of which lanes take copies side
// by side.
template <class Model, class R>
struct OwnConstants {
  const ConstantsTable<Model, R>& table;
  std::int64_t first = 0;

  const typename Model::Constants& operator()(std::int64_t b) const { return table[first + b]; }
  // Of n <= kSize neurons; lanes that no neuron is in repeat the last one.
  template <int kSize, class NeuronOf>
  auto Lanes(std::int64_t n, const NeuronOf& neuron) const {
    typename Model::template ConstantsLanes<kSize> lanes;
    for (std::int64_t l = 0; l < kSize; ++l) lanes.Set(l, (*this)(neuron(l < n ? l : n - 1)));
    return lanes;
  }
};

namespace internal {

// `good` of every element, which NaN never is.
template <class R, class Good>
JAXSNN_HD Outcome CheckEach(const R* data, std::int64_t size, Argument argument, const Good& good) {
  Mask<R> wrong = 0;  // without a branch, the loop vectorises
  for (std::int64_t j = 0; j < size; ++j) wrong |= static_cast<Mask<R>>(!good(data[j]));
  if (wrong == 0) return {};
  for (std::int64_t j = 0; j < size; ++j) {
    const double value = static_cast<double>(data[j]);
    if (std::isnan(value)) return {Status::kNonFinite, argument, j, value};
    if (!good(data[j])) return {Status::kInvalidValue, argument, j, value};
  }
  return {};
}

}  // namespace internal

template <class R>
JAXSNN_HD Outcome CheckFinite(const R* data, std::int64_t size, Argument argument) {
  // x - x is 0 for every finite x and NaN else: without a branch, the loop vectorises.
  Mask<R> wrong = 0;
  for (std::int64_t j = 0; j < size; ++j) {
    wrong |= static_cast<Mask<R>>(data[j] - data[j] != R(0));
  }
  if (wrong == 0) return {};
  for (std::int64_t j = 0; j < size; ++j) {
    const double value = static_cast<double>(data[j]);
    if (!std::isfinite(value)) return {Status::kNonFinite, argument, j, value};
  }
  return {};
}

template <class R>
JAXSNN_HD Outcome CheckParameters(const Problem<R>& p) {
  const std::int64_t n = p.n_neurons;
  const auto positive = [](R x) { return (x > 0) & (x < std::numeric_limits<R>::infinity()); };
  const auto finite = [](R x) { return x - x == 0; };
  const auto duration = [](R x) { return (x >= 0) & (x < std::numeric_limits<R>::infinity()); };
  Outcome outcome =
      internal::CheckEach(p.tau_mem.data, p.tau_mem.size(n), Argument::kTauMem, positive);
  const auto check = [&](const Param<R>& param, Argument argument, const auto& good) {
    if (outcome.ok()) outcome = internal::CheckEach(param.data, param.size(n), argument, good);
  };
  check(p.tau_syn, Argument::kTauSyn, positive);
  check(p.v_th, Argument::kVTh, [](R x) { return x > -std::numeric_limits<R>::infinity(); });
  check(p.v_leak, Argument::kVLeak, finite);
  check(p.v_reset, Argument::kVReset, finite);
  check(p.t_ref, Argument::kTRef, duration);
  const std::int64_t pairs = p.v_th.per_neuron || p.v_reset.per_neuron ? n : 1;
  for (std::int64_t j = 0; outcome.ok() && j < pairs; ++j) {
    if (!(p.v_reset[j] < p.v_th[j])) {
      outcome = {Status::kInvalidValue, Argument::kVReset, j, p.v_reset[j]};
    }
  }
  return outcome;
}

// Everything but the weights, which many examples share and the driver therefore checks once.
template <class R>
JAXSNN_HD Outcome CheckProblem(const Problem<R>& p) {
  Outcome outcome = CheckParameters(p);
  if (outcome.ok()) outcome = CheckFinite(p.v, p.n_neurons, Argument::kStateV);
  if (outcome.ok()) outcome = CheckFinite(p.i, p.n_neurons, Argument::kStateI);
  if (outcome.ok()) {
    outcome = internal::CheckEach(p.release, p.n_neurons, Argument::kStateRelease,
                                  [](R x) { return x < std::numeric_limits<R>::infinity(); });
  }
  if (!outcome.ok()) return outcome;
  if (!std::isfinite(p.time)) return {Status::kNonFinite, Argument::kStateTime, 0, p.time};
  if (!(p.t_max > 0 && p.t_max >= p.time && p.t_max < kNever)) {
    return {Status::kInvalidValue, Argument::kTMax, 0, p.t_max};
  }
  return p.queue.Check(p.time, p.n_inputs);
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PROBLEM_H_
