"""Yin-Yang with two layers of spiking neurons: what the programs of all gradients share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, LIFParameters
from jaxsnn.dataset import yinyang
from jaxsnn.event.compose import serial
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate_and_fire import Layer
from jaxsnn.event.loss import mse_loss, target_time_loss, ttfs_cross_entropy
from jaxsnn.event.tasks._config import Config
from jaxsnn.event.training import Epoch, Examples, Loss, adam, batches_per_epoch, fit

N_CLASSES = 3


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
        config: sizes, time constants and initial weights.
        factory: `EventPropLIF` or `LIF`, which take the same arguments.
    """
    common: dict[str, Any] = {
        "t_max": config.t_max,
        "params": LIFParameters(tau_mem=config.tau_mem, tau_syn=config.tau_syn),
    }
    return serial(
        factory(
            config.hidden,
            n_spikes=config.hidden_spikes,
            mean=config.hidden_mean,
            std=config.hidden_std,
            name="hidden layer",
            **common,
        ),
        factory(
            N_CLASSES,
            n_spikes=config.output_spikes,
            mean=config.output_mean,
            std=config.output_std,
            name="output layer",
            **common,
        ),
    )


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


def initialise(config: Config, network: Layer) -> tuple[list[Array], Array]:
    """Initial weights, one array per layer, and the key for the order of the samples."""
    weights_key, order_key = jax.random.split(jax.random.key(config.seed))
    n_features = 4 + (config.bias_time is not None)
    _, weights = network.init(weights_key, n_features * config.duplication)
    return weights, order_key


def train(config: Config, network: Layer, weights: list[Array], key: Array) -> Iterator[Epoch]:
    """Trains on the configured data; errors as of `jaxsnn.event.training.fit`.

    Yields:
        One epoch after another, with held-out sets ``validation`` and ``test``.
    """
    steps = batches_per_epoch(config.train_size, config.batch_size)
    yield from fit(
        network,
        make_loss(config),
        adam(config.learning_rate, decay=config.lr_decay, steps_per_epoch=steps),
        weights,
        load(config, config.train_seed, config.train_size),
        n_outputs=N_CLASSES,
        batch_size=config.batch_size,
        epochs=config.epochs,
        key=key,
        held_out={
            "validation": load(config, config.validation_seed, config.validation_size),
            "test": load(config, config.test_seed, config.test_size),
        },
    )
