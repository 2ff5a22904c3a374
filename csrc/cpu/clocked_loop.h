// LIF neurons in steps of a clock, for two effects of analog hardware that the exact solution does
// not know: synaptic inputs that saturate, and a refractory time whose end leaves the membrane
// free.
#ifndef JAXSNN_CPU_CLOCKED_LOOP_H_
#define JAXSNN_CPU_CLOCKED_LOOP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/batch.h"
#include "cpu/parallel_for.h"

namespace jaxsnn {

struct ClockedProblem {
  std::int64_t n_batch = 1;
  std::int64_t n_neurons = 0;
  std::int64_t n_steps = 0;
  // What a step makes of the voltage above the leak, of a current, and of one that stays as it is.
  Batched<const double> v_from_v, v_from_i, v_from_constant, i_from_i;
  Batched<const double> threshold, reset;  // above the leak
  // Steps from a spike on for which the neuron is silent, and the voltage at its reset.
  Batched<const std::int32_t> n_silent, n_clamped;
  // Rows of neurons for each channel: of the synaptic inputs of both signs, each of which gives at
  // most i_max.
  const double* excitatory = nullptr;
  const double* inhibitory = nullptr;
  double i_max = 0;
  // The step and the channel of each arrival, in order, -1 for padding at the end.
  Batched<const std::int32_t> arrival_step, arrival_channel;
};

struct ClockedResults {
  std::int64_t max_events = 1;
  Batched<std::int32_t> step, neuron;  // in order of both
  Batched<std::int32_t> count;         // of all spikes, of which max_events have been recorded
};

// One example.
class ClockedSweep {
 public:
  ClockedSweep(const ClockedProblem& problem, std::int64_t example)
      : problem_(problem),
        example_(example),
        n_(static_cast<std::size_t>(problem.n_neurons)),
        v_(n_),
        excited_(n_),
        inhibited_(n_),
        after_(n_),
        part_(n_),
        since_(n_, kNever) {}

  void Run(const ClockedResults& results) {
    std::int32_t* const step = results.step[example_];
    std::int32_t* const neuron = results.neuron[example_];
    std::int32_t n_spikes = 0;
    for (std::int64_t k = 0; k < problem_.n_steps; ++k) {
      Arrive(k);
      Advance();
      for (std::size_t n = 0; n < n_; ++n) {
        if (!Settle(n)) continue;
        if (n_spikes < results.max_events) {
          step[n_spikes] = static_cast<std::int32_t>(k);
          neuron[n_spikes] = static_cast<std::int32_t>(n);
        }
        ++n_spikes;
      }
    }
    *results.count[example_] = n_spikes;
    const auto recorded = std::min<std::int64_t>(n_spikes, results.max_events);
    std::fill(step + recorded, step + results.max_events, -1);
    std::fill(neuron + recorded, neuron + results.max_events, -1);
  }

 private:
  static constexpr std::int32_t kNever = 1 << 30;

  void Arrive(std::int64_t k) {
    const std::int32_t* const steps = problem_.arrival_step[example_];
    const std::int32_t* const channels = problem_.arrival_channel[example_];
    for (; next_ < problem_.arrival_step.core_size() && steps[next_] == k; ++next_) {
      const std::int64_t row = channels[next_] * problem_.n_neurons;
      for (std::size_t n = 0; n < n_; ++n) {
        excited_[n] += problem_.excitatory[row + static_cast<std::int64_t>(n)];
        inhibited_[n] += problem_.inhibitory[row + static_cast<std::int64_t>(n)];
      }
    }
  }

  // The free solution: an input above i_max gives i_max, while what charges it decays all the same.
  void Advance() {
    const double* const v_from_v = problem_.v_from_v[example_];
    const double* const v_from_i = problem_.v_from_i[example_];
    const double* const v_from_constant = problem_.v_from_constant[example_];
    const double* const i_from_i = problem_.i_from_i[example_];
    const double i_max = problem_.i_max;
    const auto given = [&](double current, std::size_t n) {
      return current > i_max ? v_from_constant[n] * i_max : v_from_i[n] * current;
    };
    for (std::size_t n = 0; n < n_; ++n) {
      after_[n] = v_from_v[n] * v_[n] + (given(excited_[n], n) - given(inhibited_[n], n));
      excited_[n] *= i_from_i[n];
      inhibited_[n] *= i_from_i[n];
    }
  }

  // Moves one neuron on; returns whether it fires. A crossing at a part of step k holds the voltage
  // at the reset up to the same part of step k + n_clamped, and the neuron silent up to step
  // k + n_silent.
  bool Settle(std::size_t n) {
    const double before = v_[n];
    double after = after_[n];
    if (since_[n] < kNever) {
      const double reset = problem_.reset[example_][n];
      const std::int32_t n_clamped = problem_.n_clamped[example_][n];
      if (since_[n] == n_clamped) after = reset + (1 - part_[n]) * (after - reset);
      if (since_[n] < n_clamped) after = reset;
    }
    const double threshold = problem_.threshold[example_][n];
    const bool fires = after >= threshold && since_[n] >= problem_.n_silent[example_][n];
    if (fires) {
      const double rise = after > before ? after - before : 1;
      part_[n] = std::clamp((threshold - before) / rise, 0.0, 1.0);
      after = problem_.reset[example_][n];
      since_[n] = 1;
    } else if (since_[n] < kNever) {
      ++since_[n];
    }
    v_[n] = after;
    return fires;
  }

  const ClockedProblem& problem_;
  const std::int64_t example_;
  const std::size_t n_;
  std::int64_t next_ = 0;
  std::vector<double> v_, excited_, inhibited_, after_;
  std::vector<double> part_;         // of a step, at which the last spike was
  std::vector<std::int32_t> since_;  // the last spike, steps
};

inline void ClockedLoop(const ClockedProblem& problem, const ClockedResults& results,
                        ThreadPool& pool) {
  const double cost = 3.0 * static_cast<double>(problem.n_neurons * problem.n_steps);
  const std::int64_t workers =
      NumWorkers(pool, problem.n_batch, cost * static_cast<double>(problem.n_batch));
  ParallelFor(pool, problem.n_batch, workers, [&](std::int64_t example, std::int64_t) {
    ClockedSweep(problem, example).Run(results);
  });
}

}  // namespace jaxsnn

#endif  // JAXSNN_CPU_CLOCKED_LOOP_H_
