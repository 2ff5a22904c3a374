// The batch driver of layers in time steps.
#ifndef JAXSNN_CPU_LIF_STEPS_H_
#define JAXSNN_CPU_LIF_STEPS_H_

#include <cstdint>

#include "cpu/batch.h"
#include "cpu/isa.h"
#include "cpu/parallel_for.h"

namespace jaxsnn {

template <class R>
struct BatchSteps {
  std::int64_t n_batch = 1;
  std::int64_t n_steps = 0;
  std::int64_t n_inputs = 0;
  std::int64_t n_neurons = 0;
  std::int64_t n_sources = 0;  // rows of `recurrent`: n_neurons, or none
  Batched<const R> weights, recurrent, inputs;
  Batched<const R> v, i, spikes;
  Batched<const std::int32_t> hold;
  Batched<const R> leak, drive, decay, v_th, v_leak, v_reset;  // one value, or one per neuron
  std::int32_t refractory = 0;
  bool jump_first = false;
  int shape = 0;  // a SurrogateShape
  double slope = 1, scale = 1;
};

template <class R>
struct BatchStepsResults {
  Batched<R> spikes, voltage;  // [n_steps, n_neurons]
  Batched<R> v, i;
  Batched<std::int32_t> hold;
};

template <class R>
struct BatchStepsCotangents {
  Batched<const R> spikes, voltage, v, i;
};

template <class R>
struct BatchStepsGradients {
  Batched<R> weights, recurrent;  // summed over the examples that share a slot
  Batched<R> inputs, v, i, spikes;
  Batched<R> leak, drive, decay, v_th, v_leak, v_reset;
  bool want_inputs = true;
  bool want_parameters = true;
};

template <Isa isa, class R>
void LifStepsForward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                     ThreadPool& pool);

// Reads the spikes and voltages of the results.
template <Isa isa, class R>
void LifStepsBackward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                      const BatchStepsCotangents<R>& cotangents,
                      const BatchStepsGradients<R>& gradients, ThreadPool& pool);

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_LIF_STEPS_H_
