"""Random networks for the tests: of the oracle, and as arguments of jaxsnn."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from jaxsnn import LIFParameters, LIFState, Spikes
from jaxsnn.ops import event_loop
from oracle.network import INPUT, Network, Population, Projection
from oracle.simulate import Arrival, Spike, SpikeLimitError, Trajectory, simulate

# What all graphs drawn by `graphs` have, so that nothing is compiled twice.
N_INPUTS, N_NEURONS, N_SPIKES, CAPACITY = 3, 7, 8, 96
SIZES = [(7,), (3, 4), (2, 1, 4), (2, 2, 2, 1)]
GRAPH_RATIOS = [0.2, 0.5, 1 - 1e-7, 1.0, 1 + 1e-12, 1.001, 2.0, 5.0]

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


class Graph(NamedTuple):
    """The arguments of ``event_loop`` for all populations of a network at once."""

    params: LIFParameters
    weights: jnp.ndarray
    state: LIFState
    inputs: Spikes
    t_max: float
    delays: jnp.ndarray
    recurrent: jnp.ndarray
    recurrent_delays: jnp.ndarray

    @property
    def options(self) -> dict:
        """What ``event_loop`` takes by name, besides ``t_max``."""
        return {
            "delays": self.delays,
            "recurrent": self.recurrent,
            "recurrent_delays": self.recurrent_delays,
        }


def random_graph(
    rng: np.random.Generator,
    populations: list[Population],
    *,
    n_in: int = 3,
    n_spikes: int = 8,
    t_max: float = 3.0,
    density: float = 0.6,
    delay: float = 0.4,
    instant: float = 0.2,
) -> Network:
    """Projections between any two populations, cycles and self connections included.

    Args:
        rng: source of the numbers.
        populations: the populations.
        n_in: number of inputs.
        n_spikes: number of input spikes.
        t_max: the horizon.
        density: the probability of each projection.
        delay: the longest delay. They are one for a projection, one per source, or one per synapse,
            where some synapses are missing (``inf``).
        instant: the probability that a projection has no delay.
    """
    projections = []
    for number, population in enumerate(populations):
        scale = np.mean(population.tau_mem) / np.mean(
            np.minimum(population.tau_mem, population.tau_syn)
        )
        for src in (INPUT, *range(len(populations))):
            if rng.random() > density and (src, number) != (INPUT, 0):
                continue
            n_src = n_in if src == INPUT else populations[src].size
            # excitation from outside, both signs within
            mean, deviation = (1.2, 1.0) if src == INPUT else (0.1, 0.8)
            weight = scale * rng.normal(mean, deviation, (n_src, population.size))
            shapes = [(), (n_src,), weight.shape]
            delays = rng.uniform(0.01, delay, shapes[rng.integers(3)])
            if delays.ndim == 2:
                delays = np.where(rng.random(weight.shape) < 0.1, np.inf, delays)
            if rng.random() < instant:
                delays = np.zeros(())
            projections.append(Projection(src, number, weight, delays))
    return Network(
        populations,
        projections,
        t_max=t_max,
        n_in=n_in,
        input_time=np.sort(rng.uniform(0.05, 0.7 * t_max, n_spikes)),
        input_idx=rng.integers(0, n_in, n_spikes),
    )


def with_full_delays(network: Network) -> Network:
    """The same network with a delay for every synapse."""
    return replace(
        network,
        projections=[replace(p, delay=p.per_synapse(p.delay).copy()) for p in network.projections],
    )


def in_blocks(
    network: Network, matrices: list[np.ndarray], fill: float
) -> tuple[np.ndarray, np.ndarray]:
    """A matrix for each projection as one from all inputs and one from all neurons to all neurons.

    ``fill`` stands where there is no projection.
    """
    n_neurons = sum(network.sizes)
    from_inputs = np.full((network.n_in, n_neurons), fill)
    from_neurons = np.full((n_neurons, n_neurons), fill)
    for projection, matrix in zip(network.projections, matrices, strict=True):
        start = network.offsets[projection.dst]
        columns = slice(start, start + network.sizes[projection.dst])
        if projection.src == INPUT:
            from_inputs[:, columns] = matrix
        else:
            start = network.offsets[projection.src]
            from_neurons[start : start + network.sizes[projection.src], columns] = matrix
    return from_inputs, from_neurons


def joined(populations: list[Population]) -> Population:
    """All populations as one."""
    return Population(
        sum(p.size for p in populations),
        **{
            name: np.concatenate([np.broadcast_to(getattr(p, name), p.size) for p in populations])
            for name in (*PARAMETERS, "v0", "i0")
        },
    )


def graph_of(network: Network, dtype=np.float64) -> Graph:
    """A network as the arguments of one ``event_loop``. At most one projection between any two."""
    population = joined(network.populations)
    delays = in_blocks(network, [p.per_synapse(p.delay) for p in network.projections], np.inf)
    weights = in_blocks(network, [p.weight for p in network.projections], 0.0)
    return Graph(
        params_of(population, dtype),
        jnp.asarray(weights[0], dtype),
        state_of(population, dtype),
        inputs_of(network, dtype),
        network.t_max,
        jnp.asarray(delays[0], dtype),
        jnp.asarray(weights[1], dtype),
        jnp.asarray(delays[1], dtype),
    )


def spike_slopes(network: Network, trajectory: Trajectory) -> np.ndarray:
    """V' of each spiking neuron just before its spike.

    Small ones mean that rounding errors and differences grow by as much: a badly conditioned draw.
    """
    tau_mem, tau_syn, v_th, v_leak, current = (
        network.per_neuron(name).copy() for name in ("tau_mem", "tau_syn", "v_th", "v_leak", "i0")
    )
    now, slopes = 0.0, []
    for event in trajectory.events:
        current *= np.exp(-(event.time - now) / tau_syn)
        now = event.time
        if isinstance(event, Arrival):
            projection = network.projections[event.projection]
            targets = np.array(event.targets)
            columns = targets - network.offsets[projection.dst]
            current[targets] += projection.weight[event.source, columns]
        elif isinstance(event, Spike):
            j = event.neuron
            slopes.append((current[j] - (v_th[j] - v_leak[j])) / tau_mem[j])
    return np.array(slopes)


def well_conditioned(network: Network, gap: float = 1e-6) -> Trajectory | None:
    """The trajectory, or None for a burst, a spike that grazes its threshold, or a near tie.

    A near tie is two events less than ``gap`` apart that are not simultaneous by construction.
    """
    try:
        trajectory = simulate(network, max_spikes=2000)
    except SpikeLimitError:
        return None
    if len(trajectory.time) == 0:
        return trajectory
    if spike_slopes(network, trajectory).min() < 0.05:
        return None
    times = np.unique([event.time for event in trajectory.events])
    if np.diff(times).min(initial=np.inf) < gap:
        return None
    return trajectory


def draws(max_examples):
    """Fixed draws: a test that fails does so every time."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def graphs(draw, **fixed):
    """One to four populations with any connections, of the same number of neurons in all."""
    sizes = draw(st.sampled_from(SIZES))
    options = [
        {
            "ratio": draw(st.sampled_from(GRAPH_RATIOS)),
            "refractory": draw(st.booleans()),
            "tonic": draw(st.integers(0, 3)) == 0,
        }
        for _ in sizes
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    populations = [
        random_population(rng, n, **(own | fixed)) for n, own in zip(sizes, options, strict=True)
    ]
    instant = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return random_graph(rng, populations, n_in=N_INPUTS, n_spikes=N_SPIKES, instant=instant)


def solve(graph, **options):
    """Runs a graph; options of ``event_loop`` go before its own."""
    return event_loop(
        graph.params,
        graph.weights,
        graph.state,
        graph.inputs,
        t_max=graph.t_max,
        **({"max_events": CAPACITY} | graph.options | options),
    )


def coefficients(seed, n_neurons=N_NEURONS):
    """A random linear loss: of spike times in order, final voltages, final currents."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=CAPACITY), rng.normal(size=n_neurons), rng.normal(size=n_neurons)


def linear_loss(result, loss):
    """A loss of these coefficients, where the result has any number of spikes."""
    by_time, by_v, by_i = loss
    times = result.spikes.time
    spikes = jnp.where(jnp.isfinite(times), times, 0) @ by_time[: times.shape[-1]]
    return spikes + by_v @ result.state.v + by_i @ result.state.i


@jax.jit
def value_and_gradient(graph, loss):
    """By everything that has a gradient: a graph and nothing for its parameters."""

    def value(moving):
        return linear_loss(solve(moving._replace(params=graph.params)), loss)

    moving = graph._replace(params=None, t_max=jnp.asarray(graph.t_max))
    return jax.value_and_grad(value, allow_int=True)(moving)


def assert_within(found, expected, rtol, name=""):
    """Relative to the largest entry: all of them come out of the same sums."""
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale, err_msg=name)


def same_bits(found, expected):
    """Asserts that two trees are the same to the last bit."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        if one.dtype != jax.dtypes.float0:
            np.testing.assert_array_equal(one, other)
