"""Yin-Yang with two layers of spiking neurons: what the programs of all gradients share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes
from jaxsnn.dataset import yinyang
from jaxsnn.event.delay import Delay, DelayKind
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate_and_fire import (
    EventPropLIF,
    RecurrentEventPropLIF,
    RecurrentWeights,
)
from jaxsnn.event.loss import mse_loss, target_time_loss
from jaxsnn.event.population import Layer
from jaxsnn.event.spikes import take_spikes
from jaxsnn.event.tasks._config import Config, YinYangOptions, flag
from jaxsnn.event.tasks._network import (
    Parameters,
    TaskNetwork,
    TwoLayers,
    named_arrays,
    neuron_parameters,
    spiking_layer,
)
from jaxsnn.event.tasks._objective import ttfs_loss
from jaxsnn.event.tasks._program import Task
from jaxsnn.event.training import Examples, Loss, Objective, first_spike_objective

N_CLASSES = 3


def load_encoded(
    config: YinYangOptions, encode: Callable[[np.ndarray], Any]
) -> tuple[Examples, dict[str, Examples]]:
    """The samples to train on, and the held-out sets ``validation`` and ``test``.

    Args:
        config: their sizes and seeds, and the dtype.
        encode: from values ``[size, 4]`` to spikes.
    """

    def samples(seed: int, size: int) -> Examples:
        values, labels = yinyang(seed, size)
        return Examples(encode(values.astype(config.dtype)), jnp.asarray(labels, jnp.int32))

    return samples(config.train_seed, config.train_size), {
        "validation": samples(config.validation_seed, config.validation_size),
        "test": samples(config.test_seed, config.test_size),
    }


def load(config: Config) -> tuple[Examples, dict[str, Examples]]:
    """The same with times of spikes, in seconds."""
    return load_encoded(
        config,
        partial(
            latency_encode,
            t_late=config.t_late,
            bias_time=config.bias_time,
            duplication=config.duplication,
            duplicate_channels=True,
        ),
    )


def make_network(config: Config, factory: Callable[..., Layer]) -> TaskNetwork:
    """Two layers in a row.

    Args:
        config: sizes, time constants, delays and initial weights.
        factory: `EventPropLIF` or `LIF`, which take the same arguments.

    Returns:
        The network.

    Raises:
        ValueError: options that only `EventPropLIF`, or only separate layers, can have.
    """
    if factory is not EventPropLIF:
        analytical = {"form": "layered", "delays": "none", "train_neurons": "none"}
        _check(config, "with analytical gradients", analytical | {"silent_repair": 0.0})
    if config.form == "recurrent":
        _check(config, "with --form=recurrent", {"train_neurons": "none", "silent_repair": 0.0})
        return _recurrent(config)
    network = _layered(config, factory)
    recorded = network if factory is EventPropLIF else _layered(config, EventPropLIF)
    return TaskNetwork(network.init, network.apply, recorded.record, network.arrays)


def _check(config: Config, where: str, only: dict[str, Any]) -> None:
    """Raises for a field that differs from the only value that it can have."""
    for name, value in only.items():
        if getattr(config, name) != value:
            raise ValueError(f"{flag(name)} is {getattr(config, name)}, expected {value} {where}")


def _n_inputs(config: Config) -> int:
    return (4 + (config.bias_time is not None)) * config.duplication


def _delay(config: Config) -> Delay | None:
    if config.delays == "none":
        return None
    kind: DelayKind = "axonal" if config.delays == "axonal" else "synaptic"
    return Delay(kind, config.delay_max, std=config.delay_std, transform=jax.nn.sigmoid)


def _layered(config: Config, factory: Callable[..., Layer]) -> TwoLayers:
    return TwoLayers(
        _n_inputs(config),
        spiking_layer(factory, config, "hidden", config.hidden),
        spiking_layer(factory, config, "output", N_CLASSES),
        _delay(config),
    )


def _recurrent(config: Config) -> TaskNetwork:
    population = RecurrentEventPropLIF(
        (config.hidden, N_CLASSES),
        n_spikes=config.hidden_spikes + config.output_spikes,
        t_max=config.t_max,
        params=neuron_parameters(config),
        mean=(config.hidden_mean, config.output_mean),
        std=(config.hidden_std, config.output_std),
        delay=_delay(config),
        name="recurrent population",
    )
    ends = (0, config.hidden, config.hidden + N_CLASSES)
    rooms = (config.hidden_spikes, config.output_spikes)
    layered = _layered(config, EventPropLIF)

    def init(key: Array) -> Parameters:
        _, weights = population.init(key, _n_inputs(config))
        return weights if isinstance(weights, dict) else {"weights": weights}

    def apply(parameters: Parameters, spikes: Spikes) -> list[Spikes]:
        weights = parameters if "delays" in parameters else parameters["weights"]
        spikes = population.apply(weights, spikes)
        spans = itertools.pairwise(ends)
        return [take_spikes(spikes, *span, n) for span, n in zip(spans, rooms, strict=True)]

    def record(parameters: Parameters, spikes: Spikes, *, maxima: bool = False):
        separate = {kind: _blocks(values, config.hidden) for kind, values in parameters.items()}
        return layered.record(separate, spikes, maxima=maxima)

    def arrays(parameters: Parameters) -> dict[str, Array]:
        return named_arrays(RecurrentWeights._fields, parameters, _delay(config))

    return TaskNetwork(init, apply, record, arrays)


def _blocks(values: RecurrentWeights, hidden: int) -> list[Array]:
    """What leads to the hidden layer, and from there to the output layer, of both matrices.

    Delays of a source each are no matrices: all of its connections share one.
    """
    if jnp.ndim(values.input) == 1:
        return [values.input, values.recurrent[:hidden]]
    return [values.input[:, :hidden], values.recurrent[:hidden, hidden:]]


def make_loss(config: Config) -> Loss:
    """The configured loss of first-spike times ``[n_samples, 3]`` and labels ``[n_samples]``."""
    if config.loss == "ttfs":
        return ttfs_loss(config)
    distance = {"mse": mse_loss, "target_time": target_time_loss}[config.loss]

    def to_targets(times: Array, labels: Array) -> Array:
        targets = target_times(
            labels,
            N_CLASSES,
            t_correct=config.t_correct,
            t_wrong=config.t_wrong,
            dtype=times.dtype,
        )
        return distance(times, targets, tau=config.tau, t_max=config.t_max)

    return to_targets


def make_objective(config: Config) -> Objective:
    """The configured loss; the output neuron that fires first names the class."""
    return first_spike_objective(make_loss(config), N_CLASSES)


def yinyang_task(factory: Callable[..., Layer]) -> Task:
    """Yin-Yang with layers of one kind, see `make_network`."""
    return Task(lambda config: make_network(config, factory), load, make_objective)
