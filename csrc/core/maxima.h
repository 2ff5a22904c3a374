// The largest voltage of every neuron over a window.
#ifndef JAXSNN_CORE_MAXIMA_H_
#define JAXSNN_CORE_MAXIMA_H_

#include <cstdint>

#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// What the maxima of one example are: value, time, and the synaptic current there, which tells how
// fast the voltage would go on. At a maximum between events the current equals the voltage.
template <class R>
struct MaximumLog {
  R* v = nullptr;  // null: not asked for
  R* time = nullptr;
  R* current = nullptr;
};

// Follows the free solutions from event to event. Voltages relative to the leak potential.
template <class Model, class R>
class MaximumTracker {
  using State = typename Model::template Pair<double>;

 public:
  MaximumTracker(Arena& arena, std::int64_t n_neurons) : n_(n_neurons) {
    for (double** lane : {&v_, &time_, &current_}) *lane = arena.Take<double>(n_);
    before_ = arena.Take<State>(n_);
  }

  void Start(const R* v, const R* i, double now) {
    for (std::int64_t j = 0; j < n_; ++j) {
      v_[j] = static_cast<double>(v[j]);
      time_[j] = now;
      current_[j] = static_cast<double>(i[j]);
    }
  }

  // Before all neurons flow on from `now`.
  void Leave(const R* v, const R* i, double now) {
    for (std::int64_t j = 0; j < n_; ++j) {
      before_[j] = {static_cast<double>(v[j]), static_cast<double>(i[j])};
      if (time_[j] == now && current_[j] != v_[j]) current_[j] = before_[j].i;
    }
  }
  const State& before(std::int64_t j) const { return before_[j]; }

  // Neuron j has flown freely from x at `begin` to `end`.
  void Follow(std::int64_t j, const typename Model::Constants& constants, double threshold,
              const State& x, double begin, const State& end_state, double end) {
    // It has spiked, and nothing is higher, whatever rounding makes of a later spike.
    if (!(v_[j] < threshold)) return;
    if (x.i > x.v && end_state.i < end_state.v &&
        x.v + (end - begin) * Model::Rate(constants, x).v > v_[j]) {
      const double at = Model::TimeOfMaximum(constants, x);
      const double v = Model::Flow(Model::Propagate(constants, at), x).v;
      if (v > v_[j] && begin + at < end) {
        v_[j] = current_[j] = v;
        time_[j] = begin + at;
      }
    }
    if (end_state.v > v_[j]) {
      v_[j] = end_state.v;
      time_[j] = end;
      current_[j] = end_state.i;
    }
  }

  // Neuron j crosses its threshold now: nothing is higher.
  void Spike(std::int64_t j, double threshold, double now) {
    if (time_[j] != now && !(v_[j] < threshold)) return;
    v_[j] = current_[j] = threshold;
    time_[j] = now;
  }

  template <class Leak>
  void Write(const MaximumLog<R>& log, const Leak& v_leak) const {
    for (std::int64_t j = 0; j < n_; ++j) {
      log.v[j] = static_cast<R>(v_[j] + v_leak[j]);
      log.time[j] = static_cast<R>(time_[j]);
      log.current[j] = static_cast<R>(current_[j] + v_leak[j]);
    }
  }

 private:
  const std::int64_t n_;
  double *v_, *time_, *current_;
  State* before_;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_MAXIMA_H_
