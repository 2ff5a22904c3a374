"""Composition of layers."""

from __future__ import annotations

from typing import Any

import jax

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.leaky_integrate_and_fire import Layer


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

    def init(key: Array, n_inputs: int) -> tuple[int, list[Any]]:
        weights = []
        for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
            n_inputs, layer_weights = layer.init(layer_key, n_inputs)
            weights.append(layer_weights)
        return n_inputs, weights

    def apply(weights: list[Any], spikes: Spikes) -> list[Spikes]:
        if len(weights) != len(layers):
            raise ValueError(
                f"serial: weights has {len(weights)} entries, expected one for each of the "
                f"{len(layers)} layers"
            )
        recorded = []
        for layer, layer_weights in zip(layers, weights, strict=True):
            spikes = layer.apply(layer_weights, spikes)
            recorded.append(spikes)
        return recorded

    return Layer(init, apply)
