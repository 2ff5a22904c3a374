"""Exact, event-driven training of spiking neural networks for JAX."""

from jaxsnn import ops
from jaxsnn._core import version as __version__
from jaxsnn.base.types import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.gradients import GradientReport, Identities, check_gradients, gradient_identities

__all__ = [
    "GradientReport",
    "Identities",
    "LIFParameters",
    "LIFState",
    "SpikeQueue",
    "Spikes",
    "__version__",
    "check_gradients",
    "gradient_identities",
    "initial_state",
    "ops",
]
