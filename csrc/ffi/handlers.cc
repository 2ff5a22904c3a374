// The custom calls: decode, run the kernel, turn statuses into errors where that was asked for.
#include "ffi/handlers.h"

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/types.h"
#include "cpu/kernels.h"
#include "ffi/decode.h"
#include "ffi/message.h"

namespace jaxsnn {
namespace {

namespace ffi = xla::ffi;

// The sizes that the operands of one call share.
struct Dims {
  Dim inputs, neurons, queue, events, detail{3};
  Dim sources, past, probes, maxima;  // of networks
};

// Delays: along each axis one for all, or one each.
struct DelayDims {
  Dim rows, cols;
};

template <class R>
BatchParams<R> DecodeParams(Decoder& d, const Dim& neurons) {
  BatchParams<R> params;
  params.tau_mem = d.ArgParam<R>("params.tau_mem", neurons);
  params.tau_syn = d.ArgParam<R>("params.tau_syn", neurons);
  params.v_th = d.ArgParam<R>("params.v_th", neurons);
  params.v_leak = d.ArgParam<R>("params.v_leak", neurons);
  params.v_reset = d.ArgParam<R>("params.v_reset", neurons);
  params.t_ref = d.ArgParam<R>("params.t_ref", neurons);
  return params;
}

// Operands of event_loop and event_step, in this order.
template <class R>
BatchProblem<R> DecodeProblem(Decoder& d, Dims& dims) {
  BatchProblem<R> p;
  p.weights = d.Arg<R>("weights", {&dims.inputs, &dims.neurons});
  p.v = d.Arg<R>("state.v", {&dims.neurons});
  p.i = d.Arg<R>("state.i", {&dims.neurons});
  p.release = d.Arg<R>("state.release", {&dims.neurons});
  p.time = d.Arg<R>("state.time", {});
  p.input_time = d.Arg<R>("inputs.time", {&dims.queue});
  p.input_index = d.Arg<std::int32_t>("inputs.index", {&dims.queue});
  p.input_head = d.Arg<std::int32_t>("inputs.head", {});
  p.t_max = d.Arg<R>("t_max", {});
  p.params = DecodeParams<R>(d, dims.neurons);
  p.n_batch = d.n_batch();
  p.n_inputs = dims.inputs.size;
  p.n_neurons = dims.neurons.size;
  return p;
}

template <class R>
Batched<const R> DecodeDelays(Decoder& d, const char* name, const Dim& sources, const Dim& neurons,
                              DelayDims& delays) {
  const auto operand = d.Arg<R>(name, {&delays.rows, &delays.cols});
  if (d.ok() && ((delays.rows.size != 1 && delays.rows.size != sources.size) ||
                 (delays.cols.size != 1 && delays.cols.size != neurons.size))) {
    d.Fail(name, "does not fit the shape of the weights");
  }
  return operand;
}

// Operands of network_loop: those of event_loop, and these.
template <class R>
BatchNetwork<R> DecodeNetwork(Decoder& d, Dims& dims, DelayDims& delays, DelayDims& recurrent,
                              ffi::Span<const std::int64_t> sizes,
                              ffi::Span<const std::int64_t> capacities) {
  BatchNetwork<R> p;
  static_cast<BatchProblem<R>&>(p) = DecodeProblem<R>(d, dims);
  p.recurrent = d.Arg<R>("recurrent", {&dims.sources, &dims.neurons});
  p.delays = DecodeDelays<R>(d, "delays", dims.inputs, dims.neurons, delays);
  p.recurrent_delays =
      DecodeDelays<R>(d, "recurrent_delays", dims.sources, dims.neurons, recurrent);
  p.past_time = d.Arg<R>("past.time", {&dims.past});
  p.past_index = d.Arg<std::int32_t>("past.index", {&dims.past});
  p.probe_time = d.Arg<R>("probes", {&dims.probes});
  p.n_sources = dims.sources.size;
  p.delay_rows = delays.rows.size;
  p.delay_cols = delays.cols.size;
  p.recurrent_delay_rows = recurrent.rows.size;
  p.recurrent_delay_cols = recurrent.cols.size;
  p.population_sizes.assign(sizes.begin(), sizes.end());
  p.population_capacities.assign(capacities.begin(), capacities.end());
  std::int64_t neurons = 0;
  for (const std::int64_t size : p.population_sizes) neurons += size;
  if (neurons != p.n_neurons || sizes.size() != capacities.size()) {
    d.Fail("populations", "do not add up to the neurons");
  }
  if (p.n_sources != 0 && p.n_sources != p.n_neurons) {
    d.Fail("recurrent", "has neither no rows nor one for each neuron");
  }
  return p;
}

// A layer records the position of each spike in the queue; a network, what was seen of voltages.
enum class LoopOf { kLayer, kNetwork };

template <class R>
LoopResults<R> DecodeLoop(Decoder& d, Dims& dims, LoopOf of) {
  LoopResults<R> r;
  r.spike_time = d.Result<R>("spikes.time", {&dims.events});
  r.spike_index = d.Result<std::int32_t>("spikes.index", {&dims.events});
  if (of == LoopOf::kLayer) {
    r.spike_position = d.Result<std::int32_t>("spikes.position", {&dims.events});
  }
  r.spike_current = d.Result<R>("spikes.current", {&dims.events});
  r.state.v = d.Result<R>("v", {&dims.neurons});
  r.state.i = d.Result<R>("i", {&dims.neurons});
  r.state.release = d.Result<R>("release", {&dims.neurons});
  r.state.time = d.Result<R>("time", {});
  r.state.head = d.Result<std::int32_t>("head", {});
  r.count = d.Result<std::int32_t>("count", {});
  r.outcome.status = d.Result<std::int32_t>("status", {});
  r.outcome.detail = d.Result<R>("detail", {&dims.detail});
  if (of == LoopOf::kNetwork) {
    r.probe_v = d.Result<R>("probes.v", {&dims.probes, &dims.neurons});
    r.probe_i = d.Result<R>("probes.i", {&dims.probes, &dims.neurons});
    r.max_v = d.Result<R>("maximum.v", {&dims.maxima});
    r.max_time = d.Result<R>("maximum.time", {&dims.maxima});
    r.max_current = d.Result<R>("maximum.current", {&dims.maxima});
    if (dims.maxima.size != 0 && dims.maxima.size != dims.neurons.size) {
      d.Fail("maximum", "has neither no entries nor one for each neuron");
    }
  }
  r.max_events = dims.events.size;
  return r;
}

template <class R>
StepResults<R> DecodeStep(Decoder& d, Dims& dims) {
  StepResults<R> r;
  r.event_time = d.Result<R>("event.time", {});
  r.event_index = d.Result<std::int32_t>("event.index", {});
  r.event_kind = d.Result<std::int32_t>("event.kind", {});
  r.state.v = d.Result<R>("v", {&dims.neurons});
  r.state.i = d.Result<R>("i", {&dims.neurons});
  r.state.release = d.Result<R>("release", {&dims.neurons});
  r.state.time = d.Result<R>("time", {});
  r.state.head = d.Result<std::int32_t>("head", {});
  r.outcome.status = d.Result<std::int32_t>("status", {});
  r.outcome.detail = d.Result<R>("detail", {&dims.detail});
  return r;
}

template <class R>
BatchCotangents<R> DecodeCotangents(Decoder& d, Dims& dims, std::initializer_list<Dim*> events) {
  BatchCotangents<R> ct;
  ct.event_time = d.Arg<R>("cotangent of the event times", events);
  ct.v = d.Arg<R>("cotangent of v", {&dims.neurons});
  ct.i = d.Arg<R>("cotangent of i", {&dims.neurons});
  ct.release = d.Arg<R>("cotangent of release", {&dims.neurons});
  ct.time = d.Arg<R>("cotangent of time", {});
  return ct;
}

template <class R>
BatchParamGradients<R> DecodeParamGradients(Decoder& d, const Dim& neurons, bool wanted) {
  BatchParamGradients<R> g;
  g.tau_mem = d.RetParam<R>("gradient of params.tau_mem", neurons);
  g.tau_syn = d.RetParam<R>("gradient of params.tau_syn", neurons);
  g.v_th = d.RetParam<R>("gradient of params.v_th", neurons);
  g.v_leak = d.RetParam<R>("gradient of params.v_leak", neurons);
  g.v_reset = d.RetParam<R>("gradient of params.v_reset", neurons);
  g.t_ref = d.RetParam<R>("gradient of params.t_ref", neurons);
  g.wanted = wanted;
  return g;
}

template <class R>
BatchGradients<R> DecodeGradients(Decoder& d, Dims& dims, bool want_input_time,
                                  bool want_parameters) {
  BatchGradients<R> g;
  g.weights = d.Ret<R>("gradient of weights", {&dims.inputs, &dims.neurons});
  g.v = d.Ret<R>("gradient of v", {&dims.neurons});
  g.i = d.Ret<R>("gradient of i", {&dims.neurons});
  g.release = d.Ret<R>("gradient of release", {&dims.neurons});
  g.time = d.Ret<R>("gradient of time", {});
  g.input_time = d.Ret<R>("gradient of inputs.time", {&dims.queue});
  g.t_max = d.Ret<R>("gradient of t_max", {});
  g.params = DecodeParamGradients<R>(d, dims.neurons, want_parameters);
  g.want_input_time = want_input_time;
  return g;
}

template <class R>
BatchNetworkGradients<R> DecodeNetworkGradients(Decoder& d, Dims& dims, DelayDims& delays,
                                                DelayDims& recurrent, bool want_arrivals,
                                                bool want_parameters) {
  const auto own = DecodeGradients<R>(d, dims, want_arrivals, want_parameters);
  BatchNetworkGradients<R> g;
  g.weights = own.weights;
  g.v = own.v;
  g.i = own.i;
  g.release = own.release;
  g.time = own.time;
  g.input_time = own.input_time;
  g.t_max = own.t_max;
  g.params = own.params;
  g.recurrent = d.Ret<R>("gradient of recurrent", {&dims.sources, &dims.neurons});
  g.delays = d.Ret<R>("gradient of delays", {&delays.rows, &delays.cols});
  g.recurrent_delays = d.Ret<R>("gradient of recurrent_delays", {&recurrent.rows, &recurrent.cols});
  g.past_time = d.Ret<R>("gradient of past.time", {&dims.past});
  g.probe_time = d.Ret<R>("gradient of probes", {&dims.probes});
  g.want_arrivals = want_arrivals;
  return g;
}

// The name of one population out of a label with a line for each; all of them for kNoIndex.
std::string NameIn(std::string_view label, std::int64_t population) {
  std::string name(label);
  if (population == kNoIndex) {
    for (std::size_t at; (at = name.find('\n')) != std::string::npos;) name.replace(at, 1, ", ");
    return name;
  }
  while (population-- > 0) name.erase(0, name.find('\n') + 1);
  return name.substr(0, name.find('\n'));
}

// Raises for the first example whose status is among those of the mask. The label has a line for
// each population. `remark(example, population)` may add to the message of a record that is full.
template <class R, class Remark>
ffi::Error Report(const BatchStatus<R>& outcome, std::int64_t n_batch, std::int64_t raise_on,
                  std::string_view label, Remark remark) {
  for (std::int64_t b = 0; b < n_batch; ++b) {
    const std::int32_t status = *outcome.status[b];
    if (((raise_on >> status) & 1) == 0 || status == 0) continue;
    const R* detail = outcome.detail[b];
    std::ostringstream text;
    const auto element = static_cast<std::int64_t>(detail[1]);
    const bool full = static_cast<Status>(status) == Status::kEventCapacity;
    text << "jaxsnn: " << NameIn(label, full ? element : kNoIndex) << ", sample " << b << ": "
         << Message(static_cast<Status>(status),
                    static_cast<Argument>(static_cast<std::int32_t>(detail[0])), element,
                    static_cast<double>(detail[2]));
    if (full) text << remark(b, element);
    return ffi::Error::InvalidArgument(text.str());
  }
  return ffi::Error::Success();
}

std::string NoRemark(std::int64_t, std::int64_t) { return {}; }

// A runaway network would fire without end; a hundredfold is enough to see that.
std::int64_t CountingLimit(std::int64_t capacity) { return 100 * capacity + 1000; }

std::string Remark(const SpikeCount& spikes) {
  return (spikes.complete ? ": it fired " : ": it fired at least ") + std::to_string(spikes.count);
}

ffi::Error EventLoopFwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        std::int64_t raise_on, std::string_view label) {
  return Guard("event_loop", args, [&]<class R>() {
    Decoder d("event_loop", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeLoop<R>(d, dims, LoopOf::kLayer);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { EventLoopForward<isa, R>(problem, results, pool); });
    const auto remark = [&](std::int64_t b, std::int64_t) {
      const std::int64_t limit = CountingLimit(results.max_events);
      return Remark(OnBestIsa([&]<Isa isa>() { return CountSpikes<isa, R>(problem, b, limit); }));
    };
    return Report(results.outcome, problem.n_batch, raise_on, label, remark);
  });
}

ffi::Error EventLoopBwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        bool want_input_time, bool want_parameters) {
  return Guard("event_loop gradient", args, [&]<class R>() {
    Decoder d("event_loop gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(1, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeLoop<R>(d, dims, LoopOf::kLayer);
    const auto cotangents = DecodeCotangents<R>(d, dims, {&dims.events});
    const auto gradients = DecodeGradients<R>(d, dims, want_input_time, want_parameters);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() {
      const auto backward =
          want_parameters ? EventLoopParameterGradients<isa, R> : EventLoopBackward<isa, R>;
      backward(problem, results, cotangents, gradients, pool);
    });
    return ffi::Error::Success();
  });
}

