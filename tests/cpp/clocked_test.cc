// Steps of a clock against closed forms: crossings, saturating inputs, refractory neurons, records.
#include "cpu/clocked_loop.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "pool.h"
#include "test.h"

namespace {

using jaxsnn::Batched;
using jaxsnn::BatchLayout;

constexpr double kDt = 1e-3;
constexpr double kTauMem = 2.0;  // twice the synaptic time constant
constexpr double kTauSyn = 1.0;

// Samples of neurons that all have threshold 1 and reset 0, and hear one arrival at step 0.
class Clocked {
 public:
  Clocked(std::int64_t n_batch, std::vector<double> weights, double i_max, std::int64_t n_steps,
          std::int32_t n_clamped, std::int32_t n_silent, std::int64_t max_events)
      : n_batch_(n_batch),
        n_(static_cast<std::int64_t>(weights.size())),
        max_events_(max_events),
        excitatory_(weights),
        inhibitory_(weights.size()),
        v_from_v_(weights.size(), std::exp(-kDt / kTauMem)),
        v_from_i_(weights.size(), std::exp(-kDt / kTauMem) - std::exp(-kDt / kTauSyn)),
        v_from_constant_(weights.size(), 1 - std::exp(-kDt / kTauMem)),
        i_from_i_(weights.size(), std::exp(-kDt / kTauSyn)),
        threshold_(weights.size(), 1.0),
        reset_(weights.size(), 0.0),
        silent_(weights.size(), n_silent),
        clamped_(weights.size(), n_clamped),
        arrival_step_{0, -1},
        arrival_channel_{0, -1},
        step_(static_cast<std::size_t>(n_batch * max_events)),
        neuron_(step_.size()),
        count_(static_cast<std::size_t>(n_batch)) {
    p_.n_batch = n_batch;
    p_.n_neurons = n_;
    p_.n_steps = n_steps;
    p_.v_from_v = Shared(v_from_v_);
    p_.v_from_i = Shared(v_from_i_);
    p_.v_from_constant = Shared(v_from_constant_);
    p_.i_from_i = Shared(i_from_i_);
    p_.threshold = Shared(threshold_);
    p_.reset = Shared(reset_);
    p_.n_silent = Shared(silent_);
    p_.n_clamped = Shared(clamped_);
    p_.excitatory = excitatory_.data();
    p_.inhibitory = inhibitory_.data();
    p_.i_max = i_max;
    p_.arrival_step = Shared(arrival_step_);
    p_.arrival_channel = Shared(arrival_channel_);
  }

  void Run(jaxsnn::ThreadPool& pool) {
    jaxsnn::ClockedResults results;
    results.max_events = max_events_;
    results.step = Own(step_, max_events_);
    results.neuron = Own(neuron_, max_events_);
    results.count = Own(count_, 1);
    jaxsnn::ClockedLoop(p_, results, pool);
  }

  const std::vector<std::int32_t>& step() const { return step_; }
  const std::vector<std::int32_t>& neuron() const { return neuron_; }
  const std::vector<std::int32_t>& count() const { return count_; }
  std::vector<double>& inhibitory() { return inhibitory_; }

 private:
  template <class T>
  Batched<const T> Shared(const std::vector<T>& values) const {
    return {values.data(), static_cast<std::int64_t>(values.size()), BatchLayout({n_batch_}, {1})};
  }
  template <class T>
  Batched<T> Own(std::vector<T>& values, std::int64_t size) const {
    return {values.data(), size, BatchLayout({n_batch_}, {n_batch_})};
  }

