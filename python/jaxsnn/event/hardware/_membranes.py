"""Membranes of an emulated chip as its two ADCs record them, once all spikes are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware._clocked import advance, receptors, step_of


class Neurons(NamedTuple):
    """The neurons to record.

    Attributes:
        constants: ``[1 or B, N]``: tau_mem, tau_syn, v_leak, v_reset, and ``clamped``, how long a
            spike holds the membrane at its reset, s.
        arrivals: what they hear, ``[B, any]`` each, and its weights ``[n_channels, N]``.
        spikes: their own, ``[B, any]``, with indices below N.
        i_max: at which a synaptic input saturates, None for nowhere.
    """

    constants: dict[str, np.ndarray]
    arrivals: Sequence[tuple[Spikes, np.ndarray]]
    spikes: Spikes
    i_max: float | None


def sample(neurons: Neurons, times: np.ndarray, dt: float) -> np.ndarray:
    """Voltages, by exact solutions over steps at whose begin events happen.

    Args:
        neurons: which ones.
        times: ``[n]`` at which to look, rising, s.
        dt: length of a step, s.

    Returns:
        ``[B, n, N]`` in the units of the model.
    """
    leak = neurons.constants["v_leak"]
    reset = neurons.constants["v_reset"] - leak
    step = step_of(neurons.constants["tau_mem"], neurons.constants["tau_syn"], dt)
    n_samples, n_neurons = neurons.spikes.time.shape[0], leak.shape[-1]
    arrivals = [
        (_by_step(spikes, dt, np.rint), receptors(weights, neurons.i_max))
        for spikes, weights in neurons.arrivals
    ]
    fired = _by_step(neurons.spikes, dt, np.floor)
    n_clamped = np.maximum(np.rint(neurons.constants["clamped"] / dt).astype(np.int64), 1)
    n_clamped = np.broadcast_to(n_clamped, (n_samples, n_neurons))
    v = np.zeros((n_samples, n_neurons))
    currents = tuple(np.zeros_like(v) for _ in range(1 if neurons.i_max is None else 2))
    free_from = np.zeros((n_samples, n_neurons), np.int64)
    found = np.empty((n_samples, len(times), n_neurons))
    seen = 0
    position = np.asarray(times) / dt
    for k in range(int(position[-1]) + 1 if len(times) else 0):
        for events, weights in arrivals:
            for row, source in events.get(k, ()):
                for current, w in zip(currents, weights, strict=True):
                    current[row] += w[source]
        before = v
        v, currents = advance(v, currents, step, neurons.i_max)
        for row, neuron in fired.get(k, ()):
            free_from[row, neuron] = k + n_clamped[row, neuron]
        v = np.where(k < free_from, reset, v)
        while seen < len(times) and position[seen] < k + 1:
            found[:, seen] = before + (position[seen] - k) * (v - before)
            seen += 1
    return found + leak[:, None]


def _by_step(spikes: Spikes, dt: float, rounding) -> dict[int, list[tuple[int, int]]]:
    """Sample and index of what happens at each step."""
    time, index = np.asarray(spikes.time, np.float64), np.asarray(spikes.index)
    found: dict[int, list[tuple[int, int]]] = {}
    for row, slot in zip(*np.nonzero(index >= 0), strict=True):
        place = int(rounding(time[row, slot] / dt + 1e-6))
        found.setdefault(place, []).append((int(row), int(index[row, slot])))
    return found


def converted(
    volts: np.ndarray, at_zero: float, per_unit: float, bits: int, noise: np.ndarray
) -> np.ndarray:
    """What an ADC makes of voltages, LSB from 1 on: 0 stands for samples that were lost.

    Args:
        volts: in units of the distance from leak to threshold, from the leak on.
        at_zero: LSB at the leak.
        per_unit: LSB from the leak to the threshold.
        bits: of the ADC.
        noise: added, LSB.
    """
    return np.clip(np.rint(at_zero + per_unit * volts + noise), 1, 2**bits - 1)