ffi::Error NetworkLoopFwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                          std::int64_t raise_on, std::string_view label,
                          ffi::Span<const std::int64_t> sizes,
                          ffi::Span<const std::int64_t> capacities) {
  return Guard("network_loop", args, [&]<class R>() {
    Decoder d("network_loop", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 1);
    Dims dims;
    DelayDims delays, recurrent;
    const auto network = DecodeNetwork<R>(d, dims, delays, recurrent, sizes, capacities);
    const auto results = DecodeLoop<R>(d, dims, LoopOf::kNetwork);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { NetworkLoopForward<isa, R>(network, results, pool); });
    const auto remark = [&](std::int64_t b, std::int64_t population) {
      const std::int64_t capacity =
          network.population_capacities[static_cast<std::size_t>(population)];
      const std::int64_t limit = CountingLimit(capacity);
      return Remark(OnBestIsa(
          [&]<Isa isa>() { return CountSpikes<isa, R>(network, b, population, limit, pool); }));
    };
    return Report(results.outcome, network.n_batch, raise_on, label, remark);
  });
}

ffi::Error NetworkLoopBwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                          bool want_arrivals, bool want_parameters,
                          ffi::Span<const std::int64_t> sizes,
                          ffi::Span<const std::int64_t> capacities) {
  return Guard("network_loop gradient", args, [&]<class R>() {
    Decoder d("network_loop gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(1, 1);
    Dims dims;
    DelayDims delays, recurrent;
    const auto network = DecodeNetwork<R>(d, dims, delays, recurrent, sizes, capacities);
    const auto results = DecodeLoop<R>(d, dims, LoopOf::kNetwork);
    auto cotangents = DecodeCotangents<R>(d, dims, {&dims.events});
    cotangents.probe_v = d.Arg<R>("cotangent of probes.v", {&dims.probes, &dims.neurons});
    cotangents.probe_i = d.Arg<R>("cotangent of probes.i", {&dims.probes, &dims.neurons});
    cotangents.max_v = d.Arg<R>("cotangent of maximum.v", {&dims.maxima});
    const auto gradients =
        DecodeNetworkGradients<R>(d, dims, delays, recurrent, want_arrivals, want_parameters);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() {
      NetworkLoopBackward<isa, R>(network, results, cotangents, gradients, pool);
    });
    return ffi::Error::Success();
  });
}

