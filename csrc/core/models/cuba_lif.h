// The current-based leaky integrate-and-fire neuron with an exponential synapse:
//
//   tau_mem V' = -(V - v_leak) + I,   tau_syn I' = -I,
//
// solved exactly between events. All functions work with the distance from rest, v = V - v_leak, in
// which the equations are linear; leak, reset and threshold enter as differences to v_leak.
#ifndef JAXSNN_CORE_MODELS_CUBA_LIF_H_
#define JAXSNN_CORE_MODELS_CUBA_LIF_H_

#include <cmath>
#include <cstdint>

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
    double ratio;     // rate_mem / gap, 0 where they are equal
  };

  // Those for tau_mem == 2 tau_syn, with which one exponential is enough.
  struct ClosedConstants : Constants {};

  // Those of several neurons side by side.
  template <int kSize>
  class ConstantsLanes {
   public:
    JAXSNN_INLINE void Set(std::int64_t l, const Constants& c) {
      tau_mem_[l] = c.tau_mem;
      rate_mem_[l] = c.rate_mem;
      rate_syn_[l] = c.rate_syn;
      slow_[l] = c.slow;
      gap_[l] = c.gap;
      ratio_[l] = c.ratio;
    }
    JAXSNN_INLINE Constants operator()(std::int64_t l) const {
      return {tau_mem_[l], rate_mem_[l], rate_syn_[l], slow_[l], gap_[l], ratio_[l]};
    }

   private:
    double tau_mem_[kSize], rate_mem_[kSize], rate_syn_[kSize];
    double slow_[kSize], gap_[kSize], ratio_[kSize];
  };

  // The exact solution over a time step: (v, i) -> (v_from_v v + v_from_i i, i_from_i i).
  template <class R>
  struct Propagator {
    R v_from_v;
    R v_from_i;
    R i_from_i;
  };

  // What the gradients of parameters are made of: the adjoint a of the future, weighted with the
  // response of the neuron to a unit of what it has now.
  template <class R>
  struct Memory {
    R v;     // integral of a.v e^{-t/tau_mem}: response of v to v
    R rise;  // integral of a.v (e^{-t/tau_syn} - k(t)): response of i - v to i
    R i;     // integral of a.i e^{-t/tau_syn}: response of i to i
    R rest;  // integral of a.v / tau_mem: response of v to the leak
  };

  // How a time step adds the adjoint at its end to the memory.
  template <class R>
  struct MemoryStep {
    R v_from_v;
    R rise_from_v;
    R i_from_v;
    R i_from_i;
    R rest_from_v;
  };

  // Gradients of the parameters that rule the free solution.
  struct FlowGradients {
    double tau_mem = 0;
    double tau_syn = 0;
    double v_leak = 0;
  };

  JAXSNN_HD JAXSNN_INLINE static Constants Prepare(double tau_mem, double tau_syn) {
    const double rate_mem = 1.0 / tau_mem;
    const double rate_syn = 1.0 / tau_syn;
    const bool mem_slower = tau_mem > tau_syn;
    const double slow = mem_slower ? rate_mem : rate_syn;
    // The difference of the rates taken this way stays exact to rounding for nearly equal taus.
    double gap = (mem_slower ? tau_mem - tau_syn : tau_syn - tau_mem) * rate_mem * rate_syn;
    if (rate_syn == 2 * rate_mem) gap = rate_mem;  // see ClosedConstants
    return {tau_mem, rate_mem, rate_syn, slow, gap, gap > 0 ? rate_mem / gap : 0.0};
  }

  // v_from_i = (e^{-t/tau_mem} - e^{-t/tau_syn}) tau_syn / (tau_mem - tau_syn), written so that no
  // ratio of the time constants cancels digits, equality included: with the slower rate s and the
  // gap g >= 0 it is e^{-s t} (1 - e^{-g t}) / (g tau_mem), or e^{-s t} t / tau_mem.
  template <class R>
  JAXSNN_HD JAXSNN_INLINE static Propagator<R> Propagate(const R& slow_rate, const R& gap_rate,
                                                         const R& rate_mem, const R& ratio,
                                                         const R& dt) {
    const auto slow = DecayOver(slow_rate * dt), gap = DecayOver(gap_rate * dt);
    const R fast_kept = slow.kept * gap.kept, rising = gap.lost * ratio, equal = rate_mem * dt;
    const R v_from_i = slow.kept * (ratio > 0 ? rising : equal);
    const auto mem_slower = slow_rate == rate_mem;
    return {mem_slower ? slow.kept : fast_kept, v_from_i, mem_slower ? fast_kept : slow.kept};
  }
  JAXSNN_HD JAXSNN_INLINE static Propagator<double> Propagate(const Constants& c, double dt) {
    return Propagate(c.slow, c.gap, c.rate_mem, c.ratio, dt);
  }
  // The same bits: the slower rate and the gap are both rate_mem then.
  JAXSNN_HD JAXSNN_INLINE static Propagator<double> Propagate(const ClosedConstants& c, double dt) {
    const auto decay = DecayOver(c.rate_mem * dt);
    return {decay.kept, decay.kept * decay.lost, decay.kept * decay.kept};
  }

  // The same for dt below kShort of both time constants, of one neuron or of vectors of them,
  // without cases: with the difference g = rate_syn - rate_mem of either sign, v_from_i is
  // e^{-t/tau_mem} (1 - e^{-g t}) / (g tau_mem).
  template <class T>
  JAXSNN_HD JAXSNN_INLINE static Propagator<T> PropagateShort(const T& rate_mem,
                                                              const T& difference, const T& dt) {
    const T x = rate_mem * dt, d = difference * dt;
    const T kept = ShortKept(x), rise = ShortRise(d);
    return {kept, x * rise * kept, MulAdd(-(d * rise), kept, kept)};
  }

  // The solution over what is left of dt from a crossing on that left `kept` of e^{-t/tau_mem}, as
  // exact as the time of that crossing; from the beginning if that is 1.
  JAXSNN_HD JAXSNN_INLINE static Propagator<double> PropagateBeyond(const ClosedConstants& c,
                                                                    double kept, double dt) {
    const auto decay = DecayOver(c.rate_mem * dt);
    const double left = decay.kept / kept;
    return {left, left * (kept < 1 ? 1 - left : decay.lost), left * left};
  }

  template <class R>
  JAXSNN_HD JAXSNN_INLINE static Pair<R> Flow(const Propagator<R>& p, const Pair<R>& x) {
    return {MulAdd(p.v_from_v, x.v, p.v_from_i * x.i), p.i_from_i * x.i};
  }

  // The transpose of Flow.
  template <class R>
  JAXSNN_HD JAXSNN_INLINE static Pair<R> AdjointFlow(const Propagator<R>& p, const Pair<R>& a) {
    return {p.v_from_v * a.v, MulAdd(p.i_from_i, a.i, p.v_from_i * a.v)};
  }

  // All are convolutions of two or three exponentials. With the slower rate s, the gap g and
  // x = g t, those of three are t^2 e^{-s t} times (x - 1 + e^{-x}) / x^2 where the slower one
  // comes twice, and (1 - (1 + x) e^{-x}) / x^2 where the faster one does.
  JAXSNN_HD static MemoryStep<double> Remember(const Constants& c, const Propagator<double>& p,
                                               double dt) {
    const double x = c.gap * dt;
    const auto slow = DecayOver(c.slow * dt), gap = DecayOver(x);
    const bool mem_slower = c.rate_mem < c.rate_syn;
    // Below 1/2 by the series of the first, 1/2! - x/3! + x^2/4! - ..., and by that both add up to
    // (1 - e^{-x}) / x.
    constexpr double kSeries[] = {
        1.0 / 2,         -1.0 / 6,          1.0 / 24,         -1.0 / 120,    1.0 / 720,
        -1.0 / 5040,     1.0 / 40320,       -1.0 / 362880,    1.0 / 3628800, -1.0 / 39916800,
        1.0 / 479001600, -1.0 / 6227020800, 1.0 / 87178291200};
    double series = 0;
    for (int n = 12; n >= 0; --n) series = kSeries[n] + x * series;
    const double inverse = x > 0 ? 1 / x : 0;
    const bool near = x < 0.5;
    const double both = x > 0 ? gap.lost * inverse : 1.0;
    const double twice_slow = near ? series : (x - gap.lost) * inverse * inverse;
    const double twice_fast = near ? both - series : (gap.lost - x * gap.kept) * inverse * inverse;
    const double scale = dt * dt * slow.kept * c.rate_mem;
    const double mem_mem_syn = scale * (mem_slower ? twice_slow : twice_fast);
    const double mem_syn_syn = scale * (mem_slower ? twice_fast : twice_slow);
    return {dt * p.v_from_v, p.v_from_i * c.tau_mem - mem_mem_syn, mem_syn_syn, dt * p.i_from_i,
            DecayOver(c.rate_mem * dt).lost};
  }

  // The memory at the begin of a time step, from that at its end and the adjoint there.
  template <class R>
  JAXSNN_HD static Memory<R> Recall(const Propagator<R>& p, const MemoryStep<R>& step,
                                    const Memory<R>& m, const Pair<R>& a) {
    return {p.v_from_v * m.v + step.v_from_v * a.v,
            p.i_from_i * m.rise + step.rise_from_v * a.v - p.v_from_i * m.v,
            p.i_from_i * m.i + step.i_from_v * a.v + step.i_from_i * a.i,
            m.rest + step.rest_from_v * a.v};
  }

  // What a state leaves behind in the memory: dL/dtau_mem = -1/tau_mem integral of a.v V' and
  // dL/dtau_syn = 1/tau_syn^2 integral of a.i i, of which this is the part of state x.
  JAXSNN_HD static FlowGradients Attribute(const Constants& c, const Memory<double>& m,
                                           const Pair<double>& x) {
    return {-(x.i * m.rise - x.v * m.v) * c.rate_mem * c.rate_mem,
            x.i * m.i * c.rate_syn * c.rate_syn, 0};
  }

  // The gradients of one time step from x, with the adjoint a at its end.
  JAXSNN_HD static FlowGradients FlowSensitivity(const Constants& c, double dt,
                                                 const Pair<double>& x, const Pair<double>& a) {
    const Propagator<double> p = Propagate(c, dt);
    const Memory<double> m = Recall(p, Remember(c, p, dt), Memory<double>{0, 0, 0, 0}, a);
    FlowGradients gradients = Attribute(c, m, x);
    gradients.v_leak = m.rest;
    return gradients;
  }

  JAXSNN_HD JAXSNN_INLINE static double DecayCurrent(const Constants& c, double i, double dt) {
    return i * DecayOver(c.rate_syn * dt).kept;
  }

  JAXSNN_HD JAXSNN_INLINE static Pair<double> Rate(const Constants& c, const Pair<double>& x) {
    return {(x.i - x.v) * c.rate_mem, -x.i * c.rate_syn};
  }

  // When v, which rises from x, is largest: where i has fallen to v. With the gap g of the rates,
  // log1p(g q) / g for q = (i - v) / (v (rate_syn - rate_mem) + i rate_mem) and its limit q.
  JAXSNN_HD static double TimeOfMaximum(const Constants& c, const Pair<double>& x) {
    const double gap = c.rate_mem < c.rate_syn ? c.gap : -c.gap;
    const double q = (x.i - x.v) / (x.v * gap + x.i * c.rate_mem);
    const double z = gap * q;
    return z == 0 ? q : q * (std::log1p(z) / z);
  }

  // When v reaches the threshold, and 1 - e^{-at/tau_mem}.
  struct ClosedForm {
    double at;
    double passed;
  };

  // tau_mem == 2 tau_syn makes v quadratic in u = e^{-t/tau_mem}: v(t) = (v + i) u - i u^2.
  JAXSNN_HD JAXSNN_INLINE static bool HasClosedForm(const Constants& c) {
    return c.rate_syn == 2 * c.rate_mem;
  }

  // The larger root u is the earlier crossing. Solved for 1 - u, which keeps all digits of a short
  // time. For v < threshold < i, i >= 0; without a branch, for loops that vectorise.
  JAXSNN_HD JAXSNN_INLINE static ClosedForm ClosedFormCrossing(const Constants& c,
                                                               const Pair<double>& x,
                                                               double threshold) {
    const double rise = x.i - x.v;
    const double discriminant = MulAdd(rise, rise, -4 * x.i * (threshold - x.v));
    const double passed = 2 * (threshold - x.v) / (rise + std::sqrt(discriminant));
    const double at = -Log1p(-passed) * c.tau_mem;
    return passed < 1 ? ClosedForm{at, passed} : ClosedForm{kNever, 1};  // no root: NaN
  }

  // The solution over dt, which differs from the time of such a crossing by rounding only.
  JAXSNN_HD JAXSNN_INLINE static Propagator<double> PropagateNear(const Constants& c,
                                                                  const ClosedForm& crossing,
                                                                  double dt) {
    const double off = (dt - crossing.at) * c.rate_mem;
    const double kept = (1 - crossing.passed) * MulAdd(off, MulAdd(off, 0.5, -1.0), 1.0);
    const double lost = MulAdd(1 - crossing.passed, off, crossing.passed);
    return {kept, kept * lost, kept * kept};
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
