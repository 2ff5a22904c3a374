// The sentence behind a status: which argument, what it was, what it should be.
#ifndef JAXSNN_FFI_MESSAGE_H_
#define JAXSNN_FFI_MESSAGE_H_

#include <cstdint>
#include <sstream>
#include <string>

#include "core/types.h"

namespace jaxsnn {

struct ArgumentText {
  const char* name;
  const char* expected;
};

inline ArgumentText TextOf(Argument argument) {
  switch (argument) {
    case Argument::kTauMem:
      return {"params.tau_mem", "a finite time > 0"};
    case Argument::kTauSyn:
      return {"params.tau_syn", "a finite time > 0"};
    case Argument::kVTh:
      return {"params.v_th", "a voltage, inf for neurons that never spike"};
    case Argument::kVLeak:
      return {"params.v_leak", "a finite voltage"};
    case Argument::kVReset:
      return {"params.v_reset", "a finite voltage below v_th"};
    case Argument::kTRef:
      return {"params.t_ref", "a finite time >= 0"};
    case Argument::kWeights:
      return {"weights", "finite values"};
    case Argument::kStateV:
      return {"state.v", "finite values"};
    case Argument::kStateI:
      return {"state.i", "finite values"};
    case Argument::kStateRelease:
      return {"state.release", "a time, or -inf for none"};
    case Argument::kStateTime:
      return {"state.time", "a finite time"};
    case Argument::kInputTime:
      return {"inputs.time", "times that ascend from state.time, inf for padding at the end"};
    case Argument::kInputIndex:
      return {"inputs.index", "an input in [0, n_inputs), -1 only with time inf"};
    case Argument::kInputHead:
      return {"inputs.head", "a position in the queue, behind times up to state.time"};
    case Argument::kTMax:
      return {"t_max", "a finite time > 0, not before state.time"};
    case Argument::kDt:
      return {"dt", "a finite time >= 0"};
    case Argument::kRecurrent:
      return {"recurrent", "finite values"};
    case Argument::kDelays:
      return {"delays", "a time >= 0, inf where there is no synapse"};
    case Argument::kRecurrentDelays:
      return {"recurrent_delays", "a time >= 0, inf where there is no synapse"};
    case Argument::kPastTime:
      return {"past.time", "times that ascend up to state.time, inf for padding at the end"};
    case Argument::kPastIndex:
      return {"past.index", "a neuron in [0, n_neurons), -1 only with time inf"};
    case Argument::kProbeTime:
      return {"probes", "times that ascend from state.time up to t_max"};
    case Argument::kNone:
      break;
  }
  return {"the result", "finite values"};
}

inline std::string Message(Status status, Argument argument, std::int64_t element, double value) {
  const ArgumentText text = TextOf(argument);
  std::ostringstream out;
  out.precision(9);
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kEventCapacity:
      out << "more spikes before t_max than there is room for, which is "
          << static_cast<std::int64_t>(value);
      return out.str();
    case Status::kNoConvergence:
      out << "the threshold crossing of neuron " << element << " after time " << value
          << " did not converge";
      return out.str();
    case Status::kUnsortedInput:
    case Status::kNonFinite:
    case Status::kInvalidValue:
      out << text.name << " is " << value << " at element " << element << ", expected "
          << text.expected;
      return out.str();
  }
  return "unknown status";
}

}  // namespace jaxsnn

#endif  // JAXSNN_FFI_MESSAGE_H_