ffi::Error EventStepFwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        std::int64_t raise_on, std::string_view label) {
  return Guard("event_step", args, [&]<class R>() {
    Decoder d("event_step", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 0);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeStep<R>(d, dims);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { return EventStepForward<isa, R>(problem, results, pool); });
    return Report(results.outcome, problem.n_batch, raise_on, label, NoRemark);
  });
}

ffi::Error EventStepBwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        bool want_input_time, bool want_parameters) {
  return Guard("event_step gradient", args, [&]<class R>() {
    Decoder d("event_step gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(1, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeStep<R>(d, dims);
    const auto cotangents = DecodeCotangents<R>(d, dims, {});
    const auto gradients = DecodeGradients<R>(d, dims, want_input_time, want_parameters);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() {
      return EventStepBackward<isa, R>(problem, results, cotangents, gradients, pool);
    });
    return ffi::Error::Success();
  });
}

// Operands of flow and next_crossing, in this order.
template <class R>
BatchNeurons<R> DecodeNeurons(Decoder& d, Dims& dims) {
  BatchNeurons<R> n;
  n.v = d.Arg<R>("v", {&dims.neurons});
  n.i = d.Arg<R>("i", {&dims.neurons});
  n.n_batch = d.n_batch();
  n.n_neurons = dims.neurons.size;
  return n;
}

