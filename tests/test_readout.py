"""What is read from voltages: probes, maxima and the leaky integrator.

Values against the oracle's voltage: its state is exact to 1e-15 times what moves a spike, below 100
in the draws that are kept, so 1e-9 leaves room. Gradients against differences with four points:
STEP**4 times a fifth derivative plus 1e-15 / STEP of rounding, 1e-7 of the largest entry.
"""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from jaxsnn import LIFParameters, LIFState, Spikes
from jaxsnn.event import Delay, EventPropLIF, Graph, LeakyIntegrator, Source
from jaxsnn.ops import FAILURES, Status, event_loop
from networks import (
    CAPACITY,
    N_INPUTS,
    N_NEURONS,
    N_SPIKES,
    assert_within,
    draws,
    graph_of,
    params_of,
    random_graph,
    random_network,
    random_population,
    same_bits,
    solve,
    well_conditioned,
)
from oracle.gradient import forward_sensitivity
from oracle.network import INPUT, NEURON_PARAMETERS, Network, Population, Projection
from oracle.simulate import Arrival, Release, flow, simulate

pytestmark = pytest.mark.usefixtures("x64")

STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
STEP = 1e-5


class Walk:
    """The oracle's state on the way through a trajectory."""

    def __init__(self, network):
        self.network = network
        self.parameters = {name: network.per_neuron(name) for name in NEURON_PARAMETERS}
        self.v, self.i = self.parameters["v0"].copy(), self.parameters["i0"].copy()
        self.refractory = np.zeros(len(self.v), bool)
        self.now = 0.0

    def at(self, time):
        """Voltages and currents at a time before the next event."""
        return flow(self.parameters, self.v, self.i, self.refractory, time - self.now)

    def apply(self, event):
        self.v, self.i = self.at(event.time)
        self.now = event.time
        if isinstance(event, Arrival):
            projection = self.network.projections[event.projection]
            targets = np.array(event.targets)
            columns = targets - self.network.offsets[projection.dst]
            self.i[targets] += projection.weight[event.source, columns]
        elif isinstance(event, Release):
            self.refractory[event.neuron] = False
        else:
            self.v[event.neuron] = self.parameters["v_reset"][event.neuron]
            self.refractory[event.neuron] = self.parameters["t_ref"][event.neuron] > 0


def sampled(network, times):
    """``[n_times, n_neurons]`` voltages and currents of the oracle; arrivals of a time come first.

    Spikes at exactly one of the times are not expected.
    """
    walk, events = Walk(network), iter(simulate(network, max_spikes=2000).events)
    event = next(events, None)
    found = []
    for time in times:
        while event is not None and event.time <= time:
            walk.apply(event)
            event = next(events, None)
        found.append(walk.at(time))
    v, i = zip(*found, strict=True)
    return np.array(v), np.array(i)


def highest(network, n=2000):
    """The largest of many samples of each voltage, of both sides of every event among them."""
    walk = Walk(network)
    top = walk.v.copy()
    spacing = network.t_max / n
    for event in [*simulate(network, max_spikes=2000).events, None]:
        end = network.t_max if event is None else event.time
        for time in np.linspace(walk.now, end, 2 + int((end - walk.now) / spacing)):
            top = np.maximum(top, walk.at(time)[0])
        if event is not None:
            walk.apply(event)
    return top


def integrals(network, decay=None):
    """The integral of every voltage, by Gauss-Legendre between any two events."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    walk, total = Walk(network), 0.0
    for event in [*simulate(network, max_spikes=2000).events, None]:
        begin, end = walk.now, network.t_max if event is None else event.time
        for x, w in zip(nodes, weights, strict=True):
            time = begin + (end - begin) * (x + 1) / 2
            kernel = 1.0 if decay is None else np.exp(-time / decay)
            total = total + w * (end - begin) / 2 * kernel * walk.at(time)[0]
        if event is not None:
            walk.apply(event)
    return total


def check_by_differences(value, arguments, rtol=1e-7, share=0.9):
    """Compares the gradient of ``value(arguments) -> (loss, kind)`` in every entry.

    Entries that are zero or infinite stay what they are. Where the kind changes, or another step
    gives another number because a kink lies in between, there is no derivative; those are few.
    """
    vector, unravel = ravel_pytree(arguments)
    vector = np.asarray(vector)
    exact, kind = jax.jit(jax.grad(lambda x: value(unravel(x)), has_aux=True))(vector)
    entries = np.flatnonzero(np.isfinite(vector) & (vector != 0))
    steps = [*(s for s, _ in STENCIL), -4, 4]
    points = np.tile(vector, (len(entries), len(steps), 1))
    for row, entry in enumerate(entries):
        points[row, :, entry] += STEP * np.array(steps)
    along = jax.jit(jax.vmap(lambda x: value(unravel(x))))
    values, kinds = along(jnp.asarray(points.reshape(-1, vector.size)))
    values = np.asarray(values).reshape(points.shape[:2])
    kinds = np.asarray(kinds).reshape(*points.shape[:2], -1)
    c = np.array([c for _, c in STENCIL])
    numeric, coarse = values[:, :4] @ c / STEP, values[:, [4, 0, 3, 5]] @ c / (2 * STEP)
    same = np.all(kinds == np.ravel(kind), axis=(1, 2))
    same &= np.abs(coarse - numeric) < rtol * (1 + np.abs(numeric))
    assert same.mean() >= share
    error = np.abs(np.asarray(exact)[entries] - numeric) / (1 + np.abs(numeric))
    assert error[same].max() < rtol


@st.composite
def problems(draw):
    """A network, and arguments of event_loop for it: a layer, or with delays in a cycle."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layer = draw(st.booleans())
    population = random_population(
        rng,
        N_NEURONS,
        ratio=draw(st.sampled_from([0.3, 1.0, 1 + 1e-9, 2.0])),
        refractory=draw(st.booleans()),
    )
    # one neuron that never spikes
    population = replace(population, v_th=np.where(np.arange(N_NEURONS) == 2, 9e9, population.v_th))
    if layer:
        network = random_network(rng, (N_NEURONS,), n_in=N_INPUTS, n_spikes=N_SPIKES, t_max=3.0)
        network = replace(network, populations=[population])
    else:
        network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES, density=1.0)
    trajectory = well_conditioned(network, gap=1e-4)
    assume(trajectory is not None)
    assume(3 < len(trajectory.time) <= CAPACITY)
    slopes = forward_sensitivity(network, trajectory, ("weight", "input_time")).time
    assume(np.abs(slopes).max() < 100)
    graph = graph_of(network)._replace(params=params_of(population))
    if layer:
        graph = graph._replace(delays=None, recurrent=None, recurrent_delays=None)
    taken = [event.time for event in trajectory.events]
    times = np.sort(rng.uniform(0.01, 2.99, 5))
    assume(np.abs(np.subtract.outer(times, taken)).min() > 1e-3)
    return network, trajectory, graph, times


