"""Spikes, states and gradients of jaxsnn.ops against the oracle, closed forms and identities.

Tolerances: times and voltages are of order 1, float64 carries them to 1e-15, and a spike loses at
most a factor 1/V' of that, where draws with V' < 0.05 are left out. Nothing that is exact needs
more than 1e-9 (values) or 1e-8 of the largest entry (gradients), even after tens of spikes.
"""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.optimize import brentq

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.ops import EventKind, Status, event_loop, event_step, flow, next_crossing
from networks import draws, inputs_of, layer_of, random_network, well_conditioned
from oracle.gradient import central_difference, loss_gradient
from oracle.kernel import kernel
from oracle.network import Network, Population, Projection
from oracle.simulate import Release, simulate

pytestmark = pytest.mark.usefixtures("x64")

N_INPUTS, N_NEURONS, N_SPIKES, CAPACITY = 4, 5, 10, 64
N_STEPS = CAPACITY + N_SPIKES + 1
RATIOS = [0.1, 0.5, 1 - 1e-7, 1.0, 1 + 1e-12, 1.001, 2.0, 10.0]


@st.composite
def networks(draw, **fixed):
    """One layer of fixed size, so that nothing is compiled twice."""
    options = {
        "ratio": draw(st.sampled_from(RATIOS) | st.floats(-1, 1).map(lambda x: 10**x)),
        "refractory": draw(st.booleans()),
        "tonic": draw(st.booleans()),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_network(rng, (N_NEURONS,), n_in=N_INPUTS, n_spikes=N_SPIKES, **(options | fixed))


def solved(network):
    """The trajectory; draws that are badly conditioned or too long are left out."""
    trajectory = well_conditioned(network)
    assume(trajectory is not None)
    assume(len(trajectory.time) <= CAPACITY)
    return trajectory


@jax.jit
def run(params, weights, state, inputs, t_max):
    return event_loop(params, weights, state, inputs, t_max=t_max, max_events=CAPACITY)


def run_layer(network):
    return run(*layer_of(network))


def coefficients(seed):
    """A random linear loss: of spike times in order, final voltages, final currents."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=CAPACITY), rng.normal(size=N_NEURONS), rng.normal(size=N_NEURONS)


def linear_loss(times, state, loss):
    by_time, by_v, by_i = loss
    spikes = jnp.where(jnp.isfinite(times), times, 0) @ by_time[: times.shape[-1]]
    return spikes + by_v @ state.v + by_i @ state.i


def in_one_call(params, weights, state, inputs, t_max, loss):
    result = run(params, weights, state, inputs, t_max)
    return linear_loss(result.spikes.time, result.state, loss)


def in_steps(params, weights, state, inputs, t_max, loss):
    def step(carry, _):
        state, queue = carry
        result = event_step(params, weights, state, queue, t_max=t_max)
        return (result.state, result.queue), result.event

    carry = state, SpikeQueue(*inputs, jnp.zeros((), jnp.int32))
    (state, _), events = jax.lax.scan(step, carry, None, length=N_STEPS)
    times = jnp.where(events.kind == EventKind.SPIKE, events.time, jnp.inf)
    return linear_loss(jnp.sort(times)[:CAPACITY], state, loss)


def in_windows(size, params, weights, state, inputs, t_max, loss):
    def window(carry, _):
        state, queue = carry
        result = event_loop(params, weights, state, queue, t_max=t_max, max_events=size)
        return (result.state, result.queue), result.spikes.time

    carry = state, SpikeQueue(*inputs, jnp.zeros((), jnp.int32))
    (state, _), times = jax.lax.scan(window, carry, None, length=CAPACITY // size + 1)
    return linear_loss(jnp.sort(times.ravel())[:CAPACITY], state, loss)


ALL = (1, 2, 3, 4)  # weights, state, inputs, t_max
gradient_in_one_call = jax.jit(jax.value_and_grad(in_one_call, argnums=ALL, allow_int=True))
gradient_in_steps = jax.jit(jax.value_and_grad(in_steps, argnums=ALL, allow_int=True))
gradient_in_windows = jax.jit(
    jax.value_and_grad(in_windows, argnums=(2, 3, 4, 5), allow_int=True), static_argnums=0
)


def assert_same_gradient(found, expected, rtol):
    """Leaf by leaf, relative to the largest entry of all: they come out of the same sums."""
    found, expected = (
        [g for g in jax.tree.leaves(x) if g.dtype != jax.dtypes.float0] for x in (found, expected)
    )
    scale = max(np.abs(g).max(initial=0) for g in expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * max(scale, 1))


class TestEventLoopAgainstOracle:
    @draws(60)
    @given(networks())
    def test_values(self, network):
        trajectory = solved(network)
        result = run_layer(network)
        n = len(trajectory.time)
        assert result.status == Status.OK
        assert result.count == n
        np.testing.assert_array_equal(result.spikes.index[:n], trajectory.index)
        np.testing.assert_allclose(result.spikes.time[:n], trajectory.time, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(result.spikes.index[n:], -1)
        np.testing.assert_array_equal(result.spikes.time[n:], np.inf)
        np.testing.assert_allclose(result.state.v, trajectory.v, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.state.i, trajectory.i, rtol=1e-12, atol=1e-12)
        assert result.state.time == network.t_max
        assert result.queue.head == len(network.input_time)
        # the oracle keeps no release of a neuron without refractory periods
        free_at = np.asarray(result.state.release)
        spiked = np.isin(np.arange(N_NEURONS), trajectory.index)
        np.testing.assert_array_equal(free_at[~spiked], -np.inf)
        if np.all(network.populations[0].t_ref > 0):
            np.testing.assert_allclose(free_at[spiked], trajectory.free_at[spiked], atol=1e-9)

    @draws(40)
    @given(networks(), st.integers(0, 1000))
    def test_gradients(self, network, seed):
        trajectory = solved(network)
        layer, loss = layer_of(network), coefficients(seed)
        _, (weights, state, inputs, t_max) = gradient_in_one_call(*layer, loss)
        expected = loss_gradient(
            network,
            trajectory,
            dloss_dtime=loss[0][: len(trajectory.time)],
            dloss_dv_end=loss[1],
            dloss_di_end=loss[2],
            wrt=("weight", "input_time", "v0", "i0"),
        )
        found = {"weight": weights, "input_time": inputs.time, "v0": state.v, "i0": state.i}
        for name, gradient in found.items():
            scale = max(1, np.abs(expected[name][0]).max())
            np.testing.assert_allclose(
                gradient, expected[name][0], rtol=0, atol=1e-8 * scale, err_msg=name
            )
        # t_max moves the final state along its own rate, and nothing else
        population = network.populations[0]
        free = ~(trajectory.free_at > network.t_max)
        v_rate = (trajectory.i - (trajectory.v - population.v_leak)) / population.tau_mem * free
        i_rate = -trajectory.i / population.tau_syn
        np.testing.assert_allclose(t_max, loss[1] @ v_rate + loss[2] @ i_rate, rtol=0, atol=1e-8)

    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize(
        ("n_neurons", "n_inputs", "n_spikes"), [(1, 1, 3), (1, 3, 9), (140, 2, 5)]
    )
    def test_other_sizes(self, n_neurons, n_inputs, n_spikes, shared):
        rng = np.random.default_rng(n_neurons)
        network = random_network(
            rng, (n_neurons,), n_in=n_inputs, n_spikes=n_spikes, mean=2.0, per_neuron=not shared
        )
        trajectory = simulate(network)
        n = len(trajectory.time)
        assert n > 0
        layer = layer_of(network)
        by_time = rng.normal(size=n)

        def loss(weights):
            arguments = layer._replace(weights=weights)
            result = event_loop(*arguments[:4], t_max=network.t_max, max_events=n)
            return by_time @ result.spikes.time, result.spikes.index

        (_, index), gradient = jax.value_and_grad(loss, has_aux=True)(layer.weights)
        np.testing.assert_array_equal(index, trajectory.index)
        expected = loss_gradient(network, trajectory, dloss_dtime=by_time, wrt=("weight",))
        expected = expected["weight"][0]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * scale)


class TestEventLoopAgainstDifferences:
    """What the oracle has no parameters for: the start time and a refractory start."""

    @draws(6)
    @given(networks(refractory=True), st.integers(0, 1000))
    def test_gradients(self, network, seed):
        rng = np.random.default_rng(seed)
        layer, loss = layer_of(network), coefficients(seed)
        start = 0.03
        release = np.where(rng.random(N_NEURONS) < 0.5, rng.uniform(0.1, 1.0, N_NEURONS), -np.inf)
        release[0], release[1] = -np.inf, 0.4
        refractory = np.flatnonzero(np.isfinite(release))
        state = layer.state._replace(release=jnp.asarray(release), time=jnp.asarray(start))
        t_max = jnp.asarray(layer.t_max)

        sizes = [N_NEURONS, N_NEURONS, len(refractory), 1, N_SPIKES, 1]
        pack = [state.v, state.i, release[refractory], [start], layer.inputs.time, [t_max]]
        vector = np.concatenate([np.ravel(x) for x in pack])

        def outcome(vector):
            v, i, free_at, time, at, end = np.split(vector, np.cumsum(sizes)[:-1])
            moved = release.copy()
            moved[refractory] = free_at
            result = run(
                layer.params,
                layer.weights,
                LIFState(*map(jnp.asarray, (v, i, moved, time[0]))),
                Spikes(jnp.asarray(at), layer.inputs.index),
                jnp.asarray(end[0]),
            )
            assume(result.count < CAPACITY)
            times = np.asarray(result.spikes.time)[: int(result.count)]
            order = (
                *np.asarray(result.spikes.index).tolist(),
                *np.searchsorted(at, times).tolist(),
            )
            return float(linear_loss(result.spikes.time, result.state, loss)), order

        numeric, unchanged = central_difference(outcome, vector, 1e-6)
        assume(unchanged.mean() > 0.8)
        # a grazing spike would make differences, not the gradient, wrong
        halved, _ = central_difference(outcome, vector, 2e-6)
        unchanged &= np.abs(halved - numeric) < 1e-7 * (1 + np.abs(numeric))
        assume(unchanged.mean() > 0.7)
        _, (_, by_state, by_inputs, by_t_max) = gradient_in_one_call(
            layer.params, layer.weights, state, layer.inputs, t_max, loss
        )
        exact = np.concatenate(
            [
                by_state.v,
                by_state.i,
                by_state.release[refractory],
                [by_state.time],
                by_inputs.time,
                [by_t_max],
            ]
        )
        # rounding of the differences: 1e-14 of the sum of some tens of times, divided by the step
        scale = 1 + np.abs(exact)
        error = np.abs(exact - numeric) / scale
        assert np.max(error[unchanged]) < 1e-7
        np.testing.assert_array_equal(
            np.delete(by_state.release, refractory), np.zeros(N_NEURONS - len(refractory))
        )
        # behind the initial refractory period v is v_reset, whatever it was before
        np.testing.assert_array_equal(by_state.v[refractory], np.zeros(len(refractory)))


class TestTwoRoutes:
    @draws(25)
    @given(networks(), st.integers(0, 1000))
    def test_steps_equal_one_call(self, network, seed):
        solved(network)
        layer, loss = layer_of(network), coefficients(seed)
        value, gradient = gradient_in_one_call(*layer, loss)
        value_in_steps, gradient_of_steps = gradient_in_steps(*layer, loss)
        np.testing.assert_allclose(value_in_steps, value, rtol=1e-12, atol=1e-12 * CAPACITY)
        assert_same_gradient(gradient_of_steps, gradient, 1e-9)

    @draws(25)
    @given(networks(), st.integers(0, 1000), st.sampled_from([1, 3]))
    def test_windows_equal_one_call(self, network, seed, size):
        trajectory = solved(network)
        assume(len(trajectory.time) > size)
        layer, loss = layer_of(network), coefficients(seed)
        value, gradient = gradient_in_one_call(*layer, loss)
        value_in_windows, gradient_of_windows = gradient_in_windows(size, *layer, loss)
        np.testing.assert_allclose(value_in_windows, value, rtol=1e-12, atol=1e-12 * CAPACITY)
        assert_same_gradient(gradient_of_windows, gradient, 1e-9)

        first = event_loop(*layer[:4], t_max=layer.t_max, max_events=size)
        assert first.status == Status.EVENT_CAPACITY
        assert first.count == size
        assert first.state.time == first.spikes.time[-1]

    @draws(25)
    @given(networks(), st.integers(0, 1000), st.floats(0.1, 3.9))
    def test_a_cut_at_any_time_changes_nothing(self, network, seed, cut):
        """The total derivative by the time of the cut is zero: all terms at a boundary cancel."""
        trajectory = solved(network)
        assume(np.abs(trajectory.time - cut).min(initial=1) > 1e-6)
        assume(np.abs(network.input_time - cut).min() > 1e-6)
        layer, loss = layer_of(network), coefficients(seed)
        value, (weights, state, inputs, t_max) = gradient_in_one_call(*layer, loss)
        cut_value, gradient = gradient_in_two(*layer, jnp.asarray(cut), loss)
        np.testing.assert_allclose(cut_value, value, rtol=1e-12, atol=1e-12 * CAPACITY)
        expected = weights, state, inputs, t_max, jnp.zeros(())
        assert_same_gradient(gradient, expected, 1e-9)


def in_two(params, weights, state, inputs, t_max, cut, loss):
    first = run(params, weights, state, inputs, cut)
    second = run(params, weights, first.state, first.queue, t_max)
    times = jnp.sort(jnp.concatenate([first.spikes.time, second.spikes.time]))
    return linear_loss(times[:CAPACITY], second.state, loss)


gradient_in_two = jax.jit(jax.value_and_grad(in_two, argnums=(*ALL, 5), allow_int=True))


class TestIdentities:
    """Symmetries of the equations, exact at any size: no differences, no oracle."""

    @draws(15)
    @given(networks(), st.integers(0, 1000))
    def test_time_translation(self, network, seed):
        solved(network)
        layer, loss = layer_of(network), coefficients(seed)
        rng = np.random.default_rng(seed)
        release = jnp.where(rng.random(N_NEURONS) < 0.5, rng.uniform(0.1, 1, N_NEURONS), -jnp.inf)
        state = layer.state._replace(release=release)
        result = run(layer.params, layer.weights, state, layer.inputs, layer.t_max)
        assume(result.status == Status.OK)
        arguments = layer.params, layer.weights, state, layer.inputs, jnp.asarray(layer.t_max)
        _, (_, by_state, by_inputs, by_t_max) = gradient_in_one_call(*arguments, loss)
        total = by_inputs.time.sum() + by_state.time + by_state.release.sum() + by_t_max
        scale = 1 + np.abs(by_inputs.time).sum() + np.abs(by_state.release).sum()
        scale += np.abs(by_state.time) + np.abs(by_t_max)
        expected = loss[0][: int(result.count)].sum()
        # a sum that cancels, of terms with some tens of roundings each
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12 * scale)

    @draws(15)
    @given(networks(started=False, tonic=False), st.integers(0, 1000))
    def test_from_rest_the_inputs_alone_carry_time(self, network, seed):
        solved(network)
        layer, (by_time, _, _) = layer_of(network), coefficients(seed)
        loss = by_time, np.zeros(N_NEURONS), np.zeros(N_NEURONS)
        count = int(run(*layer).count)
        _, (_, _, inputs, _) = gradient_in_one_call(*layer, loss)
        scale = 1 + np.abs(inputs.time).sum()
        np.testing.assert_allclose(
            inputs.time.sum(), by_time[:count].sum(), rtol=0, atol=1e-12 * scale
        )

    @draws(15)
    @given(networks(tonic=False), st.integers(0, 1000), st.sampled_from([0.37, 3.0]))
    def test_voltage_scaling(self, network, seed, factor):
        """All voltages, currents and weights times a factor leave the times; gradients shrink."""
        solved(network)
        layer, (by_time, _, _) = layer_of(network), coefficients(seed)
        loss = by_time, np.zeros(N_NEURONS), np.zeros(N_NEURONS)
        params = LIFParameters(
            tau_mem=layer.params.tau_mem,
            tau_syn=layer.params.tau_syn,
            v_th=factor * layer.params.v_th,
            v_leak=factor * layer.params.v_leak,
            v_reset=factor * layer.params.v_reset,
            t_ref=layer.params.t_ref,
        )
        state = layer.state._replace(v=factor * layer.state.v, i=factor * layer.state.i)
        scaled = params, factor * layer.weights, state, layer.inputs, layer.t_max
        np.testing.assert_allclose(run(*scaled).spikes.time, run(*layer).spikes.time, atol=1e-12)
        _, (one, _, one_inputs, _) = gradient_in_one_call(*layer, loss)
        _, (other, _, other_inputs, _) = gradient_in_one_call(*scaled, loss)
        atol = 1e-11 * (1 + np.abs(one).max())
        np.testing.assert_allclose(factor * other, one, rtol=0, atol=atol)
        atol = 1e-11 * (1 + np.abs(one_inputs.time).max())
        np.testing.assert_allclose(other_inputs.time, one_inputs.time, rtol=0, atol=atol)

    @draws(10)
    @given(networks(), st.sampled_from([1e-3, 7.0]))
    def test_the_unit_of_time_is_free(self, network, unit):
        solved(network)
        layer = layer_of(network)
        params = LIFParameters(
            tau_mem=unit * layer.params.tau_mem,
            tau_syn=unit * layer.params.tau_syn,
            v_th=layer.params.v_th,
            v_leak=layer.params.v_leak,
            v_reset=layer.params.v_reset,
            t_ref=unit * layer.params.t_ref,
        )
        inputs = Spikes(unit * layer.inputs.time, layer.inputs.index)
        scaled = run(params, layer.weights, layer.state, inputs, unit * layer.t_max)
        expected = unit * run(*layer).spikes.time
        np.testing.assert_allclose(scaled.spikes.time, expected, rtol=1e-12)


SIMPLE = LIFParameters(tau_mem=1.0, tau_syn=0.5)


def simple(weights, time, index, *, t_max=2.0, max_events=8, params=SIMPLE, dtype=None, **options):
    """A layer at rest."""
    weights = jnp.asarray(weights, dtype or jnp.float64)
    return event_loop(
        params,
        weights,
        initial_state(params, weights.shape[-1], weights.dtype),
        Spikes(jnp.asarray(time, weights.dtype), jnp.asarray(index, jnp.int32)),
        t_max=t_max,
        max_events=max_events,
        **options,
    )


class TestTies:
    def test_coinciding_inputs_add_up(self):
        together = simple([[2.0], [3.0]], [0.5, 0.5], [0, 1])
        one = simple([[5.0]], [0.5], [0])
        np.testing.assert_array_equal(together.spikes.time, one.spikes.time)
        assert together.count == 1
        assert together.queue.head == 2

    def test_coinciding_inputs_commute(self):
        weights = [[2.0, 0.25], [3.0, 8.0]]  # sums of them are exact
        forth = simple(weights, [0.5, 0.5, 0.75], [0, 1, 0])
        back = simple(weights, [0.5, 0.5, 0.75], [1, 0, 0])
        for one, other in zip(forth.spikes + forth.state, back.spikes + back.state, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_gradient_of_coinciding_inputs(self):
        """Both arrivals carry the derivative that each has alone, and that the oracle has."""
        weights = np.array([[2.0], [3.0]])
        network = Network(
            [Population(1, tau_mem=1.0, tau_syn=0.5)],
            [Projection("input", 0, weights)],
            t_max=2.0,
            n_in=2,
            input_time=[0.5, 0.5],
            input_idx=[0, 1],
        )
        trajectory = simulate(network)
        expected = loss_gradient(network, trajectory, dloss_dtime=np.ones(len(trajectory.time)))

        def loss(weights, time):
            return simple(weights, time, [0, 1]).spikes.time[: len(trajectory.time)].sum()

        by_weights, by_time = jax.grad(loss, argnums=(0, 1))(
            jnp.asarray(weights), jnp.asarray([0.5, 0.5])
        )
        np.testing.assert_allclose(by_weights, expected["weight"][0], rtol=1e-10)
        np.testing.assert_allclose(by_time, expected["input_time"][0], rtol=1e-10)

    @pytest.mark.parametrize("max_events", [4, 64])
    def test_thousands_of_inputs_at_one_time(self, max_events):
        n = 4000
        many = simple([[1 / 512]], np.full(n, 0.5), np.zeros(n), max_events=max_events)
        one = simple([[n / 512]], [0.5], [0], max_events=max_events)
        np.testing.assert_array_equal(many.spikes.time, one.spikes.time)
        assert many.queue.head == n
        gradient = jax.grad(
            lambda t: simple([[1 / 512]], t, np.zeros(n), max_events=max_events).spikes.time[0]
        )(jnp.full(n, 0.5))
        np.testing.assert_allclose(gradient, 1 / n, rtol=1e-9)  # time translation, n equal shares

    def test_input_at_t_max_arrives(self):
        result = simple([[5.0]], [2.0], [0])
        assert result.state.i[0] == 5
        assert result.queue.head == 1
        assert result.count == 0

    def test_input_after_t_max_stays(self):
        result = simple([[5.0]], [np.nextafter(2.0, 3.0)], [0])
        assert result.state.i[0] == 0
        assert result.queue.head == 0

    def test_input_at_the_start_arrives(self):
        result = simple([[5.0]], [0.0], [0])
        assert result.count >= 1
        assert result.queue.head == 1

    def test_spike_at_t_max_counts(self):
        state = LIFState(*map(jnp.asarray, ([1.0, 0.5], [0.0] * 2, [-np.inf] * 2, 2.0)))
        inputs = Spikes(jnp.zeros(0), jnp.zeros(0, jnp.int32))
        result = event_loop(SIMPLE, jnp.zeros((0, 2)), state, inputs, t_max=2.0, max_events=4)
        assert result.count == 1
        assert result.spikes.time[0] == 2
        np.testing.assert_array_equal(result.state.v, [0, 0.5])

    def test_no_neuron_is_left_at_its_threshold(self):
        for seed in range(60):
            rng = np.random.default_rng(seed)
            params = LIFParameters(tau_mem=1.0, tau_syn=rng.uniform(0.2, 2))
            arguments = [[rng.uniform(3, 9)]], [0.5], [0]
            times = simple(*arguments, params=params, t_max=9.0).spikes.time
            for at in times[np.isfinite(times)]:
                assert simple(*arguments, params=params, t_max=at).state.v[0] < 1

    def test_equal_neurons_spike_in_their_order(self):
        result = simple(np.full((1, 3), 6.0), [0.5], [0])
        n = int(result.count)
        assert n % 3 == 0
        assert n > 0
        np.testing.assert_array_equal(result.spikes.index[:n], [0, 1, 2] * (n // 3))
        np.testing.assert_array_equal(result.spikes.time[0:n:3], result.spikes.time[2:n:3])

    def test_equal_neurons_each_have_their_gradient(self):
        self.check_equal_neurons(in_one_call)

    @pytest.mark.parametrize(
        "route", [in_steps, lambda *a: in_windows(1, *a), lambda *a: in_windows(2, *a)]
    )
    def test_equal_neurons_each_have_their_gradient_event_by_event(self, route):
        self.check_equal_neurons(route)

    @staticmethod
    def check_equal_neurons(route):
        """The loss is the first spike time of the last of three neurons that do the same."""
        loss = np.zeros(CAPACITY), np.zeros(3), np.zeros(3)
        loss[0][2] = 1.0
        params = LIFParameters(tau_mem=1.0, tau_syn=0.7)
        inputs = Spikes(jnp.asarray([0.1, 0.2, 0.5]), jnp.asarray([0, 1, 0], jnp.int32))
        state = initial_state(params, 3, jnp.float64)
        weights = jnp.asarray([[2.0] * 3, [1.5] * 3])
        gradient = jax.grad(lambda w: route(params, w, state, inputs, 2.0, loss))(weights)
        alone = jax.grad(
            lambda w: event_loop(
                params, w, initial_state(params, 1, jnp.float64), inputs, t_max=2.0, max_events=32
            ).spikes.time[0]
        )(weights[:, :1])
        np.testing.assert_array_equal(gradient[:, :2], 0)
        np.testing.assert_allclose(gradient[:, 2:], alone, rtol=1e-10)

    def test_a_crossing_that_coincides_with_an_arrival_comes_after_it(self):
        free = simple([[5.0], [0.0]], [0.5], [0])
        at = float(free.spikes.time[0])
        result = event_step_at(at)
        assert result.event.kind == EventKind.INPUT
        assert result.event.time == at

    def test_neuron_above_threshold_spikes_at_once(self):
        state = LIFState(*map(jnp.asarray, ([1.0, 1.3, 0.0], [0.0] * 3, [-np.inf] * 3, 0.25)))
        inputs = Spikes(jnp.asarray([0.5]), jnp.zeros(1, jnp.int32))

        def loss(state):
            result = event_loop(SIMPLE, jnp.zeros((1, 3)), state, inputs, t_max=1.0, max_events=4)
            return result.spikes.time[:2].sum(), result.spikes

        (_, spikes), gradient = jax.value_and_grad(loss, has_aux=True)(state)
        np.testing.assert_array_equal(spikes.time, [0.25, 0.25, np.inf, np.inf])
        np.testing.assert_array_equal(spikes.index, [0, 1, -1, -1])
        assert gradient.time == 2  # it moves with the start, whatever v is
        np.testing.assert_array_equal(gradient.v, 0)

    def test_release_at_an_arrival_comes_first(self):
        # both orders give the same state, as an arrival does not move v; nothing is lost or NaN
        params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=0.25)
        state = LIFState(*map(jnp.asarray, ([1.0], [0.0], [-np.inf], 0.25)))
        inputs = Spikes(jnp.asarray([0.5, 1.0]), jnp.zeros(2, jnp.int32))

        def value(shift):
            shifted = Spikes(inputs.time + shift, inputs.index)
            result = event_loop(
                params, jnp.full((1, 1), 6.0), state, shifted, t_max=2.0, max_events=8
            )
            return result.spikes.time[:3]

        at, before, after = value(0.0), value(-1e-9), value(1e-9)
        np.testing.assert_allclose(before, at, atol=1e-8)
        np.testing.assert_allclose(after, at, atol=1e-8)
        assert np.all(np.isfinite(jax.jacrev(value)(0.0)))


def event_step_at(at):
    """The second of two steps: to an arrival without weight, at the time of the crossing."""
    state = initial_state(SIMPLE, 1, jnp.float64)
    queue = Spikes(jnp.asarray([0.5, at]), jnp.asarray([0, 1], jnp.int32))
    weights = jnp.asarray([[5.0], [0.0]])
    first = event_step(SIMPLE, weights, state, queue, t_max=2.0)
    return event_step(SIMPLE, weights, first.state, first.queue, t_max=2.0)


class TestEventStep:
    def test_kinds_in_order(self):
        state = initial_state(SIMPLE, 1, jnp.float64)
        queue = Spikes(jnp.asarray([0.5]), jnp.asarray([0], jnp.int32))
        found = []
        for _ in range(4):
            result = event_step(SIMPLE, jnp.asarray([[5.0]]), state, queue, t_max=1.5)
            state, queue = result.state, result.queue
            found.append((int(result.event.kind), int(result.event.index), float(state.time)))
        kinds, indices, times = zip(*found, strict=True)
        assert kinds == (EventKind.INPUT, EventKind.SPIKE, EventKind.NONE, EventKind.NONE)
        assert indices == (0, 0, -1, -1)
        assert times[0] == 0.5
        assert times[2:] == (1.5, 1.5)
        assert result.event.time == np.inf
        assert queue.head == 1
        loop = simple([[5.0]], [0.5], [0], t_max=1.5)
        assert times[1] == loop.spikes.time[0]
        np.testing.assert_allclose(state.v, loop.state.v, rtol=1e-14)
        np.testing.assert_allclose(state.i, loop.state.i, rtol=1e-14)

    def test_a_step_beyond_the_end_has_no_effect_on_gradients(self):
        def value(t_max, steps):
            state = initial_state(SIMPLE, 1, jnp.float64)
            queue = Spikes(jnp.asarray([0.5]), jnp.asarray([0], jnp.int32))
            for _ in range(steps):
                result = event_step(SIMPLE, jnp.asarray([[5.0]]), state, queue, t_max=t_max)
                state, queue = result.state, result.queue
            return state.v[0]

        once, more = (jax.grad(value)(1.5, steps) for steps in (3, 5))
        assert once != 0
        assert float(more) == pytest.approx(float(once), rel=1e-14)


class TestBursts:
    """Currents so large that time hardly advances between spikes: the record fills, and it ends."""

    @pytest.mark.parametrize("weight", [1e6, 1e12, 1e17, 1e30, 1e300])
    @pytest.mark.parametrize(
        "params", [SIMPLE, LIFParameters(1.0, 0.7), LIFParameters(1.0, 0.7, v_leak=1.5)]
    )
    def test_float64(self, weight, params):
        result = simple([[weight, 1.0, weight]], [0.5], [0], max_events=50, params=params)
        assert result.status == Status.EVENT_CAPACITY
        assert result.count == 50
        assert result.state.time == result.spikes.time[-1]
        assert np.all(np.diff(result.spikes.time) >= 0)
        assert np.all(np.isfinite(result.spikes.time))

    @pytest.mark.parametrize("weight", [1e6, 1e12, 1e30])
    def test_float32(self, weight):
        result = simple([[weight]], [0.5], [0], max_events=50, dtype=jnp.float32)
        assert result.status == Status.EVENT_CAPACITY
        assert result.count == 50

    def test_a_burst_in_steps_goes_on(self):
        def step(carry, _):
            result = event_step(SIMPLE, jnp.asarray([[1e30]]), *carry, t_max=2.0)
            return (result.state, result.queue), result.event.kind

        queue = SpikeQueue(jnp.asarray([0.5]), jnp.zeros(1, jnp.int32), jnp.zeros((), jnp.int32))
        carry = initial_state(SIMPLE, 1, jnp.float64), queue
        (state, _), kinds = jax.lax.scan(step, carry, None, length=30)
        np.testing.assert_array_equal(kinds[1:], EventKind.SPIKE)
        assert state.time == 0.5

    @pytest.mark.parametrize(("dtype", "weight"), [(jnp.float64, 1.7e308), (jnp.float32, 3e38)])
    def test_a_current_that_overflows_is_an_error(self, dtype, weight):
        arguments = [[weight]], [0.5, 0.5, 0.6], [0, 0, 0]
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"state.i is inf at element 0"):
            simple(*arguments, dtype=dtype)
        result = simple(*arguments, dtype=dtype, raise_on=())
        assert result.status == Status.NON_FINITE

    def test_a_silent_neuron_beside_a_burst_keeps_its_state(self):
        result = simple([[1e6, 1.0]], [0.5], [0], max_events=5)
        time = float(result.state.time) - 0.5
        assert result.state.v[1] == pytest.approx(kernel(time, 1.0, 0.5), rel=1e-9)


class TestEmpty:
    @pytest.mark.parametrize("n_inputs", [0, 2])
    def test_no_input_spikes(self, n_inputs):
        params = LIFParameters(1.0, 0.5, v_leak=0.25)
        result = simple(np.ones((n_inputs, 3)), np.zeros(0), np.zeros(0), params=params)
        assert result.count == 0
        assert result.spikes.time.shape == (8,)
        np.testing.assert_array_equal(result.state.v, 0.25)
        gradient = jax.grad(
            lambda w: simple(w, np.zeros(0), np.zeros(0), params=params).state.v.sum()
        )(jnp.ones((n_inputs, 3)))
        np.testing.assert_array_equal(gradient, np.zeros((n_inputs, 3)))

    def test_padding_only(self):
        result = simple([[9.0]], [np.inf, np.inf], [-1, -1])
        assert result.count == 0
        assert result.queue.head == 0

    def test_padding_behind_spikes(self):
        padded = simple([[5.0]], [0.5, np.inf, np.inf], [0, -1, -1])
        exact = simple([[5.0]], [0.5], [0])
        np.testing.assert_array_equal(padded.spikes.time, exact.spikes.time)
        gradient = jax.grad(lambda t: simple([[5.0]], t, [0, -1, -1]).spikes.time[0])(
            jnp.asarray([0.5, np.inf, np.inf])
        )
        np.testing.assert_allclose(gradient, [1, 0, 0], rtol=1e-12)

    def test_silent_layer(self):
        result = simple(np.full((1, 3), 0.5), [0.5], [0])
        assert result.count == 0
        assert result.status == Status.OK
        gradient = jax.grad(
            lambda w: jnp.where(jnp.isfinite(x := simple(w, [0.5], [0]).spikes.time), x, 0.0).sum()
        )(jnp.full((1, 3), 0.5))
        np.testing.assert_array_equal(gradient, 0)

    def test_batch_of_zero(self):
        def times(weights, time):
            index = jnp.zeros(time.shape, jnp.int32)
            return event_loop(
                SIMPLE,
                weights,
                initial_state(SIMPLE, 3, jnp.float64),
                Spikes(time, index),
                t_max=1.0,
                max_events=4,
            ).spikes.time

        weights, time = jnp.ones((1, 3)), jnp.zeros((0, 2))
        assert times(weights, time).shape == (0, 4)
        by_weights, by_time = jax.grad(lambda *a: times(*a).sum(), argnums=(0, 1))(weights, time)
        np.testing.assert_array_equal(by_weights, np.zeros((1, 3)))
        assert by_time.shape == (0, 2)
        assert jax.vmap(times, in_axes=(None, 0))(weights, time[:, None]).shape == (0, 1, 4)

    def test_input_axis_without_connection(self):
        # neuron 1 hears nothing
        result = simple([[5.0, 0.0]], [0.5], [0])
        np.testing.assert_array_equal(result.spikes.index[:1], [0])
        assert result.state.v[1] == 0
        assert result.state.release[1] == -np.inf


class TestFloat32:
    @draws(25)
    @given(networks())
    def test_close_to_float64(self, network):
        solved(network)
        with jax.enable_x64(False):
            layer = layer_of(network, np.float32)
            single = run(*layer)
        widened = jax.tree.map(
            lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else np.asarray(x),
            layer._replace(t_max=np.float32(layer.t_max)),
        )
        double = run(*jax.tree.map(jnp.asarray, widened))
        assert single.spikes.time.dtype == np.float32
        # float32 carries 1e-7 of a voltage; a spike passes on 1/V' <= 20 times that, many in a row
        # a few times more. Draws in which that moves a spike over a tie are left out.
        assume(single.count == double.count)
        assume(np.array_equal(single.spikes.index, double.spikes.index))
        n = int(double.count)
        np.testing.assert_allclose(
            single.spikes.time[:n], double.spikes.time[:n], rtol=0, atol=1e-4
        )
        np.testing.assert_allclose(single.state.v, double.state.v, rtol=0, atol=1e-3)

    @draws(15)
    @given(networks(), st.integers(0, 1000))
    def test_gradients_close_to_float64(self, network, seed):
        solved(network)
        loss = coefficients(seed)
        layer = layer_of(network)
        _, double = gradient_in_one_call(*layer, loss)
        with jax.enable_x64(False):
            single_layer = layer_of(network, np.float32)
            single_loss = tuple(np.asarray(x, np.float32) for x in loss)
            _, single = gradient_in_one_call(*single_layer, single_loss)
            single_spikes = run(*single_layer).spikes
        assume(np.array_equal(single_spikes.index, run(*layer).spikes.index))
        assert single[0].dtype == np.float32
        # 1e-7 by 1/V'^2 <= 400, and as much again for a chain of spikes
        assert_same_gradient(single, double, 1e-3)


def exact_response(time, tau_mem, tau_syn):
    """The voltage per current in any number of digits."""
    time, tau_mem, tau_syn = map(mpmath.mpf, (time, tau_mem, tau_syn))
    if tau_mem == tau_syn:
        return time / tau_mem * mpmath.exp(-time / tau_mem)
    difference = mpmath.exp(-time / tau_mem) - mpmath.exp(-time / tau_syn)
    return tau_syn / (tau_mem - tau_syn) * difference


class TestFlow:
    @draws(30)
    @given(st.floats(-1, 1), st.floats(-2, 2), st.floats(-5, 5), st.floats(0, 6), st.floats(-1, 1))
    def test_matrix_exponential(self, log_ratio, v, i, dt, v_leak):
        tau_mem, tau_syn = 1.3, 1.3 * 10**log_ratio
        params = LIFParameters(tau_mem, tau_syn, v_leak=v_leak)
        found = flow(params, jnp.asarray([v]), jnp.asarray([i]), dt)
        propagator = expm(np.array([[-1 / tau_mem, 1 / tau_mem], [0, -1 / tau_syn]]) * dt)
        expected = propagator @ [v - v_leak, i]
        np.testing.assert_allclose(found[0], v_leak + expected[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-13)

    @pytest.mark.parametrize("gap", [0, 1e-15, -1e-13, 1e-10, -1e-7, 1e-4, -1e-2, 0.5, 9])
    @pytest.mark.parametrize("dt", [1e-12, 1e-6, 0.1, 1.0, 30.0])
    def test_50_digits(self, gap, dt):
        tau_mem, tau_syn = 1.3 * (1 + gap), 1.3
        found = flow(LIFParameters(tau_mem, tau_syn), jnp.zeros(1), jnp.ones(1), dt)[0]
        with mpmath.workdps(60):
            expected = exact_response(dt, tau_mem, tau_syn)
            # exp of -30 taus is right to 30 roundings
            assert abs(float(found[0]) - expected) <= (4e-15 + 4e-16 * dt) * expected

    def test_float32_near_equal_constants(self):
        # the textbook form is off by 1e-2 here
        with jax.enable_x64(False):
            params = LIFParameters(1.0, float(np.float32(1.00001)))
            found = flow(params, jnp.zeros(1), jnp.ones(1), 0.7)[0]
        with mpmath.workdps(60):
            expected = exact_response(float(np.float32(0.7)), 1.0, float(np.float32(1.00001)))
        np.testing.assert_allclose(found[0], float(expected), rtol=2e-7)

    def test_gradient(self):
        rng = np.random.default_rng(0)
        params = LIFParameters(jnp.asarray([1.0, 1.5, 2.0]), 0.7, v_leak=0.3)
        v, i, dt = rng.normal(size=3), rng.normal(size=3), rng.uniform(0.1, 2, 3)
        by_v, by_i = rng.normal(size=3), rng.normal(size=3)

        def value(x):
            v_end, i_end = flow(params, *jnp.split(jnp.asarray(x), 3)[:2], jnp.asarray(x[6:]))
            return by_v @ v_end + by_i @ i_end

        x = np.concatenate([v, i, dt])
        numeric, _ = central_difference(lambda x: (float(value(x)), 0), x, 1e-5)
        np.testing.assert_allclose(jax.grad(value)(jnp.asarray(x)), numeric, rtol=0, atol=1e-9)

    def test_gradient_of_a_shared_step_is_the_sum(self):
        v, i = jnp.asarray([0.2, -0.1]), jnp.asarray([1.0, 2.0])
        total = jax.grad(lambda dt: flow(SIMPLE, v, i, dt)[0].sum())(0.3)
        each = jax.grad(lambda dt: flow(SIMPLE, v, i, dt)[0].sum())(jnp.full(2, 0.3))
        assert float(total) == pytest.approx(float(each.sum()), rel=1e-14)


class TestNextCrossing:
    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("v_leak", [0.0, 0.4, 1.5])
    def test_dense_scan(self, ratio, v_leak):
        rng = np.random.default_rng(17)
        n, tau_mem = 60, 1.3
        tau_syn = ratio * tau_mem
        v = v_leak + rng.uniform(-2, 1, n) * (1 - v_leak if v_leak < 1 else 1)
        v = np.minimum(v, 0.999)
        i = rng.normal(3, 4, n) * (1 + 1 / ratio)
        found = next_crossing(
            LIFParameters(tau_mem, tau_syn, v_leak=v_leak), jnp.asarray(v), jnp.asarray(i)
        )
        longest = 40 * max(tau_mem, tau_syn)
        grid = np.unique(
            np.concatenate([np.geomspace(1e-6, longest, 1500), np.linspace(0, 12, 1500)])
        )
        response = np.array([kernel(t, tau_mem, tau_syn) for t in grid])
        decay = np.exp(-grid / tau_mem)
        n_crossing = 0
        for v0, i0, at in zip(v, i, np.asarray(found), strict=True):
            excess = (v0 - v_leak) * decay + i0 * response - (1 - v_leak)
            above = np.flatnonzero(excess >= 0)
            if len(above) == 0:
                # the grid may miss a hump that only just reaches the threshold
                assert at == np.inf or excess.max() > -1e-3
                continue
            k = above[0]
            exact = brentq(
                lambda t, v0=v0, i0=i0: (
                    (v0 - v_leak) * math.exp(-t / tau_mem)
                    + i0 * kernel(t, tau_mem, tau_syn)
                    - (1 - v_leak)
                ),
                grid[k - 1],
                grid[k],
                xtol=1e-300,
                rtol=1e-15,
            )
            slope = (excess[k] - excess[k - 1]) / (grid[k] - grid[k - 1])
            # the excess is known to 1e-15, or 1e-14 where large terms cancel
            assert abs(at - exact) <= 1e-13 * exact + 1e-14 * np.abs(i0) / slope
            n_crossing += 1
        assert n_crossing > 5
        assert v_leak > 1 or n_crossing < n

    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize(("v", "v_leak"), [(0.0, 0.0), (-0.8, 0.3), (0.99, -0.5), (0.2, 1.4)])
    def test_50_digits(self, ratio, v, v_leak):
        tau_mem, tau_syn, i = 1.0, ratio, 4.0 * (1 + 1 / ratio)
        params = LIFParameters(tau_mem, tau_syn, v_leak=v_leak)
        at = float(next_crossing(params, jnp.asarray([v]), jnp.asarray([i]))[0])
        with mpmath.workdps(50):

            def excess(t):
                start = (mpmath.mpf(v) - mpmath.mpf(v_leak)) * mpmath.exp(-t / mpmath.mpf(tau_mem))
                return start + i * exact_response(t, tau_mem, tau_syn) - (1 - mpmath.mpf(v_leak))

            exact = mpmath.findroot(excess, mpmath.mpf(at), tol=1e-60)
            # v and its leak are known to an ulp, which the slope turns into time
            slope = (i * mpmath.exp(-exact / tau_syn) - (1 - v_leak)) / tau_mem
            assert abs(exact - at) <= 1e-14 * exact + 2e-16 / slope
            assert max(excess(exact * k / 100) for k in range(100)) < 0

    def test_closed_form_is_the_general_one(self):
        # tau_mem == 2 tau_syn takes another path than its neighbour
        v, i = jnp.linspace(-1, 0.9, 20), jnp.linspace(10, 40, 20)
        closed = next_crossing(LIFParameters(2.0, 1.0), v, i)
        near = next_crossing(LIFParameters(2.0, 1.0 + 1e-15), v, i)
        assert np.isfinite(closed).all()
        np.testing.assert_allclose(closed, near, rtol=1e-13)

    def test_at_and_above_the_threshold_now(self):
        found = next_crossing(SIMPLE, jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 5.0]))
        np.testing.assert_array_equal(found, 0)

    def test_never(self):
        params = LIFParameters(2.0, 1.0)
        v, i = jnp.asarray([0.0, 0.9, -5.0, 0.0]), jnp.asarray([0.0, 0.9, 2.0, -3.0])
        np.testing.assert_array_equal(next_crossing(params, v, i), np.inf)
        gradient = jax.grad(
            lambda v: jnp.where(jnp.isinf(next_crossing(params, v, i)), 0, 1.0).sum()
        )
        np.testing.assert_array_equal(gradient(v), 0)

    def test_grazing_from_below_and_above(self):
        # tau ratio 2: v peaks at i / 4, so that i = 4 touches the threshold
        params = LIFParameters(2.0, 1.0)
        i = jnp.asarray([4 * (1 - 1e-12), 4 * (1 + 1e-12)])
        below, above = next_crossing(params, jnp.zeros(2), i)
        assert below == np.inf
        assert above == pytest.approx(2 * math.log(2), rel=1e-5)

    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("v_leak", [0.0, 0.4, 1.5])
    def test_gradient(self, ratio, v_leak):
        """The implicit function theorem, with the response of the oracle."""
        params = LIFParameters(1.0, ratio, v_leak=v_leak)
        v, i = jnp.asarray([-0.5, 0.2, 0.9]), 5.0 * (1 + 1 / ratio) * jnp.ones(3)
        at = np.asarray(next_crossing(params, v, i))
        slope = (i * np.exp(-at / ratio) - (1 - v_leak)) / 1.0
        by_v, by_i = jax.grad(lambda *x: next_crossing(params, *x).sum(), argnums=(0, 1))(v, i)
        response = np.array([kernel(t, 1.0, ratio) for t in at])
        np.testing.assert_allclose(by_v, -np.exp(-at) / slope, rtol=1e-12)
        np.testing.assert_allclose(by_i, -response / slope, rtol=1e-12)

    def test_gradient_where_nothing_moves(self):
        v, i = jnp.asarray([1.5, 0.0]), jnp.asarray([3.0, 0.0])
        _, pull = jax.vjp(lambda v, i: next_crossing(SIMPLE, v, i), v, i)
        for gradient in pull(jnp.ones(2)):
            np.testing.assert_array_equal(gradient, 0)


def test_refractory_draws_have_releases():
    """The draws above mean what they say."""
    network = random_network(np.random.default_rng(3), (N_NEURONS,), refractory=True, tonic=True)
    events = simulate(network).events
    assert sum(isinstance(event, Release) for event in events) > 5
    assert inputs_of(network).index.dtype == jnp.int32


@pytest.mark.parametrize("n_neurons", [1, 20, 130])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("inputs", [[], [19.0]])
def test_recovery_from_inhibition_far_from_all_else(n_neurons, per_neuron, inputs):
    """A leak above the threshold brings v up to it, and above its first tangent, on its own.

    With tau_mem = 2 tau_syn = 10 the voltage is quadratic in exp(-t / 10). No other neuron and no
    arrival draws attention to the crossing.
    """
    tau = jnp.full(n_neurons, 10.0) if per_neuron else 10.0
    params = LIFParameters(tau_mem=tau, tau_syn=5.0, v_th=-1.0, v_reset=-2.0)
    state = initial_state(params, n_neurons, np.float64)
    state = state._replace(v=jnp.full(n_neurons, -2.0), i=jnp.full(n_neurons, -2.0))
    spikes = Spikes(jnp.asarray(inputs, jnp.float64), jnp.zeros(len(inputs), jnp.int32))
    result = event_loop(
        params, jnp.zeros((1, n_neurons)), state, spikes, t_max=20.0, max_events=4 * n_neurons
    )
    first = -10 * np.log(1 - np.sqrt(0.5))
    a = 2 * (1 - np.sqrt(0.5)) ** 2
    second = first - 10 * np.log((2 + a - np.sqrt((2 + a) ** 2 - 4 * a)) / (2 * a))
    expected = np.repeat([first, second], n_neurons)
    np.testing.assert_array_equal(result.count, len(expected))
    np.testing.assert_allclose(result.spikes.time[: len(expected)], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_neurons", [3, 20, 130])
@pytest.mark.parametrize("tau_mem", [1.0, 1.3])
def test_parameters_are_shared_or_of_each_neuron(n_neurons, tau_mem):
    """The same values either way: kernels take other ways through spikes that they may share."""
    rng = np.random.default_rng(9)
    params = LIFParameters(tau_mem=tau_mem, tau_syn=0.5)
    each = jax.tree.map(lambda x: jnp.full(n_neurons, x), params)
    weights = jnp.asarray(rng.normal(0.8, 0.6, (5, n_neurons)))
    time = jnp.asarray(np.sort(np.floor(6 * rng.uniform(0, 3, 30)) / 6))  # some of them are equal
    by_time, by_v = rng.normal(size=20 * n_neurons), rng.normal(size=n_neurons)

    def loss(params, weights, time):
        result = simple(
            weights, time, np.arange(30) % 5, t_max=3.5, max_events=20 * n_neurons, params=params
        )
        loss = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0) @ by_time
        return loss + by_v @ result.state.v, result

    gradient = jax.grad(loss, argnums=(1, 2), has_aux=True)
    expected, one = gradient(each, weights, time)
    found, other = gradient(params, weights, time)
    assert other.count == one.count > 2 * n_neurons
    np.testing.assert_array_equal(other.spikes.index, one.spikes.index)
    np.testing.assert_allclose(other.spikes.time, one.spikes.time, rtol=1e-12)
    assert_same_gradient(found, expected, 1e-11)
