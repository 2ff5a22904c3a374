"""The networks that are timed, and the same layer written in JAX alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import LIFParameters, Spikes
from jaxsnn.dataset import yinyang
from jaxsnn.event.compose import serial
from jaxsnn.event.encode import latency_encode, target_times
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.loss import first_spike_times, mse_loss
from jaxsnn.event.population import Layer
from jaxsnn.event.topology import Graph, Source

TAU = 6e-6  # synaptic time constant of the hardware-like recipe, seconds
T_MAX = 4 * TAU
DUPLICATION = 5
# A reset far below threshold lets every neuron fire once, as in the network compared with.
PARAMS = LIFParameters(tau_mem=2 * TAU, tau_syn=TAU, v_reset=-1000.0)


class Step(NamedTuple):
    """A training step: ``loss(weights, spikes, targets)`` and its arguments."""

    loss: Callable
    arguments: tuple


def pure_jax_lif(n_neurons: int, *, n_spikes: int, mean: float, std: float, **_) -> Layer:
    """``EventPropLIF`` for tau_mem = 2 tau_syn as a ``lax.scan`` over events, in JAX alone.

    One event per step for all neurons of one sample, batched by ``vmap``, differentiated by JAX.
    """
    tau_mem = PARAMS.tau_mem

    def crossing(v, i):
        rise = i - v
        discriminant = rise**2 - 4 * i * (1 - v)
        possible = (i > 1) & (discriminant > 0)
        safe_i = jnp.where(possible, i, 2.0)
        safe_rise = jnp.where(possible, rise, 2.0)
        root = jnp.sqrt(jnp.where(possible, discriminant, 1.0))
        passed = jnp.where(possible, 2 * (1 - v) / (safe_rise + root), 0.5)
        possible &= (passed < 1) & (safe_i > 0)
        return jnp.where(possible, -tau_mem * jnp.log1p(-jnp.where(possible, passed, 0.5)), jnp.inf)

    def sample(weights, spikes):
        def step(carry, _):
            v, i, t, head = carry
            delay = crossing(v, i)
            neuron = jnp.argmin(delay)
            in_queue = head < spikes.time.shape[0]
            at = jnp.minimum(head, spikes.time.shape[0] - 1)
            arrival = jnp.where(in_queue, spikes.time[at], jnp.inf)
            fires = t + delay[neuron] < jnp.minimum(arrival, T_MAX)
            arrives = ~fires & (arrival < T_MAX)
            now = jnp.where(fires, t + delay[neuron], jnp.where(arrives, arrival, T_MAX))
            u = jnp.exp(-(now - t) / tau_mem)
            v = (v + i) * u - i * u**2
            i = i * u**2
            v = jnp.where(fires & (jnp.arange(n_neurons) == neuron), PARAMS.v_reset, v)
            i = i + jnp.where(arrives, weights[spikes.index[at]], 0.0)
            time = jnp.where(fires, now, jnp.inf)
            return (v, i, now, head + arrives), (time, jnp.where(fires, neuron, -1))

        zero = jnp.zeros(n_neurons, weights.dtype)
        start = (zero, zero, jnp.zeros((), weights.dtype), jnp.int32(0))
        n_steps = spikes.time.shape[0] + n_spikes
        _, (time, index) = jax.lax.scan(step, start, None, length=n_steps)
        order = jnp.argsort(time)[:n_spikes]
        return Spikes(time[order], index[order].astype(jnp.int32))

    def init(key, n_inputs):
        return n_neurons, mean + std * jax.random.normal(key, (n_inputs, n_neurons))

    return Layer(init, jax.vmap(sample, in_axes=(None, 0)))


def yinyang_step(hidden: int, batch: int, layer: Callable[..., Layer] = EventPropLIF) -> Step:
    """The Yin-Yang training step: 5 inputs with 5 spikes each, one hidden layer, 3 outputs."""
    common = {"t_max": T_MAX, "params": PARAMS}
    init, apply = serial(
        layer(hidden, n_spikes=hidden, mean=3 / DUPLICATION, std=1.6 / DUPLICATION, **common),
        layer(3, n_spikes=3, mean=50 / hidden, std=80 / hidden, **common),
    )
    _, weights = init(jax.random.key(1), 5)
    data = yinyang(42, batch)
    spikes = latency_encode(
        data.samples.astype(np.float32), t_late=2 * TAU, bias_time=0.0, duplication=DUPLICATION
    )
    targets = target_times(data.labels, 3, t_correct=0.8 * TAU, t_wrong=1.2 * TAU)

    def loss(weights, spikes, targets):
        times = first_spike_times(apply(weights, spikes)[-1], 3)
        return mse_loss(times, targets, tau=PARAMS.tau_mem, t_max=T_MAX).mean()

    return Step(loss, (weights, spikes, targets.astype(jnp.float32)))


def recurrent_yinyang_step(hidden: int, batch: int) -> Step:
    """The step of upstream's recurrent example: hidden neurons that hear each other, no delay."""
    tau = 5e-3
    common = {
        "t_max": 4 * tau,
        "params": LIFParameters(tau_mem=2 * tau, tau_syn=tau, v_reset=-1000.0),
    }
    graph = Graph()
    graph.add("input", Source(5))
    graph.add("hidden", EventPropLIF(hidden, n_spikes=hidden, mean=3.0, std=1.6, **common))
    graph.add("output", EventPropLIF(3, n_spikes=3, mean=0.5, std=0.8, **common))
    graph.connect("input", "hidden")
    graph.connect("hidden", "output")
    graph.connect("hidden", "hidden", init=lambda key, n, m: 0.1 * jax.random.normal(key, (n, m)))
    init, apply, _ = graph.build()
    _, parameters = init(jax.random.key(1))
    data = yinyang(42, batch)
    spikes = latency_encode(data.samples.astype(np.float32), t_late=2 * tau, bias_time=0.0)
    targets = target_times(data.labels, 3, t_correct=0.9 * tau, t_wrong=1.1 * tau)

    def loss(parameters, spikes, targets):
        times = first_spike_times(apply(parameters, spikes)["output"], 3)
        return mse_loss(times, targets, tau=2 * tau, t_max=4 * tau).mean()

    return Step(loss, (parameters, spikes, targets.astype(jnp.float32)))
