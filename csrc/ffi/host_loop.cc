#include "ffi/host_loop.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/clocked_loop.h"
#include "cpu/kernels.h"

namespace jaxsnn {
namespace {

namespace nb = nanobind;

template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Threads of one call: JAX lends its own to custom calls alone.
class OwnThreads : public ThreadPool {
 public:
  ~OwnThreads() override {
    for (std::thread& thread : threads_) thread.join();
  }
  std::int64_t num_threads() const override { return std::thread::hardware_concurrency(); }
  void Schedule(std::function<void()> task) override { threads_.emplace_back(std::move(task)); }

 private:
  std::vector<std::thread> threads_;
};

void Expect(const char* name, std::size_t size, std::int64_t expected) {
  if (size == static_cast<std::size_t>(expected)) return;
  const std::string text = std::string("jaxsnn: ") + name + " has an axis of size " +
                           std::to_string(size) + ", expected " + std::to_string(expected);
  throw nb::value_error(text.c_str());
}

// Rows of an array as a batch of examples: one each, or one for all.
template <class T>
Batched<T> Rows(const char* name, const Matrix<T>& array, std::int64_t n_batch,
                std::int64_t n_columns) {
  const auto rows = static_cast<std::int64_t>(array.shape(0));
  if (rows != 1) Expect(name, array.shape(0), n_batch);
  Expect(name, array.shape(1), n_columns);
  return {array.data(), n_columns, BatchLayout({n_batch}, {rows})};
}

template <class T>
Batched<T> Own(T* data, std::int64_t n_batch, std::int64_t size) {
  return {data, size, BatchLayout({n_batch}, {n_batch})};
}

template <class T>
Batched<const T> Shared(const T* data, std::int64_t n_batch, std::int64_t size) {
  return {data, size, BatchLayout({n_batch}, {1})};
}

// A result that a kernel writes and nobody asked for here.
template <class T>
class Spare {
 public:
  Spare(std::int64_t n_batch, std::int64_t size)
      : n_batch_(n_batch), size_(size), data_(static_cast<std::size_t>(n_batch * size)) {}
  Batched<T> view() { return Own(data_.data(), n_batch_, size_); }