run = jax.jit(solve)
run_with_maxima = jax.jit(lambda graph: solve(graph, maximum=True))
look = jax.jit(lambda graph, times: solve(graph, probes=times, maximum=True))


class TestRandomNetworks:
    @draws(25)
    @given(problems())
    def test_probes(self, problem):
        network, trajectory, graph, times = problem
        times = np.array([0.0, *times, 3.0])
        result = look(graph, jnp.asarray(times))
        assert result.count == len(trajectory.time)
        v, i = sampled(network, times)
        np.testing.assert_allclose(result.probes.v, v, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.probes.i, i, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(result.probes.v[-1], result.state.v)
        np.testing.assert_array_equal(result.probes.i[-1], result.state.i)

    @draws(25)
    @given(problems())
    def test_maxima(self, problem):
        network, trajectory, graph, times = problem
        result = look(graph, jnp.asarray(times))
        found = np.asarray(result.maximum.v)
        top = highest(network)
        # samples 0.0015 apart miss V'' / 8 times its square, and V'' is below 100
        assert np.all(found > top - 1e-9)
        assert np.all(found < top + 3e-5)
        spiked = np.unique(trajectory.index)
        np.testing.assert_allclose(found[spiked], network.per_neuron("v_th")[spiked], atol=1e-14)
        # the place: the voltage there, a spike aside, and for a spike that of its first
        for j in range(N_NEURONS):
            at = float(result.maximum.time[j])
            if j in spiked:
                first = trajectory.time[trajectory.index == j][0]
                assert float(at) == pytest.approx(first, abs=1e-9)
            else:
                assert sampled(network, [at])[0][0, j] == pytest.approx(found[j], abs=1e-9)

    @draws(8)
    @given(problems())
    def test_looking_changes_nothing(self, problem):
        """Not even a digit by maxima; probes cut intervals, so the last digits may differ."""
        _, _, graph, times = problem
        # a layer is simulated in another way where it is not looked at
        graph = graph._replace(delays=jnp.zeros(())) if graph.delays is None else graph
        plain, seen = run(graph), run_with_maxima(graph)
        same_bits(seen._replace(maximum=None), plain)
        probed = look(graph, jnp.asarray(times))
        np.testing.assert_array_equal(probed.spikes.index, plain.spikes.index)
        finite = np.isfinite(plain.spikes.time)
        np.testing.assert_allclose(
            probed.spikes.time[finite], plain.spikes.time[finite], rtol=0, atol=1e-11
        )

    @draws(10)
    @given(problems(), st.integers(0, 1000))
    def test_gradients(self, problem, seed):
        """By weights, delays, state, input and probe times, the horizon and all parameters."""
        _, _, graph, times = problem
        rng = np.random.default_rng(seed)
        c = [jnp.asarray(rng.normal(size=(len(times), N_NEURONS))) for _ in range(2)]
        c_max = jnp.asarray(rng.normal(size=N_NEURONS))
        arguments = {
            "params": graph.params,
            "weights": graph.weights,
            "v": graph.state.v,
            "i": graph.state.i,
            "inputs": graph.inputs.time,
            "probes": jnp.asarray(times),
            "t_max": jnp.asarray(graph.t_max),
        }
        if graph.recurrent is not None:
            arguments |= graph.options

        def value(a):
            own = graph._replace(
                params=a["params"],
                weights=a["weights"],
                state=graph.state._replace(v=a["v"], i=a["i"]),
                inputs=Spikes(a["inputs"], graph.inputs.index),
                t_max=a["t_max"],
                delays=a.get("delays"),
                recurrent=a.get("recurrent"),
                recurrent_delays=a.get("recurrent_delays"),
            )
            result = solve(own, probes=a["probes"], maximum=True)
            loss = jnp.vdot(c[0], result.probes.v) + jnp.vdot(c[1], result.probes.i)
            return loss + c_max @ result.maximum.v, result.spikes.index

        check_by_differences(value, arguments, share=0.8)

    def test_transformations(self):
        """Batches, vmap and jit: the same numbers, and gradients but for the order of sums."""
        rng = np.random.default_rng(3)
        population = random_population(rng, N_NEURONS, refractory=True)
        network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES, density=1.0)
        graph = graph_of(network)
        probes = jnp.asarray([[0.4, 1.0], [0.7, 2.0], [0.0, 3.0]])
        factors = jnp.asarray([1.0, 1.01, 0.98])[:, None]

        def one(time, probe):
            own = graph._replace(inputs=Spikes(time, graph.inputs.index))
            result = solve(own, probes=probe, maximum=True)
            return result.probes, result.maximum

        times = factors * graph.inputs.time
        found = jax.jit(jax.vmap(one))(times, probes)
        expected = [one(times[k], probes[k]) for k in range(3)]
        same_bits(found, jax.tree.map(lambda *x: jnp.stack(x), *expected))

        def loss(time, probe):
            seen, maximum = one(time, probe)
            return jnp.sum(jnp.sin(seen.v)) + jnp.sum(seen.i) + jnp.sum(maximum.v**2)

        each = [jax.grad(loss, (0, 1))(times[k], probes[k]) for k in range(3)]
        each = jax.tree.map(lambda *x: jnp.stack(x), *each)
        inside = jax.vmap(jax.grad(loss, (0, 1)))(times, probes)
        outside = jax.grad(lambda *a: jnp.sum(jax.vmap(loss)(*a)), (0, 1))(times, probes)
        for name, grads in (("inside", inside), ("outside", outside)):
            for one_of, other in zip(grads, each, strict=True):
                assert_within(one_of, other, 1e-12, name)


