"""Membranes in steps of the chip's clock, for the effects that the exact solver does not know.

These are saturating synaptic inputs, the holdoff behind a reset, and spikes that are lost or
jittered on their way within a cycle of populations. Within a step the solution is exact; events
happen at the steps, and a crossing belongs to the step in which the voltage reached the threshold.
Shapes: ``B`` samples, ``S`` channels that are heard, ``N`` neurons.
"""

from __future__ import annotations

import functools
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


#: In place of how late a spike is: it reaches nobody.
LOST = -(2**30)


class Clocked(NamedTuple):
    """What is run.

    Attributes:
        n_steps: of the run.
        delay: from a neuron of the stage to another one, in steps.
        i_max: at which a synaptic input saturates, None for nowhere.
    """

    n_steps: int
    delay: int
    i_max: float | None


class Fired(NamedTuple):
    """Crossings, in the order of their steps.

    Attributes:
        step: ``[n]``, as the others.
        sample: in which it was.
        neuron: which one fired.
        ordinal: how many spikes of the neuron in the sample came before.
    """

    step: np.ndarray
    sample: np.ndarray
    neuron: np.ndarray
    ordinal: np.ndarray


def simulate(
    setup: Clocked,
    constants: dict[str, np.ndarray],
    incoming: np.ndarray,
    recurrent: np.ndarray | None,
    heard: Spikes,
    late: np.ndarray,
    dt: float,
) -> Fired:
    """Runs a stage.

    Args:
        setup: what all neurons share.
        constants: ``[1 or B, N]``: tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref, and ``clamped``,
            how much of t_ref the membrane is at its reset.
        incoming: ``[S, N]`` weights from all that is heard.
        recurrent: ``[N, N]`` weights within the stage, or None.
        heard: ``[B, any]`` arrivals, in s.
        late: ``[B, N, n_ordinals]`` steps by which each spike of a neuron comes later than
            ``delay`` to the others, counted through and begun anew; or `LOST`.
        dt: length of a step, s.

    Returns:
        All crossings.
    """
    leak = constants["v_leak"]
    # Room for spikes on their way; a power of two, so that noise compiles nothing anew.
    n_slots = 1 << int(setup.delay + max(int(late.max()), 0) + 1).bit_length()
    step = step_of(constants["tau_mem"], constants["tau_syn"], dt)
    with jax.enable_x64(True):
        fired = np.asarray(
            _scan(
                setup,
                n_slots if recurrent is not None else 1,
                step,
                constants["v_th"] - leak,
                constants["v_reset"] - leak,
                np.rint(constants["t_ref"] / dt).astype(np.int32),
                np.rint(constants["clamped"] / dt).astype(np.int32),
                np.asarray(incoming, np.float64),
                None if recurrent is None else np.asarray(recurrent, np.float64),
                raster(heard, setup.n_steps, incoming.shape[0], dt),
                late,
            )
        )
    steps, sample, neuron = np.nonzero(fired)
    ordinal = (np.cumsum(fired, 0, dtype=np.int32)[steps, sample, neuron] - 1).astype(np.int64)
    return Fired(steps, sample, neuron, ordinal)


def raster(spikes: Spikes, n_steps: int, n_channels: int, dt: float) -> np.ndarray:
    """``[n_steps, B, n_channels]``, how many spikes arrive at each step, the nearest one."""
    time, index = np.asarray(spikes.time), np.asarray(spikes.index)
    found = np.zeros((n_steps, time.shape[0], n_channels), np.uint8)
    sample, slot = np.nonzero((index >= 0) & (time < (n_steps - 0.5) * dt))
    at = np.rint(time[sample, slot] / dt).astype(np.int64)
    np.add.at(found, (at, sample, index[sample, slot]), 1)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scan(
    setup: Clocked,
    n_slots: int,
    step: Step,
    threshold: Any,
    reset: Any,
    n_refractory: Any,
    n_clamped: Any,
    incoming: Any,
    recurrent: Any,
    arrivals: Any,
    late: Any,
) -> Any:
    """Whether each neuron fires at each step, ``[n_steps, B, N]``."""
    n_samples, n_neurons = arrivals.shape[1], incoming.shape[1]
    shape = (n_samples, n_neurons)
    rows, columns = jnp.arange(n_samples)[:, None], jnp.arange(n_neurons)
    incoming = receptors(incoming, setup.i_max)
    recurrent = None if recurrent is None else receptors(recurrent, setup.i_max)

    def body(carry, x):
        k, arriving = x
        v, currents, since, part, count, on_the_way = carry
        currents = [i + arriving @ w for i, w in zip(currents, incoming, strict=True)]
        if recurrent is not None:
            own = on_the_way[k % n_slots].astype(v.dtype)
            currents = [i + own @ w for i, w in zip(currents, recurrent, strict=True)]
            on_the_way = on_the_way.at[k % n_slots].set(0)
        after, currents = advance(v, currents, step, setup.i_max)
        # A crossing at a part of step k holds the voltage at the reset up to the same part of step
        # k + n_clamped, and the neuron silent up to step k + n_refractory.
        after = jnp.where(since == n_clamped, reset + (1 - part) * (after - reset), after)
        after = jnp.where(since < n_clamped, reset, after)
        fires = (after >= threshold) & (since >= n_refractory)
        rise = jnp.where(after > v, after - v, 1)
        part = jnp.where(fires, ((threshold - v) / rise).clip(0, 1), part)
        after = jnp.where(fires, reset, after)
        if recurrent is not None:
            own_late = late[rows, columns, count % late.shape[-1]]
            slot = (k + jnp.maximum(setup.delay + own_late, 1)) % n_slots
            sent = (fires & (own_late != LOST)).astype(on_the_way.dtype)
            on_the_way = on_the_way.at[slot, rows, columns].add(sent)
        since = jnp.where(fires, 1, since + 1)
        return (after, tuple(currents), since, part, count + fires, on_the_way), fires

    zeros = jnp.zeros(shape)
    start = (
        jnp.zeros(shape),
        tuple(zeros for _ in incoming),
        jnp.full(shape, 2**30, jnp.int32),
        zeros,
        jnp.zeros(shape, jnp.int32),
        jnp.zeros((n_slots, *shape), jnp.uint8),
    )
    steps = jnp.arange(setup.n_steps)
    return jax.lax.scan(body, start, (steps, arrivals.astype(zeros.dtype)))[1]
