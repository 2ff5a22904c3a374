"""Networks of any shape: a directed graph of populations and projections.

A graph is cut into its strongly connected components. A population that does not hear itself, not
even through others, is a feed-forward layer; populations that hear each other run together on the
event queue. Either way spike times and gradients are exact.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.component import (
    Component,
    Edge,
    Parameters,
    Recording,
    ResolvedProjection,
    strongly_connected,
)
from jaxsnn.event.delay import Delay
from jaxsnn.event.population import Layer
from jaxsnn.ops._checks import check_count

__all__ = ["Graph", "Network", "Recording", "Source"]


class Source(NamedTuple):
    """Where spikes enter a graph.

    Attributes:
        size: number of channels, None if it is only known when the weights are drawn.
    """

    size: int | None = None


class Network(NamedTuple):
    """A graph as pure functions; unpacks as ``init, apply, record``.

    Attributes:
        init: ``init(key, n_inputs=None) -> (sizes, parameters)``: the size of every node; and for
            every projection, under ``"source->target"``, its ``"weights"`` and, where they are
            trained, the numbers behind its ``"delays"``, see :class:`Delay`; and for every
            population with trained parameters, under its name, the numbers behind them.
            ``n_inputs`` is the size of all sources that were added without one.
        apply: ``apply(parameters, inputs) -> {population: output}``: spikes, or what is read from a
            :func:`LeakyIntegrator`, in the order in which the populations were added. ``inputs``
            are the spikes of the only source, or those of each by name.
        record: ``record(parameters, inputs, probes=None, maxima=False) -> {population:
            Recording}``: the same with the state at the end and, where asked for, the voltages and
            currents of all neurons at some times and their largest voltages. Layers of other makes
            than :func:`EventPropLIF` and :func:`LeakyIntegrator` record their output alone.
    """

    init: Callable
    apply: Callable
    record: Callable


@dataclasses.dataclass(frozen=True)
class _Projection:
    """What a graph knows of an edge."""

    delay: Delay | float | Array | np.ndarray
    init: Callable[[Array, int, int], Any] | None


class Graph:
    """Builds a network out of named populations and the projections between them.

    Example::

        graph = Graph()
        graph.add("input", Source(5))
        graph.add("hidden", EventPropLIF(100, n_spikes=400, t_max=60e-3))
        graph.add("output", EventPropLIF(3, n_spikes=60, t_max=60e-3))
        graph.connect("input", "hidden")
        graph.connect("hidden", "hidden", delay=1e-3)
        graph.connect("hidden", "output", delay=Delay("synaptic", scale=5e-3))
        init, apply, record = graph.build()
        sizes, parameters = init(jax.random.key(0))
        spikes = apply(parameters, input_spikes)["output"]
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Source | Layer] = {}
        self._edges: dict[Edge, _Projection] = {}

    @property
    def nodes(self) -> Mapping[str, Source | Layer]:
        """Sources and layers by name, in the order in which they were added."""
        return types.MappingProxyType(self._nodes)

    @property
    def delays(self) -> Mapping[Edge, Any]:
        """The delay of every projection, by names of source and target."""
        return {edge: projection.delay for edge, projection in self._edges.items()}

    def add(self, name: str, node: Source | Layer) -> None:
        """Adds a node.

        Args:
            name: unique.
            node: a :class:`Source`, or a layer such as :func:`EventPropLIF` makes. Its weights are
                drawn for every projection to it as they would be for the layer alone.

        Raises:
            ValueError, TypeError: the name is taken, or the node is nothing of this kind.
        """
        if name in self._nodes:
            raise ValueError(f"Graph: a node {name!r} exists already")
        if isinstance(node, Source):
            if node.size is not None:
                check_count(f"Graph: source {name!r}", "size", node.size)
        elif not isinstance(node, Layer):
            raise TypeError(
                f"Graph: node {name!r} is {type(node).__name__}, expected Source or Layer"
            )
        elif node.n_outputs is None:
            raise TypeError(
                f"Graph: node {name!r} consists of several layers, expected a single one"
            )
        self._nodes[name] = node

    def connect(
        self,
        source: str,
        target: str,
        *,
        delay: Delay | float | Array | np.ndarray = 0.0,
        init: Callable[[Array, int, int], Array] | None = None,
    ) -> None:
        """Adds a projection; one at most leads from a node to another, or to itself.

        Args:
            source: name of a node.
            target: name of a population.
            delay: from a spike to its arrival, >= 0, in the unit of the time constants. Fixed: a
                number, an array ``[n_sources]`` or ``[n_sources, n_targets]``. Trained: a
                :class:`Delay`.
            init: ``init(key, n_sources, n_targets)`` draws the weights, instead of the target.

        Raises:
            ValueError, TypeError: a name is unknown, the target is a source, or the projection
                exists already.
        """
        edge = f"Graph: projection {source!r} -> {target!r}"
        for name in (source, target):
            if name not in self._nodes:
                known = ", ".join(map(repr, self._nodes)) or "none"
                raise ValueError(f"{edge}: there is no node {name!r}; nodes are: {known}")
        if isinstance(self._nodes[target], Source):
            raise ValueError(f"{edge}: the target is a source, expected a population")
        node = self._nodes[source]
        if isinstance(node, Layer) and node.readout is not None:
            raise ValueError(f"{edge}: the source never spikes, expected a source or EventPropLIF")
        if (source, target) in self._edges:
            raise ValueError(f"{edge} exists already")
        if not isinstance(delay, Delay):
            if not isinstance(delay, int | float | np.ndarray | Array):
                raise TypeError(
                    f"{edge}: delay is {type(delay).__name__}, expected a number, an array or Delay"
                )
            values = np.asarray(delay)
            if not (values >= 0).all() or values.ndim > 2:
                raise ValueError(f"{edge}: delay is {delay}, expected times >= 0")
        self._edges[source, target] = _Projection(delay, init)

    def build(self) -> Network:
        """The network.

        Raises:
            ValueError: a population hears nothing or nothing hears a source; sizes do not fit; a
                cycle, or delays per source or synapse, lead to a layer that is no
                :func:`EventPropLIF`; populations of a cycle differ in ``t_max`` or ``truncate``.
        """
        for name, node in self._nodes.items():
            end = 0 if isinstance(node, Source) else 1
            if not any(edge[end] == name for edge in self._edges):
                what = "source" if isinstance(node, Source) else "population"
                verb = "nothing hears it" if isinstance(node, Source) else "it hears nothing"
                raise ValueError(f"Graph: {what} {name!r} is not connected: {verb}")
        if not self._edges:
            raise ValueError("Graph: there is no projection")
        nodes, edges = dict(self._nodes), dict(self._edges)
        sizes = {
            name: node.size if isinstance(node, Source) else node.n_outputs
            for name, node in nodes.items()
        }
        for edge, projection in edges.items():
            _check_delay_shape(edge, projection, sizes)
        components = [
            Component(names, nodes, edges)
            for names in strongly_connected(list(nodes), list(edges))
            if not isinstance(nodes[names[0]], Source)
        ]
        sources = [name for name, node in nodes.items() if isinstance(node, Source)]

        def init(key: Array, n_inputs: int | None = None) -> tuple[dict[str, int], Parameters]:
            known = {name: size for name, size in sizes.items() if size is not None}
            for name in sources:
                if name not in known:
                    known[name] = check_count(f"Graph: source {name!r}", "n_inputs", n_inputs)
            parameters: Parameters = {}
            keys = jax.random.split(key, len(edges))
            for edge_key, (edge, projection) in zip(keys, edges.items(), strict=True):
                parameters[edge_label(edge)] = _draw(edge_key, edge, projection, nodes, known)
            for component in components:
                parameters |= component.initial_numbers()
            return known, parameters

        def record(
            parameters: Parameters,
            inputs: Spikes | Mapping[str, Spikes],
            probes: Any = None,
            maxima: bool = False,
        ) -> dict[str, Recording]:
            return run(parameters, inputs, {"probes": probes, "maximum": maxima})

        def run(parameters: Parameters, inputs: Spikes | Mapping[str, Spikes], views) -> dict:
            spikes = dict(_by_source(inputs, sources))
            resolved = {
                edge: _resolve(parameters, edge, projection, sizes)
                for edge, projection in edges.items()
            }
            recorded = {}
            for component in components:
                found = component.run(resolved, spikes, parameters, views)
                spikes |= {
                    name: recording.output
                    for name, recording in found.items()
                    if isinstance(recording.output, Spikes)
                }
                recorded |= found
            return {name: recorded[name] for name in nodes if name not in sources}

        def apply(parameters: Parameters, inputs: Spikes | Mapping[str, Spikes]) -> dict:
            recorded = run(parameters, inputs, {})
            return {name: recording.output for name, recording in recorded.items()}

        return Network(init, apply, record)