 private:
  std::int64_t n_batch_, size_;
  std::vector<T> data_;
};

// See jaxsnn.ops._host, which makes the arrays.
template <class R>
void HostLoop(std::array<Matrix<const R>, 6> params, Matrix<const R> weights, Matrix<const R> v,
              Matrix<const R> recurrent, R recurrent_delay, Matrix<const R> input_time,
              Matrix<const std::int32_t> input_index, R t_max, Matrix<R> time,
              Matrix<std::int32_t> index, Vector<std::int32_t> status) {
  BatchNetwork<R> p;
  const auto n_batch = p.n_batch = static_cast<std::int64_t>(time.shape(0));
  const auto n_neurons = p.n_neurons = static_cast<std::int64_t>(weights.shape(1));
  p.n_inputs = static_cast<std::int64_t>(weights.shape(0));
  const auto param = [&](std::size_t at) {
    return Rows("params", params[at], n_batch, params[at].shape(1) == 1 ? 1 : n_neurons);
  };
  p.params = {param(0), param(1), param(2), param(3), param(4), param(5)};
  p.weights = Shared(weights.data(), n_batch, p.n_inputs * n_neurons);
  p.n_sources = static_cast<std::int64_t>(recurrent.shape(0));
  if (p.n_sources != 0) Expect("recurrent", recurrent.shape(0), n_neurons);
  if (p.n_sources != 0) Expect("recurrent", recurrent.shape(1), n_neurons);
  p.recurrent = Shared(recurrent.data(), n_batch, p.n_sources * n_neurons);

  const std::vector<R> no_current(static_cast<std::size_t>(n_neurons));
  const std::vector<R> no_release(static_cast<std::size_t>(n_neurons),
                                  -std::numeric_limits<R>::infinity());
  const R zero = 0;
  const std::int32_t first = 0;
  p.v = Rows("v", v, n_batch, n_neurons);
  p.i = Shared(no_current.data(), n_batch, n_neurons);
  p.release = Shared(no_release.data(), n_batch, n_neurons);
  p.time = p.delays = Shared(&zero, n_batch, 1);
  p.recurrent_delays = Shared<R>(&recurrent_delay, n_batch, 1);
  p.input_head = Shared(&first, n_batch, 1);
  p.t_max = Shared<R>(&t_max, n_batch, 1);
  const auto queue = static_cast<std::int64_t>(input_time.shape(1));
  p.input_time = Rows("inputs.time", input_time, n_batch, queue);
  p.input_index = Rows("inputs.index", input_index, n_batch, queue);

  LoopResults<R> results;
  results.max_events = static_cast<std::int64_t>(time.shape(1));
  p.population_sizes = {n_neurons};
  p.population_capacities = {results.max_events};
  Expect("index", index.shape(0), n_batch);
  Expect("index", index.shape(1), results.max_events);
  Expect("status", status.shape(0), n_batch);
  results.spike_time = Own(time.data(), n_batch, results.max_events);
  results.spike_index = Own(index.data(), n_batch, results.max_events);
  results.outcome.status = Own(status.data(), n_batch, 1);
  Spare<std::int32_t> positions(n_batch, results.max_events), head(n_batch, 1), count(n_batch, 1);
  Spare<R> currents(n_batch, results.max_events), end_v(n_batch, n_neurons);
  Spare<R> end_i(n_batch, n_neurons), release(n_batch, n_neurons), end(n_batch, 1);
  Spare<R> detail(n_batch, 3);
  results.spike_position = positions.view();
  results.spike_current = currents.view();
  results.state = {end_v.view(), end_i.view(), release.view(), end.view(), head.view()};
  results.count = count.view();
  results.outcome.detail = detail.view();

  const nb::gil_scoped_release others_run;
  OwnThreads threads;
  OnBestIsa([&]<Isa isa>() {
    if (p.n_sources == 0) return EventLoopForward<isa, R>(p, results, threads);
    return NetworkLoopForward<isa, R>(p, results, threads);
  });
}

// See jaxsnn.event.hardware._clocked, which makes the arrays.
void HostClockedLoop(std::array<Matrix<const double>, 4> step, Matrix<const double> threshold,
                     Matrix<const double> reset, Matrix<const std::int32_t> n_silent,
                     Matrix<const std::int32_t> n_clamped, Matrix<const double> excitatory,
                     Matrix<const double> inhibitory, double i_max, std::int64_t n_steps,
                     Matrix<const std::int32_t> arrival_step,
                     Matrix<const std::int32_t> arrival_channel, Matrix<std::int32_t> fired_step,
                     Matrix<std::int32_t> fired_neuron, Vector<std::int32_t> count) {
  ClockedProblem p;
  const auto n_batch = p.n_batch = static_cast<std::int64_t>(fired_step.shape(0));
  const auto n_neurons = p.n_neurons = static_cast<std::int64_t>(excitatory.shape(1));
  p.n_steps = n_steps;
  p.v_from_v = Rows("v_from_v", step[0], n_batch, n_neurons);
  p.v_from_i = Rows("v_from_i", step[1], n_batch, n_neurons);
  p.v_from_constant = Rows("v_from_constant", step[2], n_batch, n_neurons);
  p.i_from_i = Rows("i_from_i", step[3], n_batch, n_neurons);
  p.threshold = Rows("threshold", threshold, n_batch, n_neurons);
  p.reset = Rows("reset", reset, n_batch, n_neurons);
  p.n_silent = Rows("n_silent", n_silent, n_batch, n_neurons);
  p.n_clamped = Rows("n_clamped", n_clamped, n_batch, n_neurons);
  p.excitatory = excitatory.data();
  p.inhibitory = inhibitory.data();
  p.i_max = i_max;
  Expect("inhibitory", inhibitory.shape(0), static_cast<std::int64_t>(excitatory.shape(0)));
  Expect("inhibitory", inhibitory.shape(1), n_neurons);
  const auto queue = static_cast<std::int64_t>(arrival_step.shape(1));
  p.arrival_step = Rows("arrival_step", arrival_step, n_batch, queue);
  p.arrival_channel = Rows("arrival_channel", arrival_channel, n_batch, queue);

  ClockedResults results;
  results.max_events = static_cast<std::int64_t>(fired_step.shape(1));
  Expect("fired_neuron", fired_neuron.shape(0), n_batch);
  Expect("fired_neuron", fired_neuron.shape(1), results.max_events);
  Expect("count", count.shape(0), n_batch);
  results.step = Own(fired_step.data(), n_batch, results.max_events);
  results.neuron = Own(fired_neuron.data(), n_batch, results.max_events);
  results.count = Own(count.data(), n_batch, 1);

  const nb::gil_scoped_release others_run;
  OwnThreads threads;
  ClockedLoop(p, results, threads);
}

}  // namespace

void AddHostLoop(nb::module_& module) {
  // Results are written to the arrays themselves, never to converted copies of them.
  const auto add_loop = [&](auto* loop) {
    module.def("host_loop", loop, nb::arg("params"), nb::arg("weights"), nb::arg("v"),
               nb::arg("recurrent"), nb::arg("recurrent_delay"), nb::arg("input_time"),
               nb::arg("input_index"), nb::arg("t_max"), nb::arg("time").noconvert(),
               nb::arg("index").noconvert(), nb::arg("status").noconvert());
  };
  add_loop(&HostLoop<float>);
  add_loop(&HostLoop<double>);
  module.def("clocked_loop", &HostClockedLoop, nb::arg("step"), nb::arg("threshold"),
             nb::arg("reset"), nb::arg("n_silent"), nb::arg("n_clamped"), nb::arg("excitatory"),
             nb::arg("inhibitory"), nb::arg("i_max"), nb::arg("n_steps"), nb::arg("arrival_step"),
             nb::arg("arrival_channel"), nb::arg("fired_step").noconvert(),
             nb::arg("fired_neuron").noconvert(), nb::arg("count").noconvert());
}

}  // namespace jaxsnn
