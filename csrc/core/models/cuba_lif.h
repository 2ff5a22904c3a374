// The current-based leaky integrate-and-fire neuron with an exponential synapse:
//
//   tau_mem V' = -(V - v_leak) + I,   tau_syn I' = -I,
//
// solved exactly between events. All functions work with the distance from rest, v = V - v_leak, in
// which the equations are linear; leak, reset and threshold enter as differences to v_leak.
#ifndef JAXSNN_CORE_MODELS_CUBA_LIF_H_
#define JAXSNN_CORE_MODELS_CUBA_LIF_H_

#include <cmath>

#include "core/math.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

struct CubaLif {
  // Either a state (v, i) or its adjoint (dL/dv, dL/di).
  template <class R>
  struct Pair {
    R v;
    R i;
  };

  // What follows from the two time constants.
  struct Constants {
    double tau_mem;
    double rate_mem;  // 1 / tau_mem
    double rate_syn;  // 1 / tau_syn
    double slow;      // the smaller of the two rates
    double gap;       // the larger minus the smaller
  };

  // The exact solution over a time step: (v, i) -> (v_from_v v + v_from_i i, i_from_i i).
  template <class R>
  struct Propagator {
    R v_from_v;
    R v_from_i;
    R i_from_i;
  };

  JAXSNN_HD JAXSNN_INLINE static Constants Prepare(double tau_mem, double tau_syn) {
    const double rate_mem = 1.0 / tau_mem;
    const double rate_syn = 1.0 / tau_syn;
    const bool mem_slower = tau_mem > tau_syn;
    const double slow = mem_slower ? rate_mem : rate_syn;
    // The difference of the rates taken this way stays exact to rounding for nearly equal taus.
    const double gap = (mem_slower ? tau_mem - tau_syn : tau_syn - tau_mem) * rate_mem * rate_syn;
    return {tau_mem, rate_mem, rate_syn, slow, gap};
  }

  // v_from_i = (e^{-t/tau_mem} - e^{-t/tau_syn}) tau_syn / (tau_mem - tau_syn), written so that no
  // ratio of the time constants cancels digits, equality included: with the slower rate s and the
  // gap g >= 0 it is (t / tau_mem) (e^{-s t} - e^{-(s + g) t}) / (g t).
  JAXSNN_HD JAXSNN_INLINE static Propagator<double> Propagate(const Constants& c, double dt) {
    const double x = c.gap * dt;
    const Decay slow = DecayOver(c.slow * dt), gap = DecayOver(x);
    const double fast_kept = slow.kept * gap.kept;
    const double mean = slow.kept * (x > 0 ? gap.lost / x : 1.0);
    const bool mem_slower = c.rate_mem < c.rate_syn;
    return {mem_slower ? slow.kept : fast_kept, c.rate_mem * dt * mean,
            mem_slower ? fast_kept : slow.kept};
  }

  template <class R>
  JAXSNN_HD JAXSNN_INLINE static Pair<R> Flow(const Propagator<R>& p, const Pair<R>& x) {
    return {p.v_from_v * x.v + p.v_from_i * x.i, p.i_from_i * x.i};
  }

  // The transpose of Flow.
  template <class R>
  JAXSNN_HD JAXSNN_INLINE static Pair<R> AdjointFlow(const Propagator<R>& p, const Pair<R>& a) {
    return {p.v_from_v * a.v, p.v_from_i * a.v + p.i_from_i * a.i};
  }

  JAXSNN_HD JAXSNN_INLINE static double DecayCurrent(const Constants& c, double i, double dt) {
    return i * DecayOver(c.rate_syn * dt).kept;
  }

  JAXSNN_HD JAXSNN_INLINE static Pair<double> Rate(const Constants& c, const Pair<double>& x) {
    return {(x.i - x.v) * c.rate_mem, -x.i * c.rate_syn};
  }

  // tau_mem == 2 tau_syn makes v quadratic in u = e^{-t/tau_mem}: v(t) = (v + i) u - i u^2.
  JAXSNN_HD JAXSNN_INLINE static bool HasClosedForm(const Constants& c) {
    return c.rate_syn == 2 * c.rate_mem;
  }

  // The larger root u is the earlier crossing. Solved for 1 - u, which keeps all digits of a short
  // time. For v < threshold < i, i >= 0; without a branch, for loops that vectorise.
  JAXSNN_HD JAXSNN_INLINE static double ClosedFormCrossing(const Constants& c,
                                                           const Pair<double>& x,
                                                           double threshold) {
    const double rise = x.i - x.v;
    const double discriminant = rise * rise - 4 * x.i * (threshold - x.v);
    const double passed = 2 * (threshold - x.v) / (rise + std::sqrt(discriminant));  // 1 - u
    const double at = -Log1p(-passed) * c.tau_mem;
    return passed < 1 ? at : kNever;  // no root: NaN
  }

  // <a, Rate(x)>: how the loss changes when the state x is held a little longer.
  JAXSNN_HD JAXSNN_INLINE static double TimeSensitivity(const Constants& c, const Pair<double>& x,
                                                        const Pair<double>& a) {
    const Pair<double> rate = Rate(c, x);
    return a.v * rate.v + a.i * rate.i;
  }
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_MODELS_CUBA_LIF_H_
