"""What the programs train for."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array
from jaxsnn.event.activity import silent_neuron_loss
from jaxsnn.event.component import Recording
from jaxsnn.event.loss import ttfs_cross_entropy
from jaxsnn.event.tasks._config import EventOptions
from jaxsnn.event.training import Judgement, Loss, Objective


def ttfs_loss(config: EventOptions) -> Loss:
    """The cross-entropy of first-spike times with the configured constants."""

    def loss(times: Array, labels: Array) -> Array:
        return ttfs_cross_entropy(
            without_silent_labels(times, labels, config.t_max),
            labels,
            tau0=config.tau0,
            tau1=config.tau1,
            alpha=config.alpha,
            t_max=config.t_max,
        )

    return loss


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


def with_silent_repair(objective: Objective, weight: float) -> Objective:
    """Adds ``weight * silent_neuron_loss`` of the hidden layer to an objective.

    Args:
        objective: of the outputs of all layers.
        weight: of the additional loss.

    Returns:
        An objective of recordings with maxima.
    """

    def judge(recorded: Sequence[Recording], labels: Array) -> Judgement:
        loss, correct, _ = objective([recording.output for recording in recorded], labels)
        hidden = recorded[0]
        assert hidden.result is not None
        assert hidden.params is not None
        assert hidden.result.maximum is not None
        silence = silent_neuron_loss(hidden.result.maximum.v, hidden.params.v_th)
        return Judgement(loss + weight * silence, correct)

    return judge
