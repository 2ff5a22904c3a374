"""Membranes in steps of the chip's clock, for the effects that the exact solver does not know.

These are saturating synaptic inputs and the holdoff behind a reset. Within a step the solution is
exact; arrivals are moved to the nearest step.
Shapes: ``B`` samples, ``S`` channels that are heard, ``N`` neurons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsnn import _core
from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware._trains import spikes_of


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


def receptors(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of both synaptic inputs of each neuron, the excitatory and the inhibitory one."""
    return weights.clip(0), (-weights).clip(0)


def advance(
    v: np.ndarray, currents: Sequence[np.ndarray], step: Step, i_max: float | None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Voltages above the leak, and the currents of the receptors, a step later.

    An input that saturates gives ``i_max`` for as long as it is above, while what charges it
    decays all the same.
    """
    given = [
        step.v_from_i * current
        if i_max is None
        else np.where(current > i_max, step.v_from_constant * i_max, step.v_from_i * current)
        for current in currents
    ]
    v = step.v_from_v * v + (given[0] - given[1])
    return v, tuple(step.i_from_i * current for current in currents)


def simulate(
    constants: dict[str, np.ndarray],
    weights: np.ndarray,
    heard: Spikes,
    *,
    runtime: float,
    dt: float,
    i_max: float | None,
    max_events: int,
) -> tuple[Spikes, np.ndarray]:
    """The crossings of neurons that do not hear each other.

    Args:
        constants: ``[1 or B, N]``: tau_mem, tau_syn, v_th, v_leak, v_reset, t_ref, and ``clamped``,
            how much of t_ref the membrane is at its reset.
        weights: ``[S, N]``.
        heard: ``[B, any]`` arrivals in time order, in s.
        runtime: s.
        dt: length of a step, s.
        i_max: at which a synaptic input saturates, None for nowhere.
        max_events: room for spikes per sample.

    Returns:
        Spikes ``[B, max_events]``, each in the middle of its step, and how many there were.
    """
    leak = constants["v_leak"]
    n_steps = math.ceil(runtime / dt - 1e-6)
    n_samples = heard.time.shape[0]
    step, index = (np.empty((n_samples, max_events), np.int32) for _ in range(2))
    count = np.empty(n_samples, np.int32)
    _core.clocked_loop(
        step_of(constants["tau_mem"], constants["tau_syn"], dt),
        constants["v_th"] - leak,
        constants["v_reset"] - leak,
        np.rint(constants["t_ref"] / dt).astype(np.int32),
        np.rint(constants["clamped"] / dt).astype(np.int32),
        *receptors(np.asarray(weights, np.float64)),
        np.inf if i_max is None else i_max,
        n_steps,
        *_arrivals(heard, n_steps, weights.shape[0], dt),
        step,
        index,
        count,
    )
    return spikes_of((step + 0.5) * dt, index, index >= 0), count


def _arrivals(
    spikes: Spikes, n_steps: int, n_channels: int, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """The step of each spike, the nearest one, and its channel, -1 for those that come too late."""
    time, index = np.asarray(spikes.time), np.asarray(spikes.index, np.int32)
    if index.max(initial=-1) >= n_channels:
        raise ValueError(f"a spike has index {index.max()}, expected one below {n_channels}")
    there = (index >= 0) & (time < (n_steps - 0.5) * dt)
    step = np.rint(np.where(there, time, -dt) / dt).astype(np.int32)
    return step, np.where(there, index, -1)
