"""Yin-Yang with two layers of spiking neurons: what the programs of all gradients share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, LIFParameters, Spikes
from jaxsnn.dataset import yinyang
from jaxsnn.event.delay import Delay, DelayKind
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF, RecurrentEventPropLIF
from jaxsnn.event.loss import mse_loss, target_time_loss, ttfs_cross_entropy
from jaxsnn.event.population import Layer
from jaxsnn.event.spikes import take_spikes
from jaxsnn.event.tasks._config import Config, flag
from jaxsnn.event.topology import Graph, Source
from jaxsnn.event.training import (
    Epoch,
    Examples,
    Loss,
    adam,
    batches_per_epoch,
    first_spike_objective,
    fit,
    require_optax,
)

N_CLASSES = 3
LAYERS = ("hidden", "output")

Parameters = dict[str, Any]


def load(config: Config, seed: int, size: int) -> Examples:
    """Encoded samples.

    Args:
        config: how to encode, and the dtype.
        seed: of the samples.
        size: number of samples.

    Returns:
        Spikes ``[size, n_inputs]`` with times in seconds, and labels ``[size]``.
    """
    samples, labels = yinyang(seed, size)
    spikes = latency_encode(
        samples.astype(config.dtype),
        t_late=config.t_late,
        bias_time=config.bias_time,
        duplication=config.duplication,
        duplicate_channels=True,
    )
    return Examples(spikes, jnp.asarray(labels, jnp.int32))


def make_network(config: Config, factory: Callable[..., Layer]) -> Layer:
    """Two layers in a row.

    Args:
        config: sizes, time constants, delays and initial weights.
        factory: `EventPropLIF` or `LIF`, which take the same arguments.

    Returns:
        A layer whose ``apply`` gives the spikes of both layers. Its parameters are a dictionary of
        ``"weights"``, one array per layer or `RecurrentWeights`, and with delays their logits,
        ``"delays"``, likewise.

    Raises:
        ValueError: a form or delays that only `EventPropLIF` can have.
    """
    if factory is not EventPropLIF:
        for name, default in (("form", "layered"), ("delays", "none")):
            if getattr(config, name) != default:
                raise ValueError(
                    f"{flag(name)} is {getattr(config, name)}, expected {default} with analytical "
                    "gradients"
                )
    return {"layered": _layered, "recurrent": _recurrent}[config.form](config, factory)


def _common(config: Config) -> dict[str, Any]:
    params = LIFParameters(tau_mem=config.tau_mem, tau_syn=config.tau_syn)
    return {"t_max": config.t_max, "params": params}


def _delay(config: Config) -> Delay | None:
    if config.delays == "none":
        return None
    kind: DelayKind = "axonal" if config.delays == "axonal" else "synaptic"
    return Delay(kind, config.delay_max, std=config.delay_std, transform=jax.nn.sigmoid)


def _layered(config: Config, factory: Callable[..., Layer]) -> Layer:
    graph = Graph()
    graph.add("input", Source())
    source = "input"
    for name, size, n_spikes, mean, std in (
        ("hidden", config.hidden, config.hidden_spikes, config.hidden_mean, config.hidden_std),
        ("output", N_CLASSES, config.output_spikes, config.output_mean, config.output_std),
    ):
        layer = factory(
            size, n_spikes=n_spikes, mean=mean, std=std, name=f"{name} layer", **_common(config)
        )
        graph.add(name, layer)
        graph.connect(source, name, delay=_delay(config) or 0.0)
        source = name
    network = graph.build()
    edges = ("input->hidden", "hidden->output")

    def init(key: Array, n_inputs: int) -> tuple[int, Parameters]:
        _, parameters = network.init(key, n_inputs)
        kinds = parameters[edges[0]]
        return N_CLASSES, {kind: [parameters[edge][kind] for edge in edges] for kind in kinds}

    def apply(parameters: Parameters, spikes: Spikes) -> list[Spikes]:
        by_edge = {
            edge: {kind: entries[number] for kind, entries in parameters.items()}
            for number, edge in enumerate(edges)
        }
        return list(network.apply(by_edge, spikes).values())

    return Layer(init, apply)


def _recurrent(config: Config, factory: Callable[..., Layer]) -> Layer:
    del factory  # there is but one
    population = RecurrentEventPropLIF(
        (config.hidden, N_CLASSES),
        n_spikes=config.hidden_spikes + config.output_spikes,
        mean=(config.hidden_mean, config.output_mean),
        std=(config.hidden_std, config.output_std),
        delay=_delay(config),
        name="recurrent population",
        **_common(config),
    )
    ends = (0, config.hidden, config.hidden + N_CLASSES)
    rooms = (config.hidden_spikes, config.output_spikes)

    def init(key: Array, n_inputs: int) -> tuple[int, Parameters]:
        _, weights = population.init(key, n_inputs)
        return N_CLASSES, weights if isinstance(weights, dict) else {"weights": weights}

    def apply(parameters: Parameters, spikes: Spikes) -> list[Spikes]:
        weights = parameters if "delays" in parameters else parameters["weights"]
        spikes = population.apply(weights, spikes)
        spans = itertools.pairwise(ends)
        return [take_spikes(spikes, *span, n) for span, n in zip(spans, rooms, strict=True)]

    return Layer(init, apply)


def saved_arrays(config: Config, parameters: Parameters) -> dict[str, Array]:
    """What ``weights.npz`` holds: weights, and delays in seconds, under the names of `parts`."""
    delay = _delay(config)
    arrays = dict(zip(parts(config), parameters["weights"], strict=True))
    if delay is not None:
        logits = zip(parts(config), parameters["delays"], strict=True)
        arrays |= {f"{part}_delays": delay(values) for part, values in logits}
    return arrays


def parts(config: Config) -> tuple[str, str]:
    """What the two matrices of weights lead to."""
    return LAYERS if config.form == "layered" else ("input", "recurrent")


def make_loss(config: Config) -> Loss:
    """The configured loss of first-spike times ``[n_samples, 3]`` and labels ``[n_samples]``."""
    if config.loss == "ttfs":

        def ttfs(times: Array, labels: Array) -> Array:
            return ttfs_cross_entropy(
                without_silent_labels(times, labels, config.t_max),
                labels,
                tau0=config.tau0,
                tau1=config.tau1,
                alpha=config.alpha,
                t_max=config.t_max,
            )

        return ttfs

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


def without_silent_labels(times: Array, labels: Array, t_max: float) -> Array:
    """Times without gradient in samples whose label's neuron is silent.

    Such a sample could only delay the other neurons, which does not make the missing spike appear:
    one output after the other falls silent and the network does not recover. Wunderlich and Pehle
    leave these samples out as well.

    Args:
        times: ``[n_samples, n_outputs]`` first-spike times, s.
        labels: ``[n_samples]``.
        t_max: end of the window, s.

    Returns:
        The same times.
    """
    own = jnp.take_along_axis(times, labels[:, None], axis=-1)
    return jnp.where(own < t_max, times, jax.lax.stop_gradient(times))


def initialise(config: Config, network: Layer) -> tuple[Parameters, Array]:
    """Initial parameters, and the key for the order of the samples."""
    weights_key, order_key = jax.random.split(jax.random.key(config.seed))
    n_features = 4 + (config.bias_time is not None)
    _, weights = network.init(weights_key, n_features * config.duplication)
    return weights, order_key


def train(config: Config, network: Layer, parameters: Parameters, key: Array) -> Iterator[Epoch]:
    """Trains on the configured data; errors as of `jaxsnn.event.training.fit`.

    Yields:
        One epoch after another, with held-out sets ``validation`` and ``test``.
    """
    optax = require_optax()
    steps = batches_per_epoch(config.train_size, config.batch_size)
    rates = {"weights": config.learning_rate, "delays": config.delay_learning_rate}
    optimizer = optax.multi_transform(
        {
            kind: adam(rate, decay=config.lr_decay, steps_per_epoch=steps)
            for kind, rate in rates.items()
        },
        {kind: kind for kind in parameters},
    )
    yield from fit(
        network,
        first_spike_objective(make_loss(config), N_CLASSES),
        optimizer,
        parameters,
        load(config, config.train_seed, config.train_size),
        batch_size=config.batch_size,
        epochs=config.epochs,
        key=key,
        held_out={
            "validation": load(config, config.validation_seed, config.validation_size),
            "test": load(config, config.test_seed, config.test_size),
        },
    )