  std::int64_t n_batch_, n_, max_events_;
  std::vector<double> excitatory_, inhibitory_;
  std::vector<double> v_from_v_, v_from_i_, v_from_constant_, i_from_i_, threshold_, reset_;
  std::vector<std::int32_t> silent_, clamped_, arrival_step_, arrival_channel_;
  std::vector<std::int32_t> step_, neuron_, count_;
  jaxsnn::ClockedProblem p_;
};

constexpr double kNowhere = 1e300;
constexpr std::int32_t kForEver = 1 << 20;

// V = w (x - x^2) for x = exp(-t / tau_mem).
void CrossesWithinTheRightStep() {
  test::Pool pool(2);
  for (const double w : {4.5, 6.0, 20.0, 300.0}) {
    Clocked run(1, {w}, kNowhere, 3000, kForEver, kForEver, 4);
    run.Run(pool);
    const double at = -kTauMem * std::log((1 + std::sqrt(1 - 4 / w)) / 2);
    CHECK(run.count()[0] == 1);
    CHECK(run.step()[0] == static_cast<std::int32_t>(std::floor(at / kDt)));
    CHECK(run.step()[1] == -1 && run.neuron()[1] == -1);
  }
  Clocked weak(1, {3.9}, kNowhere, 3000, kForEver, kForEver, 4);
  weak.Run(pool);
  CHECK(weak.count()[0] == 0);
}

// An input above i_max is a constant current: V = i_max (1 - x).
void InputsSaturate() {
  test::Pool pool(2);
  Clocked weak(1, {1e9}, 0.99, 3000, kForEver, kForEver, 4);
  weak.Run(pool);
  CHECK(weak.count()[0] == 0);
  Clocked run(1, {1e9}, 2.0, 3000, kForEver, kForEver, 4);
  run.Run(pool);
  CHECK(run.count()[0] == 1);
  CHECK(run.step()[0] == static_cast<std::int32_t>(std::floor(kTauMem * std::log(2.0) / kDt)));
  // Both signs saturate, each on its own.
  Clocked both(1, {1e9}, 2.0, 3000, kForEver, kForEver, 4);
  both.inhibitory()[0] = 1e6;
  both.Run(pool);
  CHECK(both.count()[0] == 0);
}

// Under a constant current a spike follows the end of the clamp by the time from reset to
// threshold, and none comes while the neuron is silent.
void RefractoryNeurons() {
  test::Pool pool(2);
  const double rise = kTauMem * std::log(2.0) / kDt;
  for (const std::int32_t n_clamped : {1, 200, 450}) {
    Clocked run(1, {1e30}, 2.0, 9000, n_clamped, n_clamped, 20);
    run.Run(pool);
    CHECK(run.count()[0] > 4);
    for (std::size_t k = 0; k < 5; ++k) {
      const double at = rise + static_cast<double>(k) * (rise + n_clamped);
      CHECK(std::abs(run.step()[k] - at) < 2);
    }
  }
  Clocked free(1, {1e30}, 2.0, 9000, 200, 4000, 20);
  free.Run(pool);
  CHECK(free.count()[0] == 2);
  CHECK(free.step()[1] - free.step()[0] == 4000);
}

void ARecordThatIsFullCountsOn() {
  test::Pool pool(2);
  Clocked run(1, {1e30, 1e30}, 2.0, 9000, 1, 1, 3);
  run.Run(pool);
  CHECK(run.count()[0] > 6);
  CHECK(run.neuron()[0] == 0 && run.neuron()[1] == 1 && run.neuron()[2] == 0);
  CHECK(run.step()[0] == run.step()[1] && run.step()[1] < run.step()[2]);
}

void EverySampleOnItsOwn() {
  test::Pool pool(3);
  const std::vector<double> weights = {6.0, 3.0, 20.0};
  Clocked one(1, weights, kNowhere, 2000, kForEver, kForEver, 5);
  Clocked many(40, weights, kNowhere, 2000, kForEver, kForEver, 5);
  one.Run(pool);
  many.Run(pool);
  CHECK(one.count()[0] == 2);
  CHECK(one.neuron()[0] == 2 && one.neuron()[1] == 0);
  for (std::size_t b = 0; b < 40; ++b) {
    CHECK(many.count()[b] == 2);
    for (std::size_t k = 0; k < 5; ++k) CHECK(many.step()[5 * b + k] == one.step()[k]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  test::Configure(argc, argv);
  CrossesWithinTheRightStep();
  InputsSaturate();
  RefractoryNeurons();
  ARecordThatIsFullCountsOn();
  EverySampleOnItsOwn();
  return test::Report();
}
