"""Training in the loop: spikes from a chip, gradients from the model around them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.hardware._stages import stages
from jaxsnn.event.hardware.errors import HardwareCapacityError
from jaxsnn.event.hardware.spec import Backend, Calibration, NetworkSpec, RunRequest, RunResult
from jaxsnn.event.hardware.transforms import quantise
from jaxsnn.event.hardware.validate import errors_of, validate
from jaxsnn.event.topology import Graph
from jaxsnn.ops import observed_loop

__all__ = ["InTheLoop", "Losses"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Losses:
    """What a chip did so far.

    Attributes:
        runs: number of runs, one for every forward pass.
        spikes: number of spikes recorded.
        dropped: of these, the ones for which there was no room.
        masked: of these, the ones that the model would not have fired; they have no gradient.
    """

    runs: int = 0
    spikes: int = 0
    dropped: int = 0
    masked: int = 0


class InTheLoop:
    """A graph whose spikes come from a chip.

    Args:
        graph: the network: sources and populations as of :func:`jaxsnn.event.EventPropLIF`.
        backend: the chip.
        calibration: of the chip.
        runtime: of a sample, s; the default is ``max(t_max, 50e-6)``.
        seed: of the trial noise of an emulated chip: run ``n`` has ``(seed, n)``.
        quantised: whether the model around the spikes has the weights as they are on the chip; the
            gradient goes to the weights themselves either way.
        min_slope: see :func:`jaxsnn.ops.observed_loop`.

    ``apply(parameters, inputs) -> {population: Spikes}`` has the signature of a
    :class:`jaxsnn.event.Network`, works under ``jit``, ``grad`` and ``scan``, and runs the chip
    exactly once, in order. It must not be under ``vmap``: inputs have one batch axis.
    ``losses`` counts what went wrong.

    Raises:
        HardwareCapacityError: the network does not fit.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        calibration: Calibration,
        *,
        runtime: float | None = None,
        seed: int = 0,
        quantised: bool = True,
        min_slope: float = 0.05,
    ) -> None:
        self.spec = NetworkSpec.from_graph(graph)
        self.losses = Losses()
        #: What went wrong in the last run, which JAX passes on as text alone.
        self.error: Exception | None = None
        self._init = graph.build().init
        self._backend = backend
        self._compiled = backend.compile(self.spec, calibration)
        self._calibration = calibration
        self._runtime = max(self.spec.t_max, 50e-6) if runtime is None else runtime
        self._seed = seed
        self._quantised = quantised
        self._min_slope = min_slope
        self._stages = stages(self.spec)
        issues = validate(self.spec, runtime=self._runtime)
        for issue in issues:
            _log.warning("%s", issue.message)
        if errors_of(issues):
            raise HardwareCapacityError("; ".join(i.message for i in errors_of(issues)))

    def init(self, key: Array) -> tuple[dict[str, int], dict[str, Any]]:
        """Sizes and initial parameters, as of :class:`jaxsnn.event.Network`."""
        return self._init(key)

    def apply(
        self, parameters: Mapping[str, Any], inputs: Spikes | Mapping[str, Spikes]
    ) -> dict[str, Spikes]:
        """The spikes that the chip recorded in one run, with the gradient of the model."""
        if isinstance(inputs, Spikes):
            inputs = {self.spec.sources[0].name: inputs}
        for name, spikes in inputs.items():
            if spikes.time.ndim != 2:
                raise ValueError(
                    f"InTheLoop: inputs of {name!r} have shape {spikes.time.shape}, expected "
                    "(n_samples, n_spikes)"
                )
        weights = {p.label: parameters[p.label]["weights"] for p in self.spec.projections}
        recorded = self._run(weights, dict(inputs))
        if self._quantised:
            scale = self._calibration.weight_scale
            weights = {label: quantise(w, scale) for label, w in weights.items()}
        return self._model(weights, dict(inputs), recorded)

    def _run(self, weights: dict[str, Array], inputs: dict[str, Spikes]) -> dict[str, Spikes]:
        first = next(iter(inputs.values())).time
        shapes = {
            p.name: Spikes(
                jax.eval_shape(  # pyright: ignore[reportArgumentType]
                    _to_bits, jax.ShapeDtypeStruct((first.shape[0], p.n_spikes), first.dtype)
                ),
                jax.ShapeDtypeStruct((first.shape[0], p.n_spikes), jnp.int32),  # pyright: ignore
            )
            for p in self.spec.populations
        }
        fixed = jax.tree.map(_to_bits, jax.lax.stop_gradient((weights, inputs)))
        found = io_callback(self._on_host, shapes, *fixed, ordered=True)
        return {
            name: Spikes(_from_bits(spikes.time, first.dtype), spikes.index)
            for name, spikes in found.items()
        }

    def _on_host(self, weights, inputs) -> dict[str, Spikes]:
        weights, inputs = jax.tree.map(_host_from_bits, (weights, inputs))
        seed = int(np.random.SeedSequence([self._seed, self.losses.runs]).generate_state(1)[0])
        request = RunRequest(inputs=inputs, weights=weights, runtime=self._runtime, seed=seed)
        self.losses.runs += 1
        try:
            result = self._backend.run(self._compiled, request)
        except Exception as error:
            self.error = error
            raise
        self._count(result)
        return {
            name: Spikes(_host_to_bits(spikes.time), spikes.index)  # pyright: ignore
            for name, spikes in result.spikes.items()
        }

    def _count(self, result: RunResult) -> None:
        dropped = sum(int(np.sum(n)) for n in result.n_dropped.values())
        self.losses.spikes += sum(int(np.sum(n)) for n in result.n_recorded.values())
        self.losses.dropped += dropped
        if dropped:
            _log.warning("no room for %d spikes of this run, raise n_spikes", dropped)

    def _model(self, weights, inputs: dict[str, Spikes], recorded: dict[str, Spikes]):
        heard = dict(inputs)
        room = {p.name: p.n_spikes for p in self.spec.populations}
        masked = jnp.zeros((), jnp.int32)
        for stage in self._stages:
            incoming, recurrent = stage.weights(weights)
            result = observed_loop(
                stage.params,
                incoming,
                stage.inputs(heard),
                stage.merge(recorded),
                t_max=max(p.t_max for p in stage.populations),
                recurrent=recurrent,
                min_slope=self._min_slope,
                label=", ".join(p.name for p in stage.populations),
            )
            masked += jnp.sum(result.masked, dtype=jnp.int32)
            heard |= stage.split(result.spikes, room)
        jax.debug.callback(self._count_masked, masked)
        return {p.name: heard[p.name] for p in self.spec.populations}

    def _count_masked(self, masked) -> None:
        self.losses.masked += int(masked)


# JAX converts what goes through a callback with the precision of the callback's thread, which does
# not know of jax.enable_x64: float64 travels as two words.
def _to_bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32) if x.dtype == jnp.float64 else x


def _from_bits(x: Array, dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint32 else x


def _host_to_bits(x: Any) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return x.view(np.uint32).reshape(*x.shape, 2) if x.dtype == np.float64 else x


def _host_from_bits(x: Any) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return x.view(np.float64)[..., 0] if x.dtype == np.uint32 else x