ffi::Error FlowFwd(ffi::RemainingArgs args, ffi::RemainingRets rets, std::int64_t raise_on,
                   std::string_view label) {
  return Guard("flow", args, [&]<class R>() {
    Decoder d("flow", args, rets);
    d.SetBatch(0, 1);
    Dims dims;
    auto neurons = DecodeNeurons<R>(d, dims);
    neurons.dt = d.ArgParam<R>("dt", dims.neurons);
    neurons.params = DecodeParams<R>(d, dims.neurons);
    const auto v = d.Ret<R>("v", {&dims.neurons});
    const auto i = d.Ret<R>("i", {&dims.neurons});
    const BatchStatus<R> outcome{d.Ret<std::int32_t>("status", {}),
                                 d.Ret<R>("detail", {&dims.detail})};
    if (!d.ok()) return d.error();
    OnBestIsa([&]<Isa isa>() { return FlowForward<isa, R>(neurons, v, i, outcome); });
    return Report(outcome, neurons.n_batch, raise_on, label, NoRemark);
  });
}

ffi::Error FlowBwd(ffi::RemainingArgs args, ffi::RemainingRets rets, bool want_parameters) {
  return Guard("flow gradient", args, [&]<class R>() {
    Decoder d("flow gradient", args, rets);
    d.SetBatch(0, 1);
    Dims dims;
    auto neurons = DecodeNeurons<R>(d, dims);
    neurons.dt = d.ArgParam<R>("dt", dims.neurons);
    neurons.params = DecodeParams<R>(d, dims.neurons);
    const auto ct_v = d.Arg<R>("cotangent of v", {&dims.neurons});
    const auto ct_i = d.Arg<R>("cotangent of i", {&dims.neurons});
    const auto v = d.Ret<R>("gradient of v", {&dims.neurons});
    const auto i = d.Ret<R>("gradient of i", {&dims.neurons});
    const auto dt = d.Ret<R>("gradient of dt", {&dims.neurons});
    const auto params = DecodeParamGradients<R>(d, dims.neurons, want_parameters);
    if (!d.ok()) return d.error();
    OnBestIsa(
        [&]<Isa isa>() { return FlowBackward<isa, R>(neurons, ct_v, ct_i, v, i, dt, params); });
    return ffi::Error::Success();
  });
}

