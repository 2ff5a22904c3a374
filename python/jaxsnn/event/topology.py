"""Networks of any shape: a directed graph of populations and projections.

A graph is cut into its strongly connected components. A population that does not hear itself, not
even through others, is a feed-forward layer; populations that hear each other run together on the
event queue. Either way spike times and gradients are exact.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, LIFParameters, Spikes, initial_state
from jaxsnn.event.delay import Delay
from jaxsnn.event.leaky_integrate_and_fire import Layer, Population
from jaxsnn.event.spikes import merge_spikes, take_spikes
from jaxsnn.ops import event_loop
from jaxsnn.ops._checks import check_count

__all__ = ["Graph", "Network", "Source"]

Edge = tuple[str, str]
Parameters = dict[str, dict[str, Any]]


class Source(NamedTuple):
    """Where spikes enter a graph.

    Attributes:
        size: number of channels, None if it is only known when the weights are drawn.
    """

    size: int | None = None


class Network(NamedTuple):
    """A graph as a pair of pure functions.

    Attributes:
        init: ``init(key, n_inputs=None) -> (sizes, parameters)``: the size of every node, and for
            every projection, under ``"source->target"``, its ``"weights"`` and, where they are
            trained, the numbers behind its ``"delays"``, see :class:`Delay`. ``n_inputs`` is the
            size of all sources that were added without one.
        apply: ``apply(parameters, inputs) -> {population: Spikes}``, in the order in which the
            populations were added. ``inputs`` are the spikes of the only source, or those of each
            by name.
    """

    init: Callable
    apply: Callable


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
        init, apply = graph.build()
        sizes, parameters = init(jax.random.key(0))
        spikes = apply(parameters, input_spikes)["output"]
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Source | Layer] = {}
        self._edges: dict[Edge, _Projection] = {}

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
            _Component(names, nodes, edges)
            for names in _components(list(nodes), list(edges))
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
                parameters[_label(edge)] = _draw(edge_key, edge, projection, nodes, known)
            return known, parameters

        def apply(parameters: Parameters, inputs: Spikes | Mapping[str, Spikes]) -> dict:
            if isinstance(inputs, Spikes):
                if len(sources) != 1:
                    raise ValueError(
                        f"Graph: inputs are the spikes of one source, expected one entry for each "
                        f"of {', '.join(map(repr, sources))}"
                    )
                inputs = {sources[0]: inputs}
            if set(inputs) != set(sources):
                raise ValueError(
                    f"Graph: inputs has {', '.join(map(repr, inputs))}, expected "
                    f"{', '.join(map(repr, sources))}"
                )
            resolved = {
                edge: _resolve(parameters, edge, projection, sizes)
                for edge, projection in edges.items()
            }
            recorded = dict(inputs)
            for component in components:
                recorded |= component.run(resolved, recorded)
            return {name: recorded[name] for name in nodes if name not in sources}

        return Network(init, apply)


def _label(edge: Edge) -> str:
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
        n_targets, weights = nodes[target].init(key, sizes[source])
        sizes.setdefault(target, n_targets)
    else:
        weights = projection.init(key, sizes[source], sizes[target])
    if not isinstance(projection.delay, Delay):
        return {"weights": weights}
    numbers = projection.delay.init(jax.random.fold_in(key, 1), sizes[source], sizes[target])
    return {"weights": weights, "delays": numbers}


class _Resolved(NamedTuple):
    """A projection in use: its weights, and its delays as numbers or arrays."""

    weights: Any
    delays: Any

    @property
    def delay_rank(self) -> int:
        return np.ndim(self.delays)


def _resolve(parameters: Parameters, edge: Edge, projection: _Projection, sizes) -> _Resolved:
    if _label(edge) not in parameters:
        raise ValueError(f"Graph: parameters has no entry {_label(edge)!r}")
    own = parameters[_label(edge)]
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
            raise ValueError(f"Graph: parameters[{_label(edge)!r}] has no delays")
        delays = delays(own["delays"])
    elif np.ndim(delays):
        delays = jnp.asarray(delays, weights.dtype)
    return _Resolved(weights, delays)


def _components(nodes: Sequence[str], edges: Sequence[Edge]) -> Iterator[list[str]]:
    """Strongly connected components, each behind those that it hears (Tarjan 1972)."""
    heard = {name: [a for a, b in edges if b == name] for name in nodes}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in heard[name]:
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            found.append(sorted(members, key=nodes.index))

    for name in nodes:
        if name not in number:
            visit(name)
    return iter(found)


class _Component:
    """Populations that hear each other, or a single one."""

    def __init__(self, names: list[str], nodes: Mapping[str, Any], edges: Mapping[Edge, Any]):
        self.names = names
        self.layers: list[Layer] = [nodes[name] for name in names]
        self.sizes = [int(layer.n_outputs or 0) for layer in self.layers]
        self.populations = [
            layer.population and layer.population.named(name)
            for name, layer in zip(names, self.layers, strict=True)
        ]
        self.internal = [e for e in edges if e[0] in names and e[1] in names]
        self.external = [e for e in edges if e[0] not in names and e[1] in names]
        self.sources = list(dict.fromkeys(source for source, _ in self.external))
        if self.internal:
            self._check_cycle()

    def _check_cycle(self) -> None:
        cycle = ", ".join(map(repr, self.names))
        first = self.populations[0]
        for name, population in zip(self.names, self.populations, strict=True):
            if population is None or first is None:
                raise ValueError(
                    f"Graph: population {name!r} is part of a cycle of {cycle}, "
                    "expected an EventPropLIF"
                )
            for field in ("t_max", "truncate"):
                value, expected = getattr(population, field), getattr(first, field)
                if value != expected:
                    raise ValueError(
                        f"Graph: population {name!r} has {field}={value}, expected {expected}, as "
                        f"all have in the cycle of {cycle}"
                    )

    def run(self, resolved: Mapping[Edge, _Resolved], recorded: Mapping[str, Spikes]) -> dict:
        """The spikes of each population, given those that it hears."""
        delayed = {
            source: max(resolved[e].delay_rank for e in self.external if e[0] == source)
            for source in self.sources
        }
        fan_out = {s: sum(e[0] == s for e in self.external) for s in self.sources}
        # Delays that only move a source's spikes can be had from an ordinary, sorted list.
        if (
            not self.internal
            and max(delayed.values(), default=0) <= (0 if len(self.sources) == 1 else 1)
            and max(fan_out.values(), default=1) == 1
        ):
            return self._run_layer(resolved, recorded)
        return self._run_queue(resolved, recorded)

    def _run_layer(self, resolved, recorded) -> dict:
        (name,), (layer,) = self.names, self.layers
        edges = [resolved[edge] for edge in self.external]
        heard = [
            _delay_spikes(recorded[source], edge.delays)
            for source, edge in zip(self.sources, edges, strict=True)
        ]
        weights, spikes = edges[0].weights, heard[0]
        if len(edges) > 1:
            weights = jnp.concatenate([edge.weights for edge in edges], axis=-2)
            spikes = merge_spikes(heard, [edge.weights.shape[-2] for edge in edges])
        population = self.populations[0]
        if population is None:
            return {name: layer.apply(weights, spikes)}
        return {name: population.run(weights, spikes).spikes}

    def _run_queue(self, resolved, recorded) -> dict:
        populations = self._known_populations()
        rows = [
            next(resolved[e].weights.shape[-2] for e in self.external if e[0] == source)
            for source in self.sources
        ]
        heard = [recorded[source] for source in self.sources]
        inputs = heard[0] if len(heard) == 1 else merge_spikes(heard, rows)
        weights, delays = self._matrices(resolved, self.external, self.sources, rows)
        recurrent: dict[str, Any] = {}
        if self.internal:
            matrix, own_delays = self._matrices(resolved, self.internal, self.names, self.sizes)
            recurrent = {"recurrent": matrix, "recurrent_delays": own_delays}
        params = _merge_parameters(populations)
        first = populations[0]
        spikes = event_loop(
            params,
            weights,
            initial_state(params, sum(self.sizes), weights.dtype),
            inputs,
            t_max=first.t_max,
            max_events=[p.n_spikes for p in populations],
            delays=delays,
            **recurrent,
            populations=self.sizes,
            raise_on=first.raise_on,
            label=[p.label for p in populations],
        ).spikes
        if len(populations) == 1:
            return {self.names[0]: spikes}
        ends = list(itertools.accumulate(self.sizes, initial=0))
        return {
            name: take_spikes(spikes, begin, end, population.n_spikes)
            for name, population, (begin, end) in zip(
                self.names, populations, itertools.pairwise(ends), strict=True
            )
        }

    def _known_populations(self) -> list[Population]:
        found = []
        for name, population in zip(self.names, self.populations, strict=True):
            if population is None:
                raise ValueError(
                    f"Graph: population {name!r} has delays per source or synapse, expected an "
                    "EventPropLIF"
                )
            found.append(population)
        return found

    def _matrices(self, resolved, edges: Sequence[Edge], sources: Sequence[str], rows):
        """All projections from some sources as one matrix of weights and one of delays."""
        starts = dict(zip(sources, itertools.accumulate(rows, initial=0), strict=False))
        columns = dict(zip(self.names, itertools.accumulate(self.sizes, initial=0), strict=False))
        shape = (sum(rows), sum(self.sizes))
        blocks = {
            edge: (
                ...,
                slice(starts[edge[0]], starts[edge[0]] + rows[list(sources).index(edge[0])]),
                slice(columns[edge[1]], columns[edge[1]] + resolved[edge].weights.shape[-1]),
            )
            for edge in edges
        }
        lead = jnp.broadcast_shapes(*(resolved[edge].weights.shape[:-2] for edge in edges))
        dtype = resolved[edges[0]].weights.dtype
        weights = jnp.zeros((*lead, *shape), dtype)
        for edge, block in blocks.items():
            weights = weights.at[block].set(resolved[edge].weights)
        return weights, self._delays(resolved, blocks, shape, dtype)

    def _delays(self, resolved, blocks, shape: tuple[int, int], dtype):
        """The delays of these blocks in their most compact form."""
        values = [resolved[edge].delays for edge in blocks]
        if all(isinstance(d, int | float) and d == values[0] for d in values) or (
            len(values) == 1 and np.ndim(values[0]) == 0
        ):
            return values[0]
        one_per_source = len({edge[0] for edge in blocks}) == len(blocks)
        if one_per_source and all(np.ndim(d) < 2 for d in values):
            delays = jnp.zeros((shape[0], 1), dtype)
            for (_, rows, _), d in zip(blocks.values(), values, strict=True):
                delays = delays.at[rows, 0].set(d)
            return delays
        delays = jnp.full(shape, jnp.inf, dtype)
        for (_, rows, columns), d in zip(blocks.values(), values, strict=True):
            delays = delays.at[rows, columns].set(d[:, None] if np.ndim(d) == 1 else d)
        return delays


def _delay_spikes(spikes: Spikes, delays: Any) -> Spikes:
    """Spikes as they arrive; with a delay per source no longer in order."""
    if np.ndim(delays) == 0:
        fixed = isinstance(delays, int | float) and delays == 0
        return spikes if fixed else Spikes(spikes.time + delays, spikes.index)
    own = delays[jnp.maximum(spikes.index, 0)]
    return Spikes(spikes.time + own, spikes.index)


def _merge_parameters(populations: Sequence[Population]) -> LIFParameters:
    """Parameters of all neurons: shared where all populations have the same number."""
    merged = {}
    for field in dataclasses.fields(LIFParameters):
        values = [getattr(p.params, field.name) for p in populations]
        if len(values) == 1 or all(
            isinstance(value, int | float) and value == values[0] for value in values
        ):
            merged[field.name] = values[0]
            continue
        merged[field.name] = jnp.concatenate(
            [
                jnp.broadcast_to(value, (*np.shape(value)[:-1], p.n_neurons))
                for value, p in zip(values, populations, strict=True)
            ],
            -1,
        )
    return LIFParameters(**merged)
