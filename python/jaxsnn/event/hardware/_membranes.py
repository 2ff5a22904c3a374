"""Membranes of an emulated chip as its two ADCs record them, once all spikes are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware import transforms
from jaxsnn.event.hardware._clocked import advance, receptors, step_of
from jaxsnn.event.hardware._trains import Noise, spikes_of
from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.spec import NetworkSpec, OperatingPoint

_MADC_SAMPLES = 65535  # what the chip can take in a run


class Found(NamedTuple):
    """What a population did.

    Attributes:
        crossed: its neurons, in continuous time.
        emitted: these spikes as all others see them, with jitter.
        lost: which of them reach nobody.
        constants: of its neurons, ``[1 or n_samples, n_neurons]``.
    """

    crossed: Spikes
    emitted: Spikes
    lost: np.ndarray
    constants: dict[str, np.ndarray]


class Recorder:
    """What the ADCs see of the membranes of a run.

    Args:
        config: of the chip.
        spec: the network.
        point: at which the chip is calibrated, which gives the scale of the ADCs.
        runtime: of a sample, s.
        heard: what each source and population sends, as it arrives.
        weights: of the projections, as they are on the chip.
        found: what each population did.
        noise: of the trial.
    """

    def __init__(
        self,
        config: EmulatorConfig,
        spec: NetworkSpec,
        point: OperatingPoint,
        runtime: float,
        heard: Mapping[str, Spikes],
        weights: Mapping[str, np.ndarray],
        found: Mapping[str, Found],
        noise: Noise,
    ) -> None:
        self._config = config
        self._spec = spec
        self._point = point
        self._runtime = runtime
        self._heard = heard
        self._weights = weights
        self._found = found
        self._noise = noise

    def madc(self, name: str, neuron: int) -> tuple[np.ndarray, np.ndarray]:
        """Times ``[n]`` and voltages ``[n_samples, n]`` of a neuron."""
        point = self._point
        n = min(math.ceil(self._runtime * self._config.madc_rate), _MADC_SAMPLES)
        times = np.arange(n) / self._config.madc_rate
        scale = transforms.madc_scale(point.leak, point.threshold)
        return times, self._read(name, slice(neuron, neuron + 1), times, scale, 10)[..., 0]

    def cadc(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Times ``[n]`` and voltages ``[n_samples, n, n_neurons]`` of a population."""
        point = self._point
        times = np.arange(math.ceil(self._runtime / self._config.cadc_period))
        times = times * self._config.cadc_period
        scale = (float(point.leak), float(point.threshold - point.leak))
        return times, self._read(name, slice(None), times, scale, 8)

    def _read(
        self, name: str, some: slice, times: np.ndarray, scale: tuple[float, float], bits: int
    ) -> np.ndarray:
        config, own = self._config, self._found[name]
        (population,) = (p for p in self._spec.populations if p.name == name)
        constants = {key: value[:, some] for key, value in own.constants.items()}
        begin = some.start or 0
        index = np.asarray(own.crossed.index) - begin
        mine = (index >= 0) & (index < constants["v_leak"].shape[-1])
        neurons = Neurons(
            constants,
            [
                (self._heard[p.source], self._weights[p.label][:, some])
                for p in self._spec.projections
                if p.target == name
            ],
            spikes_of(np.asarray(own.crossed.time), index, mine),
            config.i_max,
        )
        v = sample(neurons, times, 1 / (config.clock_hz or transforms.CLOCK_HZ))
        leak, gap = (
            np.broadcast_to(np.asarray(x, np.float64), population.size)[some]
            for x in (population.params.v_leak, population.params.v_th - population.params.v_leak)
        )
        noise = config.trace_noise_std * self._noise(f"adc {name}").standard_normal(v.shape)
        lsb = converted((v - leak) / gap, *scale, bits, noise)
        return (lsb - scale[0]) / scale[1]


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
        (_by_step(spikes, dt, np.rint), receptors(weights)) for spikes, weights in neurons.arrivals
    ]
    fired = _by_step(neurons.spikes, dt, np.floor)
    n_clamped = np.maximum(np.rint(neurons.constants["clamped"] / dt).astype(np.int64), 1)
    n_clamped = np.broadcast_to(n_clamped, (n_samples, n_neurons))
    v = np.zeros((n_samples, n_neurons))
    currents = (np.zeros_like(v), np.zeros_like(v))
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
