// The custom calls, by target name.
#ifndef JAXSNN_FFI_HANDLERS_H_
#define JAXSNN_FFI_HANDLERS_H_

#include "xla/ffi/api/ffi.h"

namespace jaxsnn {

struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

inline constexpr int kNumTargets = 10;
extern const Target kTargets[kNumTargets];

}  // namespace jaxsnn

#endif  // JAXSNN_FFI_HANDLERS_H_
