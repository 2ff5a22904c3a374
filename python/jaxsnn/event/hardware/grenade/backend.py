"""A real chip behind the interface of `Backend`."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware import transforms
from jaxsnn.event.hardware.errors import (
    CalibrationError,
    HardwareCapacityError,
    HardwareConnectionError,
    HardwareError,
    RunTooLongError,
)
from jaxsnn.event.hardware.grenade.adapter import Adapter, Program, Recorded, Setup, Trains
from jaxsnn.event.hardware.grenade.g2 import AdapterG2
from jaxsnn.event.hardware.grenade.g3 import AdapterG3
from jaxsnn.event.hardware.grenade.probe import generation, vendor
from jaxsnn.event.hardware.spec import (
    Calibration,
    NetworkSpec,
    OperatingPoint,
    RunRequest,
    RunResult,
)
from jaxsnn.event.hardware.validate import errors_of, only_trace, validate

__all__ = ["GrenadeBackend"]

_log = logging.getLogger(__name__)

_SHORTEST_REFRACTORY = 40e-9


class _Compiled(NamedTuple):
    spec: NetworkSpec
    calibration: Calibration
    programs: dict[tuple[str, int] | None, Program]


class GrenadeBackend:
    """BrainScaleS-2 by the packages of its vendor, hxtorch and pygrenade_vx.

    They are imported by ``open``, which raises :class:`HardwareUnavailableError` where some are
    missing, :class:`HardwareAPIError` where their interface is unknown, and
    :class:`HardwareConnectionError` where no chip answers. Trial noise is the chip's own: seeds of
    requests are ignored. Between samples the chip rests for five membrane time constants and a
    refractory time, so that none depends on the one before.
    """

    def __init__(self) -> None:
        self._adapter: Adapter | None = None

    def open(self) -> None:
        """Imports the packages and takes hold of the chip."""
        if self._adapter is not None:
            return
        adapter = _load_adapter()
        with vendor("connecting to the chip"):
            adapter.connect()
        self._adapter = adapter

    def close(self) -> None:
        """Lets go of the chip."""
        if self._adapter is None:
            return
        adapter, self._adapter = self._adapter, None
        with vendor("releasing the chip"):
            adapter.release()

    def __enter__(self) -> GrenadeBackend:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chip(self) -> str:
        """The identifier of the chip."""
        with vendor("asking for the chip's identifier"):
            return self._opened().chip()

    def _opened(self) -> Adapter:
        if self._adapter is None:
            raise HardwareConnectionError(
                "GrenadeBackend is not open, expected `with GrenadeBackend() as backend` or "
                "backend.open() before"
            )
        return self._adapter

    def compile(self, spec: NetworkSpec, calibration: Calibration) -> _Compiled:
        """Maps a network to the chip and routes it; see `Backend`.

        Raises:
            HardwareCapacityError: it does not fit, or cannot be routed (`RoutingError`).
            CalibrationError: the calibration is that of another chip.
        """
        self._opened()
        found = errors_of(validate(spec))
        if found:
            raise HardwareCapacityError("; ".join(issue.message for issue in found))
        chip = self.chip()
        if calibration.chip and calibration.chip != chip:
            raise CalibrationError(
                f"calibration {calibration.name!r} is of chip {calibration.chip!r}, the one "
                f"connected is {chip!r}"
            )
        _warn_of_other_constants(spec, calibration.operating_point)
        compiled = _Compiled(spec, calibration, {})
        self._program(compiled, None)
        return compiled

    def _program(self, compiled: _Compiled, recorded: tuple[str, int] | None) -> Program:
        """The network with a recorded membrane, which takes a routing of its own."""
        if recorded not in compiled.programs:
            point = compiled.calibration.operating_point
            rest = 5 * point.tau_mem + point.refractory_time
            setup = Setup(
                spec=compiled.spec,
                payload=compiled.calibration.payload,
                point=point,
                wait=round(rest * transforms.CLOCK_HZ),
                recorded=recorded,
            )
            with vendor("mapping the network"):
                compiled.programs[recorded] = self._opened().build(setup)
        return compiled.programs[recorded]

    def run(self, compiled: _Compiled, request: RunRequest) -> RunResult:
        """Runs a batch; see `Backend`.

        Raises:
            RunTooLongError: the run is longer than the chip can count.
        """
        adapter, spec = self._opened(), compiled.spec
        cycles = round(request.runtime * transforms.CLOCK_HZ)
        if not 0 < cycles <= adapter.max_cycles():
            most = adapter.max_cycles() / transforms.CLOCK_HZ
            raise RunTooLongError(
                f"the run takes {request.runtime} s, expected more than 0 and at most {most:.2f} s"
            )
        recorded = only_trace(spec, request)
        if request.cadc:
            raise HardwareError(
                f"GrenadeBackend: the CADC is asked of {', '.join(request.cadc)}, expected none: "
                "the bridge records by the MADC alone, RunRequest.traces"
            )
        scale = compiled.calibration.weight_scale
        weights = {
            p.label: transforms.linear_saturating(request.weights[p.label], scale)
            for p in spec.projections
        }
        trains = {
            s.name: _trains(request.inputs[s.name], s.size, request.runtime) for s in spec.sources
        }
        room = _room(compiled, request.runtime)
        program = self._program(compiled, recorded)
        with vendor("running the network"):
            found = program.run(weights, trains, cycles, room)
        return self._result(compiled, request, found, room)

    def _result(
        self, compiled: _Compiled, request: RunRequest, found: Recorded, room: dict[str, int]
    ) -> RunResult:
        calibration = compiled.calibration
        dtype = np.asarray(next(iter(request.inputs.values())).time).dtype
        spikes, n_recorded, n_dropped = {}, {}, {}
        for p in compiled.spec.populations:
            index, cycles = found.spikes[p.name]
            if np.any((index >= 0).sum(-1) >= room[p.name]):
                raise HardwareError(
                    f"population {p.name!r} has {room[p.name]} spikes or more in a sample, more "
                    "than the refractory time of the operating point allows: the calibration does "
                    "not describe this chip"
                )
            seconds = transforms.to_seconds(cycles, calibration.time_offset_cycles)
            own, n_recorded[p.name], n_dropped[p.name] = transforms.fill_slots(
                np.where(index >= 0, seconds, np.inf), index, p.n_spikes
            )
            spikes[p.name] = Spikes(own.time.astype(dtype), own.index)  # pyright: ignore
        traces = {}
        if found.samples is not None:
            name = next(iter(request.traces))
            traces[name] = _trace(found.samples, calibration.operating_point)
        return RunResult(
            spikes=spikes,
            n_recorded=n_recorded,
            n_dropped=n_dropped,
            traces=traces,
            meta={
                "backend": "grenade",
                "chip": self.chip(),
                "generation": self._opened().generation,
                "calibration": calibration.name,
            },
        )


def _load_adapter() -> Adapter:
    return AdapterG3() if generation() == "G3" else AdapterG2()


def _warn_of_other_constants(spec: NetworkSpec, point: OperatingPoint) -> None:
    for p in spec.populations:
        for name in ("tau_mem", "tau_syn"):
            model, chip = np.asarray(getattr(p.params, name)), getattr(point, name)
            if not np.allclose(model, chip, rtol=0.01, atol=0):
                _log.warning(
                    "population %r has %s = %s s, the chip is calibrated for %s s",
                    p.name,
                    name,
                    model,
                    chip,
                )


def _trains(spikes: Spikes, size: int, runtime: float) -> Trains:
    """Per sample and channel, which native code takes without looking: nothing else may be sent."""
    there = transforms.sendable(spikes, runtime)
    time, index = np.asarray(spikes.time, np.float64), np.asarray(spikes.index)
    if np.any(index[there] >= size):
        raise ValueError(
            f"GrenadeBackend: an input spike has index {index[there].max()}, expected less than "
            f"{size}, the number of channels"
        )
    cycles = transforms.to_cycles(np.where(there, time, 0))
    trains: Trains = []
    for row in range(len(time)):
        channels: list[list[int]] = [[] for _ in range(size)]
        for t, channel in zip(cycles[row][there[row]], index[row][there[row]], strict=True):
            channels[channel].append(int(t))
        trains.append([sorted(train) for train in channels])
    return trains


def _room(compiled: _Compiled, runtime: float) -> dict[str, int]:
    """More spikes than neurons with the calibrated refractory time can have."""
    refractory = max(compiled.calibration.operating_point.refractory_time, _SHORTEST_REFRACTORY)
    per_neuron = math.ceil(runtime / refractory) + 1
    return {p.name: p.size * per_neuron + 1 for p in compiled.spec.populations}


def _trace(
    samples: list[list[tuple[int, int]]], point: OperatingPoint
) -> tuple[np.ndarray, np.ndarray]:
    """All times at which a sample was taken, and the voltages, NaN where there is no value."""
    times = sorted({t for sample in samples for t, _ in sample})
    place = {t: n for n, t in enumerate(times)}
    values = np.full((len(samples), len(times)), np.nan)
    for row, sample in enumerate(samples):
        for t, lsb in sample:
            if lsb != 0:  # what the chip reports where it lost a sample
                values[row, place[t]] = lsb
    at_leak, per_unit = transforms.madc_scale(point.leak, point.threshold)
    return np.asarray(times) / transforms.CLOCK_HZ, (values - at_leak) / per_unit
