"""``event_loop`` and ``event_step``: many events in one call, and exactly one."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from jaxsnn.base.types import (
    Array,
    Float,
    Int32,
    LIFParameters,
    LIFState,
    Shaped,
    SpikeQueue,
    Spikes,
)
from jaxsnn.ops import _checks, _ffi
from jaxsnn.ops._status import FAILURES, Status, raise_mask

# One for all synapses, one per source, or one per synapse.
Delay = float | Shaped[Array, "..."]


class EventKind(enum.IntEnum):
    """What happened in an :func:`event_step`."""

    NONE = 0  # nothing before t_max, where the state now stands
    INPUT = 1  # a queued spike arrived
    SPIKE = 2  # a neuron crossed its threshold


class Event(NamedTuple):
    """One event.

    Attributes:
        time: ``[*batch]``, ``inf`` where nothing happened.
        index: ``[*batch]`` int32, the input or the neuron; ``-1`` where nothing happened.
        kind: ``[*batch]`` int32, an :class:`EventKind`.
    """

    time: Float[Array, "*batch"]
    index: Int32[Array, "*batch"]
    kind: Int32[Array, "*batch"]


class StepResult(NamedTuple):
    """What :func:`event_step` returns."""

    event: Event
    state: LIFState
    queue: SpikeQueue
    status: Int32[Array, "*batch"]
    detail: Float[Array, "*batch 3"]


class Probes(NamedTuple):
    """The state of all neurons at given times.

    Attributes:
        v: ``[*batch, n_probes, n_neurons]`` membrane potential; NaN where the window ended before.
        i: ``[*batch, n_probes, n_neurons]`` synaptic current, with what arrived at this time.
    """

    v: Float[Array, "*batch n_probes n_neurons"]
    i: Float[Array, "*batch n_probes n_neurons"]


class Maximum(NamedTuple):
    """The largest membrane potential of every neuron over a window.

    Attributes:
        v: ``[*batch, n_neurons]``; the threshold where the neuron spiked. Differentiable.
        time: ``[*batch, n_neurons]``, when it was reached first. Has no gradient.
    """

    v: Float[Array, "*batch n_neurons"]
    time: Float[Array, "*batch n_neurons"]


class LoopResult(NamedTuple):
    """What :func:`event_loop` returns.

    Attributes:
        spikes: the spikes of the population, ``max_events`` of them, padded.
        state: the state at the end of the window.
        queue: the incoming spikes that are left.
        count: ``[*batch]`` int32, number of spikes before the padding.
        status: ``[*batch]`` int32, a :class:`Status`.
        detail: ``[*batch, 3]``, the facts behind it for :func:`status_message`.
        current: ``[*batch, max_events]``, the synaptic current of each neuron at its spike, which
            tells how steeply it crossed its threshold. Has no gradient.
        probes: what was seen at the times that were asked for.
        maximum: the maxima, if they were asked for.
    """

    spikes: Spikes
    state: LIFState
    queue: SpikeQueue
    count: Int32[Array, "*batch"]
    status: Int32[Array, "*batch"]
    detail: Float[Array, "*batch 3"]
    current: Float[Array, "*batch n_spikes"]
    probes: Probes | None = None
    maximum: Maximum | None = None


def _state(named: dict[str, Array]) -> LIFState:
    return LIFState(named["v"], named["i"], named["release"], named["time"])


def event_loop(
    params: LIFParameters,
    weights: Float[Array, "*#batch n_inputs n_neurons"],
    state: LIFState,
    inputs: Spikes | SpikeQueue,
    *,
    t_max: float | Float[Array, "*#batch"],
    max_events: int | Sequence[int],
    delays: Delay | None = None,
    recurrent: Float[Array, "*#batch n_neurons n_neurons"] | None = None,
    recurrent_delays: Delay | None = None,
    past: Spikes | None = None,
    populations: Sequence[int] | None = None,
    probes: Float[Array, "*#batch n_probes"] | Sequence[float] | None = None,
    maximum: bool = False,
    raise_on: Collection[Status] = FAILURES,
    label: str | Sequence[str] = "event_loop",
) -> LoopResult:
    """Runs LIF neurons up to ``t_max`` or to their ``max_events``-th spike.

    Every neuron receives the incoming spikes over ``weights`` and, with ``recurrent``, the spikes
    of the others and its own, each after its delay. Spike times are the exact threshold crossings
    of the closed-form solution, for any ratio of the time constants. A neuron that stands at or
    above its threshold spikes at once.

    Order at equal times: the end of a refractory period, arrivals, crossings. Arrivals come in the
    order past spikes, inputs, spikes of this window, each as emitted; crossings in neuron order,
    each followed by the arrivals that it causes without a delay. Any number of events may coincide.

    Reverse-mode gradients are EventProp's (Wunderlich & Pehle, Sci Rep 11:12829, 2021), exact for
    any number of spikes per neuron and for recurrent connections: of the spike times, the final
    state, probes and maxima, with respect to weights, delays, all of ``params``, ``state``, the
    times of ``inputs``, ``past`` and ``probes``, and ``t_max``. The number of spikes is piecewise
    constant and has no gradient. Without refractory period that with respect to ``t_ref`` is 0.

    Without delays and recurrent weights, which is a feed-forward layer, the neurons are swept side
    by side; with them, arrivals go through an event queue. Both take memory in proportion to the
    number of spikes.

    All operands may have leading batch axes, which broadcast; under ``vmap`` the batch is native
    as well. Batches run in parallel on XLA's threads; results do not depend on their number.

    Args:
        params: parameters, scalar or per neuron.
        weights: ``[*batch, n_inputs, n_neurons]``, float32 or float64, which is the dtype of all.
        state: the state to start from, see :func:`jaxsnn.initial_state`.
        inputs: incoming spikes in time order. Spikes after ``t_max`` stay in the queue.
        t_max: the horizon, same unit as the times; > 0 and not before ``state.time``.
        max_events: static, room for spikes per example, >= 1. Where more would follow, the status
            is ``EVENT_CAPACITY`` and the window ends right after the last recorded spike: the next
            one can go on from the returned state and queue.
        delays: of the inputs, >= 0: one for all ``[]``, one per input ``[n_inputs]``, or an array
            ``[*batch, n_inputs or 1, n_neurons or 1]``, one per synapse in full. ``inf`` means that
            there is no synapse.
        recurrent: ``[*batch, n_neurons, n_neurons]``, from the first axis to the second.
        recurrent_delays: of the recurrent connections, in the same forms.
        past: spikes of the neurons up to ``state.time``, of which those that are still under way
            arrive in this window: the spikes of the window before. Inputs need no such care, the
            queue keeps those that were taken.
        populations: static, sizes of populations that the neurons consist of, in order. Then
            ``max_events`` has one entry for each, and a window ends where one of them is full.
        probes: times in ascending order, from ``state.time`` to ``t_max``, at which to return the
            state of all neurons, differentiable in the times as well.
        maximum: whether to return the largest voltage of every neuron. It is exact, between events
            too; its gradient follows the neuron and, at a kink, the arrival that makes it.
        raise_on: statuses for which to raise instead of returning them.
        label: how errors name this call, or each of the populations.

    Returns:
        Spikes, final state, rest of the queue, and how each example ended.

    Raises:
        ValueError, TypeError: for shapes, dtypes and plain numbers that do not fit, when traced.
        jax.errors.JaxRuntimeError: for a status in ``raise_on``, when run; names sample, argument,
            value and what it should be. JAX makes it a ValueError with the same text when a jitted
            function runs again that has run well before.
    """
    name = label if isinstance(label, str) else ", ".join(label)
    operands = _checks.problem_operands(name, params, weights, state, inputs, t_max)
    n_neurons = operands[0].shape[-1]
    sizes, capacities = _checks.populations(name, n_neurons, populations, max_events)
    _checks.check_label(name, label, len(sizes))
    sizes_of_results = {"events": sum(capacities), "facts": _ffi.FACTS}
    mask = np.int64(raise_mask(raise_on))
    extras = (delays, recurrent, recurrent_delays, past, populations, probes)
    if all(x is None for x in extras) and not maximum:
        named = _ffi.event_loop(*operands, sizes=sizes_of_results, raise_on=mask, label=name)
    else:
        operands = _checks.network_operands(
            name, operands, recurrent, delays, recurrent_delays, past, probes
        )
        named = _ffi.network_loop(
            *operands,
            label=name if isinstance(label, str) else "\n".join(label),
            population_sizes=sizes,
            population_capacities=capacities,
            sizes=sizes_of_results | {"maxima": n_neurons if maximum else 0},
            raise_on=mask,
        )
    return LoopResult(
        spikes=Spikes(named["spike_time"], named["spike_index"]),
        state=_state(named),
        queue=SpikeQueue(inputs.time, inputs.index, named["head"]),
        count=named["count"],
        status=named["status"],
        detail=named["detail"],
        current=named["spike_current"],
        probes=None if probes is None else Probes(named["probe_v"], named["probe_i"]),
        maximum=Maximum(named["max_v"], named["max_time"]) if maximum else None,
    )


def event_step(
    params: LIFParameters,
    weights: Float[Array, "*#batch n_inputs n_neurons"],
    state: LIFState,
    inputs: Spikes | SpikeQueue,
    *,
    t_max: float | Float[Array, "*#batch"],
    raise_on: Collection[Status] = FAILURES,
    label: str = "event_step",
) -> StepResult:
    """Advances a population of LIF neurons by exactly one event.

    Finds the next event, a threshold crossing or a queued spike; integrates all neurons to it; and
    applies the discontinuity: a reset, or the weights of the arrival. Where neither comes before
    ``t_max``, the state moves there and the event is ``NONE``.

    ``jax.lax.scan`` over it gives a trajectory whose derivative follows from the implicit function
    theorem at each crossing. It equals the gradient of :func:`event_loop`, at the price of a state
    per event. Order at equal times, batching and errors as there.

    Args:
        params: parameters, scalar or per neuron.
        weights: ``[*batch, n_inputs, n_neurons]``, float32 or float64, which is the dtype of all.
        state: the present state.
        inputs: incoming spikes in time order, or the queue of a previous step.
        t_max: the horizon; > 0 and not before ``state.time``.
        raise_on: statuses for which to raise instead of returning them.
        label: how errors name this call.

    Returns:
        The event, the state right after it, the rest of the queue, and how each example ended.
        Differentiable: event time and state, in weights, state, spike times and ``t_max``.

    Raises:
        ValueError, TypeError: for shapes, dtypes and plain numbers that do not fit, when traced.
        jax.errors.JaxRuntimeError: for a status in ``raise_on``, when run.
    """
    operands = _checks.problem_operands(label, params, weights, state, inputs, t_max)
    named = _ffi.event_step(
        *operands,
        sizes={"facts": _ffi.FACTS},
        raise_on=np.int64(raise_mask(raise_on)),
        label=str(label),
    )
    return StepResult(
        event=Event(named["event_time"], named["event_index"], named["event_kind"]),
        state=_state(named),
        queue=SpikeQueue(inputs.time, inputs.index, named["head"]),
        status=named["status"],
        detail=named["detail"],
    )
