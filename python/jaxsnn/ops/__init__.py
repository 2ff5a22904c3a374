"""JAX functions over the compiled event loop.

All are pure functions of arrays and work under ``jit``, ``vmap``, ``grad``, ``lax.scan`` and
``jax.checkpoint``.
"""

from jaxsnn.ops._neuron import flow, next_crossing
from jaxsnn.ops._status import FAILURES, Status, status_message
from jaxsnn.ops._window import (
    Event,
    EventKind,
    LoopResult,
    Maximum,
    Probes,
    StepResult,
    event_loop,
    event_step,
)

__all__ = [
    "FAILURES",
    "Event",
    "EventKind",
    "LoopResult",
    "Maximum",
    "Probes",
    "Status",
    "StepResult",
    "event_loop",
    "event_step",
    "flow",
    "next_crossing",
    "status_message",
]
