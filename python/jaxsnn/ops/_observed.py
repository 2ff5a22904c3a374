"""``observed_loop``: the gradient of neurons whose spikes were observed elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Bool, Float, LIFParameters, Spikes, initial_state
from jaxsnn.ops import _checks, _ffi
from jaxsnn.ops._status import Status


class ObservedResult(NamedTuple):
    """What :func:`observed_loop` returns.

    Attributes:
        spikes: those that were observed, up to ``t_max``, with the gradient of their times.
        current: ``[*batch, n_spikes]``, the synaptic current of the model at each of them.
        masked: ``[*batch, n_spikes]``, which of them the model would not have fired: its voltage
            does not rise at the threshold, or the neuron is refractory. They have no gradient.
    """

    spikes: Spikes
    current: Float[Array, "*batch n_spikes"]
    masked: Bool[Array, "*batch n_spikes"]


def observed_loop(
    params: LIFParameters,
    weights: Float[Array, "*#batch n_inputs n_neurons"],
    inputs: Spikes,
    observed: Spikes,
    *,
    t_max: float,
    recurrent: Float[Array, "*#batch n_neurons n_neurons"] | None = None,
    min_slope: float = 0.05,
    label: str = "observed_loop",
) -> ObservedResult:
    """Takes spikes as they were observed instead of looking for crossings; EventProp's gradient.

    The synaptic currents at the spikes follow from the model, from rest at time 0; all else that
    the reverse sweep of :func:`event_loop` reads is known. Where the observed spikes are those of
    the model, the gradient is that of :func:`event_loop`. Spikes may coincide: inputs come first,
    then the neurons in the order of the list, each followed by the arrivals that it causes.

    Args:
        params: parameters of the model, scalar or per neuron.
        weights: ``[*batch, n_inputs, n_neurons]``, float32 or float64, which is the dtype of all.
        inputs: incoming spikes in time order.
        observed: spikes of the neurons in time order, padded; those after ``t_max`` are left out.
        t_max: the horizon.
        recurrent: ``[*batch, n_neurons, n_neurons]``, from the first axis to the second.
        min_slope: the smallest slope of the voltage at the threshold, in units of the distance of
            the threshold from the leak per ``tau_mem``, that enters a gradient; slopes between 0
            and this one are taken to be this one.
        label: how errors name this call.

    Returns:
        Spikes with gradient in ``weights``, ``recurrent``, ``params`` and the times of ``inputs``.

    Raises:
        ValueError, TypeError: for shapes, dtypes and plain numbers that do not fit, when traced.
    """
    n_neurons = jnp.shape(weights)[-1]
    state = initial_state(params, n_neurons, jnp.result_type(weights))
    operands = _checks.problem_operands(label, params, weights, state, inputs, t_max)
    weights = operands[0]
    if not min_slope >= 0:
        raise ValueError(f"{label}: min_slope is {min_slope}, expected a number >= 0")
    time = _checks.like(label, "observed.time", observed.time, weights.dtype)
    index = _checks.integers(label, "observed.index", observed.index)
    _checks.core_shape(
        label, "observed.index", index, f"(*batch, n_spikes={time.shape[-1]})", time.shape[-1:]
    )
    there = (index >= 0) & (time <= t_max)
    spikes = Spikes(jnp.where(there, time, jnp.inf), jnp.where(there, index, -1))
    log, masked = jax.lax.stop_gradient(
        _log(operands, spikes, t_max=t_max, recurrent=recurrent, min_slope=min_slope)
    )
    sizes = {"events": time.shape[-1], "facts": _ffi.FACTS}
    if recurrent is None:
        operation, attributes = _ffi.event_loop, {}
    else:
        operands = _checks.network_operands(label, operands, recurrent, None, None, None, None)
        operation = _ffi.network_loop
        capacities = (time.shape[-1],)
        attributes = {"population_sizes": (n_neurons,), "population_capacities": capacities}
        log |= _nothing_seen(n_neurons, weights.dtype)
        sizes["maxima"] = 0
    results = {field.name: log[field.name] for field in operation.results}
    time = operation.observed(operands, results, "spike_time", sizes=sizes, **attributes)
    time = jnp.where(masked, jax.lax.stop_gradient(time), time)
    return ObservedResult(Spikes(time, spikes.index), log["model_current"], masked)


def _nothing_seen(n_neurons: int, dtype) -> dict[str, Array]:
    """The results of a network that was not asked for probes or maxima."""
    probes, maxima = jnp.zeros((0, n_neurons), dtype), jnp.zeros(0, dtype)
    return {
        "probe_v": probes,
        "probe_i": probes,
        "max_v": maxima,
        "max_time": maxima,
        "max_current": maxima,
    }


def _log(operands, spikes: Spikes, *, t_max: float, recurrent, min_slope: float):
    """The record of a forward call that had found these spikes, and which ones are masked."""
    weights, input_time, input_index = operands[0], operands[5], operands[6]
    tau_syn, v_th, v_leak, t_ref = (operands[9 + at] for at in (1, 2, 3, 5))
    n_neurons = weights.shape[-1]
    neuron = jnp.maximum(spikes.index, 0)
    there = spikes.index >= 0

    def at_spikes(values):
        values = jnp.broadcast_to(values, (*values.shape[:-1], n_neurons))
        lead = jnp.broadcast_shapes(values.shape[:-1], neuron.shape[:-1])
        return jnp.take_along_axis(
            jnp.broadcast_to(values, (*lead, n_neurons)),
            jnp.broadcast_to(neuron, (*lead, neuron.shape[-1])),
            -1,
        )

    rate = 1 / at_spikes(tau_syn)
    current = _arriving(weights, spikes.time, neuron, Spikes(input_time, input_index), rate)
    earlier = jnp.tri(neuron.shape[-1], k=-1, dtype=bool)
    if recurrent is not None:
        current += _arriving(recurrent, spikes.time, neuron, spikes, rate, earlier)
    current = jnp.where(there, current, 0)
    own_t_ref = at_spikes(t_ref)
    since = spikes.time[..., :, None] - spikes.time[..., None, :]
    same = (spikes.index[..., :, None] == spikes.index[..., None, :]) & earlier
    refractory = jnp.any(same & (since < own_t_ref[..., None] * (1 - 1e-4)), -1)
    gap = at_spikes(v_th - v_leak)
    masked = there & (refractory | ~(current > gap))
    # The sweep takes a spike without a rising voltage for one that an arrival forced.
    floored = jnp.maximum(current, gap + min_slope * jnp.abs(gap))
    recorded = jnp.where(masked, gap - 1 - jnp.abs(gap), floored)
    head = jnp.sum(input_time <= t_max, -1, dtype=jnp.int32)
    lead = jnp.broadcast_shapes(current.shape[:-1], head.shape)
    position = jnp.sum(input_time[..., None, :] <= spikes.time[..., :, None], -1, dtype=jnp.int32)
    zeros = jnp.zeros((*lead, n_neurons), weights.dtype)
    hits = (spikes.index[..., :, None] == jnp.arange(n_neurons)) & there[..., None]
    release = jnp.max(
        jnp.where(hits, (spikes.time + own_t_ref)[..., None], -jnp.inf), -2, initial=-jnp.inf
    )
    results = {
        "spike_time": spikes.time,
        "spike_index": spikes.index,
        "spike_position": position,
        "spike_current": jnp.where(there, recorded, 0),
        "v": zeros,
        "i": zeros,
        "release": release,
        "time": jnp.full(lead, t_max, weights.dtype),
        "head": head,
        "count": jnp.sum(there, -1, dtype=jnp.int32),
        "status": jnp.full(lead, int(Status.OK), jnp.int32),
        "detail": jnp.zeros((*lead, _ffi.FACTS), weights.dtype),
        "model_current": current,
    }
    shapes = {
        name: (*lead, *value.shape[-rank:]) if rank else lead
        for name, value, rank in (
            (name, value, 0 if name in ("time", "head", "count", "status") else 1)
            for name, value in results.items()
        )
    }
    results = {name: jnp.broadcast_to(value, shapes[name]) for name, value in results.items()}
    return results, masked


def _arriving(
    weights: Array, time: Array, neuron: Array, arrivals: Spikes, rate: Array, allowed=None
) -> Array:
    """The current of the neuron of each spike that these arrivals make.

    Args:
        weights: ``[*batch, n_sources, n_neurons]``.
        time: ``[*batch, n_spikes]``.
        neuron: likewise.
        arrivals: ``[*batch, n_arrivals]``.
        rate: ``1 / tau_syn`` at the spikes.
        allowed: ``[n_spikes, n_arrivals]``, which arrivals may come first; None for all that do not
            come later.
    """
    since = time[..., :, None] - arrivals.time[..., None, :]
    heard = (arrivals.index[..., None, :] >= 0) & (since >= 0)
    if allowed is not None:
        heard = heard & allowed
    since = jnp.where(heard, since, 0)
    source = jnp.maximum(arrivals.index, 0)
    if weights.ndim == 2:
        own = weights[source[..., None, :], neuron[..., :, None]]
    else:
        rows = jnp.take_along_axis(weights, source[..., :, None], -2)  # [*batch, arrival, neuron]
        own = jnp.swapaxes(jnp.take_along_axis(rows, neuron[..., None, :], -1), -1, -2)
    return jnp.sum(jnp.where(heard, own * jnp.exp(-since * rate[..., None]), 0), -1)