def _by_source(inputs: Spikes | Mapping[str, Spikes], sources: list[str]) -> Mapping[str, Spikes]:
    """Input spikes under the names of their sources."""
    expected = ", ".join(map(repr, sources))
    if isinstance(inputs, Spikes):
        if len(sources) != 1:
            raise ValueError(
                f"Graph: inputs are the spikes of one source, expected those of each of {expected}"
            )
        return {sources[0]: inputs}
    if set(inputs) != set(sources):
        found = ", ".join(map(repr, inputs))
        raise ValueError(f"Graph: inputs has {found}, expected {expected}")
    return inputs


def edge_label(edge: Edge) -> str:
    """The key of a projection in the parameters of a graph."""
    return f"{edge[0]}->{edge[1]}"


def _check_delay_shape(edge: Edge, projection: _Projection, sizes: Mapping[str, Any]) -> None:
    if isinstance(projection.delay, Delay):
        return
    shape = np.shape(projection.delay)
    expected = tuple(sizes[name] for name in edge)[: len(shape)]
    if any(size is not None and size != n for n, size in zip(shape, expected, strict=True)):
        raise ValueError(
            f"Graph: projection {edge[0]!r} -> {edge[1]!r}: delay has shape {shape}, "
            f"expected {expected}"
        )


def _draw(
    key: Array, edge: Edge, projection: _Projection, nodes: Mapping[str, Any], sizes: dict[str, int]
) -> dict[str, Any]:
    """The initial parameters of a projection. Layers of other makes say their size here."""
    source, target = edge
    if source not in sizes:
        raise ValueError(f"Graph: the size of {source!r} is not known when {target!r} needs it")
    if projection.init is None:
        layer = nodes[target]
        if layer.draw is not None:
            weights = layer.draw(key, sizes[source])
        else:
            n_targets, weights = layer.init(key, sizes[source])
            sizes.setdefault(target, n_targets)
    else:
        weights = projection.init(key, sizes[source], sizes[target])
    if not isinstance(projection.delay, Delay):
        return {"weights": weights}
    numbers = projection.delay.init(jax.random.fold_in(key, 1), sizes[source], sizes[target])
    return {"weights": weights, "delays": numbers}


def _resolve(
    parameters: Parameters, edge: Edge, projection: _Projection, sizes
) -> ResolvedProjection:
    if edge_label(edge) not in parameters:
        raise ValueError(f"Graph: parameters has no entry {edge_label(edge)!r}")
    own = parameters[edge_label(edge)]
    weights, delays = own["weights"], projection.delay
    if isinstance(weights, Array | np.ndarray):
        expected = tuple(sizes[name] for name in edge)
        shape = weights.shape[-2:]
        if len(shape) < 2 or any(
            size is not None and size != n for n, size in zip(shape, expected, strict=True)
        ):
            raise ValueError(
                f"Graph: projection {edge[0]!r} -> {edge[1]!r}: weights has shape "
                f"{weights.shape}, expected {expected}"
            )
    if isinstance(delays, Delay):
        if "delays" not in own:
            raise ValueError(f"Graph: parameters[{edge_label(edge)!r}] has no delays")
        delays = delays(own["delays"])
    elif isinstance(delays, Array | np.ndarray):
        delays = jnp.asarray(delays, weights.dtype)
    return ResolvedProjection(weights, delays)
