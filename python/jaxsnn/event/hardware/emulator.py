"""A chip that exists in software alone, with the imperfections of the real one.

The membranes are solved exactly in continuous time, as those of the model are, by the same ops with
constants of its own for every neuron; only what is digital on the chip, events, goes by the clock.
Defaults and their sources are in docs/hardware.md.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes, initial_state
from jaxsnn.event.hardware import transforms
from jaxsnn.event.hardware._stages import Stage, stages
from jaxsnn.event.hardware.errors import HardwareCapacityError, HardwareError
from jaxsnn.event.hardware.spec import Calibration, NetworkSpec, RunRequest, RunResult
from jaxsnn.event.hardware.validate import errors_of, validate
from jaxsnn.ops import Status, event_loop

__all__ = ["EmulatedBackend", "EmulatorConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorConfig:
    """The effects of a chip; 0, or None where there is no 0, switches one off.

    Attributes:
        quantised: whether weights are whole numbers of at most 63 LSB.
        weight_scale: the strength of the synapses, LSB per unit of model weight.
        synapse_gain_std: mismatch of the synapses, relative.
        clock_hz: of all digital times: sent spikes are rounded to cycles, recorded ones down; None
            for continuous time.
        record_offset_cycles: latency of the recording.
        delay_ext: from an input to the synapse, s.
        delay_int: from a neuron to the synapse, s.
        threshold_std: mismatch of thresholds, relative to the distance from the leak.
        tau_mem_std: mismatch of membrane time constants, relative.
        tau_syn_std: mismatch of synaptic time constants, relative.
        v_leak_std: mismatch of the leak, relative to the distance from leak to threshold.
        v_reset_std: likewise, of the reset.
        threshold_trial_std: noise of each threshold from sample to sample, relative.
        threshold_batch_std: noise of each threshold from run to run, relative.
        jitter_std: of every spike, s.
        jitter_bias: mean of it, s.
        short_run_jitter: further jitter of runs below 50 us, s.
        refractory_time: in steps of the chip's counter, s; None for that of the model, unrounded.
        p_loss_record: probability that a spike is not recorded.
        p_loss_chip: probability that a spike reaches nobody. In cycles, spikes among the neurons
            are neither lost nor jittered on their way.
        p_dead: probability that a neuron never fires.
    """

    quantised: bool = True
    weight_scale: float = 56.0
    synapse_gain_std: float = 0.0
    clock_hz: float | None = transforms.CLOCK_HZ
    record_offset_cycles: int = 50
    delay_ext: float = 0.1e-6
    delay_int: float = 0.4e-6
    threshold_std: float = 0.10
    tau_mem_std: float = 0.0
    tau_syn_std: float = 0.0
    v_leak_std: float = 0.0
    v_reset_std: float = 0.0
    threshold_trial_std: float = 0.015
    threshold_batch_std: float = 0.015
    jitter_std: float = 1e-7
    jitter_bias: float = 0.0
    short_run_jitter: float = 0.0
    refractory_time: float | None = 30e-6
    p_loss_record: float = 0.0
    p_loss_chip: float = 0.0
    p_dead: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("jitter_bias", "quantised") or value is None:
                continue
            positive = field.name in ("weight_scale", "clock_hz")
            if not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
                raise ValueError(
                    f"EmulatorConfig: {field.name} is {value}, expected a number "
                    f"{'> 0' if positive else '>= 0'}"
                )
            if field.name.startswith("p_") and value > 1:
                raise ValueError(f"EmulatorConfig: {field.name} is {value}, expected a probability")

    @staticmethod
    def ideal(**changes: Any) -> EmulatorConfig:
        """All effects off but the clock; ``changes`` are fields to set."""
        off: dict[str, Any] = {
            field.name: 0.0
            for field in dataclasses.fields(EmulatorConfig)
            if field.name not in ("weight_scale", "clock_hz")
        }
        off |= {"quantised": False, "record_offset_cycles": 0, "refractory_time": None}
        return EmulatorConfig(**(off | changes))


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
        if request.traces:
            raise HardwareError(
                f"EmulatedBackend: traces are asked of {', '.join(request.traces)}, expected none: "
                "the emulated chip records no membranes"
            )
        dtype = np.asarray(next(iter(request.inputs.values())).time).dtype
        noise = _Noise(request.seed)
        heard = {
            source.name: self._sent(request.inputs[source.name], request.runtime)
            for source in spec.sources
        }
        n_samples = next(iter(heard.values())).time.shape[0]
        weights = {
            p.label: self._on_chip(p.label, request.weights[p.label], compiled.calibration)
            for p in spec.projections
        }
        heard = {n: _delayed(s, config.delay_ext, None) for n, s in heard.items()}
        emitted: dict[str, Spikes] = {}
        for stage in compiled.stages:
            found = self._run_stage(compiled, stage, heard, weights, request, noise, dtype)
            for name, exact in found.items():
                spikes = self._jittered(name, exact, request.runtime, noise)
                emitted[name] = spikes
                lost = noise(f"chip {name}").random(spikes.time.shape) < config.p_loss_chip
                heard[name] = _delayed(spikes, config.delay_int, lost)
        results = {
            p.name: self._recorded(p.name, emitted[p.name], p.n_spikes, request, compiled, noise)
            for p in spec.populations
        }
        return RunResult(
            spikes={
                name: Spikes(spikes.time.astype(dtype), spikes.index)  # pyright: ignore
                for name, (spikes, _, _) in results.items()
            },
            n_recorded={name: n for name, (_, n, _) in results.items()},
            n_dropped={name: n for name, (_, _, n) in results.items()},
            meta={"backend": "emulated", "chip": self.chip, "samples": n_samples},
        )

    def _fixed(self, effect: str, owner: str) -> np.random.Generator:
        return _generator("chip", self.chip, effect, owner)

    def _sent(self, spikes: Spikes, runtime: float) -> Spikes:
        there = transforms.sendable(spikes, runtime)
        time = np.asarray(spikes.time, np.float64)
        clock = self.config.clock_hz
        if clock is not None:
            time = transforms.to_cycles(np.where(there, time, 0), clock) / clock
        return _spikes(time, np.asarray(spikes.index), there)

    def _on_chip(self, label: str, weights: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Weights as the neurons see them, in units of the model."""
        config = self.config
        strength = np.asarray(weights, np.float64) * calibration.weight_scale
        if config.quantised:
            strength = transforms.linear_saturating(weights, calibration.weight_scale)
        gains = self._fixed("synapse_gain", label).standard_normal(strength.shape)
        return strength / config.weight_scale * _gain(config.synapse_gain_std, gains)

    def _neurons(self, stage: Stage, n_samples: int, noise: _Noise) -> dict[str, np.ndarray]:
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
            factor = _gain(config.threshold_std, drawn("threshold"))
            factor = factor * _gain(config.threshold_batch_std, batch)
            if config.threshold_trial_std > 0:
                factor = factor * _gain(config.threshold_trial_std, trial)
            v_th = model["v_leak"] + gap * factor
            v_reset = model["v_reset"] + gap * config.v_reset_std * drawn("v_reset")
            t_ref = model["t_ref"]
            if config.refractory_time is not None:
                chosen = transforms.quantise_refractory(config.refractory_time)
                t_ref = np.full((1, size), chosen)
            joined[name] = {
                "tau_mem": model["tau_mem"] * _gain(config.tau_mem_std, drawn("tau_mem")),
                "tau_syn": model["tau_syn"] * _gain(config.tau_syn_std, drawn("tau_syn")),
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
    ) -> dict[str, Spikes]:
        """The spikes of each population in continuous time."""
        inputs = {name: heard[name] for name in stage.sources}
        n_samples = next(iter(inputs.values())).time.shape[0]
        constants = self._neurons(stage, n_samples, noise)
        alive = constants.pop("alive")[0]
        own = {
            p.label: weights[p.label]
            for p in compiled.spec.projections
            if p.target in {q.name for q in stage.populations}
        }
        shortest = float(constants["t_ref"].min())
        per_neuron = 8 if shortest == 0 else math.ceil(request.runtime / shortest) + 1
        room = max(
            sum(p.n_spikes for p in stage.populations), stage.n_neurons * min(per_neuron, 64)
        )
        setup = _Setup(stage, room, float(request.runtime), float(self.config.delay_int))
        constants = {  # one for all neurons is faster
            name: values.flat[0] if (values == values.flat[0]).all() else values
            for name, values in constants.items()
        }
        with jax.enable_x64(dtype == np.float64):
            cast = _cast((constants, own, inputs), dtype)
            time, index, status = jax.device_get(compiled.simulate(setup, *cast, alive))
        if np.any(status == int(Status.EVENT_CAPACITY)):
            names = ", ".join(p.name for p in stage.populations)
            raise HardwareError(
                f"emulated chip: more than {room} spikes per sample of {names}, expected fewer: "
                "the neurons fire in bursts, lower the weights or set refractory_time"
            )
        if np.any(status != int(Status.OK)):
            raise HardwareError("emulated chip: weights or inputs are not finite")
        spikes = _spikes(np.asarray(time, np.float64), index, index >= 0)
        return {
            name: Spikes(np.asarray(s.time), np.asarray(s.index))  # pyright: ignore
            for name, s in _split(stage, spikes).items()
        }

    def _jittered(self, name: str, spikes: Spikes, runtime: float, noise: _Noise) -> Spikes:
        config = self.config
        std = math.hypot(config.jitter_std, config.short_run_jitter if runtime < 50e-6 else 0.0)
        time = np.asarray(spikes.time)
        if std > 0 or config.jitter_bias != 0:
            time = time + config.jitter_bias
            time = np.maximum(time + std * noise(f"jitter {name}").standard_normal(time.shape), 0)
        order = np.argsort(time, -1, kind="stable")
        index = np.take_along_axis(np.asarray(spikes.index), order, -1)
        return _spikes(np.take_along_axis(time, order, -1), index, index >= 0)

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


