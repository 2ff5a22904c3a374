// A time step of a population of current-based LIF neurons, and its transpose with a surrogate for
// the derivative of the threshold. Step k, where `arriving` is what the spikes bring:
//
//   i = i + arriving                              (kBefore)
//   u = v + (leak * (v_leak - v) + drive * i)
//   i = decay * i
//   i = i + arriving                              (!kBefore)
//   z = u > v_th
//   v = z ? v_reset : u
//
// While a neuron is held, for some steps after its spike, u = v_reset and z = 0 instead.
#ifndef JAXSNN_CORE_LIF_STEPS_H_
#define JAXSNN_CORE_LIF_STEPS_H_

#include <cmath>
#include <cstdint>

#include "core/math.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// The coefficients of all neurons.
template <class R>
struct StepLanes {
  const R *leak, *drive, *decay, *v_th, *v_leak, *v_reset;
};

// scale * shape(slope * x), see the Python class.
enum class SurrogateShape { kSuperspike, kSigmoid, kArctan, kTriangle, kGaussian };

template <SurrogateShape kShape, class R>
JAXSNN_INLINE R SurrogateDerivative(R slope, R scale, R x) {
  const R y = std::abs(slope * x);
  if constexpr (kShape == SurrogateShape::kSuperspike) {
    const R base = 1 + y;
    return scale * (1 / (base * base));
  } else if constexpr (kShape == SurrogateShape::kSigmoid) {
    const double tail = DecayOver(static_cast<double>(y)).kept;
    return scale * static_cast<R>(tail / ((1 + tail) * (1 + tail)));
  } else if constexpr (kShape == SurrogateShape::kArctan) {
    return scale * (1 / (1 + y * y));
  } else if constexpr (kShape == SurrogateShape::kTriangle) {
    return scale * (y < 1 ? 1 - y : R(0));
  } else {
    const auto wide = static_cast<double>(y);
    return scale * static_cast<R>(DecayOver(0.5 * wide * wide).kept);
  }
}

// The voltages that are compared go to u, the spikes to z. `hold` counts down.
template <class R, bool kBefore, bool kHold>
void StepLanesForward(const StepLanes<R>& lanes, std::int32_t refractory, std::int64_t n,
                      const R* JAXSNN_RESTRICT arriving, R* JAXSNN_RESTRICT v, R* JAXSNN_RESTRICT i,
                      std::int32_t* JAXSNN_RESTRICT hold, R* JAXSNN_RESTRICT u,
                      R* JAXSNN_RESTRICT z) {
  const R* JAXSNN_RESTRICT leak = lanes.leak;
  const R* JAXSNN_RESTRICT drive = lanes.drive;
  const R* JAXSNN_RESTRICT decay = lanes.decay;
  const R* JAXSNN_RESTRICT v_th = lanes.v_th;
  const R* JAXSNN_RESTRICT v_leak = lanes.v_leak;
  const R* JAXSNN_RESTRICT v_reset = lanes.v_reset;
  for (std::int64_t j = 0; j < n; ++j) {
    const R current = kBefore ? i[j] + arriving[j] : i[j];
    R voltage = v[j] + (leak[j] * (v_leak[j] - v[j]) + drive[j] * current);
    bool spike = voltage > v_th[j];
    if constexpr (kHold) {
      const bool held = hold[j] > 0;
      voltage = held ? v_reset[j] : voltage;
      spike = spike & !held;
      const std::int32_t less = held ? hold[j] - 1 : 0;
      hold[j] = spike ? refractory : less;
    }
    const R rest = decay[j] * current;
    i[j] = kBefore ? rest : rest + arriving[j];
    v[j] = spike ? v_reset[j] : voltage;
    u[j] = voltage;
    z[j] = spike ? R(1) : R(0);
  }
}

// What a step was, for the way back.
template <class R>
struct StepRecord {
  const R* u;
  const R* z;
  const std::int32_t* held;  // 0 or 1, where neurons are held at all
  const R* ct_z;             // what the loss owes to them directly
  const R* ct_u;
  const R* fed_back;  // and to the spikes by way of recurrent connections
};

// From the adjoints of (v, i) after the step to those before it: of v in place, of i elsewhere.
template <class R, SurrogateShape kShape, bool kHold>
void StepLanesBackward(const StepLanes<R>& lanes, R slope, R scale, std::int64_t n,
                       const StepRecord<R>& record, R* JAXSNN_RESTRICT av,
                       const R* JAXSNN_RESTRICT ai, R* JAXSNN_RESTRICT ai_before) {
  const R* JAXSNN_RESTRICT leak = lanes.leak;
  const R* JAXSNN_RESTRICT drive = lanes.drive;
  const R* JAXSNN_RESTRICT decay = lanes.decay;
  const R* JAXSNN_RESTRICT v_th = lanes.v_th;
  const R* JAXSNN_RESTRICT v_reset = lanes.v_reset;
  const R* JAXSNN_RESTRICT u = record.u;
  const R* JAXSNN_RESTRICT ct_z = record.ct_z;
  const R* JAXSNN_RESTRICT ct_u = record.ct_u;
  const R* JAXSNN_RESTRICT fed_back = record.fed_back;
  for (std::int64_t j = 0; j < n; ++j) {
    const R slack = SurrogateDerivative<kShape, R>(slope, scale, u[j] - v_th[j]);
    const R spike = (ct_z[j] + fed_back[j]) + av[j] * (v_reset[j] - u[j]);
    // A neuron that was not held has spiked where its voltage was above the threshold.
    R voltage = ((u[j] > v_th[j] ? R(0) : av[j]) + ct_u[j]) + spike * slack;
    if constexpr (kHold) voltage = record.held[j] != 0 ? R(0) : voltage;
    av[j] = voltage - leak[j] * voltage;
    ai_before[j] = decay[j] * ai[j] + drive[j] * voltage;
  }
}

// The gradients of the coefficients of all neurons, summed up over steps.
struct StepGradients {
  double *leak, *drive, *decay, *v_th, *v_leak, *v_reset;
};

// Adds those of a step, before StepLanesBackward takes av back: v is the voltage before the
// step, and `current` what drove it.
template <class R, SurrogateShape kShape, bool kHold>
void AddStepGradients(const StepLanes<R>& lanes, R slope, R scale, std::int64_t n,
                      const StepRecord<R>& record, const R* v, const R* current, const R* av,
                      const R* ai, const StepGradients& gradients) {
  for (std::int64_t j = 0; j < n; ++j) {
    const bool held = kHold && record.held[j] != 0;
    const R slack = SurrogateDerivative<kShape, R>(slope, scale, record.u[j] - lanes.v_th[j]);
    const R spike =
        (record.ct_z[j] + record.fed_back[j]) + av[j] * (lanes.v_reset[j] - record.u[j]);
    const R threshold = held ? R(0) : spike * slack;
    const R kept = record.z[j] != 0 ? R(0) : av[j];
    const R voltage = held ? R(0) : (kept + record.ct_u[j]) + threshold;
    const R reset = held ? av[j] + record.ct_u[j] : av[j] - kept;
    gradients.v_th[j] -= threshold;
    gradients.v_reset[j] += reset;
    gradients.leak[j] += static_cast<double>(voltage) * (lanes.v_leak[j] - v[j]);
    gradients.v_leak[j] += static_cast<double>(voltage) * lanes.leak[j];
    gradients.drive[j] += static_cast<double>(voltage) * current[j];
    gradients.decay[j] += static_cast<double>(ai[j]) * current[j];
  }
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_LIF_STEPS_H_
