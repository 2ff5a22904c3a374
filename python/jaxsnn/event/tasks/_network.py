"""The networks that the programs train: an input, a hidden and an output layer in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxsnn.base.types import Array, LIFParameters, Spikes
from jaxsnn.event.component import Recording
from jaxsnn.event.delay import Delay
from jaxsnn.event.population import Layer
from jaxsnn.event.tasks._config import EventOptions, Options
from jaxsnn.event.topology import Graph, Source

LAYERS = ("hidden", "output")
TRAINED = ("tau_mem", "tau_syn", "v_th")

_EDGES = ("input->hidden", "hidden->output")

#: Per kind, "weights", "delays" or "neurons", the numbers that are trained in both layers.
Parameters = dict[str, Any]


class TaskNetwork(NamedTuple):
    """A network as pure functions.

    Attributes:
        init: ``init(key) -> parameters``.
        apply: ``apply(parameters, spikes) -> [output, ...]``, one per layer; the network that is
            trained.
        record: ``record(parameters, spikes, maxima=False) -> [Recording, ...]``, the same by
            EventProp; None where time goes in steps.
        arrays: ``arrays(parameters)``, what ``weights.npz`` holds.
        spiking: names of the layers that spike, from the first on.
    """

    init: Callable[[Array], Parameters]
    apply: Callable[[Parameters, Any], list[Any]]
    record: Callable[..., list[Recording]] | None
    arrays: Callable[[Parameters], dict[str, Array]]
    spiking: tuple[str, ...] = LAYERS


def neuron_parameters(config: Options, *, v_th: float = 1.0) -> LIFParameters:
    """The neurons of all layers."""
    return LIFParameters(
        tau_mem=config.tau_mem, tau_syn=config.tau_syn, v_th=v_th, v_reset=config.v_reset
    )


def neuron_options(config: Options, size: int, *, v_th: float = 1.0) -> dict[str, Any]:
    """The arguments ``params`` and ``train`` of a layer of ``size`` neurons."""
    params = neuron_parameters(config, v_th=v_th)
    if config.train_neurons == "per-neuron":
        each = {name: jnp.full(size, getattr(params, name), config.dtype) for name in TRAINED}
        params = dataclasses.replace(params, **each)
    return {"params": params, "train": () if config.train_neurons == "none" else TRAINED}


def spiking_layer(
    factory: Callable[..., Layer], config: EventOptions, name: str, size: int
) -> Layer:
    """A layer as the options have it.

    Args:
        factory: ``EventPropLIF`` or ``LIF``, which take the same arguments.
        config: the options.
        name: ``"hidden"`` or ``"output"``.
        size: number of neurons.
    """
    return factory(
        size,
        n_spikes=getattr(config, f"{name}_spikes"),
        t_max=config.t_max,
        mean=getattr(config, f"{name}_mean"),
        std=getattr(config, f"{name}_std"),
        name=f"{name} layer",
        **neuron_options(config, size),
    )


class TwoLayers:
    """A hidden and an output layer in a row.

    Args:
        n_inputs: number of input channels.
        hidden: the first layer.
        output: the second.
        delay: of both projections, trained; None for no delay.
    """

    def __init__(
        self, n_inputs: int, hidden: Layer, output: Layer, delay: Delay | None = None
    ) -> None:
        self._layers = (hidden, output)
        self._delay = delay
        #: Input, hidden and output layer.
        self.graph = Graph()
        source = "input"
        self.graph.add(source, Source(n_inputs))
        for name, layer in zip(LAYERS, self._layers, strict=True):
            self.graph.add(name, layer)
            self.graph.connect(source, name, delay=0.0 if delay is None else delay)
            source = name
        self._network = self.graph.build()

    def init(self, key: Array) -> Parameters:
        """Draws the initial parameters."""
        _, found = self._network.init(key)
        parameters = {kind: [found[edge][kind] for edge in _EDGES] for kind in found[_EDGES[0]]}
        if any(name in found for name in LAYERS):
            parameters["neurons"] = [found.get(name, {}) for name in LAYERS]
        return parameters

    def apply(self, parameters: Parameters, spikes: Spikes) -> list[Any]:
        """The outputs of both layers."""
        return list(self._network.apply(by_name(parameters), spikes).values())

    def record(
        self, parameters: Parameters, spikes: Spikes, *, maxima: bool = False
    ) -> list[Recording]:
        """All that is known of both layers, with ``maxima`` the largest voltages too."""
        return list(self._network.record(by_name(parameters), spikes, maxima=maxima).values())

    def arrays(self, parameters: Parameters) -> dict[str, Array]:
        """What ``weights.npz`` holds: weights, delays and trained constants, times in seconds."""
        arrays = named_arrays(LAYERS, parameters, self._delay)
        neurons = parameters.get("neurons", ())
        for name, layer, numbers in zip(LAYERS, self._layers, neurons, strict=False):
            assert layer.population is not None  # else it would have nothing to train
            values = layer.population.parameters(numbers)
            arrays |= {f"{name}_{constant}": getattr(values, constant) for constant in numbers}
        return arrays


def named_arrays(
    names: Sequence[str], parameters: Parameters, delay: Delay | None
) -> dict[str, Array]:
    """Weights, and delays in seconds, under the names of the two matrices."""
    arrays = dict(zip(names, parameters["weights"], strict=True))
    if delay is not None:
        logits = zip(names, parameters["delays"], strict=True)
        arrays |= {f"{name}_delays": delay(values) for name, values in logits}
    return arrays


def by_name(parameters: Parameters) -> dict[str, dict[str, Any]]:
    """The parameters as a graph has them."""
    projections = {kind: values for kind, values in parameters.items() if kind != "neurons"}
    by_name = {
        edge: {kind: values[number] for kind, values in projections.items()}
        for number, edge in enumerate(_EDGES)
    }
    by_name.update(zip(LAYERS, parameters.get("neurons", ({}, {})), strict=True))
    return by_name
