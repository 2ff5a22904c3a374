"""The graphs of `jaxsnn.event` in time steps: one description, and one set of weights, for both."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.base.types import Array, LIFParameters, Spikes
from jaxsnn.discrete.encode import steps_from_spikes
from jaxsnn.discrete.integrate import (
    Method,
    euler_integrate,
    refractory_steps,
    step_coefficients,
)
from jaxsnn.discrete.surrogate import Surrogate, superspike
from jaxsnn.event.component import (
    Edge,
    Parameters,
    merge_parameters,
    strongly_connected,
)
from jaxsnn.event.delay import Delay
from jaxsnn.event.population import Layer, Population
from jaxsnn.event.topology import Graph, Source
from jaxsnn.ops._lif_steps import StepsResult, lif_step, lif_steps, rest

__all__ = ["DiscreteNetwork", "discretise"]


class DiscreteNetwork(NamedTuple):
    """A graph in time steps, as pure functions; unpacks as ``init, apply``.

    Attributes:
        init: as of the network that the graph builds.
        apply: ``apply(parameters, inputs) -> {population: output}``, with the parameters of that
            network: spikes ``[*batch, n_steps, n]``, or the voltages of readouts. ``inputs`` are
            :class:`jaxsnn.Spikes` or dense spikes ``[*batch, n_steps, n]``, of the only source or
            of each by name.
    """

    init: Callable
    apply: Callable


_SUPERSPIKE = superspike()


def discretise(
    graph: Graph,
    *,
    dt: float,
    surrogate: Surrogate = _SUPERSPIKE,
    method: Method = "exponential",
) -> DiscreteNetwork:
    """Runs a graph in steps of ``dt`` instead of event by event.

    Step k stands for the time ``k dt``, from 0 to ``t_max``: input spikes count in the step nearest
    to their time, a neuron spikes in the first step at whose time its voltage is above the
    threshold. Delays and refractory periods are rounded to steps. Between neurons that hear each
    other, directly or through others, a delay is at least one step.

    Args:
        graph: of :func:`jaxsnn.event.EventPropLIF` and :func:`jaxsnn.event.LeakyIntegrator`.
        dt: time step, s.
        surrogate: the derivative of the threshold.
        method: how neurons are integrated over a step, see :func:`step_coefficients`.

    Returns:
        The network. ``apply`` wants trained delays outside of ``jit`` and ``grad``: rounding has no
        derivative.

    Raises:
        ValueError: the graph has layers of other makes, populations differ in ``t_max``, or the
            step does not fit the time constants.
    """
    nodes = graph._nodes
    projections = graph._edges
    init = graph.build().init
    engine = _Engine(nodes, projections, dt, surrogate, method)
    components = [
        names
        for names in strongly_connected(list(nodes), list(projections))
        if not isinstance(nodes[names[0]], Source)
    ]

    def apply(parameters: Parameters, inputs: Any) -> dict[str, Array]:
        spikes = engine.inputs(parameters, inputs)
        outputs: dict[str, Array] = {}
        for names in components:
            found = engine.run(names, parameters, spikes | outputs)
            outputs |= found
        return {name: outputs[name] for name in nodes if name in outputs}

    return DiscreteNetwork(init, apply)


@dataclasses.dataclass(frozen=True)
class _Engine:
    nodes: Mapping[str, Source | Layer]
    projections: Mapping[Edge, Any]
    dt: float
    surrogate: Surrogate
    method: Method

    def __post_init__(self) -> None:
        horizons = {}
        for name, node in self.nodes.items():
            if isinstance(node, Source):
                continue
            horizons[name] = self.population(name).t_max
            step_coefficients(
                self.population(name).params, self.dt, self.method, where=f"discretise: {name!r}"
            )
        if len(set(horizons.values())) != 1:
            raise ValueError(f"discretise: populations have t_max={horizons}, expected the same")

    def population(self, name: str) -> Population:
        node = self.nodes[name]
        assert isinstance(node, Layer)
        if node.population is None:
            raise ValueError(
                f"discretise: population {name!r} is of another make, expected EventPropLIF or "
                "LeakyIntegrator"
            )
        return node.population

    @property
    def n_steps(self) -> int:
        name = next(name for name, node in self.nodes.items() if not isinstance(node, Source))
        return round(self.population(name).t_max / self.dt) + 1

    def inputs(self, parameters: Parameters, inputs: Any) -> dict[str, Array]:
        """Dense spikes of every source."""
        sources = [name for name, node in self.nodes.items() if isinstance(node, Source)]
        if not isinstance(inputs, Mapping):
            if len(sources) != 1:
                raise ValueError(
                    f"discretise: inputs are those of one source, expected those of each of "
                    f"{', '.join(map(repr, sources))}"
                )
            inputs = {sources[0]: inputs}
        if set(inputs) != set(sources):
            raise ValueError(
                f"discretise: inputs has {', '.join(map(repr, inputs))}, expected "
                f"{', '.join(map(repr, sources))}"
            )
        dense = {}
        for name, given in inputs.items():
            edge = next(edge for edge in self.projections if edge[0] == name)
            size = self.weights(parameters, edge).shape[-2]
            dense[name] = (
                steps_from_spikes(given, size, n_steps=self.n_steps, dt=self.dt)
                if isinstance(given, Spikes)
                else given
            )
            if dense[name].shape[-2:] != (self.n_steps, size):
                raise ValueError(
                    f"discretise: inputs of {name!r} has shape {dense[name].shape}, expected "
                    f"(..., n_steps={self.n_steps}, {size})"
                )
        return dense

    def weights(self, parameters: Parameters, edge: Edge) -> Array:
        label = f"{edge[0]}->{edge[1]}"
        if label not in parameters:
            raise ValueError(f"discretise: parameters has no entry {label!r}")
        return parameters[label]["weights"]

    def delay_steps(self, parameters: Parameters, edge: Edge, least: int) -> np.ndarray:
        """The delays of a projection in steps: one, one per source, or one per synapse."""
        delay = self.projections[edge].delay
        if isinstance(delay, Delay):
            delay = delay(parameters[f"{edge[0]}->{edge[1]}"]["delays"])
        if isinstance(delay, Tracer):
            raise ValueError(
                f"discretise: projection {edge[0]!r} -> {edge[1]!r}: delays are traced, expected "
                "fixed ones, or trained ones outside of jit and grad: rounding has no derivative"
            )
        return np.asarray(np.maximum(np.rint(np.asarray(delay) / self.dt), least), int)

    def run(
        self, names: list[str], parameters: Parameters, spikes: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The outputs of the populations of a component."""
        populations = [self.population(name) for name in names]
        sizes = [population.n_neurons for population in populations]
        starts = dict(zip(names, itertools.accumulate(sizes, initial=0), strict=False))
        params = merge_parameters(
            [
                population.parameters(parameters.get(name, {}))
                for name, population in zip(names, populations, strict=True)
            ],
            sizes,
        )
        inputs, weights = [], []
        recurrent: list[tuple[int, Array]] = []
        for edge in self.projections:
            if edge[1] not in names:
                continue
            own = self.weights(parameters, edge)
            span = (starts[edge[1]], sum(sizes))
            if edge[0] in names:
                delays = self.delay_steps(parameters, edge, 1)
                rows = (starts[edge[0]], sum(sizes))
                recurrent += [
                    (steps, _place(part, rows, span)) for steps, part in _by_delay(own, delays)
                ]
                continue
            delays = self.delay_steps(parameters, edge, 0)
            for steps, part in _by_delay(own, delays):
                inputs.append(_shift(spikes[edge[0]], steps))
                weights.append(_place(part, (0, part.shape[-2]), span))
        result = self.integrate(
            params,
            jnp.concatenate(weights, -2),
            jnp.concatenate(inputs, -1),
            recurrent,
            populations[0].label,
        )
        return {
            name: (result.voltage if self.readout(name) else result.spikes)[
                ..., starts[name] : starts[name] + size
            ]
            for name, size in zip(names, sizes, strict=True)
        }

    def readout(self, name: str) -> bool:
        node = self.nodes[name]
        return isinstance(node, Layer) and node.readout is not None

    def integrate(
        self,
        params: LIFParameters,
        weights: Array,
        inputs: Array,
        recurrent: list[tuple[int, Array]],
        label: str,
    ) -> StepsResult:
        """Runs neurons with recurrent weights per delay in steps."""
        coefficients = step_coefficients(params, self.dt, self.method, where=label)
        static: dict[str, Any] = {
            "surrogate": self.surrogate,
            "refractory": refractory_steps(params, self.dt, where=label),
        }
        state = rest(coefficients, weights.shape[-1], weights.dtype)
        if all(steps == 1 for steps, _ in recurrent):
            matrix = jnp.sum(jnp.stack([p for _, p in recurrent]), 0) if recurrent else None
            return lif_steps(
                coefficients, weights, state, inputs, recurrent=matrix, label=label, **static
            )
        longest = max(steps for steps, _ in recurrent)
        arriving = inputs @ weights
        shape = (*arriving.shape[:-2], arriving.shape[-1])
        state = type(state)(*(jnp.broadcast_to(x, shape) for x in state))
        past = jnp.zeros((longest, *shape), arriving.dtype)  # the spikes of the last steps

        def step(carry, arriving: Array):
            state, past = carry
            for steps, part in recurrent:
                arriving = arriving + past[steps - 1] @ part
            state, spikes, voltage = lif_step(coefficients, state, arriving, **static)
            return (state, jnp.concatenate((spikes[None], past[:-1]))), (spikes, voltage)

        (state, _), (spikes, voltage) = euler_integrate(step, (state, past), arriving)
        return StepsResult(spikes, voltage, state)


def _by_delay(weights: Array, delays: np.ndarray) -> list[tuple[int, Array]]:
    """Weights per number of steps; where there are several, those of the other delays are 0."""
    if delays.ndim == 0:
        return [(int(delays), weights)]
    delays = delays[:, None] if delays.ndim == 1 else delays
    return [(int(steps), jnp.where(delays == steps, weights, 0)) for steps in np.unique(delays)]


def _place(block: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """A block of weights in a matrix of zeros: from where on, and how large the matrix is."""
    pads = [(0, 0)] * (block.ndim - 2)
    for (start, size), own in zip((rows, columns), block.shape[-2:], strict=True):
        pads.append((start, size - start - own))
    return jnp.pad(block, pads)


def _shift(spikes: Array, steps: int) -> Array:
    """The spikes as they arrive, some steps later."""
    if steps == 0:
        return spikes
    n_steps = spikes.shape[-2]
    pads = [(0, 0)] * (spikes.ndim - 2) + [(min(steps, n_steps), 0), (0, 0)]
    return jnp.pad(spikes, pads)[..., :n_steps, :]
