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
from jaxsnn.event.leaky_integrate import LeakyIntegrator
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
    """A training step: ``loss(*arguments)``, and the rows of weights that arrive in it.

    ``projections`` has pairs of weights and row numbers ``[batch, n_spikes]``, -1 for none.
    """

    loss: Callable
    arguments: tuple
    projections: tuple = ()


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

    return Layer(init, jax.vmap(sample, in_axes=(None, 0)), n_neurons)


def per_neuron(params: LIFParameters, n_neurons: int) -> LIFParameters:
    """Every neuron with a value of its own for each parameter, up to 10 % off."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda x: jnp.asarray(x * rng.uniform(0.9, 1.1, n_neurons), jnp.float32), params
    )


def yinyang_step(
    hidden: int,
    batch: int,
    layer: Callable[..., Layer] = EventPropLIF,
    *,
    duplication: int = DUPLICATION,
    params: LIFParameters = PARAMS,
    heterogeneous: bool = False,
) -> Step:
    """The Yin-Yang training step: 5 inputs, one hidden layer, 3 outputs."""

    def population(size: int) -> LIFParameters:
        return per_neuron(params, size) if heterogeneous else params

    sizes = {"hidden": hidden, "output": 3}
    common = {
        name: {"t_max": T_MAX, "params": population(size), "n_spikes": size}
        for name, size in sizes.items()
    }
    init, apply = serial(
        layer(hidden, mean=3 / duplication, std=1.6 / duplication, **common["hidden"]),
        layer(3, mean=50 / hidden, std=80 / hidden, **common["output"]),
    )
    _, weights = init(jax.random.key(1), 5)
    data = yinyang(42, batch)
    spikes = latency_encode(
        data.samples.astype(np.float32), t_late=2 * TAU, bias_time=0.0, duplication=duplication
    )
    targets = target_times(data.labels, 3, t_correct=0.8 * TAU, t_wrong=1.2 * TAU)

    def loss(weights, spikes, targets):
        times = first_spike_times(apply(weights, spikes)[-1], 3)
        return mse_loss(times, targets, tau=PARAMS.tau_mem, t_max=T_MAX).mean()

    fired = apply(weights, spikes)[0].index
    projections = (weights[0], spikes.index), (weights[1], fired)
    return Step(loss, (weights, spikes, targets.astype(jnp.float32)), projections)


def poisson_inputs(n_inputs: int, n_spikes: int, batch: int, t_max: float) -> Spikes:
    """Input spikes at random times on random channels."""
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, t_max, (batch, n_spikes)).astype(np.float32))
    index = rng.integers(0, n_inputs, (batch, n_spikes)).astype(np.int32)
    return Spikes(jnp.asarray(time), jnp.asarray(index))


def _weighted_times(spikes: Spikes) -> jax.Array:
    """A loss to which every spike matters."""
    phase = jnp.sin(jnp.arange(spikes.time.shape[-1], dtype=spikes.time.dtype))
    return jnp.mean(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0) @ phase)


WIDE_PARAMS = LIFParameters(tau_mem=20e-3, tau_syn=10e-3)


def wide_step(
    batch: int,
    n_neurons: int = 1000,
    n_spikes: int = 8000,
    *,
    params: LIFParameters = WIDE_PARAMS,
    heterogeneous: bool = False,
    room: int = 12,
) -> Step:
    """A wide layer: 700 inputs at random times over a second, neurons that fire about 5 times."""
    rng = np.random.default_rng(1)
    # Currents of 0.8 +- 0.25 on average, whatever the time constant.
    mean, std = 0.8 / (n_spikes * params.tau_syn), 0.36 / np.sqrt(n_spikes * params.tau_syn)
    weights = jnp.asarray(rng.normal(mean, std, (700, n_neurons)), jnp.float32)
    layer = EventPropLIF(
        n_neurons,
        n_spikes=room * n_neurons,
        t_max=1.0,
        params=per_neuron(params, n_neurons) if heterogeneous else params,
    )
    spikes = poisson_inputs(700, n_spikes, batch, 1.0)

    def loss(weights, spikes):
        return _weighted_times(layer.apply(weights, spikes))

    return Step(loss, (weights, spikes), ((weights, spikes.index),))


def recurrent_step(batch: int) -> Step:
    """700 inputs, 256 neurons that hear each other after a millisecond, and 20 that integrate."""
    params, t_max = LIFParameters(tau_mem=20e-3, tau_syn=5e-3), 1.0

    def normal(mean: float, std: float) -> Callable:
        return lambda key, n, m: mean + std * jax.random.normal(key, (n, m))

    graph = Graph()
    graph.add("input", Source(700))
    graph.add("hidden", EventPropLIF(256, n_spikes=4000, t_max=t_max, params=params))
    graph.add("output", LeakyIntegrator(20, t_max=t_max, tau_mem=20e-3, integral=True))
    graph.connect("input", "hidden", init=normal(0.0255, 0.1))
    graph.connect("hidden", "hidden", delay=1e-3, init=normal(0.0, 0.1))
    graph.connect("hidden", "output", init=normal(0.0, 0.1))
    init, apply, record = graph.build()
    _, weights = init(jax.random.key(1))
    spikes = poisson_inputs(700, 5000, batch, t_max)

    def loss(weights, spikes):
        return jnp.mean(jnp.sum(apply(weights, spikes)["output"].integral ** 2, -1))

    fired = record(weights, spikes)["hidden"].output.index
    projections = (
        (weights["input->hidden"]["weights"], spikes.index),
        (weights["hidden->hidden"]["weights"], fired),
        (weights["hidden->output"]["weights"], fired),
    )
    return Step(loss, (weights, spikes), projections)


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
    init, apply, record = graph.build()
    _, parameters = init(jax.random.key(1))
    data = yinyang(42, batch)
    spikes = latency_encode(data.samples.astype(np.float32), t_late=2 * tau, bias_time=0.0)
    targets = target_times(data.labels, 3, t_correct=0.9 * tau, t_wrong=1.1 * tau)

    def loss(parameters, spikes, targets):
        times = first_spike_times(apply(parameters, spikes)["output"], 3)
        return mse_loss(times, targets, tau=2 * tau, t_max=4 * tau).mean()

    fired = record(parameters, spikes)["hidden"].output.index
    projections = (
        (parameters["input->hidden"]["weights"], spikes.index),
        (parameters["hidden->hidden"]["weights"], fired),
        (parameters["hidden->output"]["weights"], fired),
    )
    return Step(loss, (parameters, spikes, targets.astype(jnp.float32)), projections)
