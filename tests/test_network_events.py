"""Networks where it gets tight: ties, windows, bursts, full records, nothing at all.

Tolerances where none is given: as in test_networks.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.ops import FAILURES, Status, event_loop, status_message
from networks import (
    CAPACITY,
    N_INPUTS,
    N_NEURONS,
    N_SPIKES,
    assert_within,
    coefficients,
    draws,
    graph_of,
    graphs,
    linear_loss,
    random_graph,
    random_population,
    same_bits,
    solve,
    value_and_gradient,
    well_conditioned,
)
from oracle.gradient import loss_gradient
from oracle.network import INPUT, Network, Population, Projection
from oracle.simulate import simulate

pytestmark = pytest.mark.usefixtures("x64")

SIMPLE = LIFParameters(tau_mem=1.0, tau_syn=0.5)
# JAX raises ValueError instead when a jitted function runs again that has run well before.
RUNTIME_ERROR = (jax.errors.JaxRuntimeError, ValueError)

run = jax.jit(solve)


def small(weights, time, index, *, t_max=2.0, max_events=8, params=SIMPLE, dtype=None, **options):
    """A network at rest."""
    weights = jnp.asarray(weights, dtype or jnp.float64)
    for name in ("recurrent", "delays", "recurrent_delays"):
        if name in options:
            options[name] = jnp.asarray(options[name], weights.dtype)
    return event_loop(
        params,
        weights,
        initial_state(params, weights.shape[-1], weights.dtype),
        Spikes(jnp.asarray(time, weights.dtype), jnp.asarray(index, jnp.int32)),
        t_max=t_max,
        max_events=max_events,
        **({"delays": 0.0} | options),
    )


def finite(times):
    return jnp.where(jnp.isfinite(times), times, 0.0)


class TestTiesOfArrivals:
    EPSILON = 1e-9

    @draws(10)
    @given(graphs(), st.integers(0, 1000), st.booleans())
    def test_together_is_the_limit_of_nearly_together(self, network, seed, by_delay):
        """Two inputs at one time, or two that meet at their targets after different delays."""
        trajectory = well_conditioned(network, gap=1e-6)
        assume(trajectory is not None)
        assume(len(trajectory.time) <= CAPACITY)
        rng = np.random.default_rng(seed)
        graph, loss = graph_of(network), coefficients(seed)
        time = np.asarray(graph.inputs.time).copy()
        first = int(rng.integers(N_SPIKES - 1))
        if by_delay:  # sums of these are exact
            time = np.round(time * 64) / 64
            delays = np.round(rng.uniform(0, 0.5, (N_INPUTS, 1)) * 64) / 64
            delays[graph.inputs.index[first + 1]] = 0.25
            delays[graph.inputs.index[first]] = 0.25
            graph = graph._replace(delays=jnp.asarray(delays))
        time[first] = time[first + 1]
        found = []
        for shift in (0, -self.EPSILON, self.EPSILON):
            moved = time.copy()
            moved[first] += shift
            order = np.argsort(moved, kind="stable")
            inputs = Spikes(jnp.asarray(moved[order]), graph.inputs.index[order])
            own = graph._replace(inputs=inputs)
            result, (_, gradient) = run(own), value_and_gradient(own, loss)
            by_time = np.zeros(N_SPIKES)
            by_time[order] = gradient.inputs.time
            found.append((result, gradient, by_time))
        together, before, after = found
        assume(np.array_equal(before[0].spikes.index, after[0].spikes.index))
        # a jump would be of order one; values move by epsilon times a slope, gradients by another
        scale = max(1, np.abs(together[2]).max())
        assume(scale < 100)
        for other in (before, after):
            np.testing.assert_array_equal(together[0].spikes.index, other[0].spikes.index)
            np.testing.assert_allclose(
                finite(together[0].spikes.time), finite(other[0].spikes.time), rtol=0, atol=1e-6
            )
            for name in ("weights", "recurrent", "delays", "recurrent_delays"):
                assert_within(getattr(together[1], name), getattr(other[1], name), 1e-4, name)
            assert_within(together[2], other[2], 1e-4)

    @pytest.mark.parametrize("form", ["one", "source", "synapse"])
    def test_ten_thousand_inputs_at_one_time(self, form):
        """Equal shares of what one input does whose weight is their sum, exactly."""
        n = 10_000
        delays = {
            "one": 0.125,
            "source": np.full((1, 1), 0.125),
            "synapse": np.array([[0.125, 0.25]]),
        }[form]
        options = {
            "recurrent": [[0.5, 1.5], [-1.0, 0.5]],
            "recurrent_delays": 0.0625,
            "max_events": 24,
            "delays": delays,
        }
        row = np.array([[1.0, 1.5]]) / 1024
        many = small(row, np.full(n, 0.5), np.zeros(n), **options)
        one = small(n * row, [0.5], [0], **options)
        assert one.count > 4
        same_bits((many.spikes, many.state), (one.spikes, one.state))
        assert many.queue.head == n

        def loss(weights, time, index):
            return finite(small(weights, time, index, **options).spikes.time[:4]).sum()

        each = jax.grad(loss, (0, 1))(jnp.asarray(row), jnp.full(n, 0.5), np.zeros(n))
        whole = jax.grad(loss, (0, 1))(jnp.asarray(n * row), jnp.asarray([0.5]), np.zeros(1))
        # sums of ten thousand equal terms
        np.testing.assert_allclose(each[0], n * whole[0], rtol=1e-11)
        np.testing.assert_allclose(each[1], np.full(n, whole[1][0] / n), rtol=1e-9)


def clones(n, weight, seed, delay=0.0):
    """Neurons that all do the same, with connections between any two of them."""
    rng = np.random.default_rng(seed)
    population = Population(n, tau_mem=1.0, tau_syn=rng.uniform(0.3, 1.5))
    return Network(
        [population],
        [
            Projection(INPUT, 0, np.repeat(rng.uniform(3, 6, (2, 1)), n, axis=1)),
            Projection(0, 0, np.full((n, n), weight), delay),
        ],
        t_max=1.5,
        n_in=2,
        input_time=[0.125, 0.5],
        input_idx=[0, 1],
    )


class TestTiesOfSpikes:
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("weight", [-20.0, -1.0, 0.5])
    def test_clones_fire_together_in_their_order(self, weight, dtype):
        """Whatever the first one sends to the others at once, and however times are rounded."""
        fired = 0
        for seed in range(40):
            graph = graph_of(clones(3, weight, seed), dtype)
            result = solve(graph, max_events=60)
            n = int(result.count)
            fired += n > 0
            assert result.status == Status.OK
            assert n % 3 == 0
            np.testing.assert_array_equal(result.spikes.index[:n], [0, 1, 2] * (n // 3))
            times = np.asarray(result.spikes.time)[:n].reshape(-1, 3)
            np.testing.assert_array_equal(times, times[:, :1].repeat(3, axis=1))
        assert fired > 30

    @pytest.mark.parametrize("weight", [-20.0, -1.0, 0.5])
    @pytest.mark.parametrize("delay", [0.0, 0.2])
    def test_clones_as_the_oracle_has_them(self, weight, delay):
        """It lets all spike before anything arrives, which is the same."""
        for seed in range(5):
            network = clones(3, weight, seed, delay)
            trajectory = simulate(network)
            result = solve(graph_of(network), max_events=60)
            n = len(trajectory.time)
            assert result.count == n
            np.testing.assert_array_equal(result.spikes.index[:n], trajectory.index)
            np.testing.assert_allclose(result.spikes.time[:n], trajectory.time, rtol=0, atol=1e-11)
            np.testing.assert_allclose(result.state.v, trajectory.v, rtol=0, atol=1e-10)
            np.testing.assert_allclose(result.state.i, trajectory.i, rtol=0, atol=1e-10)

    @pytest.mark.parametrize(("weight", "rounds"), [(-0.5, 1), (0.5, 2)])
    def test_the_gradient_is_that_of_their_order(self, weight, rounds):
        """The limit in which the first one fires a little before the second one, and so on.

        The second time, inhibition has turned the order of the neurons that are a little apart.
        """
        graph = graph_of(clones(3, weight, 3))
        times = run(graph).spikes.time
        graph = graph._replace(t_max=float(times[3 * rounds - 1] + times[3 * rounds]) / 2)
        loss = coefficients(0, 3)

        def gradient(spread):
            faster = 1 + spread * jnp.asarray([2.0, 1.0, 0.0])
            value, found = value_and_gradient(graph._replace(weights=graph.weights * faster), loss)
            return value, found

        assert run(graph).count == 3 * rounds
        value, found = gradient(0.0)
        near, expected = gradient(1e-9)
        _, other = gradient(-1e-9)
        # 1e-9 of spread moves times by as much, and gradients by a few times more
        assert float(value) == pytest.approx(float(near), abs=1e-6)
        for name in ("weights", "recurrent", "recurrent_delays", "delays"):
            assert_within(getattr(found, name), getattr(expected, name), 1e-5, name)
        # the other order has another derivative, so that this one says something
        assert np.abs(found.weights - other.weights).max() > 1e-3

    @pytest.mark.parametrize("weight", [-20.0, -1.0, 0.5])
    def test_time_translation_holds_in_a_tie(self, weight):
        graph = graph_of(clones(3, weight, 4))
        loss = coefficients(1, 3)
        loss = loss[0], 0 * loss[1], 0 * loss[2]
        n = int(run(graph).count)
        assert n >= 3
        _, found = value_and_gradient(graph, loss)
        assert np.sum(found.inputs.time) == pytest.approx(loss[0][:n].sum(), abs=1e-11)

    def test_clones_each_have_their_gradient(self):
        """With delays, the spikes of one time have nothing to do with each other."""
        network = clones(3, 0.5, 5, delay=0.3)
        network.projections[1].delay = np.full((3, 3), 0.3)
        trajectory = simulate(network)
        loss = coefficients(2, 3)
        _, found = value_and_gradient(graph_of(network), loss)
        expected = loss_gradient(
            network,
            trajectory,
            dloss_dtime=loss[0][: len(trajectory.time)],
            dloss_dv_end=loss[1],
            dloss_di_end=loss[2],
            wrt=("weight", "delay", "input_time"),
        )
        assert_within(found.weights, expected["weight"][0], 1e-9)
        assert_within(found.recurrent, expected["weight"][1], 1e-9)
        assert_within(found.recurrent_delays, expected["delay"][1], 1e-9)
        assert_within(found.inputs.time, expected["input_time"][0], 1e-9)

    def test_a_chain_without_delays_fires_at_one_time(self):
        """0 excites 1 excites 2, each far above threshold at once: in this order, and no more."""
        params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=1.5)
        recurrent = np.zeros((3, 3))
        recurrent[2, 0] = recurrent[0, 1] = 1e300
        options = {"recurrent": recurrent, "params": params}
        result = small([[0.0, 0.0, 5.0]], [0.5], [0], **options)
        np.testing.assert_array_equal(result.spikes.index[:4], [2, 0, 1, -1])
        assert result.spikes.time[0] == result.spikes.time[1] == result.spikes.time[2]
        gradient = jax.grad(lambda t: small([[0.0, 0.0, 5.0]], t, [0], **options).spikes.time[2])(
            jnp.asarray([0.5])
        )
        assert gradient[0] == pytest.approx(1, abs=1e-12)


def at_a_crossing(rng):
    """A neuron, the time of its first spike without the second input, and that of its release."""
    params = LIFParameters(1.0, rng.uniform(0.3, 1.5), t_ref=0.25)
    weights = np.array([[rng.uniform(4, 8)], [rng.uniform(0.5, 2)]])
    alone = small(weights, [0.125], [0], params=params)
    return params, weights, float(alone.spikes.time[0]), float(alone.state.release[0])


class TestTiesOfDifferentKinds:
    """Two-sided derivatives do not exist: that of the documented order is a one-sided one."""

    EPSILON = 1e-8

    def both_sides(self, value, at):
        """The gradient, and one-sided differences by later and by earlier arrivals."""
        exact = float(jax.grad(value)(at))
        later, now, earlier = (float(value(at + k * self.EPSILON)) for k in (1, 0, -1))
        return exact, (later - now) / self.EPSILON, (now - earlier) / self.EPSILON

    def check(self, value, at, side):
        # rounding: 1e-15 / 1e-8; curvature: 1e-8 times the next derivative
        exact, later, earlier = self.both_sides(value, at)
        expected, other = (later, earlier) if side == "later" else (earlier, later)
        assert exact == pytest.approx(expected, abs=1e-5)
        assert abs(exact - other) > 1e-2

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("what", ["time", "delay"])
    def test_an_arrival_at_a_crossing_comes_first(self, seed, what):
        params, weights, crossing, _ = at_a_crossing(np.random.default_rng(seed))

        def spike(at):
            time, delays = ([0.125, at], [0.0, 0.0]) if what == "time" else ([0.125] * 2, [0.0, at])
            return small(
                weights,
                jnp.stack([jnp.asarray(t) for t in time]),
                [0, 1],
                params=params,
                delays=jnp.stack([jnp.asarray(d) for d in delays]),
            ).spikes.time[0]

        at = crossing if what == "time" else crossing - 0.125
        assert float(spike(at)) == pytest.approx(crossing, abs=1e-15)
        self.check(spike, at, "earlier")

    @pytest.mark.parametrize("seed", range(4))
    def test_an_arrival_at_the_end_of_a_refractory_period_comes_after_it(self, seed):
        params, weights, _, release = at_a_crossing(np.random.default_rng(seed))

        def voltage(at):
            time = jnp.stack([jnp.asarray(0.125), jnp.asarray(at)])
            return small(weights, time, [0, 1], params=params, t_max=release + 0.01).state.v[0]

        self.check(voltage, release, "later")

    @pytest.mark.parametrize("seed", range(4))
    def test_a_release_moved_by_its_spike_stays_before_the_arrival(self, seed):
        """The same tie from the other side: the first input moves spike and release."""
        params, weights, _, release = at_a_crossing(np.random.default_rng(seed))

        def voltage(at):
            time = jnp.stack([jnp.asarray(at), jnp.asarray(release)])
            return small(weights, time, [0, 1], params=params, t_max=release + 0.01).state.v[0]

        self.check(voltage, 0.125, "earlier")

    def test_an_arrival_at_t_max_counts(self):
        def current(at, t_max=1.0):
            time = jnp.stack([jnp.asarray(0.125), jnp.asarray(at)])
            return small([[0.5], [0.75]], time, [0, 1], delays=0.25, t_max=t_max)

        result = current(0.75)
        late = current(0.75 + 2**-50)
        assert result.state.i[0] - late.state.i[0] == pytest.approx(0.75, abs=1e-14)
        # both were emitted in time, and have been taken
        assert result.queue.head == late.queue.head == 2
        early = 0.75 - 1e-9
        for output in ("v", "i"):
            gradient = jax.grad(lambda at, o=output: getattr(current(at).state, o)[0])
            assert float(gradient(0.75)) == pytest.approx(float(gradient(early)), abs=1e-8)
            by_end = jax.grad(lambda t, o=output: getattr(current(0.75, t).state, o)[0])
            assert float(by_end(1.0)) == pytest.approx(float(by_end(1.0 + 1e-9)), abs=1e-8)

    def test_a_spike_at_t_max_and_what_it_sends_at_once(self):
        found = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            params = LIFParameters(1.0, rng.uniform(0.3, 1.5))
            options = {"params": params, "recurrent": [[0.0, 2.0], [0.0, 0.0]]}
            at = float(small([[6.0, 0.0]], [0.125], [0], **options).spikes.time[0])
            result = small([[6.0, 0.0]], [0.125], [0], t_max=at, **options)
            before = small([[6.0, 0.0]], [0.125], [0], t_max=at - 1e-9, **options)
            assert before.count == 0
            if result.count == 0:  # rounded to just behind t_max
                assert result.state.v[0] < 1
                continue
            found += 1
            np.testing.assert_array_equal(result.state.v, 0)
            assert result.state.i[1] == 2
            assert result.spikes.time[0] == at
        assert found > 5

    def test_above_threshold_from_the_start_whatever_arrives_then(self):
        """A spike at the start moves with the start alone, not with an arrival of that time."""

        def time(v, start, at, network):
            state = LIFState(v[None], jnp.zeros(1), jnp.full(1, -jnp.inf), start)
            options = {"recurrent": jnp.zeros((1, 1))} if network else {}
            result = event_loop(
                SIMPLE,
                jnp.full((1, 1), 5.0),
                state,
                Spikes(at[None], jnp.zeros(1, jnp.int32)),
                t_max=1.0,
                max_events=4,
                **options,
            )
            return result.spikes.time[0]

        arguments = jnp.asarray(1.5), jnp.asarray(0.25), jnp.asarray(0.25)
        for network in (False, True):
            value, gradient = jax.value_and_grad(time, argnums=(0, 1, 2))(*arguments, network)
            assert value == 0.25
            assert tuple(map(float, gradient)) == (0.0, 1.0, 0.0)


def tame(network):
    """The trajectory of a draw whose spikes neither graze nor nearly coincide."""
    trajectory = well_conditioned(network, gap=1e-7)
    assume(trajectory is not None)
    assume(2 < len(trajectory.time) < CAPACITY - 8)
    return trajectory


def first_ones(spikes, size):
    """So many of some spikes, the earliest, in order."""
    order = jnp.argsort(spikes.time, stable=True)[:size]
    return Spikes(spikes.time[order], spikes.index[order])


def together(*several):
    return Spikes(*(jnp.concatenate(parts) for parts in zip(*several, strict=True)))


def nothing():
    return Spikes(jnp.zeros(0), jnp.zeros(0, jnp.int32))


def cut_at(graph, cuts, loss):
    """One window after the other, up to given times; the loss is that of all spikes."""
    state, queue, spikes = graph.state, graph.inputs, nothing()
    for end in (*cuts, graph.t_max):
        own = graph._replace(state=state, inputs=queue, t_max=end)
        result = solve(own, past=spikes)
        state, queue = result.state, result.queue
        spikes = first_ones(together(spikes, result.spikes), CAPACITY)
    return linear_loss(result._replace(spikes=spikes), loss), (spikes, result)


def cut_by_room(size, graph, loss):
    """Windows of so many spikes; all that came before are past."""

    def window(carry, _):
        state, queue, past = carry
        own = graph._replace(state=state, inputs=queue)
        result = solve(own, past=past, max_events=size)
        past = first_ones(together(past, result.spikes), CAPACITY)
        return (result.state, result.queue, past), result

    none = Spikes(jnp.full(CAPACITY, jnp.inf), jnp.full(CAPACITY, -1, jnp.int32))
    queue = SpikeQueue(*graph.inputs, jnp.zeros((), jnp.int32))
    (state, _, past), results = jax.lax.scan(
        window, (graph.state, queue, none), None, length=CAPACITY // size
    )
    last = jax.tree.map(lambda x: x[-1], results)
    return linear_loss(last._replace(spikes=past, state=state), loss), (past, results)


def differentiated(route):
    """By a graph without its parameters, and by what else comes first."""

    def both(graph, other, loss):
        def value(moving, other):
            return route(moving._replace(params=graph.params), other, loss)

        moving = graph._replace(params=None, t_max=jnp.asarray(graph.t_max))
        return jax.value_and_grad(value, (0, 1), has_aux=True, allow_int=True)(moving, other)

    return jax.jit(both)


gradient_of_cuts = differentiated(cut_at)
gradient_of_rooms = {
    size: differentiated(lambda graph, _, loss, size=size: cut_by_room(size, graph, loss))
    for size in (1, 4)
}


def assert_same_tree(found, expected, rtol):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if one.dtype != jax.dtypes.float0:
            assert_within(one, other, rtol)


class TestWindows:
    @draws(12)
    @given(graphs(), st.lists(st.floats(0.1, 2.9), min_size=3, max_size=3), st.integers(0, 1000))
    def test_cut_at_any_times(self, network, cuts, seed):
        trajectory = tame(network)
        cuts = np.sort(cuts)
        events = np.array([event.time for event in trajectory.events])
        assume(np.abs(events[:, None] - cuts).min() > 1e-6)
        assume(np.diff(cuts).min() > 1e-3)
        graph, loss = graph_of(network), coefficients(seed)
        whole, (value, expected) = run(graph), value_and_gradient(graph, loss)
        (found_value, (spikes, last)), (found, by_cuts) = gradient_of_cuts(
            graph, tuple(map(jnp.asarray, cuts)), loss
        )
        np.testing.assert_array_equal(spikes.index, whole.spikes.index)
        np.testing.assert_allclose(
            finite(spikes.time), finite(whole.spikes.time), rtol=0, atol=1e-9
        )
        for name in ("v", "i", "release", "time"):
            found_part, part = getattr(last.state, name), getattr(whole.state, name)
            np.testing.assert_allclose(found_part, part, rtol=0, atol=1e-8, err_msg=name)
        assert last.queue.head == whole.queue.head
        assert float(found_value) == pytest.approx(float(value), abs=1e-8)
        assert_same_tree(found, expected, 1e-8)
        # all terms at a boundary cancel
        scale = max(float(jnp.abs(g).max()) for g in (expected.weights, expected.inputs.time))
        for gradient in by_cuts:
            assert abs(gradient) < 1e-8 * max(1, scale)

    def test_spikes_are_under_way_at_the_cuts(self):
        """Without the past they are lost; with the last window only, where that is enough."""
        rng = np.random.default_rng(1)
        network = random_graph(
            rng, [random_population(rng, N_NEURONS)], n_in=N_INPUTS, density=1, instant=0
        )
        trajectory = well_conditioned(network)
        graph = graph_of(network)
        cut = float(trajectory.time[4]) + 1e-3
        first = solve(graph._replace(t_max=cut))
        rest = graph._replace(state=first.state, inputs=first.queue)
        arrivals = [e for e in trajectory.events if type(e).__name__ == "Arrival"]
        crossing_the_cut = [
            e
            for e in arrivals
            if e.time > cut
            and (
                trajectory.time
                if network.projections[e.projection].src == 0
                else network.input_time
            )[e.emitter]
            < cut
        ]
        sources = {network.projections[e.projection].src for e in crossing_the_cut}
        assert sources == {INPUT, 0}
        whole, with_past, without = run(graph), solve(rest, past=first.spikes), solve(rest)
        n = int(first.count)
        np.testing.assert_allclose(
            with_past.spikes.time[: CAPACITY - n], whole.spikes.time[n:], rtol=0, atol=1e-10
        )
        assert not np.array_equal(without.spikes.index, with_past.spikes.index)

    @pytest.mark.parametrize("size", [1, 4])
    @draws(8)
    @given(graphs(), st.integers(0, 1000))
    def test_cut_where_the_record_is_full(self, size, network, seed):
        trajectory = tame(network)
        graph, loss = graph_of(network), coefficients(seed)
        whole, (value, expected) = run(graph), value_and_gradient(graph, loss)
        (found_value, (spikes, results)), (found, _) = gradient_of_rooms[size](graph, None, loss)
        n = len(trajectory.time)
        full = -(-n // size) - 1
        np.testing.assert_array_equal(results.status[:full], Status.EVENT_CAPACITY)
        np.testing.assert_array_equal(results.status[full:], Status.OK)
        np.testing.assert_array_equal(results.count[:full], size)
        # a window that is full ends with its last spike
        np.testing.assert_array_equal(results.state.time[:full], results.spikes.time[:full, -1])
        np.testing.assert_array_equal(spikes.index, whole.spikes.index)
        np.testing.assert_allclose(
            finite(spikes.time), finite(whole.spikes.time), rtol=0, atol=1e-9
        )
        np.testing.assert_allclose(results.state.v[-1], whole.state.v, rtol=0, atol=1e-8)
        np.testing.assert_allclose(results.state.i[-1], whole.state.i, rtol=0, atol=1e-8)
        assert float(found_value) == pytest.approx(float(value), abs=1e-8)
        assert_same_tree(found, expected, 1e-8)

    @draws(8)
    @given(graphs(), st.integers(0, 3))
    def test_a_full_record_keeps_the_earliest(self, network, dtype):
        """To the last bit, and its state is what the oracle has after the last of them."""
        tame(network)
        graph = graph_of(network, np.float64 if dtype else np.float32)
        everything = solve(graph)
        for size in (1, 2, 5):
            some = solve(graph, max_events=size)
            if everything.count <= size:
                continue
            assert some.status == Status.EVENT_CAPACITY
            assert some.count == size
            np.testing.assert_array_equal(some.spikes.time, everything.spikes.time[:size])
            np.testing.assert_array_equal(some.spikes.index, everything.spikes.index[:size])
            assert some.state.time == some.spikes.time[-1]
            assert some.queue.head == np.sum(graph.inputs.time <= some.state.time)
            text = status_message(int(some.status), np.asarray(some.detail))
            assert text.endswith(f"room for, which is {size}")

    def test_windows_between_spikes_of_one_time(self):
        """Clones with instant inhibition, one spike per window."""
        for seed in range(8):
            graph = graph_of(clones(3, -1.0, seed))
            whole = solve(graph, max_events=48)
            if whole.count == 0:
                continue
            graph = graph._replace(t_max=float(whole.spikes.time[2]) + 1e-6)
            state, queue, spikes = graph.state, graph.inputs, nothing()
            for _ in range(3):
                own = graph._replace(state=state, inputs=queue)
                result = solve(own, past=spikes, max_events=1)
                state, queue = result.state, result.queue
                spikes = together(spikes, result.spikes)
            np.testing.assert_array_equal(spikes.index, [0, 1, 2])
            np.testing.assert_array_equal(spikes.time, whole.spikes.time[:3])
            assert result.status == Status.OK

    def test_a_window_of_no_length(self):
        rng = np.random.default_rng(2)
        graph = graph_of(random_graph(rng, [random_population(rng, N_NEURONS)], n_in=N_INPUTS))
        first = solve(graph._replace(t_max=1.0))
        own = graph._replace(state=first.state, inputs=first.queue, t_max=1.0)
        again = solve(own, past=first.spikes)
        assert again.count == 0
        same_bits(again.state.time, first.state.time)
        same_bits(again.queue, first.queue)
        np.testing.assert_allclose(again.state.v, first.state.v, rtol=0, atol=1e-15)
        same_bits(again.state.i, first.state.i)


class TestBursts:
    """Currents so large that time hardly advances between spikes: the record fills, and it ends."""

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("recurrent", [0.0, 100.0, -1.0])
    @pytest.mark.parametrize("delay", [0.0, 1e-12])
    @pytest.mark.parametrize("weight", [1e6, 1e12, 1e30])
    def test_the_record_fills(self, dtype, recurrent, delay, weight):
        for params in (SIMPLE, LIFParameters(1.0, 0.7), LIFParameters(1.0, 0.7, v_leak=1.5)):
            result = small(
                [[weight, 1.0, weight]],
                [0.5],
                [0],
                max_events=50,
                params=params,
                dtype=dtype,
                recurrent=np.full((3, 3), recurrent),
                recurrent_delays=delay,
            )
            assert result.status == Status.EVENT_CAPACITY
            assert result.count == 50
            assert result.state.time == result.spikes.time[-1]
            assert np.all(np.diff(result.spikes.time) >= 0)
            assert np.all(np.isfinite(result.spikes.time))
            assert np.all(np.isfinite(result.state.i))

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_excitation_without_delay_that_feeds_itself(self, dtype):
        """Each spike brings the next one closer, without bound."""
        for delay in (0.0, 1e-9):
            result = small(
                [[6.0, 0.0]],
                [0.5],
                [0],
                max_events=400,
                dtype=dtype,
                recurrent=[[50.0, 50.0], [50.0, 50.0]],
                recurrent_delays=delay,
            )
            assert result.status == Status.EVENT_CAPACITY
            assert result.count == 400
            assert result.state.time < 0.9
            assert np.all(np.diff(result.spikes.time) >= 0)

    @pytest.mark.parametrize(("dtype", "weight"), [(np.float64, 4e307), (np.float32, 8e37)])
    def test_a_current_that_overflows_is_an_error(self, dtype, weight):
        options = {"dtype": dtype, "recurrent": np.full((1, 1), 4 * weight)}
        with pytest.raises(RUNTIME_ERROR, match=r"state\.i is inf at element 0"):
            small([[weight]], [0.5], [0], **options)
        result = small([[weight]], [0.5], [0], raise_on=(), **options)
        assert result.status == Status.NON_FINITE
        assert np.isnan(result.spikes.time).all()

    def test_gradients_of_a_burst_are_numbers(self):
        def loss(weights, recurrent):
            return small(weights, [0.5], [0], max_events=50, recurrent=recurrent).spikes.time.sum()

        gradients = jax.grad(loss, (0, 1))(jnp.full((1, 3), 1e4), jnp.full((3, 3), 10.0))
        assert all(np.isfinite(g).all() for g in gradients)


class TestPopulations:
    SIZES = (2, 1, 4)

    @staticmethod
    def graph():
        rng = np.random.default_rng(9)
        populations = [random_population(rng, n) for n in TestPopulations.SIZES]
        return graph_of(random_graph(rng, populations, n_in=N_INPUTS, density=0.8))

    def counts(self, result):
        index = np.asarray(result.spikes.index)
        owner = np.repeat(np.arange(3), self.SIZES)
        return np.bincount(owner[index[index >= 0]], minlength=3)

    def test_enough_room_changes_nothing(self):
        expected = solve(self.graph())
        counts = self.counts(expected)
        assert np.all(counts > 1)
        exact = solve(
            self.graph(), populations=self.SIZES, max_events=tuple(int(c) for c in counts)
        )
        assert exact.status == Status.OK
        n = int(expected.count)
        assert exact.spikes.time.shape == (n,)
        same_bits(exact.spikes.time, expected.spikes.time[:n])
        same_bits(exact.state, expected.state)

    @pytest.mark.parametrize("full", [0, 1, 2])
    def test_a_window_ends_where_one_of_them_is_full(self, full):
        everything = solve(self.graph())
        room = self.counts(everything)
        room[full] -= 1
        result = solve(self.graph(), populations=self.SIZES, max_events=tuple(int(c) for c in room))
        assert result.status == Status.EVENT_CAPACITY
        owner = np.repeat(np.arange(3), self.SIZES)
        of_it = np.flatnonzero(owner[np.asarray(everything.spikes.index)[: room.sum() + 1]] == full)
        n = int(of_it[room[full]])  # the spike for which there is no room
        assert result.count == n
        np.testing.assert_array_equal(result.spikes.time[:n], everything.spikes.time[:n])
        np.testing.assert_array_equal(result.spikes.time[n:], np.inf)
        np.testing.assert_array_equal(result.spikes.index[n:], -1)
        assert result.state.time == everything.spikes.time[n - 1]
        np.testing.assert_array_equal(result.detail[1:], [full, room[full]])

    @pytest.mark.parametrize("full", [0, 1, 2])
    def test_the_error_names_population_sample_and_count(self, full):
        graph = self.graph()
        counts = self.counts(solve(graph))
        room = counts.copy()
        room[full] -= 1
        # sample 0 hears everything too late to fire as much
        time = jnp.stack([jnp.full(N_SPIKES, 2.99), graph.inputs.time])
        index = jnp.stack([graph.inputs.index] * 2)
        batch = graph._replace(inputs=Spikes(time, index))
        options = {
            "populations": self.SIZES,
            "max_events": tuple(int(c) for c in room),
            "label": ["first", "second", "third"],
        }
        result = solve(batch, **options)
        np.testing.assert_array_equal(result.status, [Status.OK, Status.EVENT_CAPACITY])
        name = options["label"][full]
        pattern = f"{name}, sample 1: .*which is {room[full]}: it fired {counts[full]}"
        with pytest.raises(RUNTIME_ERROR, match=pattern):
            solve(batch, raise_on=[*FAILURES, Status.EVENT_CAPACITY], **options)

    def test_other_errors_name_all_of_them(self):
        graph = self.graph()
        with pytest.raises(RUNTIME_ERROR, match="a, b, c, sample 0: recurrent is nan"):
            solve(
                graph._replace(recurrent=graph.recurrent.at[0, 0].set(jnp.nan)),
                populations=self.SIZES,
                max_events=(9, 9, 9),
                label=["a", "b", "c"],
            )

    def test_only_the_statuses_asked_for_raise(self):
        graph = self.graph()
        full = {"populations": self.SIZES, "max_events": (1, 1, 1)}
        assert solve(graph, **full).status == Status.EVENT_CAPACITY
        with pytest.raises(RUNTIME_ERROR, match="which is 1: it fired"):
            solve(graph, raise_on=[Status.EVENT_CAPACITY], **full)
        nan = graph._replace(weights=graph.weights * jnp.nan)
        assert solve(nan, raise_on=[Status.EVENT_CAPACITY], **full).status == Status.NON_FINITE

    def test_a_runaway_population_is_counted_up_to_a_point(self):
        """The others are counted no further, and the message says so."""
        with pytest.raises(RUNTIME_ERROR, match=r"which is 4: it fired at least \d+"):
            small(
                [[1e12, 0.0]],
                [0.5],
                [0],
                populations=(1, 1),
                max_events=(4, 4),
                recurrent=np.zeros((2, 2)),
                raise_on=[Status.EVENT_CAPACITY],
            )

    def test_the_count_goes_beyond_the_room(self):
        """Even where another population fires a lot more in the meantime."""
        params = LIFParameters(1.0, 0.5, v_leak=jnp.asarray([1e3, 1.001]))
        with pytest.raises(RUNTIME_ERROR, match=r"which is 1: it fired (at least )?\d+") as info:
            small(
                np.zeros((0, 2)),
                [],
                [],
                params=params,
                t_max=30.0,
                populations=(1, 1),
                max_events=(20_000, 1),
                raise_on=[Status.EVENT_CAPACITY],
                label=["fast", "slow"],
            )
        assert "slow, sample 0" in str(info.value)
        assert int(re.search(r"(\d+)\n", str(info.value) + "\n").group(1)) >= 2

    def test_gradients_of_full_populations(self):
        """A window that one population ends: as in the window that t_max ends there."""
        graph, loss = self.graph(), coefficients(0)
        room = self.counts(solve(graph))
        room[0] -= 1
        options = {"populations": self.SIZES, "max_events": tuple(int(c) for c in room)}

        def value(weights, recurrent):
            result = solve(graph._replace(weights=weights, recurrent=recurrent), **options)
            return finite(result.spikes.time) @ loss[0][: room.sum()]

        n = int(solve(graph, **options).count)
        assert n > 4

        def same(weights, recurrent):
            result = solve(graph._replace(weights=weights, recurrent=recurrent))
            return result.spikes.time[:n] @ loss[0][:n]

        found = jax.grad(value, (0, 1))(graph.weights, graph.recurrent)
        expected = jax.grad(same, (0, 1))(graph.weights, graph.recurrent)
        for one, other in zip(found, expected, strict=True):
            assert_within(one, other, 1e-11)


class TestEmpty:
    @pytest.mark.parametrize("n_inputs", [0, 2])
    def test_no_input_spikes(self, n_inputs):
        params = LIFParameters(1.0, 0.5, v_leak=0.25)
        recurrent = np.ones((3, 3))

        def result(weights, delays):
            return small(
                weights,
                np.zeros(0),
                np.zeros(0),
                params=params,
                recurrent=recurrent,
                delays=delays,
            )

        weights = jnp.ones((n_inputs, 3))
        for delays in (jnp.asarray(0.5), jnp.full((n_inputs, 3), 0.5), jnp.full(n_inputs, 0.5)):
            found = result(weights, delays)
            assert found.count == 0
            np.testing.assert_array_equal(found.state.v, 0.25)
            gradients = jax.grad(lambda *a: result(*a).state.v.sum(), (0, 1))(weights, delays)
            for gradient in gradients:
                np.testing.assert_array_equal(gradient, 0)

    def test_a_network_that_runs_by_itself(self):
        params = LIFParameters(1.0, 0.5, v_leak=jnp.asarray([1.5, 0.0]))
        result = event_loop(
            params,
            jnp.zeros((0, 2)),
            initial_state(SIMPLE, 2, jnp.dtype(jnp.float64)),
            nothing(),
            t_max=3.0,
            max_events=8,
            recurrent=jnp.asarray([[0.0, 6.0], [0.0, 0.0]]),
            recurrent_delays=0.125,
        )
        np.testing.assert_array_equal(result.spikes.index[:2], [0, 1])
        assert result.spikes.time[0] == pytest.approx(np.log(3), rel=1e-14)  # v = 1.5 (1 - e^-t)

    def test_padding_only(self):
        result = small([[9.0]], [np.inf, np.inf], [-1, -1], recurrent=[[1.0]])
        assert result.count == 0
        assert result.queue.head == 0

    def test_padding_behind_spikes_and_behind_the_past(self):
        graph = graph_of(clones(2, 0.5, 0, delay=0.25))
        state = graph.state._replace(time=jnp.asarray(0.0625))
        past = Spikes(jnp.asarray([-0.1, 0.0]), jnp.asarray([0, 1], jnp.int32))
        exact = solve(graph._replace(state=state), past=past)
        pad = Spikes(jnp.full(3, jnp.inf), jnp.full(3, -1, jnp.int32))
        padded = graph._replace(inputs=together(graph.inputs, pad), state=state)
        found = solve(padded, past=together(past, pad))
        same_bits((found.spikes, found.state), (exact.spikes, exact.state))
        loss = coefficients(0, 2)

        def value(time, past_time):
            inputs = padded.inputs._replace(time=time)
            spikes = together(past, pad)._replace(time=past_time)
            return linear_loss(solve(padded._replace(inputs=inputs), past=spikes), loss)

        gradients = jax.grad(value, (0, 1))(padded.inputs.time, together(past, pad).time)
        assert np.all(gradients[0][:2] != 0)
        assert np.all(gradients[1][:2] != 0)
        for gradient in gradients:
            np.testing.assert_array_equal(gradient[-3:], 0)

    def test_nobody_fires(self):
        options = {"recurrent": np.ones((3, 3)), "recurrent_delays": 0.25}
        result = small(np.full((1, 3), 0.5), [0.5], [0], **options)
        assert result.count == 0
        assert result.status == Status.OK

        def loss(weights, recurrent):
            found = small(weights, [0.5], [0], **(options | {"recurrent": recurrent}))
            return finite(found.spikes.time).sum()

        gradients = jax.grad(loss, (0, 1))(jnp.full((1, 3), 0.5), jnp.ones((3, 3)))
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)

    def test_batch_of_zero(self):
        def times(weights, recurrent, delays, time):
            index = jnp.zeros(time.shape, jnp.int32)
            return event_loop(
                SIMPLE,
                weights,
                initial_state(SIMPLE, 3, jnp.dtype(jnp.float64)),
                Spikes(time, index),
                t_max=1.0,
                max_events=4,
                delays=delays,
                recurrent=recurrent,
            ).spikes.time

        shared = jnp.ones((1, 3)), jnp.ones((3, 3)), jnp.asarray([0.5])
        time = jnp.zeros((0, 2))
        assert times(*shared, time).shape == (0, 4)
        gradients = jax.grad(lambda *a: times(*a).sum(), argnums=(0, 1, 2, 3))(*shared, time)
        for gradient, argument in zip(gradients, (*shared, time), strict=True):
            np.testing.assert_array_equal(gradient, np.zeros(argument.shape))
        mapped = jax.vmap(times, in_axes=(None, None, None, 0))(*shared, time[:, None])
        assert mapped.shape == (0, 1, 4)
