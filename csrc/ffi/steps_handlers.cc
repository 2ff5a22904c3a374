// The custom calls of layers in time steps.
#include <cstdint>
#include <string>

#include "core/types.h"
#include "cpu/lif_steps.h"
#include "ffi/decode.h"
#include "ffi/handlers.h"

namespace jaxsnn {
namespace {

namespace ffi = xla::ffi;

struct Dims {
  Dim steps, inputs, neurons, sources;
};

struct Rule {
  std::int64_t refractory, shape;
  bool jump_first;
  double slope, scale;
};

template <class R>
BatchSteps<R> DecodeSteps(Decoder& d, Dims& dims, const Rule& rule) {
  BatchSteps<R> p;
  p.weights = d.Arg<R>("weights", {&dims.inputs, &dims.neurons});
  p.recurrent = d.Arg<R>("recurrent", {&dims.sources, &dims.neurons});
  p.inputs = d.Arg<R>("inputs", {&dims.steps, &dims.inputs});
  p.v = d.Arg<R>("state.v", {&dims.neurons});
  p.i = d.Arg<R>("state.i", {&dims.neurons});
  p.spikes = d.Arg<R>("state.spikes", {&dims.neurons});
  p.hold = d.Arg<std::int32_t>("state.hold", {&dims.neurons});
  p.leak = d.ArgParam<R>("coefficients.leak", dims.neurons);
  p.drive = d.ArgParam<R>("coefficients.drive", dims.neurons);
  p.decay = d.ArgParam<R>("coefficients.decay", dims.neurons);
  p.v_th = d.ArgParam<R>("coefficients.v_th", dims.neurons);
  p.v_leak = d.ArgParam<R>("coefficients.v_leak", dims.neurons);
  p.v_reset = d.ArgParam<R>("coefficients.v_reset", dims.neurons);
  p.n_batch = d.n_batch();
  p.n_steps = dims.steps.size;
  p.n_inputs = dims.inputs.size;
  p.n_neurons = dims.neurons.size;
  p.n_sources = dims.sources.size;
  p.refractory = static_cast<std::int32_t>(rule.refractory);
  p.jump_first = rule.jump_first;
  p.shape = static_cast<int>(rule.shape);
  p.slope = rule.slope;
  p.scale = rule.scale;
  if (p.n_sources != 0 && p.n_sources != p.n_neurons) {
    d.Fail("recurrent", "has neither no rows nor one for each neuron");
  }
  return p;
}

template <class R>
BatchStepsResults<R> DecodeResults(Decoder& d, Dims& dims) {
  BatchStepsResults<R> r;
  r.spikes = d.Result<R>("spikes", {&dims.steps, &dims.neurons});
  r.voltage = d.Result<R>("voltage", {&dims.steps, &dims.neurons});
  return r;
}

template <class R>
BatchStepsGradients<R> DecodeGradients(Decoder& d, Dims& dims) {
  BatchStepsGradients<R> g;
  g.weights = d.Ret<R>("gradient of weights", {&dims.inputs, &dims.neurons});
  g.recurrent = d.Ret<R>("gradient of recurrent", {&dims.sources, &dims.neurons});
  g.inputs = d.Ret<R>("gradient of inputs", {&dims.steps, &dims.inputs});
  g.v = d.Ret<R>("gradient of state.v", {&dims.neurons});
  g.i = d.Ret<R>("gradient of state.i", {&dims.neurons});
  g.spikes = d.Ret<R>("gradient of state.spikes", {&dims.neurons});
  g.leak = d.RetParam<R>("gradient of coefficients.leak", dims.neurons);
  g.drive = d.RetParam<R>("gradient of coefficients.drive", dims.neurons);
  g.decay = d.RetParam<R>("gradient of coefficients.decay", dims.neurons);
  g.v_th = d.RetParam<R>("gradient of coefficients.v_th", dims.neurons);
  g.v_leak = d.RetParam<R>("gradient of coefficients.v_leak", dims.neurons);
  g.v_reset = d.RetParam<R>("gradient of coefficients.v_reset", dims.neurons);
  return g;
}

ffi::Error Forward(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                   std::int64_t refractory, bool jump_first, std::int64_t shape, double slope,
                   double scale) {
  return Guard("lif_steps", args, [&]<class R>() {
    Decoder d("lif_steps", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 2);
    Dims dims;
    const auto batch = DecodeSteps<R>(d, dims, {refractory, shape, jump_first, slope, scale});
    auto results = DecodeResults<R>(d, dims);
    results.v = d.Ret<R>("v", {&dims.neurons});
    results.i = d.Ret<R>("i", {&dims.neurons});
    results.hold = d.Ret<std::int32_t>("hold", {&dims.neurons});
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { LifStepsForward<isa, R>(batch, results, pool); });
    return ffi::Error::Success();
  });
}

ffi::Error Backward(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                    std::int64_t refractory, bool jump_first, std::int64_t shape, double slope,
                    double scale, bool want_inputs, bool want_parameters) {
  return Guard("lif_steps gradient", args, [&]<class R>() {
    Decoder d("lif_steps gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(3, 1);
    Dims dims;
    const auto batch = DecodeSteps<R>(d, dims, {refractory, shape, jump_first, slope, scale});
    const auto results = DecodeResults<R>(d, dims);
    BatchStepsCotangents<R> ct;
    ct.spikes = d.Arg<R>("cotangent of spikes", {&dims.steps, &dims.neurons});
    ct.voltage = d.Arg<R>("cotangent of voltage", {&dims.steps, &dims.neurons});
    ct.v = d.Arg<R>("cotangent of v", {&dims.neurons});
    ct.i = d.Arg<R>("cotangent of i", {&dims.neurons});
    auto gradients = DecodeGradients<R>(d, dims);
    gradients.want_inputs = want_inputs;
    gradients.want_parameters = want_parameters;
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    OnBestIsa([&]<Isa isa>() { LifStepsBackward<isa, R>(batch, results, ct, gradients, pool); });
    return ffi::Error::Success();
  });
}

auto BindSteps() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<std::int64_t>("refractory")
      .Attr<bool>("jump_first")
      .Attr<std::int64_t>("shape")
      .Attr<double>("slope")
      .Attr<double>("scale");
}

XLA_FFI_DEFINE_HANDLER(kForward, Forward, BindSteps());
XLA_FFI_DEFINE_HANDLER(kBackward, Backward,
                       BindSteps().Attr<bool>("want_inputs").Attr<bool>("want_parameters"));

}  // namespace

XLA_FFI_Error* LifStepsForwardCall(XLA_FFI_CallFrame* frame) { return kForward(frame); }
XLA_FFI_Error* LifStepsBackwardCall(XLA_FFI_CallFrame* frame) { return kBackward(frame); }

}  // namespace jaxsnn