ffi::Error CrossingFwd(ffi::RemainingArgs args, ffi::RemainingRets rets, std::int64_t raise_on,
                       std::string_view label) {
  return Guard("next_crossing", args, [&]<class R>() {
    Decoder d("next_crossing", args, rets);
    d.SetBatch(0, 1);
    Dims dims;
    auto neurons = DecodeNeurons<R>(d, dims);
    neurons.params = DecodeParams<R>(d, dims.neurons);
    const auto delay = d.Ret<R>("delay", {&dims.neurons});
    const BatchStatus<R> outcome{d.Ret<std::int32_t>("status", {}),
                                 d.Ret<R>("detail", {&dims.detail})};
    if (!d.ok()) return d.error();
    OnBestIsa([&]<Isa isa>() { return CrossingForward<isa, R>(neurons, delay, outcome); });
    return Report(outcome, neurons.n_batch, raise_on, label, NoRemark);
  });
}

ffi::Error CrossingBwd(ffi::RemainingArgs args, ffi::RemainingRets rets, bool want_parameters) {
  return Guard("next_crossing gradient", args, [&]<class R>() {
    Decoder d("next_crossing gradient", args, rets);
    d.SetBatch(0, 1);
    Dims dims;
    auto neurons = DecodeNeurons<R>(d, dims);
    neurons.params = DecodeParams<R>(d, dims.neurons);
    const auto delay = d.Arg<R>("delay", {&dims.neurons});
    const auto ct_delay = d.Arg<R>("cotangent of delay", {&dims.neurons});
    const auto v = d.Ret<R>("gradient of v", {&dims.neurons});
    const auto i = d.Ret<R>("gradient of i", {&dims.neurons});
    const auto params = DecodeParamGradients<R>(d, dims.neurons, want_parameters);
    if (!d.ok()) return d.error();
    OnBestIsa([&]<Isa isa>() {
      return CrossingBackward<isa, R>(neurons, delay, ct_delay, v, i, params);
    });
    return ffi::Error::Success();
  });
}

