"""Event-based simulation and training in continuous time.

Layers are pairs of ``init`` and ``apply``; spikes are arrays of times and indices. Training needs
the extra ``jaxsnn[train]``, the rest JAX alone.
"""

from jaxsnn.event.activity import (
    Activity,
    activity,
    changed_spikes,
    silent_neuron_loss,
    spike_count_loss,
    spike_counts,
    threshold_slopes,
)
from jaxsnn.event.compose import serial
from jaxsnn.event.delay import Delay
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate import LeakyIntegrator, Reading
from jaxsnn.event.leaky_integrate_and_fire import (
    LIF,
    EventPropLIF,
    HardwareLIF,
    HardwareRecurrentLIF,
    RecurrentEventPropLIF,
    RecurrentWeights,
)
from jaxsnn.event.loss import (
    first_spike_times,
    mse_loss,
    predict,
    target_time_loss,
    ttfs_cross_entropy,
    voltage_cross_entropy,
)
from jaxsnn.event.population import Layer
from jaxsnn.event.spikes import merge_spikes, take_spikes
from jaxsnn.event.topology import Graph, Network, Recording, Source
from jaxsnn.event.training import (
    Epoch,
    Examples,
    Judgement,
    Metrics,
    Objective,
    adam,
    evaluation,
    first_spike_objective,
    fit,
    training_epoch,
    voltage_objective,
)

__all__ = [
    "LIF",
    "Activity",
    "Delay",
    "Epoch",
    "EventPropLIF",
    "Examples",
    "Graph",
    "HardwareLIF",
    "HardwareRecurrentLIF",
    "Judgement",
    "Layer",
    "LeakyIntegrator",
    "Metrics",
    "Network",
    "Objective",
    "Reading",
    "Recording",
    "RecurrentEventPropLIF",
    "RecurrentWeights",
    "Source",
    "activity",
    "adam",
    "changed_spikes",
    "evaluation",
    "first_spike_objective",
    "first_spike_times",
    "fit",
    "latency_encode",
    "merge_spikes",
    "mse_loss",
    "predict",
    "serial",
    "silent_neuron_loss",
    "spike_count_loss",
    "spike_counts",
    "take_spikes",
    "target_time_loss",
    "target_times",
    "threshold_slopes",
    "training_epoch",
    "ttfs_cross_entropy",
    "voltage_cross_entropy",
    "voltage_objective",
]
