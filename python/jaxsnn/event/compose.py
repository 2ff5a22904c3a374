"""Composition of layers."""

from __future__ import annotations

import itertools
from typing import Any

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.population import Layer
from jaxsnn.event.topology import Graph, Network, Source


def serial(*layers: Layer) -> Layer:
    """Layers in a row, each fed with the spikes of the one before.

    Args:
        *layers: at least one.

    Returns:
        A layer with ``init(key, n_inputs) -> (n_outputs, [weights, ...])`` and
        ``apply([weights, ...], spikes) -> [spikes, ...]``: the spikes of every layer, the last of
        which are the output.

    Raises:
        ValueError: without layers, or from ``apply`` where the weights are not one per layer.
    """
    if not layers:
        raise ValueError("serial: layers is empty, expected at least one layer")
    names = ["input", *(f"layer {number}" for number in range(1, len(layers) + 1))]
    edges = [f"{source}->{target}" for source, target in itertools.pairwise(names)]
    network = _chain(names, layers)

    def init(key: Array, n_inputs: int) -> tuple[int, list[Any]]:
        sizes, parameters = network.init(key, n_inputs)
        return sizes[names[-1]], [parameters[edge]["weights"] for edge in edges]

    def apply(weights: list[Any], spikes: Spikes) -> list[Spikes]:
        if len(weights) != len(layers):
            raise ValueError(
                f"serial: weights has {len(weights)} entries, expected one for each of the "
                f"{len(layers)} layers"
            )
        parameters = {edge: {"weights": w} for edge, w in zip(edges, weights, strict=True)}
        return list(network.apply(parameters, spikes).values())

    return Layer(init, apply)


def _chain(names: list[str], layers: tuple[Layer, ...]) -> Network:
    graph = Graph()
    graph.add(names[0], Source())
    for (source, name), layer in zip(itertools.pairwise(names), layers, strict=True):
        graph.add(name, layer)
        graph.connect(source, name)
    return graph.build()