PARAMS = LIFParameters(1.0, 0.4, 1.0, 0.125, -0.25, 0.5)  # exact in binary


def neuron(
    weights,
    times,
    *,
    params=PARAMS,
    v=0.125,
    i=0.0,
    release=-np.inf,
    t_max=3.0,
    n_spikes=8,
    **options,
):
    """One neuron with one input spike per weight."""
    n = len(weights)
    state = LIFState(
        jnp.reshape(jnp.asarray(v, float), 1),
        jnp.reshape(jnp.asarray(i, float), 1),
        jnp.asarray([release], float),
        jnp.zeros(()),
    )
    return event_loop(
        params,
        jnp.reshape(jnp.asarray(weights, float), (n, 1)),
        state,
        Spikes(jnp.asarray(times, float), jnp.arange(n, dtype=jnp.int32)),
        t_max=t_max,
        max_events=n_spikes,
        **options,
    )


class TestProbes:
    def test_at_an_arrival(self):
        """It shows what arrived; moved on, it follows the rate behind the arrival."""

        def value(probe):
            seen = neuron([1.0], [0.5], v=0.3, i=0.2, probes=probe.reshape(1)).probes
            return jnp.stack([seen.v[0, 0], seen.i[0, 0]])

        v, i = value(jnp.asarray(0.5))
        before = 0.2 * np.exp(-0.5 / 0.4)
        assert float(i) == pytest.approx(before + 1.0, abs=1e-14)
        v_rate, i_rate = jax.jacrev(value)(jnp.asarray(0.5))
        assert float(v_rate) == pytest.approx(float(i - (v - 0.125)), abs=1e-14)
        assert float(i_rate) == pytest.approx(float(-i / 0.4), abs=1e-13)

    def test_at_a_spike(self):
        """It shows the threshold, not yet the reset."""
        result = neuron([8.0], [0.5])
        assert result.count == 1
        time, current = result.spikes.time[0], result.current[0]

        def value(probe):
            return neuron([8.0], [0.5], probes=probe.reshape(1)).probes.v[0, 0]

        assert float(value(time)) == pytest.approx(1.0, abs=1e-15)
        assert float(jax.grad(value)(time)) == pytest.approx(float(current - 0.875), abs=1e-12)
        # a moment later there is the reset
        assert value(jnp.nextafter(time, np.inf)) == -0.25

    def test_inside_a_refractory_period(self):
        time = float(neuron([8.0], [0.5]).spikes.time[0])
        probe = time + 0.25

        def value(params, weight, probe):
            seen = neuron([weight], [0.5], params=params, probes=probe.reshape(1)).probes
            return seen.v[0, 0]

        arguments = PARAMS, jnp.asarray(8.0), jnp.asarray(probe)
        assert value(*arguments) == -0.25
        params, weight, by_probe = jax.grad(value, (0, 1, 2))(*arguments)
        assert params.v_reset == 1
        assert (weight, by_probe) == (0, 0)
        for name in ("tau_mem", "tau_syn", "v_th", "v_leak", "t_ref"):
            assert getattr(params, name) == 0, name

    def test_the_current_goes_on_in_a_refractory_period(self):
        time = float(neuron([8.0], [0.5]).spikes.time[0])

        def value(weight, probe):
            return neuron([weight], [0.5], probes=probe.reshape(1)).probes.i[0, 0]

        probe = jnp.asarray(time + 0.25)
        decay = np.exp(-(time + 0.25 - 0.5) / 0.4)
        by_weight, by_probe = jax.grad(value, (0, 1))(jnp.asarray(8.0), probe)
        assert value(8.0, probe) == pytest.approx(8 * decay, abs=1e-13)
        assert float(by_weight) == pytest.approx(decay, abs=1e-13)
        assert float(by_probe) == pytest.approx(-8 * decay / 0.4, abs=1e-12)

    def test_at_the_end(self):
        """The final state, and its gradients; the horizon is not moved by a probe."""

        def value(weight, probe, t_max):
            result = neuron([weight], [0.5], t_max=t_max, probes=probe.reshape(1))
            return result.probes.v[0, 0], result.state.v[0]

        arguments = jnp.asarray(0.6), jnp.asarray(3.0), jnp.asarray(3.0)
        seen, final = value(*arguments)
        assert seen == final
        by_probe = jax.grad(lambda *a: value(*a)[0], (0, 1, 2))(*arguments)
        by_state = jax.grad(lambda *a: value(*a)[1], (0, 1, 2))(*arguments)
        assert float(by_probe[0]) == pytest.approx(float(by_state[0]), abs=1e-15)
        assert float(by_probe[1]) == pytest.approx(float(by_state[2]), abs=1e-15)
        assert by_probe[2] == by_state[1] == 0

    def test_at_the_start(self):
        """The initial state, behind what arrives then."""

        def value(v, i, weight):
            seen = neuron([weight], [0.0], v=v, i=i, probes=[0.0]).probes
            return jnp.stack([seen.v[0, 0], seen.i[0, 0]])

        arguments = jnp.asarray(0.2), jnp.asarray(0.3), jnp.asarray(0.5)
        np.testing.assert_allclose(value(*arguments), [0.2, 0.8], atol=1e-15)
        by_v, by_i, by_weight = jax.jacrev(value, (0, 1, 2))(*arguments)
        np.testing.assert_array_equal(by_v, [1, 0])
        np.testing.assert_array_equal(by_i, [0, 1])
        np.testing.assert_array_equal(by_weight, [0, 1])

    def test_the_same_time_twice(self):
        """Two probes of a time see the same; the gradients add up."""

        def value(weight, probes):
            return neuron([weight], [0.5], probes=probes).probes.v[:, 0]

        twice, once = jnp.asarray([1.2, 1.2]), jnp.asarray([1.2])
        both = value(0.6, twice)
        assert both[0] == both[1] == value(0.6, once)[0]
        gradient = jax.grad(lambda w: value(w, twice).sum())(0.6)
        assert float(gradient) == pytest.approx(2 * jax.grad(lambda w: value(w, once).sum())(0.6))

    def test_behind_the_end_of_a_full_window(self):
        result = neuron(
            [9.0],
            [0.1],
            n_spikes=1,
            params=replace(PARAMS, t_ref=0.0),
            probes=[0.05, 2.9],
            raise_on=FAILURES,
        )
        assert result.status == Status.EVENT_CAPACITY
        assert np.isfinite(result.probes.v[0, 0])
        assert np.isnan(result.probes.v[1, 0])
        assert np.isnan(result.probes.i[1, 0])

        def seen(probes):
            result = neuron(
                [9.0], [0.1], n_spikes=1, params=replace(PARAMS, t_ref=0.0), probes=probes
            )
            return result.probes.v[0, 0]

        gradient = jax.grad(seen)(jnp.asarray([0.05, 2.9]))
        assert gradient[1] == 0

    @pytest.mark.parametrize(
        ("probes", "value"),
        [
            ([1.0, 0.5], r"0\.5"),
            ([0.5, 3.5], r"3\.5"),
            ([0.5, np.nan], "nan"),
            ([np.nan, 0.5], "nan"),
            ([-0.5, 1.0], r"-0\.5"),
            ([1.0, np.inf], "inf"),
        ],
    )
    @pytest.mark.parametrize("traced", [False, True])
    def test_rejects(self, probes, value, traced):
        run = (
            jax.jit(lambda p: neuron([1.0], [0.5], probes=p).probes)
            if traced
            else (lambda p: neuron([1.0], [0.5], probes=p).probes)
        )
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="probes") as error:
            jax.block_until_ready(run(jnp.asarray(probes) if traced else probes))
        assert "ascend from state.time up to t_max" in str(error.value)
        assert re.search(value, str(error.value))

    def test_rejects_a_number(self):
        with pytest.raises(ValueError, match=r"probes has shape \(\)"):
            neuron([1.0], [0.5], probes=1.0)


