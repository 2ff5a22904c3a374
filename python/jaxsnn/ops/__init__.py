"""JAX functions over the compiled event loop.

All are pure functions of arrays and work under ``jit``, ``vmap``, ``grad``, ``lax.scan`` and
``jax.checkpoint``.
"""

from jaxsnn.ops._lif_steps import (
    StepCoefficients,
    StepsResult,
    StepState,
    lif_step,
    lif_steps,
    lif_steps_reference,
)
from jaxsnn.ops._neuron import flow, next_crossing
from jaxsnn.ops._observed import ObservedResult, observed_loop
from jaxsnn.ops._status import FAILURES, Status, status_message
from jaxsnn.ops._surrogate import Surrogate
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
    "ObservedResult",
    "Probes",
    "Status",
    "StepCoefficients",
    "StepResult",
    "StepState",
    "StepsResult",
    "Surrogate",
    "event_loop",
    "event_step",
    "flow",
    "lif_step",
    "lif_steps",
    "lif_steps_reference",
    "next_crossing",
    "observed_loop",
    "status_message",
]
