// The Python extension: the custom calls as capsules, the loop on NumPy arrays, and the sentences
// for statuses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <string>

#include "core/types.h"
#include "ffi/handlers.h"
#include "ffi/host_loop.h"
#include "ffi/message.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  m.doc() = "Compiled event loop of jaxsnn.";
  m.attr("version") = JAXSNN_VERSION;
  m.attr("compiler") = JAXSNN_COMPILER;
  m.def("registrations", [] {
    nb::dict targets;
    for (const jaxsnn::Target& target : jaxsnn::kTargets) {
      targets[target.name] = nb::capsule(reinterpret_cast<void*>(target.handler));
    }
    return targets;
  });
  m.def("message", [](int status, int argument, std::int64_t element, double value) {
    return jaxsnn::Message(static_cast<jaxsnn::Status>(status),
                           static_cast<jaxsnn::Argument>(argument), element, value);
  });
  jaxsnn::AddHostLoop(m);
}