class TestMaxima:
    def arguments(self, weights, times, **options):
        return {
            "params": PARAMS,
            "weights": jnp.asarray(weights, float),
            "times": jnp.asarray(times, float),
            "t_max": jnp.asarray(3.0),
            "v": jnp.asarray(0.125),
            "i": jnp.asarray(0.0),
        } | {name: jnp.asarray(x, float) for name, x in options.items()}

    @staticmethod
    def value(a, **options):
        result = neuron(
            a["weights"],
            a["times"],
            params=a["params"],
            t_max=a["t_max"],
            v=a["v"],
            i=a["i"],
            maximum=True,
            **options,
        )
        return result.maximum.v[0], result.maximum.time[0]

    def gradient(self, a, **options):
        return jax.grad(lambda a: self.value(a, **options)[0])(a)

    def check(self, a):
        check_by_differences(lambda a: (self.value(a)[0], jnp.zeros(1, int)), a)

    def test_between_events(self):
        a = self.arguments([1.5], [0.5])
        v, time = self.value(a)
        # V' = 0 where exp(-t / tau_mem) and exp(-t / tau_syn) are as their time constants
        s = np.log(1 / 0.4) / (1 / 0.4 - 1)
        assert float(time) == pytest.approx(0.5 + s, abs=1e-12)
        assert float(v) == pytest.approx(
            0.125 + 1.5 * 0.4 / 0.6 * (np.exp(-s) - np.exp(-s / 0.4)), abs=1e-14
        )
        g = self.gradient(a)
        assert float(g["weights"][0]) == pytest.approx(float((v - 0.125) / 1.5), abs=1e-14)
        assert float(g["times"][0]) == pytest.approx(0, abs=1e-14)
        assert g["t_max"] == 0
        self.check(a)

    def test_at_an_arrival(self):
        a = self.arguments([1.0, -3.0], [0.5, 0.7])
        v, time = self.value(a)
        assert time == 0.7
        current = np.exp(-0.2 / 0.4)
        g = self.gradient(a)
        # later inhibition lets it rise for longer
        assert float(g["times"][1]) == pytest.approx(float(current - (v - 0.125)), abs=1e-13)
        assert g["times"][1] > 0.1
        assert g["weights"][1] == 0
        self.check(a)

    def test_at_an_arrival_over_a_delay(self):
        """The delay has the gradient that the time has."""

        def value(times, delay):
            return neuron([1.0, -3.0], times, delays=delay, maximum=True).maximum.v[0]

        times, delay = jnp.asarray([0.5, 0.7]), jnp.asarray([0.05, 0.1])
        by_times, by_delay = jax.grad(value, (0, 1))(times, delay)
        assert by_times[1] > 0.1
        np.testing.assert_allclose(by_times, by_delay, atol=1e-14)

        def of(x):
            return value(x[:2], x[2:]), jnp.zeros(1, int)

        check_by_differences(of, jnp.concatenate([times, delay]))

    def test_at_an_arrival_without_delay(self):
        """One neuron inhibits another at once: the maximum moves with that spike."""
        params = replace(PARAMS, v_th=jnp.asarray([1.0, 9.0]))

        def value(x):
            result = event_loop(
                params,
                x[:2].reshape(1, 2),
                LIFState(jnp.full(2, 0.125), jnp.zeros(2), jnp.full(2, -jnp.inf), jnp.zeros(())),
                Spikes(x[2:3], jnp.zeros(1, jnp.int32)),
                t_max=3.0,
                max_events=4,
                recurrent=jnp.zeros((2, 2)).at[0, 1].set(x[3]),
                recurrent_delays=0.0,
                maximum=True,
            )
            same = result.maximum.time[1] == result.spikes.time[0]
            return result.maximum.v[1], jnp.append(result.spikes.index, same)

        x = jnp.asarray([8.0, 5.0, 0.5, -9.0])
        gradient, kind = jax.grad(value, has_aux=True)(x)
        assert kind[0] == 0
        assert kind[-1]
        # a stronger drive of the first neuron ends the rise of the second one earlier
        assert gradient[0] < -0.01
        assert gradient[1] > 0.01
        assert gradient[3] == 0
        check_by_differences(value, x)

    def test_at_the_end(self):
        a = self.arguments([1.0], [2.8])
        v, time = self.value(a)
        assert time == 3.0
        current = np.exp(-0.2 / 0.4)
        assert float(self.gradient(a)["t_max"]) == pytest.approx(
            float(current - (v - 0.125)), abs=1e-13
        )
        self.check(a)

    def test_at_the_start(self):
        a = self.arguments([-1.0], [0.5], v=0.8)
        assert self.value(a) == (0.8, 0.0)
        g = self.gradient(a)
        assert g["v"] == 1
        for part in (g["i"], *g["weights"], *g["times"], g["t_max"], *jax.tree.leaves(g["params"])):
            assert part == 0
        self.check(a)

    def test_rises_from_the_start(self):
        """The initial current alone makes it."""
        a = self.arguments([-0.1], [2.0], i=1.2, v=0.3)
        _, time = self.value(a)
        assert 0 < time < 1
        self.check(a)

    def test_of_a_spiking_neuron(self):
        """The threshold, whatever it hears."""
        a = self.arguments([8.0, 1.0], [0.5, 1.2])
        v, time = self.value(a)
        result = neuron([8.0, 1.0], [0.5, 1.2])
        assert result.count >= 1
        assert v == 1.0
        assert float(time) == pytest.approx(float(result.spikes.time[0]), abs=1e-14)
        g = self.gradient(a)
        assert g["params"].v_th == 1
        rest = replace(g["params"], v_th=jnp.zeros(()))
        for part in jax.tree.leaves([{**g, "params": rest}]):
            np.testing.assert_array_equal(part, 0)

    def test_of_many_spikes_is_that_of_the_first(self):
        """Whatever rounding makes of the voltage at a later one."""
        n = 40
        result = neuron(
            [30.0] * n,
            np.linspace(0.1, 2.9, n),
            params=replace(PARAMS, t_ref=0.0),
            n_spikes=400,
            maximum=True,
        )
        assert result.count > 100
        assert result.maximum.v[0] == 1.0
        assert result.maximum.time[0] == result.spikes.time[0]

    def test_of_a_refractory_neuron(self):
        """Clamped throughout: the reset."""
        a = self.arguments([3.0], [0.5], v=-0.25)
        assert self.value(a, release=9.0)[0] == -0.25
        g = self.gradient(a, release=9.0)
        assert g["params"].v_reset == 1
        rest = replace(g["params"], v_reset=jnp.zeros(()))
        for part in jax.tree.leaves([{**g, "params": rest}]):
            np.testing.assert_array_equal(part, 0)

    def test_of_a_neuron_that_is_released(self):
        """Highest behind its release, which it moves with."""
        a = self.arguments([4.0], [0.2], v=-0.25)

        def value(a, release):
            result = neuron(
                a["weights"],
                a["times"],
                params=a["params"],
                t_max=a["t_max"],
                v=-0.25,
                i=a["i"],
                release=release,
                maximum=True,
            )
            return result.maximum.v[0], result.maximum.time[0]

        def of(x):
            state_release = x[0]
            n = 1
            state = LIFState(
                jnp.asarray([-0.25]), jnp.zeros(1), state_release.reshape(1), jnp.zeros(())
            )
            result = event_loop(
                replace(PARAMS, v_reset=x[1]),
                x[2].reshape(n, 1),
                state,
                Spikes(x[3].reshape(1), jnp.zeros(1, jnp.int32)),
                t_max=3.0,
                max_events=2,
                maximum=True,
            )
            return result.maximum.v[0], result.spikes.index

        v, time = value(a, 0.6)
        assert 0.6 < time < 3
        assert v > 0.2
        check_by_differences(of, jnp.asarray([0.6, -0.25, 4.0, 0.2]))

    def test_moving_it_has_no_gradient(self):
        def time(weight):
            return neuron([weight], [0.5], maximum=True).maximum.time[0]

        assert jax.grad(time)(1.5) == 0


