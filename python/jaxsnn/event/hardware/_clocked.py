"""Membranes in steps of the chip's clock, for the effects that the exact solver does not know.

These are saturating synaptic inputs and the holdoff behind a reset. Within a step the solution is
exact; arrivals are moved to the nearest step.
Shapes: ``B`` samples, ``S`` channels that are heard, ``N`` neurons.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Spikes


class Step(NamedTuple):
    """The free solution over a step: what becomes of the voltage, the current, a constant current.

    Attributes:
        v_from_v: ``[1 or B, N]``, as the others.
        v_from_i: likewise.
        v_from_constant: of a current that stays the same.
        i_from_i: likewise.
    """

    v_from_v: Any
    v_from_i: Any
    v_from_constant: Any
    i_from_i: Any


def step_of(tau_mem: np.ndarray, tau_syn: np.ndarray, dt: float) -> Step:
    """The solution over ``dt`` seconds."""
    mem, syn = dt / np.asarray(tau_mem, np.float64), dt / np.asarray(tau_syn, np.float64)
    gap = syn - mem
    equal = np.abs(gap) < 1e-9
    # (e^-mem - e^-syn) mem / (syn - mem), without cancellation, and its limit.
    rising = -np.expm1(-np.where(equal, 1, gap)) / np.where(equal, 1, gap)
    v_from_i = mem * np.exp(-mem) * np.where(equal, 1, rising)
    return Step(np.exp(-mem), v_from_i, -np.expm1(-mem), np.exp(-syn))


def receptors(weights: Any, i_max: float | None) -> tuple[Any, ...]:
    """The weights of each synaptic input: one for all, or where they saturate one per sign."""
    return (weights,) if i_max is None else (weights.clip(0), (-weights).clip(0))


def advance(v: Any, currents: Sequence[Any], step: Step, i_max: float | None) -> tuple[Any, Any]:
    """Voltages above the leak, and the currents of the receptors, a step later.

    An input that saturates gives ``i_max`` for as long as it is above, while what charges it
    decays all the same.
    """
    v = step.v_from_v * v
    for sign, current in zip((1, -1), currents, strict=False):
        if i_max is None:
            v = v + step.v_from_i * current
            continue
        high = current > i_max
        v = v + sign * (step.v_from_i * current * ~high + step.v_from_constant * i_max * high)
    return v, tuple(step.i_from_i * current for current in currents)


def simulate(
    constants: dict[str, np.ndarray],
    weights: np.ndarray,
    heard: Spikes,
    *,
    runtime: float,
    dt: float,
    i_max: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The crossings of neurons that do not hear each other.

    Args:
        constants: ``[1 or B, N]``: tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref, and ``clamped``,
            how much of t_ref the membrane is at its reset.
        weights: ``[S, N]``.
        heard: ``[B, any]`` arrivals, in s.
        runtime: s.
        dt: length of a step, s.
        i_max: at which a synaptic input saturates, None for nowhere.

    Returns:
        Sample, neuron and time in s of each, in the order of their steps, within which they take
        the middle.
    """
    leak = constants["v_leak"]
    n_steps = math.ceil(runtime / dt - 1e-6)
    with jax.enable_x64(True):
        fired = _scan(
            i_max,
            step_of(constants["tau_mem"], constants["tau_syn"], dt),
            constants["v_th"] - leak,
            constants["v_reset"] - leak,
            np.rint(constants["t_ref"] / dt).astype(np.int32),
            np.rint(constants["clamped"] / dt).astype(np.int32),
            np.asarray(weights, np.float64),
            raster(heard, n_steps, weights.shape[0], dt),
        )
        step, sample, neuron = np.nonzero(np.asarray(fired))
    return sample, neuron, (step + 0.5) * dt


def raster(spikes: Spikes, n_steps: int, n_channels: int, dt: float) -> np.ndarray:
    """``[n_steps, B, n_channels]``, how many spikes arrive at each step, the nearest one."""
    time, index = np.asarray(spikes.time), np.asarray(spikes.index)
    found = np.zeros((n_steps, time.shape[0], n_channels), np.uint8)
    sample, slot = np.nonzero((index >= 0) & (time < (n_steps - 0.5) * dt))
    at = np.rint(time[sample, slot] / dt).astype(np.int64)
    np.add.at(found, (at, sample, index[sample, slot]), 1)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _scan(
    i_max: float | None,
    step: Step,
    threshold: Any,
    reset: Any,
    n_refractory: Any,
    n_clamped: Any,
    weights: Any,
    arrivals: Any,
) -> Any:
    """Whether each neuron fires at each step, ``[n_steps, B, N]``."""
    parts = receptors(weights, i_max)

    def body(carry: Any, arriving: Any) -> tuple[Any, Any]:
        v, currents, since, part = carry
        arriving = arriving.astype(v.dtype)
        currents = [i + arriving @ w for i, w in zip(currents, parts, strict=True)]
        after, currents = advance(v, currents, step, i_max)
        # A crossing at a part of step k holds the voltage at the reset up to the same part of step
        # k + n_clamped, and the neuron silent up to step k + n_refractory.
        after = jnp.where(since == n_clamped, reset + (1 - part) * (after - reset), after)
        after = jnp.where(since < n_clamped, reset, after)
        fires = (after >= threshold) & (since >= n_refractory)
        rise = jnp.where(after > v, after - v, 1)
        part = jnp.where(fires, ((threshold - v) / rise).clip(0, 1), part)
        after = jnp.where(fires, reset, after)
        return (after, tuple(currents), jnp.where(fires, 1, since + 1), part), fires

    zeros = jnp.zeros((arrivals.shape[1], weights.shape[1]))
    since = jnp.full(zeros.shape, 2**30, jnp.int32)
    return jax.lax.scan(body, (zeros, tuple(zeros for _ in parts), since, zeros), arrivals)[1]
