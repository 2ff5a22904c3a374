"""Exact, event-driven training of spiking neural networks for JAX."""

from jaxsnn import ops
from jaxsnn._core import version as __version__
from jaxsnn.base.types import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state

__all__ = [
    "LIFParameters",
    "LIFState",
    "SpikeQueue",
    "Spikes",
    "__version__",
    "initial_state",
    "ops",
]
