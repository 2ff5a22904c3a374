// The custom calls: decode, run the kernel, turn statuses into errors where that was asked for.
#include "ffi/handlers.h"

#include <cstdint>
#include <exception>
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
LoopResults<R> DecodeLoop(Decoder& d, Dims& dims) {
  LoopResults<R> r;
  r.spike_time = d.Result<R>("spikes.time", {&dims.events});
  r.spike_index = d.Result<std::int32_t>("spikes.index", {&dims.events});
  r.spike_position = d.Result<std::int32_t>("spikes.position", {&dims.events});
  r.spike_current = d.Result<R>("spikes.current", {&dims.events});
  r.state.v = d.Result<R>("v", {&dims.neurons});
  r.state.i = d.Result<R>("i", {&dims.neurons});
  r.state.release = d.Result<R>("release", {&dims.neurons});
  r.state.time = d.Result<R>("time", {});
  r.state.head = d.Result<std::int32_t>("head", {});
  r.count = d.Result<std::int32_t>("count", {});
  r.outcome.status = d.Result<std::int32_t>("status", {});
  r.outcome.detail = d.Result<R>("detail", {&dims.detail});
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
BatchGradients<R> DecodeGradients(Decoder& d, Dims& dims, bool want_input_time) {
  BatchGradients<R> g;
  g.weights = d.Ret<R>("gradient of weights", {&dims.inputs, &dims.neurons});
  g.v = d.Ret<R>("gradient of v", {&dims.neurons});
  g.i = d.Ret<R>("gradient of i", {&dims.neurons});
  g.release = d.Ret<R>("gradient of release", {&dims.neurons});
  g.time = d.Ret<R>("gradient of time", {});
  g.input_time = d.Ret<R>("gradient of inputs.time", {&dims.queue});
  g.t_max = d.Ret<R>("gradient of t_max", {});
  g.want_input_time = want_input_time;
  return g;
}

// Raises for the first example whose status is among those of the mask. `remark(example)` may add
// to the message of a record that is full.
template <class R, class Remark>
ffi::Error Report(const BatchStatus<R>& outcome, std::int64_t n_batch, std::int64_t raise_on,
                  std::string_view label, Remark remark) {
  for (std::int64_t b = 0; b < n_batch; ++b) {
    const std::int32_t status = *outcome.status[b];
    if (((raise_on >> status) & 1) == 0 || status == 0) continue;
    const R* detail = outcome.detail[b];
    std::ostringstream text;
    text << "jaxsnn: " << label << ", sample " << b << ": "
         << Message(static_cast<Status>(status),
                    static_cast<Argument>(static_cast<std::int32_t>(detail[0])),
                    static_cast<std::int64_t>(detail[1]), static_cast<double>(detail[2]));
    if (static_cast<Status>(status) == Status::kEventCapacity) text << remark(b);
    return ffi::Error::InvalidArgument(text.str());
  }
  return ffi::Error::Success();
}

std::string NoRemark(std::int64_t) { return {}; }

// Nothing may throw through XLA. Running out of memory is the one way in which a kernel can.
template <class Body>
ffi::Error Guard(const char* op, const ffi::RemainingArgs& args, Body body) {
  try {
    return DispatchReal(op, args, body);
  } catch (const std::exception& e) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      std::string("jaxsnn: ") + op + ": " + e.what());
  }
}

ffi::Error EventLoopFwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        std::int64_t raise_on, std::string_view label) {
  return Guard("event_loop", args, [&]<class R>() {
    Decoder d("event_loop", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeLoop<R>(d, dims);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { return EventLoopForward<isa, R>(problem, results, pool); });
    return Report(results.outcome, problem.n_batch, raise_on, label, [&](std::int64_t b) {
      // A runaway network would fire without end; a hundredfold is enough to see that.
      const std::int64_t limit = 100 * results.max_events + 1000;
      const std::int64_t count =
          OnBestIsa([&]<Isa isa>() { return CountSpikes<isa, R>(problem, b, limit); });
      return std::string(count < limit ? ": it fired " : ": it fired at least ") +
             std::to_string(count);
    });
  });
}

ffi::Error EventLoopBwd(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        bool want_input_time) {
  return Guard("event_loop gradient", args, [&]<class R>() {
    Decoder d("event_loop gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(1, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeLoop<R>(d, dims);
    const auto cotangents = DecodeCotangents<R>(d, dims, {&dims.events});
    const auto gradients = DecodeGradients<R>(d, dims, want_input_time);
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() {
      return EventLoopBackward<isa, R>(problem, results, cotangents, gradients, pool);
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
                        bool want_input_time) {
  return Guard("event_step gradient", args, [&]<class R>() {
    Decoder d("event_step gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(1, 1);
    Dims dims;
    const auto problem = DecodeProblem<R>(d, dims);
    const auto results = DecodeStep<R>(d, dims);
    const auto cotangents = DecodeCotangents<R>(d, dims, {});
    const auto gradients = DecodeGradients<R>(d, dims, want_input_time);
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

ffi::Error FlowBwd(ffi::RemainingArgs args, ffi::RemainingRets rets) {
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
    if (!d.ok()) return d.error();
    OnBestIsa([&]<Isa isa>() { return FlowBackward<isa, R>(neurons, ct_v, ct_i, v, i, dt); });
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

ffi::Error CrossingBwd(ffi::RemainingArgs args, ffi::RemainingRets rets) {
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
    if (!d.ok()) return d.error();
    OnBestIsa([&]<Isa isa>() { return CrossingBackward<isa, R>(neurons, delay, ct_delay, v, i); });
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
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<bool>(
      "want_input_time");
}
auto BindNeurons() {
  return ffi::Ffi::Bind()
      .RemainingArgs()
      .RemainingRets()
      .Attr<std::int64_t>("raise_on")
      .Attr<std::string_view>("label");
}
auto BindNeuronsGradient() { return ffi::Ffi::Bind().RemainingArgs().RemainingRets(); }

XLA_FFI_DEFINE_HANDLER(kEventLoopFwd, EventLoopFwd, BindWindow());
XLA_FFI_DEFINE_HANDLER(kEventLoopBwd, EventLoopBwd, BindWindowGradient());
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
    {"jaxsnn_event_step_fwd", kEventStepFwd},
    {"jaxsnn_event_step_bwd", kEventStepBwd},
    {"jaxsnn_flow_fwd", kFlowFwd},
    {"jaxsnn_flow_bwd", kFlowBwd},
    {"jaxsnn_next_crossing_fwd", kCrossingFwd},
    {"jaxsnn_next_crossing_bwd", kCrossingBwd},
};

}  // namespace jaxsnn