# --- the leaky integrator ---------------------------------------------------------------------

T_MAX, DECAY = 2.0, 0.7
READ_AT = (0.0, 0.37, 1.3, 2.0)
LI = {"times": READ_AT, "maximum": True, "integral": True, "decay": DECAY}
DELAYS = ["none", "number", "source", "synapse", "late"]


def integrators(rng, n=4, ratio=0.5):
    tau_mem = rng.uniform(0.5, 1.0, n)
    return Population(
        n,
        tau_mem=tau_mem,
        tau_syn=tau_mem * ratio,
        v_th=np.inf,
        v_leak=(leak := rng.uniform(-0.3, 0.3, n)),
        v0=leak,
    )


def li_network(rng, delay, *, n_in=3, n=4, ratio=0.5, n_spikes=8):
    shape = {"none": (), "number": (), "late": (n_in,), "source": (n_in,), "synapse": (n_in, n)}
    delays = rng.uniform(0.05, 0.6, shape[delay]) * (delay != "none")
    if delay == "late":
        delays = delays * 4
    weight = rng.normal(0.3, 1.0, (n_in, n))
    return Network(
        [integrators(rng, n, ratio)],
        [Projection(INPUT, 0, weight, delays)],
        t_max=T_MAX,
        n_in=n_in,
        input_time=np.sort(rng.uniform(0.05, 1.8, n_spikes)),
        input_idx=rng.integers(0, n_in, n_spikes),
    )


