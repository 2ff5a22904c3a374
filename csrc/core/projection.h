// Synapses with delays: from a set of sources, which are the inputs or the neurons themselves, to
// all neurons.
#ifndef JAXSNN_CORE_PROJECTION_H_
#define JAXSNN_CORE_PROJECTION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/problem.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// When a spike arrives. Rounded to the type of all other times, so that the order of events is the
// same wherever it is derived from them.
template <class R>
JAXSNN_HD R ArrivalTime(R time, R delay) {
  return static_cast<R>(static_cast<double>(time) + static_cast<double>(delay));
}

template <class R>
struct Projection {
  const R* weights = nullptr;  // [n_sources, n_neurons]
  std::int64_t n_sources = 0;
  std::int64_t n_neurons = 0;
  // [delay_rows, delay_cols]: along each axis one for all, or one each. Infinite: no synapse.
  const R* delays = nullptr;
  std::int64_t delay_rows = 1;
  std::int64_t delay_cols = 1;
  // With a delay per target, every row in the order of its delays, see SortDelays.
  const std::int32_t* order = nullptr;
  const R* sorted = nullptr;

  JAXSNN_HD bool per_target() const { return delay_cols > 1; }
  JAXSNN_HD std::int64_t n_delays() const { return delay_rows * delay_cols; }
  JAXSNN_HD std::int64_t delay_row(std::int64_t source) const {
    return delay_rows > 1 ? source : 0;
  }
  JAXSNN_HD const R* row(std::int64_t source) const { return weights + source * n_neurons; }

  // The longest delay of all synapses.
  R LongestDelay() const {
    R longest = 0;
    for (std::int64_t k = 0; k < n_delays(); ++k) {
      if (delays[k] > longest && static_cast<double>(delays[k]) < kNever) longest = delays[k];
    }
    return longest;
  }
};

// The targets of one row of delays from the nearest to the farthest, and their delays. Equal delays
// in the order of the targets.
template <class R>
void SortDelays(const Projection<R>& p, std::int64_t row, std::int32_t* order, R* sorted) {
  const R* const delays = p.delays + row * p.delay_cols;
  for (std::int64_t j = 0; j < p.delay_cols; ++j) order[j] = static_cast<std::int32_t>(j);
  std::sort(order, order + p.delay_cols, [delays](std::int32_t a, std::int32_t b) {
    return delays[a] != delays[b] ? delays[a] < delays[b] : a < b;
  });
  for (std::int64_t j = 0; j < p.delay_cols; ++j) sorted[j] = delays[order[j]];
}

// A network on one example: neurons that hear their inputs and each other.
template <class R>
struct Network : Problem<R> {
  Projection<R> input;
  Projection<R> recurrent;  // without sources where the neurons do not hear each other
  // Spikes of the neurons up to `time`. What of them arrives later is still to come.
  const R* past_time = nullptr;
  const std::int32_t* past_index = nullptr;
  std::int64_t n_past = 0;
  // When to look at the state of all neurons.
  const R* probe_time = nullptr;
  std::int64_t n_probes = 0;

  // The inputs up to here are on their way already.
  JAXSNN_HD std::int64_t CountInputs(double until) const {
    std::int64_t k = this->queue.head;
    while (this->queue.TimeAt(k) <= until) ++k;
    return k;
  }
};

template <class R>
JAXSNN_HD Outcome CheckDelays(const Projection<R>& p, Argument argument) {
  return internal::CheckEach(p.delays, p.n_delays(), argument, [](double x) { return x >= 0; });
}

// Everything but weights and delays, which many examples share.
template <class R>
JAXSNN_HD Outcome CheckNetwork(const Network<R>& p) {
  Outcome outcome = CheckProblem(p);
  if (!outcome.ok()) return outcome;
  // Inputs that were taken before may still be on their way.
  const SpikeQueue<R> taken{p.queue.time, p.queue.index, p.queue.head, 0};
  outcome = taken.Check(-kNever, p.n_inputs);
  if (!outcome.ok()) return outcome;
  if (p.queue.head > 0 && !(static_cast<double>(p.queue.time[p.queue.head - 1]) <= p.time)) {
    return {Status::kInvalidValue, Argument::kInputHead, 0, static_cast<double>(p.queue.head)};
  }
  const SpikeQueue<R> past{p.past_time, p.past_index, p.n_past, 0};
  outcome = past.Check(-kNever, p.n_neurons);
  for (std::int64_t k = 0; outcome.ok() && k < p.n_past; ++k) {
    const double at = static_cast<double>(p.past_time[k]);
    if (at > p.time && at < kNever) outcome = {Status::kInvalidValue, Argument::kInputTime, k, at};
  }
  if (outcome.argument == Argument::kInputTime) outcome.argument = Argument::kPastTime;
  if (outcome.argument == Argument::kInputIndex) outcome.argument = Argument::kPastIndex;
  double previous = p.time;
  for (std::int64_t k = 0; outcome.ok() && k < p.n_probes; ++k) {
    const double at = static_cast<double>(p.probe_time[k]);
    if (std::isnan(at)) return {Status::kNonFinite, Argument::kProbeTime, k, at};
    if (at < previous) return {Status::kUnsortedInput, Argument::kProbeTime, k, at};
    if (at > p.t_max) return {Status::kInvalidValue, Argument::kProbeTime, k, at};
    previous = at;
  }
  return outcome;
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_PROJECTION_H_
