// The batch drivers: one call of each covers a whole batch, in parallel, with results that depend
// neither on the number of threads nor on the instruction set.
#ifndef JAXSNN_CPU_KERNELS_H_
#define JAXSNN_CPU_KERNELS_H_

#include <cstdint>
#include <vector>

#include "core/types.h"
#include "cpu/batch.h"
#include "cpu/isa.h"
#include "cpu/parallel_for.h"

namespace jaxsnn {

template <class R>
struct BatchParams {
  Batched<const R> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref;
};

// The operands that event_loop and event_step have in common.
template <class R>
struct BatchProblem {
  std::int64_t n_batch = 1;
  std::int64_t n_inputs = 0;
  std::int64_t n_neurons = 0;
  BatchParams<R> params;
  Batched<const R> weights, v, i, release, time;
  Batched<const R> input_time;
  Batched<const std::int32_t> input_index, input_head;
  Batched<const R> t_max;
};

// The operands of a network with delays and recurrent connections.
template <class R>
struct BatchNetwork : BatchProblem<R> {
  Batched<const R> recurrent;
  std::int64_t n_sources = 0;  // rows of `recurrent`: n_neurons, or none
  Batched<const R> delays, recurrent_delays;
  std::int64_t delay_rows = 1, delay_cols = 1;
  std::int64_t recurrent_delay_rows = 1, recurrent_delay_cols = 1;
  Batched<const R> past_time;
  Batched<const std::int32_t> past_index;
  Batched<const R> probe_time;
  // Populations in order: how many neurons, and for how many spikes there is room.
  std::vector<std::int64_t> population_sizes, population_capacities;
};

template <class R>
struct BatchState {
  Batched<R> v, i, release, time;
  Batched<std::int32_t> head;
};

template <class R>
struct BatchStatus {
  Batched<std::int32_t> status;
  Batched<R> detail;  // [argument, element, value]

  void Set(std::int64_t example, const Outcome& outcome) const {
    *status[example] = static_cast<std::int32_t>(outcome.status);
    detail[example][0] = static_cast<R>(static_cast<std::int32_t>(outcome.argument));
    detail[example][1] = static_cast<R>(outcome.element);
    detail[example][2] = static_cast<R>(outcome.value);
  }
};

template <class R>
struct LoopResults {
  std::int64_t max_events = 1;
  Batched<R> spike_time;
  Batched<std::int32_t> spike_index, spike_position;
  Batched<R> spike_current;
  BatchState<R> state;
  Batched<std::int32_t> count;
  BatchStatus<R> outcome;
  // Of networks: what probes saw, and the maxima, empty where they are not asked for.
  Batched<R> probe_v, probe_i;
  Batched<R> max_v, max_time, max_current;
};

template <class R>
struct StepResults {
  Batched<R> event_time;
  Batched<std::int32_t> event_index, event_kind;
  BatchState<R> state;
  BatchStatus<R> outcome;
};

// The cotangents of the differentiable results. `event_time` is that of all spikes, or of the
// event.
template <class R>
struct BatchCotangents {
  Batched<const R> event_time, v, i, release, time;
  Batched<const R> probe_v, probe_i, max_v;  // of networks
};

// The gradients of parameters, one value or one per neuron; written where they are wanted.
template <class R>
struct BatchParamGradients {
  Batched<R> tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref;
  bool wanted = false;
};

template <class R>
struct BatchGradients {
  Batched<R> weights;  // summed over the examples that share a slot
  Batched<R> v, i, release, time, input_time, t_max;
  BatchParamGradients<R> params;
  bool want_input_time = true;
};

template <class R>
struct BatchNetworkGradients {
  // Each summed over the examples that share a slot.
  Batched<R> weights, recurrent, delays, recurrent_delays;
  Batched<R> v, i, release, time, input_time, past_time, probe_time, t_max;
  BatchParamGradients<R> params;
  bool want_arrivals = true;  // input_time and delays
};

template <Isa isa, class R>
void EventLoopForward(const BatchProblem<R>& problem, const LoopResults<R>& results,
                      ThreadPool& pool);
template <Isa isa, class R>
void EventLoopBackward(const BatchProblem<R>& problem, const LoopResults<R>& results,
                       const BatchCotangents<R>& cotangents, const BatchGradients<R>& gradients,
                       ThreadPool& pool);

// The same by the sweep of networks, with the gradients of parameters.
template <Isa isa, class R>
void EventLoopParameterGradients(const BatchProblem<R>& problem, const LoopResults<R>& results,
                                 const BatchCotangents<R>& cotangents,
                                 const BatchGradients<R>& gradients, ThreadPool& pool);

// How many spikes an example fires up to t_max, counted up to a limit: what an error has to say
// after a record was too small.
struct SpikeCount {
  std::int64_t count;
  bool complete;  // false: there are more
};
template <Isa isa, class R>
SpikeCount CountSpikes(const BatchProblem<R>& problem, std::int64_t example, std::int64_t limit);

template <Isa isa, class R>
void NetworkLoopForward(const BatchNetwork<R>& network, const LoopResults<R>& results,
                        ThreadPool& pool);
template <Isa isa, class R>
void NetworkLoopBackward(const BatchNetwork<R>& network, const LoopResults<R>& results,
                         const BatchCotangents<R>& cotangents,
                         const BatchNetworkGradients<R>& gradients, ThreadPool& pool);

// The same for one population of a network, with the limit for each.
template <Isa isa, class R>
SpikeCount CountSpikes(const BatchNetwork<R>& network, std::int64_t example,
                       std::int64_t population, std::int64_t limit, ThreadPool& pool);

template <Isa isa, class R>
void EventStepForward(const BatchProblem<R>& problem, const StepResults<R>& results,
                      ThreadPool& pool);
template <Isa isa, class R>
void EventStepBackward(const BatchProblem<R>& problem, const StepResults<R>& results,
                       const BatchCotangents<R>& cotangents, const BatchGradients<R>& gradients,
                       ThreadPool& pool);

// Neuron by neuron: exact propagation by dt, and the time to the next crossing.
template <class R>
struct BatchNeurons {
  std::int64_t n_batch = 1;
  std::int64_t n_neurons = 0;
  BatchParams<R> params;
  Batched<const R> v, i;
  Batched<const R> dt;  // [1] or [n_neurons]; flow only
};

template <Isa isa, class R>
void FlowForward(const BatchNeurons<R>& neurons, const Batched<R>& v, const Batched<R>& i,
                 const BatchStatus<R>& outcome);
template <Isa isa, class R>
void FlowBackward(const BatchNeurons<R>& neurons, const Batched<const R>& ct_v,
                  const Batched<const R>& ct_i, const Batched<R>& v, const Batched<R>& i,
                  const Batched<R>& dt, const BatchParamGradients<R>& params);
template <Isa isa, class R>
void CrossingForward(const BatchNeurons<R>& neurons, const Batched<R>& delay,
                     const BatchStatus<R>& outcome);
template <Isa isa, class R>
void CrossingBackward(const BatchNeurons<R>& neurons, const Batched<const R>& delay,
                      const Batched<const R>& ct_delay, const Batched<R>& v, const Batched<R>& i,
                      const BatchParamGradients<R>& params);

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_KERNELS_H_