def li_layer(network, **options):
    population = network.populations[0]
    return LeakyIntegrator(
        population.size,
        t_max=network.t_max,
        tau_mem=jnp.asarray(population.tau_mem),
        tau_syn=jnp.asarray(population.tau_syn),
        v_leak=jnp.asarray(population.v_leak),
        **(LI | options),
    )


def spikes_of(network):
    return Spikes(jnp.asarray(network.input_time), jnp.asarray(network.input_idx, jnp.int32))


def assert_reads(reading, network):
    """Closed forms on both sides, or a quadrature that is exact to rounding: 1e-12."""
    v, i = sampled(network, READ_AT)
    np.testing.assert_allclose(reading.final, simulate(network).v, rtol=0, atol=1e-12)
    np.testing.assert_allclose(reading.probes.v, v, rtol=0, atol=1e-12)
    np.testing.assert_allclose(reading.probes.i, i, rtol=0, atol=1e-12)
    top = highest(network)
    assert np.all(reading.maximum.v > top - 1e-12)
    assert np.all(reading.maximum.v < top + 3e-5)
    np.testing.assert_allclose(reading.integral, integrals(network), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        reading.weighted_integral, integrals(network, DECAY), rtol=0, atol=1e-12
    )


def everything(reading, seed=0):
    """A loss in which all that was read has a part."""
    rng = np.random.default_rng(seed)
    parts = [reading.final, *reading.probes, reading.maximum.v, reading.integral]
    return sum(
        jnp.vdot(jnp.asarray(rng.normal(size=x.shape)), x)
        for x in [*parts, reading.weighted_integral]
    )


