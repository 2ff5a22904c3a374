"""Random layers for the tests: as networks of the oracle, and as arguments of jaxsnn."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn import LIFParameters, LIFState, Spikes
from oracle.network import Network, Population, Projection
from oracle.simulate import Trajectory, simulate

PARAMETERS = ("tau_mem", "tau_syn", "v_th", "v_leak", "v_reset", "t_ref")


class Layer(NamedTuple):
    """The arguments of ``event_loop`` for one layer, and the horizon."""

    params: LIFParameters
    weights: jnp.ndarray
    state: LIFState
    inputs: Spikes
    t_max: float


def random_population(
    rng: np.random.Generator,
    size: int,
    *,
    ratio: float = 0.5,
    refractory: bool = False,
    tonic: bool = False,
    per_neuron: bool = True,
    started: bool = True,
) -> Population:
    """Neurons with tau_mem near 1 and nothing else at its default.

    Args:
        rng: source of the numbers.
        size: number of neurons.
        ratio: tau_syn over tau_mem, the same for all neurons.
        refractory: with refractory periods.
        tonic: every other neuron has its leak above the threshold.
        per_neuron: different numbers for each neuron.
        started: with initial currents and voltages away from the leak.
    """
    n = size if per_neuron else ()
    tau_mem = rng.uniform(0.8, 1.6, n)
    v_leak = rng.uniform(-0.2, 0.3, n)
    if tonic:
        v_leak = np.where(np.arange(size) % 2 == 0, rng.uniform(1.3, 1.6, n), v_leak)
    return Population(
        size,
        tau_mem=tau_mem,
        tau_syn=tau_mem * ratio,
        v_th=rng.uniform(0.9, 1.2, n),
        v_leak=v_leak,
        v_reset=rng.uniform(-0.5, 0.4, n),
        t_ref=rng.uniform(0.05, 0.4, n) * refractory,
        v0=rng.uniform(-0.3, 0.8, size) if started else v_leak,
        i0=rng.uniform(-0.5, 2.0, size) if started else 0.0,
    )


def random_network(
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    *,
    n_in: int = 4,
    n_spikes: int = 10,
    t_max: float = 4.0,
    mean: float = 1.0,
    **population,
) -> Network:
    """Layers in a row, no delays."""
    populations = [random_population(rng, size, **population) for size in sizes]
    sources = (n_in, *sizes[:-1])
    projections = []
    for number, (n_src, pop) in enumerate(zip(sources, populations, strict=True)):
        # a spike lifts v by weight / tau_mem times something near min(tau_syn, tau_mem)
        scale = np.mean(pop.tau_mem) / np.mean(np.minimum(pop.tau_syn, pop.tau_mem))
        weight = scale * rng.normal(mean, 1.0, (n_src, pop.size))
        projections.append(Projection("input" if number == 0 else number - 1, number, weight))
    return Network(
        populations,
        projections,
        t_max=t_max,
        n_in=n_in,
        input_time=np.sort(rng.uniform(0.05, 0.8 * t_max, n_spikes)),
        input_idx=rng.integers(0, n_in, n_spikes),
    )


def params_of(population: Population, dtype=np.float64) -> LIFParameters:
    """The parameters of a population for jaxsnn."""
    return LIFParameters(
        **{name: jnp.asarray(getattr(population, name), dtype) for name in PARAMETERS}
    )


def state_of(population: Population, dtype=np.float64) -> LIFState:
    """The state at time 0."""
    v, i = (
        jnp.asarray(np.broadcast_to(x, population.size), dtype)
        for x in (population.v0, population.i0)
    )
    return LIFState(v, i, jnp.full(population.size, -jnp.inf, dtype), jnp.zeros((), dtype))


def inputs_of(network: Network, dtype=np.float64) -> Spikes:
    """The input spikes."""
    return Spikes(jnp.asarray(network.input_time, dtype), jnp.asarray(network.input_idx, jnp.int32))


def layer_of(network: Network, dtype=np.float64) -> Layer:
    """A network of one population as the arguments of ``event_loop``."""
    (population,), (projection,) = network.populations, network.projections
    return Layer(
        params_of(population, dtype),
        jnp.asarray(projection.weight, dtype),
        state_of(population, dtype),
        inputs_of(network, dtype),
        network.t_max,
    )


def spike_slopes(network: Network, trajectory: Trajectory) -> np.ndarray:
    """V' of each spiking neuron just before its spike, for networks without delays.

    Small ones mean that rounding errors and differences grow by as much: a badly conditioned draw.
    """
    slopes = []
    sources = [(network.input_time, network.input_idx)] + [
        (trajectory.time[trajectory.population == p], trajectory.index[trajectory.population == p])
        for p in range(len(network.populations) - 1)
    ]
    per_neuron = {name: network.per_neuron(name) for name in (*PARAMETERS, "i0")}
    for time, population, index in zip(
        trajectory.time, trajectory.population, trajectory.index, strict=True
    ):
        neuron = network.offsets[population] + index
        tau_syn = per_neuron["tau_syn"][neuron]
        at, source = sources[population]
        before = at <= time
        weight = network.projections[population].weight[source[before], index]
        current = per_neuron["i0"][neuron] * np.exp(-time / tau_syn)
        current += weight @ np.exp(-(time - at[before]) / tau_syn)
        drive = per_neuron["v_th"][neuron] - per_neuron["v_leak"][neuron]
        slopes.append((current - drive) / per_neuron["tau_mem"][neuron])
    return np.array(slopes)


def well_conditioned(network: Network) -> Trajectory | None:
    """The trajectory, or None where a spike grazes its threshold or two nearly coincide."""
    trajectory = simulate(network, max_spikes=2000)
    if len(trajectory.time) == 0:
        return trajectory
    if spike_slopes(network, trajectory).min() < 0.05:
        return None
    times = np.sort(np.concatenate([trajectory.time, network.input_time]))
    if np.diff(times).min(initial=np.inf) < 1e-6:
        return None
    return trajectory
