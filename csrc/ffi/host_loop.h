// The event loop on NumPy arrays, without JAX: for code inside of a callback of JAX, which must not
// wait for JAX.
#ifndef JAXSNN_FFI_HOST_LOOP_H_
#define JAXSNN_FFI_HOST_LOOP_H_

#include <nanobind/nanobind.h>

namespace jaxsnn {

void AddHostLoop(nanobind::module_& module);

}  // namespace jaxsnn

#endif  // JAXSNN_FFI_HOST_LOOP_H_