def _split(stage: Stage, spikes: Spikes) -> dict[str, Spikes]:
    begin, found = 0, {}
    for population in stage.populations:
        index = np.asarray(spikes.index) - begin
        mine = (index >= 0) & (index < population.size)
        time = np.where(mine, np.asarray(spikes.time), np.inf)
        order = np.argsort(time, -1, kind="stable")
        found[population.name] = _spikes(
            *(np.take_along_axis(x, order, -1) for x in (time, index, mine))
        )
        begin += population.size
    return found


class _Noise:
    """Trial noise: a generator per effect and population."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, effect: str) -> np.random.Generator:
        return _generator("trial", self._seed, effect)


def _generator(*words: Any) -> np.random.Generator:
    return np.random.default_rng(
        [word if isinstance(word, int) else zlib.crc32(word.encode()) for word in words]
    )


def _gain(std: float, normal: np.ndarray) -> np.ndarray:
    """Factors around 1 that stay above 0."""
    return np.maximum(1 + std * normal, 0.05)


def _spikes(time: np.ndarray, index: np.ndarray, there: np.ndarray) -> Spikes:
    time, index = np.where(there, time, np.inf), np.where(there, index, -1).astype(np.int32)
    return Spikes(time, index)  # pyright: ignore[reportArgumentType]


def _delayed(spikes: Spikes, delay: float, lost: np.ndarray | None) -> Spikes:
    there = np.asarray(spikes.index) >= 0
    if lost is not None:
        there &= ~lost
    return _spikes(np.asarray(spikes.time) + delay, np.asarray(spikes.index), there)


def _cast(tree: Any, dtype: np.dtype) -> Any:
    return jax.tree.map(
        lambda x: np.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else np.asarray(x), tree
    )
