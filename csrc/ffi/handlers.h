// The custom calls, by target name.
#ifndef JAXSNN_FFI_HANDLERS_H_
#define JAXSNN_FFI_HANDLERS_H_

#include "xla/ffi/api/ffi.h"

namespace jaxsnn {

XLA_FFI_Error* GatherSpikesForwardCall(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* GatherSpikesBackwardCall(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* LifStepsForwardCall(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* LifStepsBackwardCall(XLA_FFI_CallFrame* frame);

struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

inline constexpr int kNumTargets = 14;
extern const Target kTargets[kNumTargets];

}  // namespace jaxsnn

#endif  // JAXSNN_FFI_HANDLERS_H_
