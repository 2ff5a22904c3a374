// The custom calls that merge lists of spikes, take them apart, and find the first ones.
#include <cstdint>
#include <sstream>
#include <string_view>

#include "core/types.h"
#include "cpu/gather_spikes.h"
#include "ffi/decode.h"
#include "ffi/handlers.h"
#include "ffi/message.h"

namespace jaxsnn {
namespace {

namespace ffi = xla::ffi;

struct Dims {
  Dim given, gathered;
};

template <class R>
GatherProblem<R> DecodeLists(Decoder& d, Dims& dims) {
  GatherProblem<R> p;
  p.time = d.Arg<R>("spikes.time", {&dims.given});
  p.index = d.Arg<std::int32_t>("spikes.index", {&dims.given});
  p.n_batch = d.n_batch();
  return p;
}

ffi::Error Forward(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets,
                   ffi::Span<const std::int64_t> parts, std::int64_t begin, std::int64_t end,
                   std::int64_t rule, bool must_fit, std::string_view label) {
  return Guard("gather_spikes", args, [&]<class R>() {
    Decoder d("gather_spikes", args, rets, ResultsAre::kReturned);
    d.SetBatch(0, 1);
    Dims dims;
    GatherProblem<R> problem = DecodeLists<R>(d, dims);
    problem.parts.assign(parts.begin(), parts.end());
    problem.begin = begin;
    problem.end = end;
    problem.rule = static_cast<Gather>(rule);
    GatherResults<R> results;
    results.time = d.Ret<R>("time", {&dims.gathered});
    results.index = d.Ret<std::int32_t>("index", {&dims.gathered});
    results.position = d.Ret<std::int32_t>("position", {&dims.gathered});
    results.count = d.Ret<std::int32_t>("count", {});
    results.size = dims.gathered.size;
    std::int64_t total = 0;
    for (const std::int64_t size : parts) total += size;
    if (total != dims.given.size) d.Fail("parts", "do not add up to the spikes");
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    GatherSpikes<R>(problem, results, pool);
    for (std::int64_t b = 0; must_fit && b < problem.n_batch; ++b) {
      const std::int32_t count = *results.count[b];
      if (count <= results.size) continue;
      std::ostringstream text;
      text << "jaxsnn: " << label << ", sample " << b << ": "
           << Message(Status::kEventCapacity, Argument::kNone, 0, static_cast<double>(results.size))
           << ": it fired " << count;
      return ffi::Error::InvalidArgument(text.str());
    }
    return ffi::Error::Success();
  });
}

ffi::Error Backward(ffi::ThreadPool threads, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return Guard("gather_spikes gradient", args, [&]<class R>() {
    Decoder d("gather_spikes gradient", args, rets, ResultsAre::kOperands);
    d.SetBatch(0, 1);
    Dims dims;
    const auto problem = DecodeLists<R>(d, dims);
    GatherResults<R> results;
    results.position = d.Result<std::int32_t>("position", {&dims.gathered});
    const auto cotangent = d.Arg<R>("cotangent of time", {&dims.gathered});
    const auto gradient = d.Ret<R>("gradient of spikes.time", {&dims.given});
    results.size = dims.gathered.size;
    if (!d.ok()) return d.error();
    XlaThreadPool pool(threads);
    GatherSpikesBackward<R>(results, cotangent, problem.n_batch, gradient, pool);
    return ffi::Error::Success();
  });
}

XLA_FFI_DEFINE_HANDLER(kForward, Forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attr<ffi::Span<const std::int64_t>>("parts")
                           .Attr<std::int64_t>("begin")
                           .Attr<std::int64_t>("end")
                           .Attr<std::int64_t>("rule")
                           .Attr<bool>("must_fit")
                           .Attr<std::string_view>("label"));
XLA_FFI_DEFINE_HANDLER(kBackward, Backward,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());

}  // namespace

XLA_FFI_Error* GatherSpikesForwardCall(XLA_FFI_CallFrame* frame) { return kForward(frame); }
XLA_FFI_Error* GatherSpikesBackwardCall(XLA_FFI_CallFrame* frame) { return kBackward(frame); }

}  // namespace jaxsnn