// The windows run on XLA's pool; both raise for the statuses in `raise_on`, as `label`.
auto BindWindow() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<std::int64_t>("raise_on")
      .Attr<std::string_view>("label");
}
auto BindWindowGradient() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<bool>("want_input_time")
      .Attr<bool>("want_parameters");
}
auto BindNetwork() {
  return BindWindow()
      .Attr<ffi::Span<const std::int64_t>>("population_sizes")
      .Attr<ffi::Span<const std::int64_t>>("population_capacities");
}
auto BindNetworkGradient() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<bool>("want_arrivals")
      .Attr<bool>("want_parameters")
      .Attr<ffi::Span<const std::int64_t>>("population_sizes")
      .Attr<ffi::Span<const std::int64_t>>("population_capacities");
}
auto BindNeurons() {
  return ffi::Ffi::Bind()
      .RemainingArgs()
      .RemainingRets()
      .Attr<std::int64_t>("raise_on")
      .Attr<std::string_view>("label");
}
auto BindNeuronsGradient() {
  return ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<bool>("want_parameters");
}

XLA_FFI_DEFINE_HANDLER(kEventLoopFwd, EventLoopFwd, BindWindow());
XLA_FFI_DEFINE_HANDLER(kEventLoopBwd, EventLoopBwd, BindWindowGradient());
XLA_FFI_DEFINE_HANDLER(kNetworkLoopFwd, NetworkLoopFwd, BindNetwork());
XLA_FFI_DEFINE_HANDLER(kNetworkLoopBwd, NetworkLoopBwd, BindNetworkGradient());
XLA_FFI_DEFINE_HANDLER(kEventStepFwd, EventStepFwd, BindWindow());
XLA_FFI_DEFINE_HANDLER(kEventStepBwd, EventStepBwd, BindWindowGradient());
XLA_FFI_DEFINE_HANDLER(kFlowFwd, FlowFwd, BindNeurons());
XLA_FFI_DEFINE_HANDLER(kFlowBwd, FlowBwd, BindNeuronsGradient());
XLA_FFI_DEFINE_HANDLER(kCrossingFwd, CrossingFwd, BindNeurons());
XLA_FFI_DEFINE_HANDLER(kCrossingBwd, CrossingBwd, BindNeuronsGradient());

}  // namespace

const Target kTargets[kNumTargets] = {
    {"jaxsnn_event_loop_fwd", kEventLoopFwd},
    {"jaxsnn_event_loop_bwd", kEventLoopBwd},
    {"jaxsnn_network_loop_fwd", kNetworkLoopFwd},
    {"jaxsnn_network_loop_bwd", kNetworkLoopBwd},
    {"jaxsnn_event_step_fwd", kEventStepFwd},
    {"jaxsnn_event_step_bwd", kEventStepBwd},
    {"jaxsnn_flow_fwd", kFlowFwd},
    {"jaxsnn_flow_bwd", kFlowBwd},
    {"jaxsnn_next_crossing_fwd", kCrossingFwd},
    {"jaxsnn_next_crossing_bwd", kCrossingBwd},
    {"jaxsnn_gather_spikes_fwd", GatherSpikesForwardCall},
    {"jaxsnn_gather_spikes_bwd", GatherSpikesBackwardCall},
    {"jaxsnn_lif_steps_fwd", LifStepsForwardCall},
    {"jaxsnn_lif_steps_bwd", LifStepsBackwardCall},
};

}  // namespace jaxsnn
