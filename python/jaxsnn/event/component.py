"""The components of a graph: populations that hear each other, or one alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import LIFParameters, LIFState, Spikes, initial_state
from jaxsnn.event.leaky_integrate import Heard
from jaxsnn.event.population import Layer, Population
from jaxsnn.event.spikes import merge_spikes, take_spikes
from jaxsnn.ops import LoopResult, Maximum, Probes, event_loop

Edge = tuple[str, str]
Parameters = dict[str, dict[str, Any]]


class Recording(NamedTuple):
    """All that is known of a population after a run.

    Attributes:
        output: its spikes, or what was read from a :func:`LeakyIntegrator`.
        params: its parameters in this run, None for layers of other makes.
        result: of :func:`jaxsnn.ops.event_loop`, in a cycle its part of it; None for these layers.
    """

    output: Any
    params: LIFParameters | None
    result: LoopResult | None


class ResolvedProjection(NamedTuple):
    """A projection in use: its weights, and its delays as numbers or arrays."""

    weights: Any
    delays: Any

    @property
    def delay_rank(self) -> int:
        """0 for a delay that all synapses share, 1 for one per source, 2 for one per synapse."""
        return np.ndim(self.delays)


def strongly_connected(nodes: Sequence[str], edges: Sequence[Edge]) -> Iterator[list[str]]:
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


class Component:
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

    def initial_numbers(self) -> Parameters:
        """The numbers behind trained parameters, by population."""
        return {
            name: population.initial_numbers()
            for name, population in zip(self.names, self.populations, strict=True)
            if population is not None and population.train
        }

    def run(
        self,
        resolved: Mapping[Edge, ResolvedProjection],
        spikes: Mapping[str, Spikes],
        parameters: Parameters,
        views: Mapping[str, Any],
    ) -> dict[str, Recording]:
        """What each population does, given the spikes of those that it hears.

        Args:
            resolved: all projections.
            spikes: of every population outside that is heard.
            parameters: of the graph.
            views: arguments ``probes`` and ``maximum`` of :func:`jaxsnn.ops.event_loop`.
        """
        readout = self.layers[0].readout
        if readout is not None:
            # What is asked for in this run goes before what is read always.
            asked = {name: v for name, v in views.items() if v is not None and v is not False}
            views = {**readout.views, **asked}
        # Delays that only move a source's spikes can be had from an ordinary, sorted list.
        ranks = [resolved[edge].delay_rank for edge in self.external]
        lists = len(self.external) == len(self.sources)
        if not self.internal and lists and max(ranks, default=0) <= (len(self.sources) > 1):
            found = self._run_layer(resolved, spikes, parameters, views)
        else:
            found = self._run_queue(resolved, spikes, parameters, views)
        if readout is None:
            return found
        ((name, recording),) = found.items()
        heard = [Heard(spikes[edge[0]], *resolved[edge]) for edge in self.external]
        t_max = self._known_populations()[0].t_max
        reading = readout.read(recording.params, recording.result, heard, t_max)
        return {name: recording._replace(output=reading)}

    def _run_layer(self, resolved, spikes, parameters, views) -> dict[str, Recording]:
        (name,), (layer,), (population,) = self.names, self.layers, self.populations
        edges = [resolved[edge] for edge in self.external]
        heard = [
            _delay_spikes(spikes[source], edge.delays)
            for source, edge in zip(self.sources, edges, strict=True)
        ]
        weights, inputs = edges[0].weights, heard[0]
        if len(edges) > 1:
            weights = jnp.concatenate([edge.weights for edge in edges], axis=-2)
            inputs = merge_spikes(heard, [edge.weights.shape[-2] for edge in edges])
        if population is None:
            if any(view is not None and view is not False for view in views.values()):
                raise ValueError(
                    f"Graph: population {name!r} is no EventPropLIF, as record expects"
                )
            return {name: Recording(layer.apply(weights, inputs), LIFParameters(), None)}
        numbers = parameters.get(name, {})
        result = population.run(weights, inputs, numbers, **views)
        return {name: Recording(result.spikes, population.parameters(numbers), result)}

    def _run_queue(self, resolved, spikes, parameters, views) -> dict[str, Recording]:
        populations = self._known_populations()
        rows = [
            next(resolved[e].weights.shape[-2] for e in self.external if e[0] == source)
            for source in self.sources
        ]
        heard = [spikes[source] for source in self.sources]
        inputs = heard[0] if len(heard) == 1 else merge_spikes(heard, rows)
        weights, delays = self._matrices(resolved, self.external, self.sources, rows)
        recurrent: dict[str, Any] = {}
        if self.internal:
            matrix, own_delays = self._matrices(resolved, self.internal, self.names, self.sizes)
            recurrent = {"recurrent": matrix, "recurrent_delays": own_delays}
        params = [
            population.parameters(parameters.get(name, {}))
            for name, population in zip(self.names, populations, strict=True)
        ]
        merged = merge_parameters(params, self.sizes)
        first = populations[0]
        result = event_loop(
            merged,
            weights,
            initial_state(merged, sum(self.sizes), weights.dtype),
            inputs,
            t_max=first.t_max,
            max_events=[p.n_spikes for p in populations],
            delays=delays,
            **recurrent,
            populations=self.sizes,
            **views,
            raise_on=first.raise_on,
            label=[p.label for p in populations],
        )
        if len(populations) == 1:
            return {self.names[0]: Recording(result.spikes, params[0], result)}
        ends = itertools.accumulate(self.sizes, initial=0)
        spans = itertools.pairwise(ends)
        found = {}
        for name, population, own, span in zip(self.names, populations, params, spans, strict=True):
            part = _part_of(result, *span, population.n_spikes)
            found[name] = Recording(part.spikes, own, part)
        return found

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


def _part_of(result: LoopResult, begin: int, end: int, n_spikes: int) -> LoopResult:
    """The result of the neurons in ``[begin, end)`` of a component."""
    index = result.spikes.index
    spikes, current = take_spikes(result.spikes, begin, end, n_spikes), result.current
    taken = take_spikes(Spikes(current, index), begin, end, n_spikes)
    state = result.state
    return result._replace(
        spikes=spikes,
        state=LIFState(
            state.v[..., begin:end],
            state.i[..., begin:end],
            state.release[..., begin:end],
            state.time,
        ),
        count=jnp.sum(spikes.index >= 0, axis=-1, dtype=jnp.int32),
        current=jnp.where(taken.index >= 0, taken.time, 0),
        probes=result.probes and Probes(*(x[..., begin:end] for x in result.probes)),
        maximum=result.maximum and Maximum(*(x[..., begin:end] for x in result.maximum)),
    )


def merge_parameters(params: Sequence[LIFParameters], sizes: Sequence[int]) -> LIFParameters:
    """Parameters of all neurons: shared where all populations have the same number."""
    merged = {}
    for field in dataclasses.fields(LIFParameters):
        values = [getattr(own, field.name) for own in params]
        if len(values) == 1 or all(
            isinstance(value, int | float) and value == values[0] for value in values
        ):
            merged[field.name] = values[0]
            continue
        merged[field.name] = jnp.concatenate(
            [
                jnp.broadcast_to(value, (*jnp.shape(value)[:-1], size))
                for value, size in zip(values, sizes, strict=True)
            ],
            -1,
        )
    return LIFParameters(**merged)
