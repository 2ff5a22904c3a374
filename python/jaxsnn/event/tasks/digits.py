"""Trains a network with one hidden layer on images of digits with EventProp gradients.

The images are the 8x8 digits of scikit-learn (extra jaxsnn[digits]). Every pixel spikes once, the
earlier the brighter; black pixels are silent. 450 of the 1797 samples, the same for all seeds and
with the same part of every class, are the test set.

The defaults train 200 hidden neurons for 120 epochs. Mean test accuracy of the seeds 0, 1, 2:

  --readout first-spike           97.3 %   the output neuron that fires first names the class
  --readout maximum               97.6 %   the leaky integrator with the largest voltage does
  multilayer perceptron, 200      97.8 %   scikit-learn's MLPClassifier on the same samples

docs/digits.md has the runs and their commands. Times are in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.encode import latency_encode
from jaxsnn.event.leaky_integrate import LeakyIntegrator, Reading
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.population import Layer
from jaxsnn.event.spikes import merge_spikes
from jaxsnn.event.tasks._config import DIGITS_TRAIN_SIZE, N_DIGITS, DigitsConfig
from jaxsnn.event.tasks._network import TaskNetwork, TwoLayers, neuron_options, spiking_layer
from jaxsnn.event.tasks._objective import ttfs_loss
from jaxsnn.event.tasks._program import Task, run_program
from jaxsnn.event.training import (
    Augment,
    Examples,
    Objective,
    first_spike_objective,
    voltage_objective,
)

DEFAULTS = DigitsConfig(
    tau_syn=10e-3,
    t_max=40e-3,
    hidden_mean=0.25,
    hidden_std=0.2,
    output_mean=0.25,
    hidden_spikes=4000,
    output_spikes=2000,
    epochs=120,
    batch_size=16,
    learning_rate=1e-2,
    lr_decay=0.97,
    tau0=1e-3,
)

N_PIXELS = 64
_BRIGHTEST = 16
_SPLIT_SEED = 0


def load(config: DigitsConfig) -> tuple[Examples, dict[str, Examples]]:
    """The samples to train on, and the held-out sets ``test`` and, if there is one, ``validation``.

    The split is the same for all seeds, and every class has the same part of all sets.

    Raises:
        ImportError: scikit-learn, which has the images, is not installed.
    """
    load_digits, train_test_split = _require_sklearn()
    images, labels = load_digits(return_X_y=True)
    held_out: dict[str, Examples] = {}
    left = {"test": len(labels) - DIGITS_TRAIN_SIZE, "validation": config.validation_size}
    for name, size in left.items():
        if size:
            images, own_images, labels, own_labels = train_test_split(
                images, labels, test_size=size, stratify=labels, random_state=_SPLIT_SEED
            )
            held_out[name] = _examples(config, own_images, own_labels)
    return _examples(config, images, labels), held_out


def _require_sklearn() -> tuple[Any, Any]:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - an optional dependency
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            'this program needs scikit-learn, install it with: pip install "jaxsnn[digits]"'
        ) from error
    return load_digits, train_test_split


def _examples(config: DigitsConfig, images: np.ndarray, labels: np.ndarray) -> Examples:
    return Examples(encode(config, images), jnp.asarray(labels, jnp.int32))


def encode(config: DigitsConfig, images: np.ndarray) -> Spikes:
    """One spike per pixel, the earlier the brighter, and none for a black one; and the bias.

    Args:
        config: the times, and the dtype.
        images: ``[n_samples, 64]``, brightness from 0 to 16.

    Returns:
        Spikes ``[n_samples, n_inputs]`` with times in seconds, padded.
    """
    darkness = 1 - images / _BRIGHTEST
    spikes = latency_encode(
        darkness.astype(config.dtype), t_late=config.t_late, bias_time=config.bias_time
    )
    bias = np.zeros((len(images), _n_inputs(config) - N_PIXELS), bool)
    black = np.take_along_axis(np.concatenate((images == 0, bias), 1), np.asarray(spikes.index), 1)
    return _without(spikes, jnp.asarray(black))


def _without(spikes: Spikes, dropped: Array) -> Spikes:
    """The other spikes, with padding at the end."""
    time = jnp.where(dropped, jnp.inf, spikes.time)
    index = jnp.where(dropped, -1, spikes.index)
    return merge_spikes([Spikes(time, index)], [spikes.time.shape[-1]])


def make_augment(config: DigitsConfig) -> Augment:
    """Drops spikes of pixels at random; that of the bias stays."""

    def augment(key: Array, spikes: Spikes) -> Spikes:
        dropped = jax.random.bernoulli(key, config.dropout, spikes.index.shape)
        return _without(spikes, dropped & (spikes.index < N_PIXELS))

    return augment


def _n_inputs(config: DigitsConfig) -> int:
    return N_PIXELS + (config.bias_time is not None)


def make_network(config: DigitsConfig) -> TaskNetwork:
    """A hidden layer of spiking neurons, and the layer of the readout."""
    hidden = spiking_layer(EventPropLIF, config, "hidden", config.hidden)
    if config.readout == "first-spike":
        output = spiking_layer(EventPropLIF, config, "output", N_DIGITS)
    else:
        output = _integrators(config)
    network = TwoLayers(_n_inputs(config), hidden, output)
    spiking = ("hidden", "output") if config.readout == "first-spike" else ("hidden",)
    return TaskNetwork(network.init, network.apply, network.record, network.arrays, spiking)


def _integrators(config: DigitsConfig) -> Layer:
    options = neuron_options(config, N_DIGITS)
    constants = ("tau_mem", "tau_syn")  # there is no threshold
    return LeakyIntegrator(
        N_DIGITS,
        t_max=config.t_max,
        **{name: getattr(options["params"], name) for name in constants},
        mean=config.integrator_mean,
        std=config.integrator_std,
        maximum=True,
        train=[name for name in options["train"] if name in constants],
        name="output layer",
    )


def make_objective(config: DigitsConfig) -> Objective:
    """The cross-entropy of the readout."""
    if config.readout == "first-spike":
        return first_spike_objective(ttfs_loss(config), N_DIGITS)
    return voltage_objective(_largest_voltages, scale=config.scale)


def _largest_voltages(reading: Reading) -> Array:
    assert reading.maximum is not None
    return reading.maximum.v


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    name = "jaxsnn.event.tasks.digits"
    task = Task(make_network, load, make_objective, make_augment)
    return run_program(name, __doc__ or "", task, DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
