// One example out of a batch, as the core takes it.
#ifndef JAXSNN_CPU_ASSEMBLE_H_
#define JAXSNN_CPU_ASSEMBLE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/adjoint.h"
#include "core/forward.h"
#include "core/parameter_lanes.h"
#include "core/problem.h"
#include "cpu/kernels.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

template <class R>
Param<R> MakeParam(const Batched<const R>& operand, std::int64_t example, std::int64_t n_neurons) {
  return {operand[example], operand.core_size() == n_neurons && n_neurons != 1};
}

// The part of a problem that concerns neurons on their own.
template <class R>
Problem<R> MakeNeurons(const BatchParams<R>& params, std::int64_t example, std::int64_t n_neurons) {
  Problem<R> p;
  p.tau_mem = MakeParam(params.tau_mem, example, n_neurons);
  p.tau_syn = MakeParam(params.tau_syn, example, n_neurons);
  p.v_th = MakeParam(params.v_th, example, n_neurons);
  p.v_leak = MakeParam(params.v_leak, example, n_neurons);
  p.v_reset = MakeParam(params.v_reset, example, n_neurons);
  p.t_ref = MakeParam(params.t_ref, example, n_neurons);
  p.n_neurons = n_neurons;
  return p;
}

template <class R>
Problem<R> MakeProblem(const BatchProblem<R>& batch, std::int64_t example) {
  Problem<R> p = MakeNeurons(batch.params, example, batch.n_neurons);
  p.weights = batch.weights[example];
  p.n_inputs = batch.n_inputs;
  p.v = batch.v[example];
  p.i = batch.i[example];
  p.release = batch.release[example];
  p.time = static_cast<double>(*batch.time[example]);
  p.queue = {batch.input_time[example], batch.input_index[example], batch.input_time.core_size(),
             *batch.input_head[example]};
  p.t_max = static_cast<double>(*batch.t_max[example]);
  return p;
}

// Checks the weights of a batch, each slot once.
template <class R>
class WeightCheck {
 public:
  explicit WeightCheck(const BatchProblem<R>& batch) : batch_(batch) {
    shared_ = batch.weights.layout().n_slots() == 1 && batch.n_batch > 0;
    if (shared_) outcome_ = Check(0);
  }
  Outcome operator()(std::int64_t example) const { return shared_ ? outcome_ : Check(example); }

 private:
  Outcome Check(std::int64_t example) const {
    return CheckFinite(batch_.weights[example], batch_.weights.core_size(), Argument::kWeights);
  }

  const BatchProblem<R>& batch_;
  bool shared_;
  Outcome outcome_;
};

// The first thing that is wrong with an example, if any.
template <class R>
Outcome CheckExample(const Problem<R>& problem, const WeightCheck<R>& weights,
                     std::int64_t example) {
  const Outcome outcome = weights(example);
  return outcome.ok() ? CheckProblem(problem) : outcome;
}

template <class R>
void FillNaN(R* data, std::int64_t size) {
  std::fill(data, data + size, std::numeric_limits<R>::quiet_NaN());
}

// Results and gradients of an example that failed: NaN, so that nobody goes on with them unawares.
template <class R>
void Poison(const BatchState<R>& state, std::int64_t example, std::int64_t head) {
  FillNaN(state.v[example], state.v.core_size());
  FillNaN(state.i[example], state.i.core_size());
  FillNaN(state.release[example], state.release.core_size());
  FillNaN(state.time[example], 1);
  *state.head[example] = static_cast<std::int32_t>(head);
}

template <class R>
void Poison(const Gradients<R>& gradients, const BatchGradients<R>& batch, std::int64_t example,
            std::int64_t first, std::int64_t last) {
  const std::int64_t n_neurons = batch.v.core_size();
  for (std::int64_t k = first; k < batch.weights.core_size(); k += n_neurons) {
    FillNaN(gradients.weights + k, last - first);
  }
  for (R* data : {batch.v[example], batch.i[example], batch.release[example]}) {
    FillNaN(data + first, last - first);
  }
  if (gradients.input_time != nullptr) FillNaN(gradients.input_time, batch.input_time.core_size());
}

template <class R>
SpikeLog<R> MakeLog(const LoopResults<R>& results, std::int64_t example) {
  return {results.max_events, results.spike_time[example], results.spike_index[example],
          results.spike_position[example], results.spike_current[example]};
}

template <class R>
EndState<R> MakeEnd(const LoopResults<R>& results, std::int64_t example) {
  const BatchState<R>& state = results.state;
  return {state.v[example],    state.i[example],    state.release[example],
          state.time[example], state.head[example], results.count[example]};
}

