"""A chip that exists in software alone, with the imperfections of the real one.

The membranes are solved exactly in continuous time, as those of the model are, by the same ops with
constants of its own for every neuron; only what is digital on the chip, events, goes by the clock.
What these ops do not know of, saturation, holdoff, and noise of events in a cycle of populations,
is solved in steps of the clock instead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes, initial_state
from jaxsnn.event.hardware import _clocked, transforms
from jaxsnn.event.hardware._membranes import Found, Recorder
from jaxsnn.event.hardware._stages import Stage, stages
from jaxsnn.event.hardware._trains import (
    Noise,
    delayed,
    from_events,
    gain,
    generator,
    spikes_of,
    split,
)
from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.errors import HardwareCapacityError, HardwareError
from jaxsnn.event.hardware.spec import Calibration, NetworkSpec, RunRequest, RunResult
from jaxsnn.event.hardware.validate import errors_of, only_trace, validate
from jaxsnn.ops import Status, event_loop

__all__ = ["EmulatedBackend"]

# How many spikes of a neuron have noise of their own, where it is drawn before they are known.
_MOST_NOISES = 64


class _Compiled(NamedTuple):
    spec: NetworkSpec
    calibration: Calibration
    stages: list[Stage]
    simulate: Callable[..., Any]


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
        return _Compiled(spec, calibration, stages(spec), jax.jit(_simulate, static_argnums=0))

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
        heard = {n: delayed(s, config.delay_ext, None) for n, s in heard.items()}
        found: dict[str, Found] = {}
        for stage in compiled.stages:
            own = self._run_stage(compiled, stage, heard, weights, request, noise, dtype)
            for name, what in own.items():
                heard[name] = delayed(what.emitted, config.delay_int, what.lost)
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

    def _fixed(self, effect: str, owner: str) -> np.random.Generator:
        return generator("chip", self.chip, effect, owner)

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
        gains = self._fixed("synapse_gain", label).standard_normal(strength.shape)
        return strength / config.weight_scale * gain(config.synapse_gain_std, gains)

    def _neurons(self, stage: Stage, n_samples: int, noise: Noise) -> dict[str, np.ndarray]:
        """The constants of the neurons in this run, ``[n_samples or 1, n_neurons]``."""
        config, joined = self.config, {}
        for population in stage.populations:
            name, size, params = population.name, population.size, population.params
            model = {
                field.name: np.broadcast_to(
                    np.asarray(getattr(params, field.name), np.float64), (1, size)
                )
                for field in dataclasses.fields(LIFParameters)
            }

            def drawn(effect: str, name: str = name, size: int = size) -> np.ndarray:
                return self._fixed(effect, name).standard_normal((1, size))

            gap = model["v_th"] - model["v_leak"]
            v_leak = model["v_leak"] + gap * config.v_leak_std * drawn("v_leak")
            trial = noise(f"trial {name}").standard_normal((n_samples, size))
            batch = noise(f"batch {name}").standard_normal((1, size))
            factor = gain(config.threshold_std, drawn("threshold"))
            factor = factor * gain(config.threshold_batch_std, batch)
            if config.threshold_trial_std > 0:
                factor = factor * gain(config.threshold_trial_std, trial)
            v_th = model["v_leak"] + gap * factor
            v_reset = model["v_reset"] + gap * config.v_reset_std * drawn("v_reset")
            t_ref = model["t_ref"]
            if config.refractory_time is not None:
                chosen = transforms.quantise_refractory(config.refractory_time)
                t_ref = np.full((1, size), chosen)
            joined[name] = {
                "tau_mem": model["tau_mem"] * gain(config.tau_mem_std, drawn("tau_mem")),
                "tau_syn": model["tau_syn"] * gain(config.tau_syn_std, drawn("tau_syn")),
                "v_th": v_th,
                "v_leak": v_leak,
                "v_reset": np.minimum(v_reset, v_th - 1e-3 * np.abs(gap)),
                "t_ref": t_ref,
                "alive": self._fixed("dead", name).random((1, size)) >= config.p_dead,
            }
        fields = next(iter(joined.values()))
        lead = {field: max(joined[name][field].shape[0] for name in joined) for field in fields}
        return {
            field: stage.per_neuron(
                {
                    name: np.broadcast_to(own[field], (lead[field], own[field].shape[-1]))
                    for name, own in joined.items()
                }
            )
            for field in fields
        }

    def _run_stage(
        self, compiled: _Compiled, stage: Stage, heard, weights, request, noise, dtype
    ) -> dict[str, Found]:
        inputs = {name: heard[name] for name in stage.sources}
        n_samples = next(iter(inputs.values())).time.shape[0]
        constants = self._neurons(stage, n_samples, noise)
        constants["clamped"] = np.maximum(constants["t_ref"] - self.config.holdoff_time, 0)
        own = {
            p.label: weights[p.label]
            for p in compiled.spec.projections
            if p.target in {q.name for q in stage.populations}
        }
        shortest = float(constants["t_ref"].min())
        per_neuron = 8 if shortest == 0 else math.ceil(request.runtime / shortest) + 1
        per_neuron = min(per_neuron, _MOST_NOISES)
        if self._by_clock(stage, request.runtime):
            found = self._in_steps(stage, constants, own, inputs, request, noise, per_neuron)
        else:
            room = max(sum(p.n_spikes for p in stage.populations), stage.n_neurons * per_neuron)
            setup = _Setup(stage, room, float(request.runtime), float(self.config.delay_int))
            spikes = _exact(compiled.simulate, setup, constants, own, inputs, dtype)
            found = {}
            for name, crossed in split(stage, spikes).items():
                emitted = self._jittered(name, crossed, request.runtime, noise)
                lost = noise(f"chip {name}").random(emitted.time.shape) < self.config.p_loss_chip
                found[name] = (crossed, emitted, lost)
        return {name: Found(*what, stage.own(name, constants)) for name, what in found.items()}

    def _by_clock(self, stage: Stage, runtime: float) -> bool:
        """Whether the exact solver lacks an effect that matters to a stage."""
        config = self.config
        noisy = self._jitter(runtime) > 0 or config.jitter_bias != 0 or config.p_loss_chip > 0
        return config.i_max is not None or config.holdoff_time > 0 or (stage.recurrent and noisy)

    def _in_steps(self, stage, constants, weights, inputs, request, noise, per_neuron):
        """The spikes of each population by steps of the clock: crossed, emitted, lost."""
        config = self.config
        clock = config.clock_hz or transforms.CLOCK_HZ
        n_samples = next(iter(inputs.values())).time.shape[0]
        shape = (n_samples, stage.n_neurons, per_neuron)
        # Spikes in a cycle change what comes, so that their noise is drawn before.
        jitter, lost = np.zeros(shape), np.zeros(shape, bool)
        begin = 0
        for p in stage.populations:
            some, size = slice(begin, begin + p.size), (n_samples, p.size, per_neuron)
            normal = noise(f"jitter {p.name}").standard_normal(size)
            jitter[:, some] = config.jitter_bias + self._jitter(request.runtime) * normal
            lost[:, some] = noise(f"chip {p.name}").random(size) < config.p_loss_chip
            begin += p.size
        with jax.enable_x64(True):
            incoming, recurrent = jax.tree.map(np.asarray, stage.weights(weights))
            arrivals = jax.tree.map(np.asarray, stage.inputs(inputs))
        if not all(np.isfinite(w).all() for w in (incoming, recurrent) if w is not None):
            raise HardwareError("emulated chip: weights are not finite")
        alive = constants["alive"]
        fired = _clocked.simulate(
            _clocked.Clocked(
                math.ceil(request.runtime * clock), round(config.delay_int * clock), config.i_max
            ),
            constants,
            incoming * alive,
            None if recurrent is None else recurrent * alive,
            arrivals,
            np.where(lost, _clocked.LOST, np.rint(jitter * clock)).astype(np.int32),
            1 / clock,
        )
        at = (fired.sample, fired.neuron, fired.ordinal % per_neuron)
        # A crossing lies somewhere in its step.
        crossed = (fired.step + 0.5) / clock
        emitted = np.maximum(crossed + jitter[at], 0)
        found = {}
        for name, of_neurons in stage.spans().items():
            mine = (fired.neuron >= of_neurons.start) & (fired.neuron < of_neurons.stop)
            sample, neuron = fired.sample[mine], fired.neuron[mine] - of_neurons.start
            place = from_events(sample, neuron, crossed[mine], n_samples)[0]
            seen, order = from_events(sample, neuron, emitted[mine], n_samples)
            gone = np.append(lost[at][mine], False)
            found[name] = (place, seen, gone[order])
        return found

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
        clock = config.clock_hz or transforms.CLOCK_HZ
        cycles = np.where(kept, time, 0) * clock
        if config.clock_hz is not None:
            cycles = np.floor(cycles)
        cycles = cycles + config.record_offset_cycles
        kept &= cycles < request.runtime * clock
        seconds = transforms.to_seconds(cycles, compiled.calibration.time_offset_cycles, clock)
        return transforms.fill_slots(
            np.where(kept, seconds, np.inf), np.where(kept, index, -1), slots
        )


class _Setup(NamedTuple):
    stage: Stage
    room: int
    runtime: float
    delay: float


def _exact(simulate, setup: _Setup, constants, weights, inputs, dtype: np.dtype) -> Spikes:
    """The spikes of a stage in continuous time."""
    constants = {
        name: values.flat[0] if (values == values.flat[0]).all() else values
        for name, values in constants.items()
        if name != "clamped"
    }  # one for all neurons is faster
    alive = constants.pop("alive")
    with jax.enable_x64(dtype == np.float64):
        cast = _cast((constants, weights, inputs), dtype)
        time, index, status = jax.device_get(simulate(setup, *cast, alive))
    if np.any(status == int(Status.EVENT_CAPACITY)):
        names = ", ".join(p.name for p in setup.stage.populations)
        raise HardwareError(
            f"emulated chip: more than {setup.room} spikes per sample of {names}, expected fewer: "
            "the neurons fire in bursts, lower the weights or set refractory_time"
        )
    if np.any(status != int(Status.OK)):
        raise HardwareError("emulated chip: weights or inputs are not finite")
    return spikes_of(np.asarray(time, np.float64), index, index >= 0)


def _simulate(setup: _Setup, constants, weights, inputs: Mapping[str, Spikes], alive):
    stage = setup.stage
    params = LIFParameters(**constants)
    incoming, recurrent = stage.weights(weights)
    incoming = jnp.where(alive, incoming, 0)
    network: dict[str, Any] = {}
    if recurrent is not None:
        network = {
            "recurrent": jnp.where(alive, recurrent, 0),
            "recurrent_delays": jnp.asarray(setup.delay, incoming.dtype),
        }
    result = event_loop(
        params,
        incoming,
        initial_state(params, stage.n_neurons, incoming.dtype),
        stage.inputs(inputs),
        t_max=setup.runtime,
        max_events=setup.room,
        raise_on=(),
        label="emulated chip",
        **network,
    )
    return result.spikes.time, result.spikes.index, result.status


def _cast(tree: Any, dtype: np.dtype) -> Any:
    return jax.tree.map(
        lambda x: np.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else np.asarray(x), tree
    )
