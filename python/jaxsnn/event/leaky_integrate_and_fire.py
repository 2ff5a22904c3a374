"""Layers of leaky integrate-and-fire neurons in continuous time, in init/apply style.

``EventPropLIF`` takes a whole trajectory in one call with the EventProp adjoint; ``LIF`` is the
same layer as a scan of single events, differentiated analytically at each crossing. Both give the
same spikes and the same gradients, by two routes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.base.types import (
    Array,
    Float,
    LIFParameters,
    LIFState,
    SpikeQueue,
    Spikes,
    initial_state,
)
from jaxsnn.ops import FAILURES, EventKind, Status, event_loop, event_step
from jaxsnn.ops._checks import check_count, check_parameters, check_t_max
from jaxsnn.ops._ffi import vary_alike

Weights = Float[Array, "*batch n_inputs n_neurons"]


class Layer(NamedTuple):
    """A layer as a pair of pure functions.

    Attributes:
        init: ``init(key, n_inputs) -> (n_outputs, weights)``.
        apply: ``apply(weights, spikes) -> spikes``.
    """

    init: Callable
    apply: Callable


def _layer(n_neurons: int, mean: float, std: float, name: str, apply: Callable) -> Layer:
    def init(key: Array, n_inputs: int) -> tuple[int, Weights]:
        """Draws weights ``[n_inputs, n_neurons]`` from a normal distribution."""
        check_count(name, "n_inputs", n_inputs)
        return n_neurons, mean + std * jax.random.normal(key, (n_inputs, n_neurons))

    return Layer(init, apply)


def _check_layer(name: str, n_neurons, n_spikes, t_max, params: LIFParameters) -> None:
    check_count(name, "n_neurons", n_neurons)
    check_count(name, "n_spikes", n_spikes)
    check_t_max(name, t_max)
    check_parameters(name, params)


def _raise_on(truncate: bool) -> frozenset[Status]:
    return FAILURES if truncate else FAILURES | {Status.EVENT_CAPACITY}


def EventPropLIF(
    n_neurons: int,
    *,
    n_spikes: int,
    t_max: float,
    params: LIFParameters | None = None,
    mean: float = 1.0,
    std: float = 1.0,
    truncate: bool = False,
    name: str = "EventPropLIF",
) -> Layer:
    """A feed-forward layer whose gradient is computed by EventProp.

    Args:
        n_neurons: size of the layer.
        n_spikes: room for spikes of the whole layer, per sample.
        t_max: how long to simulate, same unit as the time constants. Later input is ignored.
        params: neuron parameters, scalar or per neuron.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        truncate: keep the ``n_spikes`` earliest spikes where there are more, instead of raising.
        name: how errors name the layer.

    Returns:
        The layer. ``apply(weights, spikes)`` takes and returns :class:`Spikes` with any leading
        batch axes.

    Raises:
        ValueError, TypeError: for arguments out of range.
        jax.errors.JaxRuntimeError: from ``apply``, for bad input and for more than ``n_spikes``
            spikes; names the layer, the sample and the count.
    """
    params = LIFParameters() if params is None else params
    _check_layer(name, n_neurons, n_spikes, t_max, params)

    def apply(weights: Weights, spikes: Spikes) -> Spikes:
        return event_loop(
            params,
            weights,
            initial_state(params, n_neurons, weights.dtype),
            spikes,
            t_max=t_max,
            max_events=n_spikes,
            raise_on=_raise_on(truncate),
            label=name,
        ).spikes

    return _layer(n_neurons, mean, std, name, apply)


def LIF(
    n_neurons: int,
    *,
    n_spikes: int,
    t_max: float,
    params: LIFParameters | None = None,
    mean: float = 1.0,
    std: float = 1.0,
    truncate: bool = False,
    name: str = "LIF",
) -> Layer:
    """A feed-forward layer differentiated analytically, event by event.

    A scan of :func:`jaxsnn.ops.event_step`: find the next crossing, integrate to it, apply the
    discontinuity. The same function as :func:`EventPropLIF`, slower, and with a state per event
    kept for the gradient. Arguments and errors as there.
    """
    params = LIFParameters() if params is None else params
    _check_layer(name, n_neurons, n_spikes, t_max, params)

    def apply(weights: Weights, spikes: Spikes) -> Spikes:
        start = initial_state(params, n_neurons, weights.dtype)
        # One cheap pass without gradient says how many spikes there are, or that they do not fit.
        count = event_loop(
            params,
            jax.lax.stop_gradient(weights),
            start,
            jax.lax.stop_gradient(spikes),
            t_max=t_max,
            max_events=n_spikes,
            raise_on=_raise_on(truncate),
            label=name,
        ).count
        n_steps = spikes.time.shape[-1] + n_spikes
        batch = jnp.broadcast_shapes(weights.shape[:-2], spikes.time.shape[:-1], count.shape)
        carry = [
            *(
                jnp.broadcast_to(x, batch + x.shape[x.ndim - rank :])
                for x, rank in zip(start, (1, 1, 1, 0), strict=True)
            ),
            jnp.zeros(batch, jnp.int32),
        ]
        # A carry has one type throughout, also in what it varies over inside shard_map.
        *state, head = vary_alike([*carry, weights, *spikes])[: len(carry)]
        carry = LIFState(*state), head

        def step(carry, _):
            state, head = carry
            queue = SpikeQueue(spikes.time, spikes.index, head)
            result = event_step(params, weights, state, queue, t_max=t_max, label=name)
            return (result.state, result.queue.head), result.event

        _, events = jax.lax.scan(step, carry, None, length=n_steps)
        return _own_spikes(events, count, n_spikes)

    return _layer(n_neurons, mean, std, name, apply)


def _own_spikes(events, count: Array, n_spikes: int) -> Spikes:
    """The first ``n_spikes`` own spikes among events whose time axis comes first."""
    time, index, kind = (jnp.moveaxis(x, 0, -1) for x in events)
    order = jnp.argsort(kind != EventKind.SPIKE, axis=-1, stable=True)[..., :n_spikes]
    own = jnp.take_along_axis(kind, order, axis=-1) == EventKind.SPIKE
    own &= jnp.arange(n_spikes) < count[..., None]
    return Spikes(
        jnp.where(own, jnp.take_along_axis(time, order, axis=-1), jnp.inf),
        jnp.where(own, jnp.take_along_axis(index, order, axis=-1), -1),
    )