template <class R>
void PoisonLoop(const LoopResults<R>& results, std::int64_t example, std::int64_t head) {
  Poison(results.state, example, head);
  const SpikeLog<R> log = MakeLog(results, example);
  FillNaN(log.time, log.capacity);
  FillNaN(log.current, log.capacity);
  std::fill(log.index, log.index + log.capacity, kNoIndex);
  if (log.position != nullptr) {
    std::fill(log.position, log.position + log.capacity, static_cast<std::int32_t>(head));
  }
  *results.count[example] = 0;
}

// The results of one example that nobody else looks at.
template <class R>
struct OwnResults {
  OwnResults(std::int64_t capacity, std::int64_t n_neurons)
      : time(static_cast<std::size_t>(capacity)),
        current(time.size()),
        v(static_cast<std::size_t>(n_neurons)),
        i(v.size()),
        release(v.size()),
        index(time.size()),
        position(time.size()) {}
  SpikeLog<R> log() {
    return {static_cast<std::int64_t>(time.size()), time.data(), index.data(), position.data(),
            current.data()};
  }
  EndState<R> end() { return {v.data(), i.data(), release.data(), &end_time, &head, &count}; }

  std::vector<R> time, current, v, i, release;
  std::vector<std::int32_t> index, position;
  R end_time = 0;
  std::int32_t head = 0, count = 0;
};

template <class R>
ParameterGradients<R> MakeParamGradients(const BatchParamGradients<R>& batch, std::int64_t example,
                                         std::int64_t n_neurons) {
  const auto one = [&](const Batched<R>& gradient) {
    return ParamGradient<R>{gradient[example], gradient.core_size() == n_neurons && n_neurons != 1};
  };
  return {one(batch.tau_mem), one(batch.tau_syn), one(batch.v_th),
          one(batch.v_leak),  one(batch.v_reset), one(batch.t_ref)};
}

template <class R>
void Poison(const BatchParamGradients<R>& batch, std::int64_t example) {
  for (const Batched<R>* gradient :
       {&batch.tau_mem, &batch.tau_syn, &batch.v_th, &batch.v_leak, &batch.v_reset, &batch.t_ref}) {
    FillNaN((*gradient)[example], gradient->core_size());
  }
}

template <class R>
Gradients<R> MakeGradients(const BatchGradients<R>& batch, std::int64_t example, R* weights,
                           R* input_time) {
  return {weights, batch.v[example], batch.i[example], batch.release[example], input_time, 0, 0};
}

template <class R>
Cotangents<R> MakeCotangents(const BatchCotangents<R>& batch, std::int64_t example) {
  return {batch.event_time[example], batch.v[example], batch.i[example], batch.release[example],
          static_cast<double>(*batch.time[example])};
}

// A block of scratch memory for each worker, laid out by an Arena.
class Scratch {
 public:
  Scratch(std::int64_t n_workers, std::size_t bytes)
      : stride_((bytes + kAlign - 1) / kAlign * kAlign),
        block_(static_cast<std::byte*>(::operator new(
            stride_* static_cast<std::size_t>(n_workers) + kAlign, std::align_val_t{kAlign}))) {}
  std::byte* of(std::int64_t worker) const {
    return block_.get() + static_cast<std::size_t>(worker) * stride_;
  }

 private:
  static constexpr std::size_t kAlign = 64;
  struct Free {
    void operator()(std::byte* block) const { ::operator delete(block, std::align_val_t{kAlign}); }
  };
  std::size_t stride_;
  std::unique_ptr<std::byte, Free> block_;
};

// A sweep for each worker, laid out in scratch memory of its own, and the problem that it works on.
template <class Sweep, class R>
class Sweeps {
 public:
  struct alignas(64) Worker {
    template <class... Sizes>
    Worker(Arena arena, const Problem<R>& like, Sizes... sizes)
        : problem(like), sweep(arena, problem, sizes...) {}

    Problem<R> problem;
    Sweep sweep;
  };

  // For problems of the sizes of `like`; with what else the sweep is made of.
  template <class... Sizes>
  Sweeps(std::int64_t n_workers, const Problem<R>& like, Sizes... sizes)
      : scratch_(n_workers, Bytes(like, sizes...)) {
    for (std::int64_t worker = 0; worker < n_workers; ++worker) {
      workers_.push_back(std::make_unique<Worker>(Arena(scratch_.of(worker)), like, sizes...));
    }
  }
  Worker& of(std::int64_t worker) { return *workers_[static_cast<std::size_t>(worker)]; }

 private:
  template <class... Sizes>
  static std::size_t Bytes(const Problem<R>& like, Sizes... sizes) {
    Arena measure(nullptr);
    Sweep(measure, like, sizes...);
    return measure.used();
  }

  const Scratch scratch_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_ASSEMBLE_H_
