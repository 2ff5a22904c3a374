"""Event-based simulation and training in continuous time.

Layers are pairs of ``init`` and ``apply``; spikes are arrays of times and indices. Training needs
the extra ``jaxsnn[train]``, the rest JAX alone.
"""

from jaxsnn.event.compose import serial
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate_and_fire import LIF, EventPropLIF, Layer
from jaxsnn.event.loss import (
    first_spike_times,
    mse_loss,
    predict,
    target_time_loss,
    ttfs_cross_entropy,
)
from jaxsnn.event.training import Epoch, Examples, Metrics, adam, evaluation, fit, training_epoch

__all__ = [
    "LIF",
    "Epoch",
    "EventPropLIF",
    "Examples",
    "Layer",
    "Metrics",
    "adam",
    "evaluation",
    "first_spike_times",
    "fit",
    "latency_encode",
    "mse_loss",
    "predict",
    "serial",
    "target_time_loss",
    "target_times",
    "training_epoch",
    "ttfs_cross_entropy",
]
