"""The response of the membrane to a current that decays from 1: the kernel K.

For ``tau_mem V' = -V + I``, ``V(0) = 0``, ``I(t) = exp(-t / tau_syn)`` the textbook gives

    K(t) = tau_syn / (tau_mem - tau_syn) * (exp(-t / tau_mem) - exp(-t / tau_syn)),

and ``t / tau * exp(-t / tau)`` for equal constants. The difference cancels when the constants are
close or the time is short. There the product form is used, with the two rates split into their mean
and half their difference, ``exp(a) - exp(b) = 2 exp((a + b) / 2) sinh((a - b) / 2)``.
"""

from __future__ import annotations

import math

# Beyond this half difference the two exponentials differ by a factor of e^2 and no longer cancel.
_FAR = 1.0


def kernel(t: float, tau_mem: float, tau_syn: float) -> float:
    """The voltage at ``t`` per unit of current at 0."""
    half = _half_difference(t, tau_mem, tau_syn)
    if abs(half) > _FAR:
        difference = math.exp(-t / tau_mem) - math.exp(-t / tau_syn)
        return tau_syn / (tau_mem - tau_syn) * difference
    return t / tau_mem * _mean_decay(t, tau_mem, tau_syn) * _sinhc(half)


def kernel_by_tau(t: float, tau_mem: float, tau_syn: float) -> tuple[float, float]:
    """The derivatives of ``kernel`` with respect to ``tau_mem`` and to ``tau_syn``."""
    half = _half_difference(t, tau_mem, tau_syn)
    if abs(half) > _FAR:
        decay_mem, decay_syn = math.exp(-t / tau_mem), math.exp(-t / tau_syn)
        gap = tau_mem - tau_syn
        by_mem = tau_syn / gap * (decay_mem * t / tau_mem**2 - (decay_mem - decay_syn) / gap)
        by_syn = tau_mem / gap**2 * (decay_mem - decay_syn) - decay_syn * t / (gap * tau_syn)
        return by_mem, by_syn
    # d(mean exponent) and d(half) with respect to a time constant are +-t / (2 tau^2)
    front = t / tau_mem * _mean_decay(t, tau_mem, tau_syn)
    value, slope = _sinhc(half), _sinhc_slope(half)
    by_mem = front * (t / (2 * tau_mem**2) * (value + slope) - value / tau_mem)
    by_syn = front * t / (2 * tau_syn**2) * (value - slope)
    return by_mem, by_syn


def _half_difference(t: float, tau_mem: float, tau_syn: float) -> float:
    # the constants are subtracted, not their inverses: this difference is exact when they are close
    return t / 2 * (tau_mem - tau_syn) / (tau_mem * tau_syn)


def _mean_decay(t: float, tau_mem: float, tau_syn: float) -> float:
    return math.exp(-(t / tau_mem + t / tau_syn) / 2)


def _sinhc(x: float) -> float:
    return math.sinh(x) / x if x else 1.0


def _sinhc_slope(x: float) -> float:
    """The derivative of sinh(x)/x for ``|x| <= 1``, as a power series: its closed form cancels."""
    return math.fsum(2 * n * x ** (2 * n - 1) / math.factorial(2 * n + 1) for n in range(1, 11))
