"""Losses on scores and on spike counts, one value per sample ``[*batch]``; and accuracy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Bool, Float, Int
from jaxsnn.discrete.decode import spike_count
from jaxsnn.event.encode import check_labels

__all__ = [
    "accuracy",
    "nll_loss",
    "rate_cross_entropy",
    "rate_mse",
    "spike_count_regulariser",
]

_MODULE = "jaxsnn.discrete.loss"

Scores = Float[Array, "*batch n_classes"]
Labels = Int[Array, "*batch"]
Trace = Float[Array, "*batch n_steps n_neurons"]
Mask = Bool[Array, "*#batch n_steps"]


def nll_loss(log_p: Scores, labels: Labels) -> Float[Array, "*batch"]:
    """The negative log-likelihood ``-log_p[label]``.

    Args:
        log_p: log-probabilities, e.g. of :func:`max_over_time_decode`.
        labels: classes, integers in ``[0, n_classes)``.

    Raises:
        ValueError: labels are no classes, or not one for each sample.
    """
    labels = _labels("nll_loss", log_p, labels)
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def spike_count_regulariser(
    spikes: Trace, *, target: float, strength: float, mask: Mask | None = None
) -> Float[Array, "*batch"]:
    """``strength sum_neurons (count - target)^2`` with each neuron's spikes in a sample.

    Upstream jaxsnn adds up the samples of a batch, with the strength 1e-5: that is the mean over a
    batch with 1e-5 times its size.

    Args:
        spikes: of a layer.
        target: spikes per neuron and sample.
        strength: >= 0.
        mask: steps that count.
    """
    return strength * jnp.sum((spike_count(spikes, mask) - target) ** 2, axis=-1)


def rate_cross_entropy(
    spikes: Trace, labels: Labels, mask: Mask | None = None
) -> Float[Array, "*batch"]:
    """The cross-entropy of the softmax of spike counts.

    Args:
        spikes: of the outputs, one per class.
        labels: classes.
        mask: steps that count.
    """
    return nll_loss(jax.nn.log_softmax(spike_count(spikes, mask), axis=-1), labels)


def rate_mse(
    spikes: Trace, labels: Labels, *, correct: float, wrong: float, mask: Mask | None = None
) -> Float[Array, "*batch"]:
    """The mean squared distance of spike counts from their targets.

    Args:
        spikes: of the outputs, one per class.
        labels: classes.
        correct: target count of the label's output.
        wrong: target count of the others.
        mask: steps that count.
    """
    counts = spike_count(spikes, mask)
    labels = _labels("rate_mse", counts, labels)
    own = labels[..., None] == jnp.arange(counts.shape[-1])
    return jnp.mean((counts - jnp.where(own, correct, wrong)) ** 2, axis=-1)


def accuracy(scores: Scores, labels: Labels) -> Float[Array, ""]:
    """The fraction of samples whose largest score, the first of equal ones, is the label's."""
    labels = _labels("accuracy", scores, labels)
    return jnp.mean(jnp.argmax(scores, axis=-1) == labels, dtype=scores.dtype)


def _labels(name: str, scores: Array, labels: Array) -> Array:
    where = f"{_MODULE}.{name}"
    labels = check_labels(where, labels, scores.shape[-1])
    if labels.shape != scores.shape[:-1]:
        raise ValueError(f"{where}: labels has shape {labels.shape}, expected {scores.shape[:-1]}")
    return labels
