"""A network in parts that can be run one after the other: populations that hear each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.component import merge_parameters, strongly_connected
from jaxsnn.event.hardware.spec import NetworkSpec, PopulationSpec, ProjectionSpec, SourceSpec
from jaxsnn.event.spikes import merge_spikes, take_spikes


class Stage:
    """Populations that hear each other, or a single one.

    Attributes:
        populations: of the stage, whose neurons are counted through.
        sources: names of the sources and earlier populations that they hear, likewise.
        source_sizes: how many channels each of them has.
        recurrent: whether they hear each other.
        params: of all neurons of the model.
    """

    def __init__(self, names: list[str], spec: NetworkSpec) -> None:
        by_name: Mapping[str, PopulationSpec] = {p.name: p for p in spec.populations}
        self.populations = [by_name[name] for name in names]
        incoming = [p for p in spec.projections if p.target in names]
        self.sources = list(dict.fromkeys(p.source for p in incoming if p.source not in names))
        self.recurrent = any(p.source in names for p in incoming)
        self._names = names
        self._labels = {(p.source, p.target): p.label for p in incoming}
        self.source_sizes = [spec.size_of(name) for name in self.sources]
        self._sizes = [p.size for p in self.populations]
        self.n_neurons = sum(self._sizes)
        self.params = merge_parameters([p.params for p in self.populations], self._sizes)

    def weights(self, by_label: Mapping[str, Any]) -> tuple[Any, Any]:
        """One matrix from all sources and, in a cycle, one among the neurons, else None."""
        incoming = self._matrix(by_label, self.sources, self.source_sizes)
        if not self.recurrent:
            return incoming, None
        return incoming, self._matrix(by_label, self._names, self._sizes)

    def _matrix(self, by_label: Mapping[str, Any], sources: list[str], rows: list[int]) -> Any:
        host = all(isinstance(values, np.ndarray) for values in by_label.values())
        on = np if host else jnp  # on the host nothing must wait for JAX
        dtype = on.result_type(*by_label.values())

        def block(source: str, n: int, target: str, size: int) -> Any:
            label = self._labels.get((source, target))
            return on.zeros((n, size), dtype) if label is None else by_label[label]

        return on.concatenate(
            [
                on.concatenate(
                    [
                        block(source, n, target, size)
                        for target, size in zip(self._names, self._sizes, strict=True)
                    ],
                    -1,
                )
                for source, n in zip(sources, rows, strict=True)
            ],
            -2,
        )

    def inputs(self, spikes: Mapping[str, Spikes]) -> Spikes:
        """What the stage hears, in time order."""
        return merge_spikes([spikes[name] for name in self.sources], self.source_sizes)

    def merge(self, spikes: Mapping[str, Spikes]) -> Spikes:
        """The spikes of all populations as those of one, in time order."""
        return merge_spikes([spikes[name] for name in self._names], self._sizes)

    def split(self, spikes: Spikes, room: Mapping[str, int] | None = None) -> dict[str, Spikes]:
        """The spikes of each population, with all the room that there is or as much as is given."""
        ends = itertools.accumulate(self._sizes, initial=0)
        slots = spikes.time.shape[-1]
        return {
            name: take_spikes(spikes, *span, slots if room is None else room[name])
            for name, span in zip(self._names, itertools.pairwise(ends), strict=True)
        }

    def own(self, name: str, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The part of a population of arrays along the neurons."""
        begin = sum(p.size for p in itertools.takewhile(lambda p: p.name != name, self.populations))
        end = begin + next(p.size for p in self.populations if p.name == name)
        return {key: value[..., begin:end] for key, value in values.items()}

    def per_neuron(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """An array per population, joined along the neurons."""
        return np.concatenate([values[name] for name in self._names], -1)


def stages(spec: NetworkSpec) -> list[Stage]:
    """The stages of a network, each behind those that it hears."""
    sources = {source.name for source in spec.sources}
    nodes = [*sources, *(p.name for p in spec.populations)]
    edges = [(p.source, p.target) for p in spec.projections]
    found = strongly_connected(nodes, edges)
    return [Stage(names, spec) for names in found if names[0] not in sources]


def unrolled(stage: Stage, spec: NetworkSpec) -> tuple[Stage, dict[str, str], dict[str, str]]:
    """A stage that does not hear itself: what its populations sent comes from sources.

    Args:
        stage: of the network.
        spec: the network.

    Returns:
        The stage; the names of these sources, by population; and the labels of its projections, by
        those of the network.
    """
    names = [p.name for p in stage.populations]
    heard = {name: f"{name}, as it is heard" for name in names}
    old = [p for p in spec.projections if p.target in names]
    new = [ProjectionSpec(heard.get(p.source, p.source), p.target) for p in old]
    others = {p.source for p in old} - set(names)
    sources = [SourceSpec(name, spec.size_of(name)) for name in others]
    sources += [SourceSpec(heard[p.name], p.size) for p in stage.populations]
    open_ended = NetworkSpec(tuple(sources), tuple(stage.populations), tuple(new))
    labels = {p.label: q.label for p, q in zip(old, new, strict=True)}
    return Stage(names, open_ended), heard, labels
