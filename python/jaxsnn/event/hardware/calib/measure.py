"""Measures how strong the synapses of a chip are, and how late its spikes are recorded.

Inputs that spike together at the time 0 drive all neurons; which of them spike decides the total
weight, so that one network, mapped once, sweeps it. A neuron that starts to fire at a total weight
of S LSB has a threshold of S LSB, where in the model it is that of the weight whose PSP just
reaches the threshold: their ratio is the weight scale. The times of its first spikes at higher
totals are compared with the model that has this threshold, which leaves the latency alone.
"""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event.hardware.errors import CalibrationError
from jaxsnn.event.hardware.spec import (
    Backend,
    Calibration,
    NetworkSpec,
    OperatingPoint,
    PopulationSpec,
    ProjectionSpec,
    RunRequest,
    SourceSpec,
)
from jaxsnn.event.hardware.transforms import CLOCK_HZ, WEIGHT_MAX

__all__ = ["Sweep", "measure_time_offset", "measure_weight_scale", "sweep_weights"]

_log = logging.getLogger(__name__)

_RUNTIME = 50e-6
_STEP = 2  # LSB
_LARGE = 9  # inputs with the largest weight, next to those of the powers of two
_SAMPLES_PER_RUN = 64
_STEEP = 1.5  # from this many thresholds on, the time of a spike is well defined


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The first spikes of every neuron at every total weight.

    Attributes:
        point: the operating point.
        totals: ``[n_totals]`` LSB, evenly spaced.
        cycles: ``[n_repetitions, n_totals, n_neurons]`` as recorded, ``inf`` without a spike.
    """

    point: OperatingPoint
    totals: np.ndarray
    cycles: np.ndarray

    def thresholds(self) -> np.ndarray:
        """Threshold of every neuron, LSB; NaN where one never fired.

        It is the cut with the fewest spikes below and the fewest gaps above: spikes that were not
        recorded far above the threshold do not move it.
        """
        fired = np.isfinite(self.cycles)
        nothing = np.zeros((1, fired.shape[-1]))
        below = np.concatenate([nothing, fired.sum(0).cumsum(0)])
        gaps = np.concatenate([nothing, (~fired).sum(0).cumsum(0)])
        wrong = below + gaps[-1] - gaps
        best = wrong == wrong.min(0)
        step = self.totals[1] - self.totals[0]
        cuts = np.concatenate([self.totals, self.totals[-1:] + step]) - step / 2
        found = (best * cuts[:, None]).sum(0) / best.sum(0)
        return np.where(fired.any((0, 1)), found, np.nan)


def sweep_weights(
    backend: Backend,
    point: OperatingPoint,
    *,
    payload: object = None,
    n_neurons: int = 512,
    repetitions: int = 3,
    seed: int = 0,
) -> Sweep:
    """Runs the sweep on a backend that is open.

    Args:
        backend: the chip.
        point: the operating point at which it is calibrated.
        payload: of the calibration, what the backend loads into the chip.
        n_neurons: how many to measure.
        repetitions: of the sweep.
        seed: of the trial noise of an emulated chip.

    Raises:
        CalibrationError: more than one neuron in ten fires at no weight, or one at every weight.
    """
    params = model_parameters(point)
    slots = n_neurons * (math.ceil(_RUNTIME / max(point.refractory_time, 1e-6)) + 1)
    weights = np.array([1, 2, 4, 8, 16, 32] + [WEIGHT_MAX] * _LARGE, float)
    source, target = SourceSpec("input", len(weights)), "calibrated"
    spec = NetworkSpec(
        (source,),
        (PopulationSpec(target, n_neurons, slots, _RUNTIME, params),),
        (projection := ProjectionSpec(source.name, target),),
    )
    # Weights are in LSB here.
    unscaled = Calibration(weight_scale=1.0, operating_point=point, payload=payload)
    compiled = backend.compile(spec, unscaled)
    totals = np.arange(_STEP, int(weights.sum()) + 1, _STEP)
    cycles = np.full((repetitions, len(totals), n_neurons), np.inf)
    for repetition in range(repetitions):
        for begin in range(0, len(totals), _SAMPLES_PER_RUN):
            some = slice(begin, begin + _SAMPLES_PER_RUN)
            result = backend.run(
                compiled,
                RunRequest(
                    inputs={source.name: _together(totals[some])},
                    weights={projection.label: np.repeat(weights[:, None], n_neurons, 1)},
                    runtime=_RUNTIME,
                    seed=seed + repetition * len(totals) + begin,
                ),
            )
            cycles[repetition, some] = _first(result.spikes[target], n_neurons) * CLOCK_HZ
    sweep = Sweep(point, totals, np.where(np.isfinite(cycles), np.rint(cycles), np.inf))
    _check(sweep)
    return sweep


def measure_weight_scale(sweep: Sweep) -> float:
    """LSB per unit of model weight, the mean over all neurons that fire."""
    return float(np.nanmean(sweep.thresholds()) / _critical_weight(sweep.point))


def measure_time_offset(sweep: Sweep) -> int:
    """Cycles from the time of an input to the recording of what it causes, less the model's.

    It holds the way of the input to the neuron and that of the spike to the recording, which no
    recording can tell apart.
    """
    drive = sweep.totals[:, None] / sweep.thresholds()
    used = np.isfinite(sweep.cycles) & (drive >= _STEEP)
    if not used.any():
        raise CalibrationError("no neuron fires at 1.5 times its threshold, the chip is no LIF")
    expected = _crossing(drive, sweep.point) * CLOCK_HZ
    late = np.where(used, sweep.cycles - expected, np.nan)
    # The median: where a first spike was not recorded, a later one took its place.
    return round(float(np.nanmedian(late)))


def model_parameters(point: OperatingPoint) -> LIFParameters:
    """The model of neurons at an operating point, in units of the distance to the threshold.

    Raises:
        ValueError: the threshold is not above leak and reset.
    """
    gap = point.threshold - point.leak
    if gap <= 0 or point.reset >= point.threshold:
        raise ValueError(
            f"threshold is {point.threshold}, expected more than leak={point.leak} and "
            f"reset={point.reset}"
        )
    return LIFParameters(
        tau_mem=point.tau_mem,
        tau_syn=point.tau_syn,
        v_reset=(point.reset - point.leak) / gap,
        t_ref=point.refractory_time,
    )


def _together(totals: np.ndarray) -> Spikes:
    """Inputs at the time 0, per sample those whose weights add up to a total."""
    n_large = np.minimum(totals // WEIGHT_MAX, _LARGE)
    rest = totals - n_large * WEIGHT_MAX
    binary = (rest[:, None] >> np.arange(6)) & 1 == 1
    spiking = np.concatenate([binary, np.arange(_LARGE) < n_large[:, None]], -1)
    index = np.where(spiking, np.arange(spiking.shape[-1]), -1).astype(np.int32)
    return Spikes(np.where(spiking, 0.0, np.inf), index)  # pyright: ignore[reportArgumentType]


def _first(spikes: Spikes, n_neurons: int) -> np.ndarray:
    time, index = np.asarray(spikes.time, np.float64), np.asarray(spikes.index)
    first = np.full((len(time), n_neurons), np.inf)
    row, slot = np.nonzero(index >= 0)
    np.minimum.at(first, (row, index[row, slot]), time[row, slot])
    return first


def _check(sweep: Sweep) -> None:
    fired = np.isfinite(sweep.cycles)
    n_silent = int((~fired.any((0, 1))).sum())
    n_always = int(fired[:, 0].any(0).sum())
    n_neurons = fired.shape[-1]
    if n_silent > n_neurons / 10 or n_always:
        raise CalibrationError(
            f"of {n_neurons} neurons, {n_silent} fire at no weight up to {sweep.totals[-1]} LSB "
            f"and {n_always} at {sweep.totals[0]} LSB already, expected at most "
            f"{n_neurons // 10} and none: the operating point is out of reach"
        )
    if n_silent:
        _log.warning("%d of %d neurons never fire and are left out", n_silent, n_neurons)


def _psp(time: np.ndarray, point: OperatingPoint) -> np.ndarray:
    """Membrane after an input of weight 1."""
    mem, syn = point.tau_mem, point.tau_syn
    if math.isclose(mem, syn, rel_tol=1e-6):
        return time / mem * np.exp(-time / mem)
    return syn / (mem - syn) * (np.exp(-time / mem) - np.exp(-time / syn))


def _peak_time(point: OperatingPoint) -> float:
    mem, syn = point.tau_mem, point.tau_syn
    if math.isclose(mem, syn, rel_tol=1e-6):
        return mem
    return mem * syn / (mem - syn) * math.log(mem / syn)


def _critical_weight(point: OperatingPoint) -> float:
    """The weight of which the PSP just reaches the threshold."""
    return float(1 / _psp(np.array([_peak_time(point)]), point)[0])


def _crossing(drive: np.ndarray, point: OperatingPoint) -> np.ndarray:
    """When a PSP with a peak of ``drive`` thresholds reaches the threshold, s."""
    weight = drive * _critical_weight(point)
    low, high = np.zeros_like(weight), np.full_like(weight, _peak_time(point))
    for _ in range(50):  # halves of 10 us, far below a cycle
        middle = (low + high) / 2
        above = weight * _psp(middle, point) >= 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high
