"""Gradients with respect to the parameters of the neurons, and parameters that are trained.

Against the oracle, against differences, by all routes and under transformations. Tolerances as in
``test_networks``: 1e-8 of the largest entry against the oracle, which carries 1e-15 through spikes
that nothing moves by more than 100; 1e-7 for differences, whose error is STEP**4 times a fifth
derivative, plus 1e-15 / STEP of rounding; 1e-9 between routes that do the same in another order.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsnn import LIFParameters, SpikeQueue, Spikes
from jaxsnn.event import LIF, EventPropLIF, Graph, Source
from jaxsnn.event.population import trained_parameters
from jaxsnn.ops import EventKind, Status, event_step, flow, next_crossing
from networks import (
    CAPACITY,
    N_INPUTS,
    N_NEURONS,
    N_SPIKES,
    PARAMETERS,
    assert_within,
    coefficients,
    draws,
    graph_of,
    linear_loss,
    params_of,
    random_graph,
    random_network,
    random_population,
    same_bits,
    solve,
    well_conditioned,
)
from networks import Graph as Arguments
from oracle.gradient import forward_sensitivity, loss_gradient

pytestmark = pytest.mark.usefixtures("x64")

RATIOS = [0.3, 1.0, 1 + 1e-9, 1 + 1e-5, 2.0]
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
STEP = 1e-5


def population_of(rng, *, per_neuron=True, refractory=True, ratio=None):
    """Neurons of which nothing is equal or zero, and of all ratios unless there is one."""
    population = random_population(
        rng, N_NEURONS, per_neuron=per_neuron, refractory=refractory, ratio=ratio or 0.5
    )
    if ratio is not None:
        return population
    ratios = rng.permutation(np.resize(RATIOS, N_NEURONS)) if per_neuron else rng.choice(RATIOS)
    return replace(population, tau_syn=population.tau_mem * ratios)


def tame(network):
    """The trajectory, or None where it is badly conditioned."""
    trajectory = well_conditioned(network, gap=1e-5)
    if trajectory is None or not 5 < len(trajectory.time) <= CAPACITY:
        return None
    slopes = forward_sensitivity(network, trajectory, ("weight", "input_time", *PARAMETERS)).time
    return trajectory if np.abs(slopes).max() < 100 else None


@st.composite
def problems(draw, kinds=("layer", "graph"), **fixed):
    """A network of one population, as the oracle and as event_loop take it, and its trajectory."""
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    options = {
        "per_neuron": draw(st.booleans()),
        "refractory": draw(st.integers(0, 3)) > 0,
        "ratio": draw(st.sampled_from([None, None, *RATIOS])),
    }
    population = population_of(rng, **(options | fixed))
    if kind == "layer":
        network = random_network(rng, (N_NEURONS,), n_in=N_INPUTS, n_spikes=N_SPIKES, t_max=3.0)
        network = replace(network, populations=[population])
    else:
        network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES, density=1.0)
    trajectory = tame(network)
    assume(trajectory is not None)
    graph = graph_of(network)._replace(params=params_of(population))
    if kind == "layer":
        graph = graph._replace(delays=None, recurrent=None, recurrent_delays=None)
    return network, trajectory, graph


def loss_by_loop(params, graph, loss):
    result = solve(graph._replace(params=params))
    return linear_loss(result, loss), result


by_loop = jax.jit(jax.value_and_grad(loss_by_loop, has_aux=True))


def loss_by_steps(params, graph, loss):
    """The same loss by a scan of single events."""
    by_time, by_v, by_i = map(jnp.asarray, loss)

    def step(carry, _):
        state, queue, count, value = carry
        result = event_step(params, graph.weights, state, queue, t_max=graph.t_max)
        own = result.event.kind == EventKind.SPIKE
        value += jnp.where(own, by_time[count] * jnp.where(own, result.event.time, 0), 0)
        return (result.state, result.queue, count + own, value), None

    queue = SpikeQueue(*graph.inputs, jnp.zeros((), jnp.int32))
    carry = (graph.state, queue, jnp.zeros((), int), jnp.zeros(()))
    (state, _, count, value), _ = jax.lax.scan(step, carry, None, length=CAPACITY + N_SPIKES)
    return value + by_v @ state.v + by_i @ state.i, count


by_steps = jax.jit(jax.value_and_grad(loss_by_steps, has_aux=True))


def vector_of(params):
    return np.concatenate([np.ravel(getattr(params, name)) for name in PARAMETERS])


def params_from(vector, like):
    parts, start = {}, 0
    for name in PARAMETERS:
        old = getattr(like, name)
        parts[name] = vector[start : start + old.size].reshape(old.shape)
        start += old.size
    return LIFParameters(**parts)


def stencil_of(vector, entries):
    """``[len(entries), 4, len(vector)]``: the points of a central difference."""
    points = np.tile(vector, (len(entries), len(STENCIL), 1))
    for row, entry in enumerate(entries):
        points[row, :, entry] += STEP * np.array([s for s, _ in STENCIL])
    return points


def derivative_of(values):
    return values @ np.array([c for _, c in STENCIL]) / STEP


@jax.jit
def values_along(vectors, graph, loss):
    def value(vector):
        result = solve(graph._replace(params=params_from(vector, graph.params)))
        return linear_loss(result, loss), result.spikes.index

    return jax.vmap(value)(vectors)


class TestEventLoop:
    def test_the_draws_have_what_they_should(self):
        """Neurons that end clamped, neurons that started up, many spikes, close time constants."""
        clamped = spikes = 0
        for seed in range(8):
            rng = np.random.default_rng(seed)
            population = population_of(rng)
            assert np.unique(population.tau_syn / population.tau_mem).size >= 4
            for name in (*PARAMETERS, "v0", "i0"):
                assert np.unique(getattr(population, name)).size == N_NEURONS
            network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES)
            trajectory = well_conditioned(network)
            if trajectory is not None:
                spikes += len(trajectory.time)
                clamped += np.sum(trajectory.free_at > network.t_max)
        assert spikes > 60
        assert clamped > 3

    @draws(40)
    @given(problems(), st.integers(0, 1000))
    def test_oracle(self, problem, seed):
        network, trajectory, graph = problem
        loss = coefficients(seed)
        (_, result), found = by_loop(graph.params, graph, loss)
        assert result.status == Status.OK
        assert result.count == len(trajectory.time)
        expected = loss_gradient(
            network,
            trajectory,
            dloss_dtime=loss[0][: len(trajectory.time)],
            dloss_dv_end=loss[1],
            dloss_di_end=loss[2],
            wrt=PARAMETERS,
        )
        for name in PARAMETERS:
            (array,) = expected[name]
            assert getattr(found, name).shape == array.shape
            assert_within(getattr(found, name), array, 1e-8, name)

    @draws(12)
    @given(problems(), st.integers(0, 1000))
    def test_differences_of_every_entry(self, problem, seed):
        _, _, graph = problem
        loss = coefficients(seed)
        (_, result), found = by_loop(graph.params, graph, loss)
        vector, exact = vector_of(graph.params), vector_of(found)
        # without a refractory period its derivative is zero by convention
        entries = np.flatnonzero(vector)
        points = stencil_of(vector, entries)
        values, order = values_along(jnp.asarray(points.reshape(-1, vector.size)), graph, loss)
        order = np.asarray(order).reshape(*points.shape[:2], -1)
        same = np.all(order == np.asarray(result.spikes.index), axis=(1, 2))
        assume(same.mean() > 0.8)
        numeric = derivative_of(np.asarray(values).reshape(points.shape[:2]))
        error = np.abs(numeric - exact[entries]) / (1 + np.abs(exact[entries]))
        assert error[same].max() < 1e-7
        assert np.all(exact[vector == 0] == 0)

    @draws(12)
    @given(problems(kinds=("layer",)), st.integers(0, 1000))
    def test_steps_are_the_same(self, problem, seed):
        _, trajectory, graph = problem
        loss = coefficients(seed)
        (value, _), expected = by_loop(graph.params, graph, loss)
        (found_value, count), found = by_steps(graph.params, graph, loss)
        assert count == len(trajectory.time)
        assert found_value == pytest.approx(float(value), abs=1e-10)
        for name in PARAMETERS:
            assert_within(getattr(found, name), getattr(expected, name), 1e-9, name)

    @draws(10)
    @given(problems(kinds=("layer",)), st.integers(0, 1000))
    def test_the_event_queue_is_the_same(self, problem, seed):
        _, _, graph = problem
        loss = coefficients(seed)
        _, expected = by_loop(graph.params, graph, loss)
        _, found = by_loop(graph.params, graph._replace(delays=jnp.zeros(())), loss)
        for name in PARAMETERS:
            assert_within(getattr(found, name), getattr(expected, name), 1e-9, name)

    @draws(10)
    @given(problems(per_neuron=False), st.integers(0, 1000))
    def test_shared_is_the_sum_over_neurons(self, problem, seed):
        _, _, graph = problem
        loss = coefficients(seed)
        _, shared = by_loop(graph.params, graph, loss)
        each = jax.tree.map(lambda x: jnp.full(N_NEURONS, x), graph.params)
        _, own = by_loop(each, graph, loss)
        for name in PARAMETERS:
            assert getattr(shared, name).shape == ()
            assert_within(getattr(shared, name), getattr(own, name).sum(), 1e-9, name)

    def test_a_neuron_that_no_spike_moves(self):
        """The final state of one free neuron is a closed form, and so are its derivatives."""
        params = LIFParameters(*(jnp.asarray([x]) for x in (1.3, 0.7, np.inf, 0.25, -0.4, 0.2)))

        def closed(params):
            v, i = 0.6, 0.9
            t = 2.0
            decay = jnp.exp(-t / params.tau_mem), jnp.exp(-t / params.tau_syn)
            kernel = params.tau_syn / (params.tau_mem - params.tau_syn) * (decay[0] - decay[1])
            end = params.v_leak + (v - params.v_leak) * decay[0] + i * kernel
            return jnp.sum(3 * end - 2 * i * decay[1])

        def simulated(params, delays):
            graph = Arguments(
                params,
                jnp.zeros((1, 1)),
                jaxsnn_state(0.6, 0.9),
                Spikes(jnp.asarray([0.5]), jnp.asarray([0], jnp.int32)),
                2.0,
                delays,
                None,
                None,
            )
            state = solve(graph).state
            return jnp.sum(3 * state.v - 2 * state.i)

        expected = jax.grad(closed)(params)
        for delays in (None, jnp.asarray(0.1)):
            found = jax.grad(simulated)(params, delays)
            for name in ("tau_mem", "tau_syn", "v_leak"):
                assert_within(getattr(found, name), getattr(expected, name), 1e-13, name)
            for name in ("v_th", "v_reset", "t_ref"):
                assert getattr(found, name) == 0, name

    def test_clamped_at_the_end(self):
        """Such a neuron shows its reset, and nothing else of its voltage."""
        params = LIFParameters(1.0, 0.5, 1.0, 0.125, -0.25, 5.0)  # exact in binary
        params = jax.tree.map(jnp.asarray, params)
        for delays in (None, jnp.asarray(0.0)):

            def v_end(params, delays=delays):
                graph = Arguments(
                    params,
                    jnp.full((1, 1), 9.0),
                    jaxsnn_state(0.125, 0.0),
                    Spikes(jnp.asarray([0.5]), jnp.asarray([0], jnp.int32)),
                    2.0,
                    delays,
                    None,
                    None,
                )
                result = solve(graph)
                return result.state.v[0], result.count

            (value, count), found = jax.value_and_grad(v_end, has_aux=True)(params)
            assert count == 1
            assert value == -0.25
            assert found.v_reset == 1
            for name in ("tau_mem", "tau_syn", "v_th", "v_leak", "t_ref"):
                assert getattr(found, name) == 0, name


def jaxsnn_state(v, i):
    from jaxsnn import LIFState

    return LIFState(jnp.asarray([v]), jnp.asarray([i]), jnp.asarray([-jnp.inf]), jnp.zeros(()))


class TestSingleNeurons:
    """``flow`` and ``next_crossing``: differences in every parameter."""

    RATIO = np.array([0.3, 1.0, 1 + 1e-9, 1 + 1e-5, 2.0, 0.9999])

    def params(self, rng, shared=False):
        n = len(self.RATIO)
        tau_mem = rng.uniform(0.8, 1.6, n)
        values = [tau_mem, tau_mem * self.RATIO, rng.uniform(0.9, 1.2, n)]
        values += [rng.uniform(-0.2, 0.3, n), rng.uniform(-0.5, 0.4, n), rng.uniform(0.05, 0.4, n)]
        return LIFParameters(*(jnp.asarray(x[0] if shared else x) for x in values))

    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("op", ["flow", "crossing"])
    @pytest.mark.parametrize("seed", range(3))
    def test_differences(self, op, shared, seed):
        rng = np.random.default_rng(seed)
        params = self.params(rng, shared)
        n = len(self.RATIO)
        v, i = jnp.asarray(rng.uniform(-0.3, 0.8, n)), jnp.asarray(rng.uniform(8.0, 11.0, n))
        dt = jnp.asarray(rng.uniform(0.1, 2.0, n))
        c = jnp.asarray(rng.normal(size=(2, n)))

        @jax.jit
        def value(vector):
            own = params_from(vector, params)
            if op == "crossing":
                return c[0] @ next_crossing(own, v, i)
            return jnp.vdot(c, jnp.stack(flow(own, v, i, dt)))

        vector = vector_of(params)
        assert np.all(np.isfinite(next_crossing(params, v, i)))
        exact = np.asarray(jax.grad(value)(vector))
        points = stencil_of(vector, range(vector.size))
        numeric = derivative_of(np.asarray(jax.vmap(jax.vmap(value))(jnp.asarray(points))))
        assert_within(exact, numeric, 1e-9)
        assert np.count_nonzero(exact) == vector.size * (4 if op == "crossing" else 3) // 6

    def test_no_crossing_has_no_gradient(self):
        """Never, and at once: neither moves."""
        params = self.params(np.random.default_rng(0))
        n = len(self.RATIO)
        v = jnp.where(jnp.arange(n) % 2 == 0, 0.0, 1.5)

        def value(params):
            times = next_crossing(params, v, jnp.zeros(n))
            return jnp.sum(jnp.where(jnp.isfinite(times), times, 0))

        for gradient in jax.tree.leaves(jax.grad(value)(params)):
            np.testing.assert_array_equal(gradient, 0)


class TestTransformations:
    @staticmethod
    def draw(kind, per_neuron):
        for seed in range(50):
            rng = np.random.default_rng((seed, 7))
            population = population_of(rng, per_neuron=per_neuron)
            network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES, density=1.0)
            if tame(network) is not None:
                graph = graph_of(network)._replace(params=params_of(population))
                if kind == "layer":
                    graph = graph._replace(delays=None, recurrent=None, recurrent_delays=None)
                return graph
        raise AssertionError("no draw is tame")

    @pytest.mark.parametrize("kind", ["layer", "graph"])
    @pytest.mark.parametrize("per_neuron", [False, True])
    def test_vmap_and_grad_in_any_order(self, kind, per_neuron):
        graph, loss = self.draw(kind, per_neuron), coefficients(3)
        factors = jnp.asarray([1.0, 1.02, 0.97])
        batch = jax.tree.map(lambda x: factors.reshape(-1, *[1] * x.ndim) * x, graph.params)
        single = jax.grad(lambda params: loss_by_loop(params, graph, loss)[0])
        expected = [single(jax.tree.map(lambda x, k=k: x[k], batch)) for k in range(3)]
        expected = jax.tree.map(lambda *x: jnp.stack(x), *expected)
        in_vmap = jax.jit(jax.vmap(single))(batch)
        over_vmap = jax.jit(
            jax.grad(
                lambda params: jnp.sum(
                    jax.vmap(lambda own: loss_by_loop(own, graph, loss)[0])(params)
                )
            )
        )(batch)
        for name in PARAMETERS:
            one = getattr(expected, name)
            assert np.abs(one).max() > 0
            assert_within(getattr(in_vmap, name), one, 1e-12, name)
            assert_within(getattr(over_vmap, name), one, 1e-12, name)

    @pytest.mark.parametrize("kind", ["layer", "graph"])
    @pytest.mark.parametrize("per_neuron", [False, True])
    def test_shared_by_a_batch_of_inputs(self, kind, per_neuron):
        """The gradient of what all examples share is the sum of theirs."""
        graph, loss = self.draw(kind, per_neuron), coefficients(4)
        times = graph.inputs.time * jnp.asarray([1.0, 0.98, 1.03, 0.9])[:, None]

        def value(params, time):
            own = graph._replace(inputs=Spikes(time, graph.inputs.index))
            return loss_by_loop(params, own, loss)[0]

        each = jax.vmap(jax.grad(value), (None, 0))(graph.params, times)
        together = jax.grad(lambda p: jnp.sum(jax.vmap(value, (None, 0))(p, times)))(graph.params)

        def native(params):
            index = jnp.broadcast_to(graph.inputs.index, times.shape)
            own = graph._replace(inputs=Spikes(times, index), params=params)
            result = solve(own)
            found = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0)
            by_time, by_v, by_i = loss
            return jnp.sum(found @ by_time + result.state.v @ by_v + result.state.i @ by_i)

        in_batch = jax.grad(native)(graph.params)
        for name in PARAMETERS:
            expected = getattr(each, name).sum(0)
            assert_within(getattr(together, name), expected, 1e-12, name)
            assert_within(getattr(in_batch, name), expected, 1e-12, name)

    @pytest.mark.parametrize("kind", ["layer", "graph"])
    def test_jit_changes_nothing(self, kind):
        graph, loss = self.draw(kind, True), coefficients(5)
        gradient = jax.grad(lambda params: loss_by_loop(params, graph, loss)[0])
        same_bits(jax.jit(gradient)(graph.params), gradient(graph.params))

    @pytest.mark.parametrize("kind", ["layer", "graph"])
    @pytest.mark.parametrize("per_neuron", [False, True])
    def test_float32(self, kind, per_neuron):
        """Rounding of 6e-8 grows by up to 100 times in each of two passes: 1e-3 of the largest."""
        graph, loss = self.draw(kind, per_neuron), coefficients(6)
        (_, result), expected = by_loop(graph.params, graph, loss)
        narrow = jax.tree.map(
            lambda x: x.astype(np.float32) if jnp.issubdtype(x.dtype, np.floating) else x,
            graph._replace(t_max=jnp.asarray(graph.t_max)),
        )
        narrow_loss = tuple(np.float32(c) for c in loss)
        (_, narrow_result), found = by_loop(narrow.params, narrow, narrow_loss)
        np.testing.assert_array_equal(narrow_result.spikes.index, result.spikes.index)
        for name in PARAMETERS:
            one = getattr(found, name)
            assert one.dtype == np.float32
            assert_within(one, getattr(expected, name), 1e-3, name)

    def test_steps_under_vmap(self):
        graph, loss = self.draw("layer", True), coefficients(3)
        factors = jnp.asarray([1.0, 1.02])
        batch = jax.tree.map(lambda x: factors[:, None] * x, graph.params)
        expected = jax.vmap(jax.grad(lambda p: loss_by_loop(p, graph, loss)[0]))(batch)
        found = jax.jit(jax.vmap(jax.grad(lambda p: loss_by_steps(p, graph, loss)[0])))(batch)
        for name in PARAMETERS:
            assert_within(getattr(found, name), getattr(expected, name), 1e-9, name)


ALL = PARAMETERS


def layer_draw(per_neuron, seed=0):
    """A layer that starts at rest, where the leak is the start as well."""
    for attempt in range(100):
        rng = np.random.default_rng((seed, attempt))
        population = population_of(rng, per_neuron=per_neuron, ratio=0.6)
        population = replace(population, v0=population.v_leak, i0=0.0)
        network = random_network(rng, (N_NEURONS,), n_in=N_INPUTS, n_spikes=N_SPIKES, t_max=3.0)
        network = replace(network, populations=[population])
        trajectory = tame(network)
        if trajectory is not None:
            return network, trajectory
    raise AssertionError("no draw is tame")


class TestLayers:
    def net(self, factory, network, **options):
        (population,) = network.populations
        return factory(
            N_NEURONS,
            n_spikes=CAPACITY,
            t_max=network.t_max,
            params=params_of(population),
            **options,
        )

    @staticmethod
    def loss(net, graph, c):
        def value(numbers):
            weights = {"weights": graph.weights, "params": numbers}
            times = net.apply(weights, graph.inputs).time
            return jnp.where(jnp.isfinite(times), times, 0) @ c

        return value

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    @pytest.mark.parametrize("per_neuron", [False, True])
    def test_oracle(self, factory, per_neuron):
        """At the start all numbers are zero, and their gradients known multiples of the others."""
        network, trajectory = layer_draw(per_neuron)
        (population,) = network.populations
        graph, c = graph_of(network), coefficients(1)[0]
        net = self.net(factory, network, train=ALL)
        n_neurons, drawn = net.init(jax.random.key(0), N_INPUTS)
        assert n_neurons == N_NEURONS
        assert set(drawn) == {"weights", "params"}
        assert set(drawn["params"]) == set(ALL)
        for name in ALL:
            np.testing.assert_array_equal(
                drawn["params"][name], np.zeros_like(getattr(population, name))
            )
        found = jax.jit(jax.grad(self.loss(net, graph, c)))(drawn["params"])
        oracle = loss_gradient(
            network, trajectory, dloss_dtime=c[: len(trajectory.time)], wrt=(*PARAMETERS, "v0")
        )
        g = {name: arrays[0] for name, arrays in oracle.items()}
        gap = population.v_th - population.v_reset
        expected = {
            name: getattr(population, name) * g[name] for name in ("tau_mem", "tau_syn", "t_ref")
        }
        v0 = g["v0"].sum() if g["v_leak"].ndim == 0 and g["v0"].ndim else g["v0"]
        expected["v_leak"] = gap * (g["v_leak"] + v0)
        # the threshold stands on the reset
        expected["v_reset"] = gap * (g["v_reset"] + g["v_th"])
        expected["v_th"] = gap * g["v_th"]
        for name in ALL:
            assert found[name].shape == np.shape(getattr(population, name))
            assert_within(found[name], expected[name], 1e-8, name)

    @pytest.mark.parametrize("per_neuron", [False, True])
    def test_both_routes_away_from_the_start(self, per_neuron):
        network, _ = layer_draw(per_neuron, seed=1)
        graph, c = graph_of(network), coefficients(2)[0]
        rng = np.random.default_rng(5)
        shape = (N_NEURONS,) if per_neuron else ()
        numbers = {name: jnp.asarray(rng.normal(0, 0.02, shape)) for name in ALL}
        one, other = (
            jax.jit(jax.value_and_grad(self.loss(self.net(f, network, train=ALL), graph, c)))(
                numbers
            )
            for f in (LIF, EventPropLIF)
        )
        assert one[0] == pytest.approx(float(other[0]), abs=1e-10)
        for name in ALL:
            assert np.abs(other[1][name]).max() > 0
            assert_within(one[1][name], other[1][name], 1e-9, name)

    @pytest.mark.parametrize("name", ALL)
    def test_one_alone(self, name):
        """The others keep their values, and the weights their gradient."""
        network, _ = layer_draw(True)
        graph, c = graph_of(network), coefficients(1)[0]
        net = self.net(EventPropLIF, network, train=(name,))
        plain = self.net(EventPropLIF, network)
        numbers = net.init(jax.random.key(0), N_INPUTS)[1]["params"]
        assert list(numbers) == [name]

        def by_weights(net, wrap):
            def value(weights):
                times = net.apply(wrap(weights), graph.inputs).time
                return jnp.where(jnp.isfinite(times), times, 0) @ c

            return jax.value_and_grad(value)(graph.weights)

        found = by_weights(net, lambda w: {"weights": w, "params": numbers})
        expected = by_weights(plain, lambda w: w)
        # a threshold is put together from reset and gap
        assert found[0] == pytest.approx(float(expected[0]), abs=1e-11)
        assert_within(found[1], expected[1], 1e-10)

    def test_a_parametrisation_of_ones_own(self):
        network, _ = layer_draw(True)
        graph, c = graph_of(network), coefficients(1)[0]
        train = {
            "tau_mem": lambda initial, x: initial + 0.1 * jnp.tanh(x),
            "v_th": lambda initial, x: initial * (1 + x),
        }
        net = self.net(EventPropLIF, network, train=train)
        assert set(net.init(jax.random.key(0), N_INPUTS)[1]["params"]) == set(train)
        numbers = {"tau_mem": jnp.full(N_NEURONS, 0.1), "v_th": jnp.full(N_NEURONS, 0.01)}

        def plain(numbers):
            own = replace(
                graph.params,
                tau_mem=graph.params.tau_mem + 0.1 * jnp.tanh(numbers["tau_mem"]),
                v_th=graph.params.v_th * (1 + numbers["v_th"]),
            )
            options = {"delays": None, "recurrent": None, "recurrent_delays": None}
            times = solve(graph._replace(params=own), **options).spikes.time
            return jnp.where(jnp.isfinite(times), times, 0) @ c

        found = jax.value_and_grad(self.loss(net, graph, c))(numbers)
        expected = jax.value_and_grad(plain)(numbers)
        assert found[0] == pytest.approx(float(expected[0]), abs=1e-12)
        for name in train:
            assert_within(found[1][name], expected[1][name], 1e-12, name)

    @pytest.mark.parametrize("train", [("v_th",), ("v_reset",), ("v_th", "v_reset"), ALL])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_all_numbers_stand_for_valid_parameters(self, train, dtype):
        params = LIFParameters(v_th=0.7, v_reset=-0.4, v_leak=0.1, t_ref=1e-3)
        grid = np.array([-5.0, -3.0, -0.1, 0.0, 0.1, 3.0, 5.0], dtype)
        for x in grid:
            for y in grid:
                numbers = {name: jnp.asarray(y if name == "v_th" else x) for name in train}
                found = trained_parameters(params, train, numbers)
                assert np.isfinite(vector_of(jax.tree.map(jnp.asarray, found))).all()
                assert dtype(found.v_th) > dtype(found.v_reset)
                assert found.tau_mem > 0
                assert found.tau_syn > 0
                assert found.t_ref >= 0
                if "v_th" in train:
                    gap = (0.7 + 0.4) * np.exp(np.float64(y))
                    assert float(found.v_th) - float(found.v_reset) == pytest.approx(
                        gap, rel=1e-2 if dtype == np.float32 else 1e-9
                    )

    @pytest.mark.parametrize("train", [("v_th",), ("v_reset",), ("v_th", "v_reset")])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("number", [12.0, 60.0, 2000.0])
    def test_threshold_and_reset_never_meet(self, train, dtype, number):
        """Where their distance is lost to rounding too; and the gradient leads back."""
        params = LIFParameters(v_th=0.7, v_reset=-0.4)

        def distance(numbers):
            found = trained_parameters(params, train, numbers)
            return jnp.asarray(found.v_th, dtype) - jnp.asarray(found.v_reset, dtype)

        signs = {"v_th": -1, "v_reset": 1}
        numbers = {name: jnp.asarray(signs[name] * number, dtype) for name in train}
        assert distance(numbers) > 0
        slopes = jax.grad(distance)(numbers)
        own = train[0]  # a threshold that is trained moves along with the reset
        gap = 1.1 * np.exp(-number)
        assert float(slopes[own]) == pytest.approx(-signs[own] * gap, rel=1e-5, abs=1e-37)

    def test_zero_is_the_initial_value(self):
        params = LIFParameters(v_th=0.7, v_reset=-0.4, v_leak=0.1, t_ref=1e-3)
        found = trained_parameters(params, ALL, {name: jnp.zeros(()) for name in ALL})
        for name in ALL:
            assert getattr(found, name) == pytest.approx(getattr(params, name), abs=1e-15), name

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    @pytest.mark.parametrize("train", [("tau",), ("v_th", "weights"), {"tau": lambda i, x: i + x}])
    def test_rejects_unknown_names(self, factory, train):
        with pytest.raises(ValueError, match=r"hidden: train has '(tau|weights)', expected names"):
            factory(3, n_spikes=3, t_max=1.0, train=train, name="hidden")

    def test_in_a_graph(self):
        """The numbers stand under the name of the population, and get the same gradient."""
        network, _ = layer_draw(True)
        arguments, c = graph_of(network), coefficients(1)[0]
        graph = Graph()
        graph.add("input", Source(N_INPUTS))
        graph.add("hidden", self.net(EventPropLIF, network, train=ALL))
        graph.connect("input", "hidden")
        init, apply, record = graph.build()
        _, parameters = init(jax.random.key(0))
        assert set(parameters) == {"input->hidden", "hidden"}
        assert set(parameters["hidden"]) == set(ALL)
        numbers = {name: jnp.full(N_NEURONS, 0.01) for name in ALL}

        def value(numbers):
            own = {"input->hidden": {"weights": arguments.weights}, "hidden": numbers}
            times = apply(own, arguments.inputs)["hidden"].time
            return jnp.where(jnp.isfinite(times), times, 0) @ c

        net = self.net(EventPropLIF, network, train=ALL)
        expected = jax.value_and_grad(self.loss(net, arguments, c))(numbers)
        found = jax.value_and_grad(value)(numbers)
        same_bits(found, expected)
        own = {"input->hidden": {"weights": arguments.weights}, "hidden": numbers}
        used = record(own, arguments.inputs)["hidden"].params
        np.testing.assert_allclose(
            used.tau_mem, arguments.params.tau_mem * np.exp(0.01), rtol=1e-12
        )

    def test_in_a_cycle(self):
        """Two populations in a loop, one with numbers: the gradient is that of differences."""
        rng = np.random.default_rng(8)
        graph = Graph()
        graph.add("input", Source(2))
        options = {"n_spikes": 40, "t_max": 3.0}
        params = LIFParameters(1.0, 0.5, 1.0, 0.1, -0.2, 0.1)
        graph.add("a", EventPropLIF(3, params=params, train=("tau_mem", "v_reset"), **options))
        graph.add("b", EventPropLIF(2, params=replace(params, tau_mem=1.2), **options))
        graph.connect("input", "a", delay=0.1)
        graph.connect("a", "b", delay=0.05)
        graph.connect("b", "a", delay=0.2)
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(1))
        assert set(parameters["a"]) == {"tau_mem", "v_reset"}
        assert "b" not in parameters
        weights = {
            "input->a": rng.uniform(2, 6, (2, 3)),
            "a->b": rng.uniform(1, 3, (3, 2)),
            "b->a": rng.uniform(-1, 2, (2, 3)),
        }
        edges = {name: {"weights": jnp.asarray(w)} for name, w in weights.items()}
        inputs = Spikes(jnp.asarray([0.1, 0.35, 0.8, 1.4]), jnp.asarray([0, 1, 1, 0], jnp.int32))

        @jax.jit
        def value(x):
            own = edges | {"a": {"tau_mem": x[0], "v_reset": x[1]}}
            spikes = apply(own, inputs)
            times = [jnp.where(jnp.isfinite(s.time), s.time, 0) for s in spikes.values()]
            count = sum(jnp.sum(s.index >= 0) for s in spikes.values())
            return sum(jnp.sin(3 * t).sum() for t in times), count

        x = jnp.asarray([0.03, -0.1])
        exact, count = jax.grad(value, has_aux=True)(x)
        assert count > 8
        points = stencil_of(np.asarray(x), range(2))
        values, counts = jax.vmap(jax.vmap(value))(jnp.asarray(points))
        assert np.all(counts == count)
        assert_within(exact, derivative_of(np.asarray(values)), 1e-7)


def test_value_under_partial_is_the_value():
    """The gradient with respect to parameters does not change what is computed."""
    graph = TestTransformations.draw("graph", True)
    loss = coefficients(0)
    (value, result), _ = by_loop(graph.params, graph, loss)
    alone, same = jax.jit(partial(loss_by_loop, graph.params))(graph, loss)
    assert value == alone
    same_bits(result, same)