class TestLeakyIntegrator:
    @pytest.mark.parametrize("ratio", [0.3, 1.0, 1 + 1e-9, 2.0])
    @pytest.mark.parametrize("seed", range(2))
    def test_values(self, ratio, seed):
        network = li_network(np.random.default_rng(seed), "none", ratio=ratio)
        weights = jnp.asarray(network.projections[0].weight)
        assert_reads(li_layer(network).apply(weights, spikes_of(network)), network)

    def test_nothing_is_read_unasked(self):
        network = li_network(np.random.default_rng(0), "none")
        layer = li_layer(network, times=None, maximum=False, integral=False, decay=None)
        reading = layer.apply(jnp.asarray(network.projections[0].weight), spikes_of(network))
        assert reading[1:] == (None,) * 4
        np.testing.assert_allclose(reading.final, simulate(network).v, rtol=0, atol=1e-12)

    def test_late_input_and_padding_are_left_out(self):
        network = li_network(np.random.default_rng(0), "none")
        layer, weights = li_layer(network), jnp.asarray(network.projections[0].weight)
        spikes = spikes_of(network)
        more = Spikes(
            jnp.concatenate([spikes.time, jnp.asarray([2.5, jnp.inf])]),
            jnp.concatenate([spikes.index, jnp.asarray([1, -1], jnp.int32)]),
        )
        same_bits(layer.apply(weights, more), layer.apply(weights, spikes))
        gradient = jax.grad(lambda t: everything(layer.apply(weights, Spikes(t, more.index))))(
            more.time
        )
        np.testing.assert_array_equal(gradient[-2:], 0)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("seed", range(2))
    def test_gradients(self, seed):
        network = li_network(np.random.default_rng(seed), "none")
        layer = li_layer(network, train=("tau_mem", "tau_syn", "v_leak"))
        spikes = spikes_of(network)
        _, drawn = layer.init(jax.random.key(0), 3)
        assert set(drawn["params"]) == {"tau_mem", "tau_syn", "v_leak"}
        # away from zero, so that they are compared
        numbers = jax.tree.map(lambda x: x + 0.05, drawn["params"])
        arguments = {
            "weights": jnp.asarray(network.projections[0].weight),
            "params": numbers,
            "times": spikes.time,
        }

        def value(a):
            own = {"weights": a["weights"], "params": a["params"]}
            return everything(layer.apply(own, Spikes(a["times"], spikes.index))), spikes.index

        check_by_differences(value, arguments)

    def test_trained_parameters_are_used(self):
        """Time constants by their exponential; the leak in steps of one, as there is no gap."""
        network = li_network(np.random.default_rng(1), "none")
        layer = li_layer(network, train=("tau_mem", "v_leak"))
        weights = {
            "weights": jnp.asarray(network.projections[0].weight),
            "params": {"tau_mem": jnp.full(4, 0.2), "v_leak": jnp.full(4, -0.1)},
        }
        population = network.populations[0]
        leak = population.v_leak - 0.1
        moved = replace(population, tau_mem=population.tau_mem * np.exp(0.2), v_leak=leak, v0=leak)
        moved = replace(network, populations=[moved])
        assert_reads(layer.apply(weights, spikes_of(network)), moved)

    def test_batches(self):
        network = li_network(np.random.default_rng(2), "none")
        layer, weights = li_layer(network), jnp.asarray(network.projections[0].weight)
        spikes = spikes_of(network)
        times = spikes.time * jnp.asarray([1.0, 0.9])[:, None]
        index = jnp.broadcast_to(spikes.index, times.shape)
        native = layer.apply(weights, Spikes(times, index))
        mapped = jax.vmap(lambda t: layer.apply(weights, Spikes(t, spikes.index)))(times)
        single = [layer.apply(weights, Spikes(t, spikes.index)) for t in times]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *single)
        for found in (native, mapped):
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(stacked), strict=True):
                assert one.shape == other.shape
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)

    def test_float32(self):
        """Rounding of 6e-8 of sums of ten terms of order 1."""
        network = li_network(np.random.default_rng(2), "none")
        layer, spikes = li_layer(network), spikes_of(network)
        weights = jnp.asarray(network.projections[0].weight)
        wide = layer.apply(weights, spikes)
        (population,) = network.populations
        own = {
            name: jnp.asarray(getattr(population, name), np.float32)
            for name in ("tau_mem", "tau_syn", "v_leak")
        }
        narrow = LeakyIntegrator(4, t_max=network.t_max, **own, **LI).apply(
            weights.astype(np.float32), Spikes(spikes.time.astype(np.float32), spikes.index)
        )
        for one, other in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)

    @pytest.mark.parametrize("train", [("v_th",), ("v_reset",), ("t_ref",), ("tau",)])
    def test_rejects_what_it_does_not_have(self, train):
        with pytest.raises(ValueError, match=rf"out: train has '{train[0]}'"):
            LeakyIntegrator(2, t_max=1.0, train=train, name="out")

    @pytest.mark.parametrize("decay", [0.0, -1.0, np.inf, np.nan])
    def test_rejects_decay(self, decay):
        with pytest.raises(ValueError, match="out: decay is"):
            LeakyIntegrator(2, t_max=1.0, decay=decay, name="out")


def li_graph(network, delay, **options):
    graph = Graph()
    graph.add("input", Source(network.n_in))
    graph.add("out", li_layer(network, **options))
    graph.connect("input", "out", delay=delay)
    return graph.build()


