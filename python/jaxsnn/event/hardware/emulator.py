"""A chip that exists in software alone, with the imperfections of the real one.

The membranes are solved exactly in continuous time, as those of the model are, by the same compiled
loop with constants of its own for every neuron; only what is digital on the chip, events, goes by
the clock. What the loop does not know of, saturation and holdoff, is solved in steps of the clock
instead. All of it is NumPy and compiled code: a run is often inside of a callback of JAX, where
nothing must wait for JAX.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware import _clocked, transforms
from jaxsnn.event.hardware._membranes import Found, Recorder
from jaxsnn.event.hardware._neurons import constants
from jaxsnn.event.hardware._stages import Stage, stages, unrolled
from jaxsnn.event.hardware._trains import (
    Noise,
    delayed,
    gain,
    generator,
    merged,
    ordinals,
    spikes_of,
    split,
)
from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.errors import HardwareCapacityError, HardwareError
from jaxsnn.event.hardware.spec import Calibration, NetworkSpec, RunRequest, RunResult
from jaxsnn.event.hardware.validate import errors_of, only_trace, validate
from jaxsnn.ops import Status
from jaxsnn.ops._host import host_loop

__all__ = ["EmulatedBackend"]

_MOST_PER_NEURON = 64  # spikes in a sample


class _Compiled(NamedTuple):
    """A network.

    Attributes:
        spec: of the network.
        calibration: of the chip.
        stages: in order.
        opened: of those that hear themselves, by the first population, what `unrolled` gives.
    """

    spec: NetworkSpec
    calibration: Calibration
    stages: list[Stage]
    opened: dict[str, tuple[Stage, dict[str, str], dict[str, str]]]


class _StageRun(NamedTuple):
    """What a stage is run with.

    Attributes:
        constants: of the neurons, ``[n_samples or 1, n_neurons]``.
        runtime: s.
        per_neuron: the most spikes that a neuron can have in a sample.
        noise: of the trial.
        dtype: of the exact solution.
    """

    constants: dict[str, np.ndarray]
    runtime: float
    per_neuron: int
    noise: Noise
    dtype: np.dtype


class EmulatedBackend:
    """An emulated chip behind the interface of `Backend`.

    Args:
        chip: seed of everything that makes this chip differ from others.
        config: its effects.

    The same seed is the same chip: constants belong to a population and its size, by name. Trial
    noise follows from the seed of the request alone.
    """

    def __init__(self, chip: int = 0, config: EmulatorConfig | None = None) -> None:
        self.chip = chip
        self.config = EmulatorConfig() if config is None else config

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> EmulatedBackend:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def calibration(self) -> Calibration:
        """The calibration that a perfect measurement of this chip would give."""
        return Calibration(
            weight_scale=self.config.weight_scale,
            time_offset_cycles=self.config.record_offset_cycles,
            chip=f"emulated-{self.chip}",
        )

    def compile(self, spec: NetworkSpec, calibration: Calibration) -> _Compiled:
        """Checks the network; see `Backend`."""
        found = errors_of(validate(spec))
        if found:
            raise HardwareCapacityError("; ".join(issue.message for issue in found))
        found = stages(spec)
        opened = {s.populations[0].name: unrolled(s, spec) for s in found if s.recurrent}
        return _Compiled(spec, calibration, found, opened)

    def run(self, compiled: _Compiled, request: RunRequest) -> RunResult:
        """Runs a batch; see `Backend`."""
        spec, config = compiled.spec, self.config
        traced = only_trace(spec, request)
        for name in request.cadc:
            if name not in {p.name for p in spec.populations}:
                raise ValueError(f"RunRequest: cadc has {name!r}, which is no population")
        dtype = np.asarray(next(iter(request.inputs.values())).time).dtype
        noise = Noise(request.seed)
        heard = {
            source.name: self._sent(request.inputs[source.name], request.runtime)
            for source in spec.sources
        }
        n_samples = next(iter(heard.values())).time.shape[0]
        weights = {
            p.label: self._on_chip(p.label, request.weights[p.label], compiled.calibration)
            for p in spec.projections
        }
        heard = {n: delayed(s, delay=config.delay_ext) for n, s in heard.items()}
        found: dict[str, Found] = {}
        for stage in compiled.stages:
            own = self._run_stage(compiled, stage, heard, weights, request, noise, dtype)
            for name, what in own.items():
                heard[name] = delayed(what.emitted, what.lost, config.delay_int)
            found |= own
        results = {
            p.name: self._recorded(
                p.name, found[p.name].emitted, p.n_spikes, request, compiled, noise
            )
            for p in spec.populations
        }
        record = Recorder(
            config,
            spec,
            compiled.calibration.operating_point,
            request.runtime,
            heard,
            weights,
            found,
            noise,
        )
        return RunResult(
            spikes={
                name: Spikes(spikes.time.astype(dtype), spikes.index)  # pyright: ignore
                for name, (spikes, _, _) in results.items()
            },
            n_recorded={name: n for name, (_, n, _) in results.items()},
            n_dropped={name: n for name, (_, _, n) in results.items()},
            traces={} if traced is None else {traced[0]: record.madc(*traced)},
            cadc={name: record.cadc(name) for name in request.cadc},
            meta={"backend": "emulated", "chip": self.chip, "samples": n_samples},
        )

    def _sent(self, spikes: Spikes, runtime: float) -> Spikes:
        there = transforms.sendable(spikes, runtime)
        time = np.asarray(spikes.time, np.float64)
        clock = self.config.clock_hz
        if clock is not None:
            time = transforms.to_cycles(np.where(there, time, 0), clock) / clock
        return spikes_of(time, np.asarray(spikes.index), there)

    def _on_chip(self, label: str, weights: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Weights as the neurons see them, in units of the model."""
        config = self.config
        strength = np.asarray(weights, np.float64) * calibration.weight_scale
        if config.quantised:
            strength = transforms.linear_saturating(weights, calibration.weight_scale)
        gains = generator("chip", self.chip, "synapse_gain", label).standard_normal(strength.shape)
        return strength / config.weight_scale * gain(config.synapse_gain_std, gains)

    def _run_stage(
        self, compiled: _Compiled, stage: Stage, heard, weights, request, noise, dtype
    ) -> dict[str, Found]:
        config = self.config
        inputs = {name: heard[name] for name in stage.sources}
        n_samples = next(iter(inputs.values())).time.shape[0]
        own_constants = constants(config, self.chip, stage, n_samples, noise)
        own = {
            p.label: weights[p.label]
            for p in compiled.spec.projections
            if p.target in {q.name for q in stage.populations}
        }
        shortest = float(own_constants["t_ref"].min())
        most = 8 if shortest == 0 else math.ceil(request.runtime / shortest) + 1
        per_neuron = min(most, _MOST_PER_NEURON)
        run = _StageRun(own_constants, request.runtime, per_neuron, noise, np.dtype(dtype))
        noisy = (
            self._jitter(request.runtime) > 0 or config.jitter_bias != 0 or config.p_loss_chip > 0
        )
        if stage.recurrent and (noisy or self._by_clock):
            found = self._settled(compiled, stage, run, own, inputs)
        else:
            found = {}
            for name, crossed in self._crossings(stage, run, own, inputs).items():
                emitted = self._jittered(name, crossed, request.runtime, noise)
                lost = noise(f"chip {name}").random(emitted.time.shape) < config.p_loss_chip
                found[name] = (crossed, emitted, lost)
        return {name: Found(*what, stage.own(name, own_constants)) for name, what in found.items()}

    @property
    def _by_clock(self) -> bool:
        """Whether the exact solver lacks an effect."""
        return self.config.i_max is not None or self.config.holdoff_time > 0

    def _crossings(self, stage: Stage, run: _StageRun, weights, inputs) -> dict[str, Spikes]:
        """The spikes of each population, without any noise on their way."""
        room = _room(stage, run)
        incoming, recurrent = stage.weights(weights)
        if not np.isfinite(incoming).all():
            raise HardwareError("emulated chip: weights are not finite")
        incoming = incoming * run.constants["alive"]
        heard = merged(stage, inputs)
        if self._by_clock:
            assert recurrent is None
            spikes, count = _clocked.simulate(
                run.constants,
                incoming,
                heard,
                runtime=run.runtime,
                dt=1 / self._clock,
                i_max=self.config.i_max,
                max_events=room,
            )
            full = count > room
        else:
            spikes, status = host_loop(
                run.constants,
                incoming.astype(run.dtype),
                heard,
                t_max=run.runtime,
                max_events=room,
                recurrent=None if recurrent is None else recurrent * run.constants["alive"],
                recurrent_delay=self.config.delay_int,
            )
            time, index = np.asarray(spikes.time, np.float64), np.asarray(spikes.index)
            spikes = spikes_of(time, index, index >= 0)
            full = status == Status.EVENT_CAPACITY
            if np.any((status != Status.OK) & ~full):
                raise HardwareError("emulated chip: weights or inputs are not finite")
        if np.any(full):
            names = ", ".join(p.name for p in stage.populations)
            raise HardwareError(
                f"emulated chip: more than {room} spikes per sample of {names}, expected fewer: "
                "the neurons fire in bursts, lower the weights or set refractory_time"
            )
        return split(stage, spikes)

    def _settled(
        self, compiled: _Compiled, stage: Stage, run: _StageRun, weights, inputs
    ) -> dict[str, tuple[Spikes, Spikes, np.ndarray]]:
        """Crossed, emitted and lost spikes of populations that hear each other with noise.

        What they hear is first taken to be nothing, then what they sent, until it is the same:
        every round is right for one more spike at least, and mostly for one more delay.
        """
        config = self.config
        opened, sources, labels = compiled.opened[stage.populations[0].name]
        weights = {labels[label]: w for label, w in weights.items()}
        n_samples = next(iter(inputs.values())).time.shape[0]
        jitter, lost = {}, {}
        for p in stage.populations:
            shape = (n_samples, p.size, run.per_neuron)
            normal = run.noise(f"jitter {p.name}").standard_normal(shape)
            jitter[p.name] = config.jitter_bias + self._jitter(run.runtime) * normal
            lost[p.name] = run.noise(f"chip {p.name}").random(shape) < config.p_loss_chip
        room = _room(stage, run)
        nothing = spikes_of(*np.zeros((3, n_samples, room)))
        heard = dict.fromkeys(sources, nothing)
        for _ in range(room + 2):
            given = {sources[name]: spikes for name, spikes in heard.items()}
            crossed = self._crossings(opened, run, weights, inputs | given)
            found, before, heard = {}, heard, {}
            for name, spikes in crossed.items():
                time, index = np.asarray(spikes.time), np.asarray(spikes.index)
                own = (np.arange(n_samples)[:, None], index, ordinals(index) % run.per_neuron)
                late, gone = jitter[name][own], lost[name][own]
                found[name] = (spikes, *_in_order(time + late, index, gone))
                # None arrives before the cycle behind the one in which it was sent.
                arrival = time + np.maximum(late + config.delay_int, 1 / self._clock)
                heard[name] = delayed(*_in_order(arrival, index, gone))
            if all(_equal(heard[name], before[name]) for name in heard):
                return found
        names = ", ".join(p.name for p in stage.populations)
        raise HardwareError(
            f"emulated chip: {names} have more than {room} spikes per sample, expected fewer: "
            "the neurons fire in bursts, lower the weights or set refractory_time"
        )

    @property
    def _clock(self) -> float:
        return self.config.clock_hz or transforms.CLOCK_HZ

    def _jitter(self, runtime: float) -> float:
        config = self.config
        return math.hypot(config.jitter_std, config.short_run_jitter if runtime < 50e-6 else 0.0)

    def _jittered(self, name: str, spikes: Spikes, runtime: float, noise: Noise) -> Spikes:
        std, bias = self._jitter(runtime), self.config.jitter_bias
        time = np.asarray(spikes.time)
        if std > 0 or bias != 0:
            time = time + bias
            time = np.maximum(time + std * noise(f"jitter {name}").standard_normal(time.shape), 0)
        order = np.argsort(time, -1, kind="stable")
        index = np.take_along_axis(np.asarray(spikes.index), order, -1)
        return spikes_of(np.take_along_axis(time, order, -1), index, index >= 0)

    def _recorded(self, name, spikes: Spikes, slots: int, request, compiled: _Compiled, noise):
        config = self.config
        time, index = np.asarray(spikes.time), np.asarray(spikes.index)
        kept = (index >= 0) & (noise(f"record {name}").random(time.shape) >= config.p_loss_record)
        clock = self._clock
        cycles = np.where(kept, time, 0) * clock
        if config.clock_hz is not None:
            cycles = np.floor(cycles)
        cycles = cycles + config.record_offset_cycles
        kept &= cycles < request.runtime * clock
        seconds = transforms.to_seconds(cycles, compiled.calibration.time_offset_cycles, clock)
        return transforms.fill_slots(
            np.where(kept, seconds, np.inf), np.where(kept, index, -1), slots
        )


def _room(stage: Stage, run: _StageRun) -> int:
    """How many spikes of a stage there can be in a sample."""
    return max(sum(p.n_spikes for p in stage.populations), stage.n_neurons * run.per_neuron)


def _in_order(time: np.ndarray, index: np.ndarray, mask: np.ndarray) -> tuple[Spikes, np.ndarray]:
    """Spikes, padding among them, in time order, and a mask of them likewise."""
    spikes = spikes_of(np.maximum(time, 0), index, index >= 0)
    order = np.argsort(spikes.time, -1, kind="stable")
    time, index, mask = (np.take_along_axis(x, order, -1) for x in (*spikes, mask))
    return spikes_of(time, index, index >= 0), mask


def _equal(a: Spikes, b: Spikes) -> bool:
    return np.array_equal(a.time, b.time) and np.array_equal(a.index, b.index)
