"""Simulation and training in time steps, with surrogate gradients.

Layers are pairs of ``init`` and ``apply``; spikes are dense arrays ``[*batch, n_steps, n]``.
"""

from jaxsnn.discrete.decode import (
    last_step,
    length_mask,
    max_over_time,
    max_over_time_decode,
    spike_count,
    sum_over_time,
)
from jaxsnn.discrete.encode import (
    constant_current_lif_encode,
    latency_encode,
    poisson_encode,
    spatio_temporal_encode,
    spikes_from_steps,
    steps_from_spikes,
)
from jaxsnn.discrete.integrate import euler_integrate, step_coefficients
from jaxsnn.discrete.layers import LI, LIF, Layer, RecurrentLIF, serial
from jaxsnn.discrete.loss import (
    accuracy,
    nll_loss,
    rate_cross_entropy,
    rate_mse,
    spike_count_regulariser,
)
from jaxsnn.discrete.network import DiscreteNetwork, discretise
from jaxsnn.discrete.surrogate import (
    Surrogate,
    arctan,
    fast_sigmoid,
    gaussian,
    sigmoid,
    superspike,
    triangle,
)
from jaxsnn.event.leaky_integrate_and_fire import RecurrentWeights

__all__ = [
    "LI",
    "LIF",
    "DiscreteNetwork",
    "Layer",
    "RecurrentLIF",
    "RecurrentWeights",
    "Surrogate",
    "accuracy",
    "arctan",
    "constant_current_lif_encode",
    "discretise",
    "euler_integrate",
    "fast_sigmoid",
    "gaussian",
    "last_step",
    "latency_encode",
    "length_mask",
    "max_over_time",
    "max_over_time_decode",
    "nll_loss",
    "poisson_encode",
    "rate_cross_entropy",
    "rate_mse",
    "serial",
    "sigmoid",
    "spatio_temporal_encode",
    "spike_count",
    "spike_count_regulariser",
    "spikes_from_steps",
    "step_coefficients",
    "steps_from_spikes",
    "sum_over_time",
    "superspike",
    "triangle",
]