class TestLeakyIntegratorInAGraph:
    @pytest.mark.parametrize("kind", DELAYS)
    def test_fixed_delays(self, kind):
        network = li_network(np.random.default_rng(4), kind)
        (projection,) = network.projections
        if kind == "late":
            arrivals = network.input_time + projection.delay[network.input_idx]
            assert np.any(arrivals > T_MAX)
        delay = projection.delay if projection.delay.ndim else float(projection.delay)
        _, apply, _ = li_graph(network, delay)
        parameters = {"input->out": {"weights": jnp.asarray(projection.weight)}}
        assert_reads(apply(parameters, spikes_of(network))["out"], network)

    @pytest.mark.parametrize("kind", ["projection", "axonal", "synaptic"])
    def test_trained_delays(self, kind):
        network = li_network(np.random.default_rng(5), "none")
        delay = Delay(kind, scale=0.3, std=0.5)
        init, apply, _ = li_graph(network, delay)
        _, drawn = init(jax.random.key(2))
        weights = jnp.asarray(network.projections[0].weight)
        numbers = drawn["input->out"]["delays"]
        delays = 0.3 * np.log1p(np.exp(np.asarray(numbers)))
        assert delays.shape == {"projection": (), "axonal": (3,), "synaptic": (3, 4)}[kind]
        (projection,) = network.projections
        delayed = replace(network, projections=[replace(projection, delay=delays)])
        spikes = spikes_of(network)

        def read(a):
            own = {"input->out": {"weights": a["weights"], "delays": a["delays"]}}
            return apply(own, Spikes(a["times"], spikes.index))["out"]

        arguments = {"weights": weights, "delays": numbers, "times": spikes.time}
        assert_reads(read(arguments), delayed)
        check_by_differences(lambda a: (everything(read(a)), spikes.index), arguments)

    def test_behind_two_populations(self):
        """Over projections with different delays, one of them of a population that spikes."""
        rng = np.random.default_rng(6)
        hidden = Population(3, tau_mem=1.0, tau_syn=0.5, v_th=0.6, t_ref=0.1)
        out = integrators(rng)
        network = Network(
            [hidden, out],
            [
                Projection(INPUT, 0, rng.uniform(1.0, 3.0, (3, 3)), 0.1),
                Projection(INPUT, 1, rng.normal(0, 1, (3, 4)), rng.uniform(0.1, 0.4, 3)),
                Projection(0, 1, rng.normal(0, 1, (3, 4)), rng.uniform(0.1, 0.4, (3, 4))),
            ],
            t_max=T_MAX,
            n_in=3,
            input_time=np.sort(rng.uniform(0.05, 1.5, 8)),
            input_idx=rng.integers(0, 3, 8),
        )
        assert len(simulate(network).time) > 4
        graph = Graph()
        graph.add("input", Source(3))
        graph.add("hidden", EventPropLIF(3, n_spikes=40, t_max=T_MAX, params=params_of(hidden)))
        graph.add("out", li_layer(replace(network, populations=[out], projections=[])))
        edges = [("input", "hidden"), ("input", "out"), ("hidden", "out")]
        for edge, projection in zip(edges, network.projections, strict=True):
            delay = projection.delay if projection.delay.ndim else float(projection.delay)
            graph.connect(*edge, delay=delay)
        _, apply, _ = graph.build()
        weights = {
            "->".join(edge): jnp.asarray(p.weight)
            for edge, p in zip(edges, network.projections, strict=True)
        }
        spikes = spikes_of(network)

        def run(weights, times):
            own = {name: {"weights": w} for name, w in weights.items()}
            return apply(own, Spikes(times, spikes.index))

        reading = run(weights, spikes.time)["out"]
        v, _ = sampled(network, READ_AT)
        np.testing.assert_allclose(reading.probes.v, v[:, 3:], rtol=0, atol=1e-11)
        np.testing.assert_allclose(reading.integral, integrals(network)[3:], rtol=0, atol=1e-11)
        np.testing.assert_allclose(
            reading.weighted_integral, integrals(network, DECAY)[3:], rtol=0, atol=1e-11
        )
        assert np.all(np.abs(reading.maximum.v - highest(network)[3:]) < 3e-5)

        def value(a):
            found = run(a["weights"], a["times"])
            return everything(found["out"]), found["hidden"].index

        check_by_differences(value, {"weights": weights, "times": spikes.time})

    def test_what_is_asked_for_in_one_run(self):
        """Goes before what is read always; the rest stays."""
        network = li_network(np.random.default_rng(7), "number")
        (projection,) = network.projections
        _, apply, record = li_graph(network, float(projection.delay), maximum=False)
        parameters = {"input->out": {"weights": jnp.asarray(projection.weight)}}
        spikes = spikes_of(network)
        always = apply(parameters, spikes)["out"]
        assert always.maximum is None
        asked = record(parameters, spikes, probes=[0.5, 1.5], maxima=True)["out"]
        v, _ = sampled(network, [0.5, 1.5])
        np.testing.assert_allclose(asked.result.probes.v, v, rtol=0, atol=1e-12)
        assert asked.result.maximum is not None
        # Probes cut the time between arrivals in two, each of which rounds.
        np.testing.assert_allclose(asked.output.integral, always.integral, rtol=1e-14, atol=1e-14)

    def test_it_has_no_spikes_to_send(self):
        graph = Graph()
        graph.add("input", Source(2))
        graph.add("out", LeakyIntegrator(2, t_max=1.0))
        graph.add("next", EventPropLIF(2, n_spikes=3, t_max=1.0))
        for target in ("next", "out"):
            with pytest.raises(ValueError, match=rf"'out' -> '{target}': the source never spikes"):
                graph.connect("out", target)
