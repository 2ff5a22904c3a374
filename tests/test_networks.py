"""Networks with delays and recurrent connections: values and gradients.

Against the oracle, against differences, against the acyclic path and against themselves in other
forms. Tolerances: times and voltages are of order 1 and carried to 1e-15. An error grows by
d(spike)/d(anything), below 100 in the draws that are kept, once for values and twice for gradients:
1e-9 for values and 1e-8 of the largest entry for gradients leave a factor of 1000.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsnn import LIFState, Spikes
from jaxsnn.ops import Status, event_loop
from networks import (
    CAPACITY,
    GRAPH_RATIOS,
    N_INPUTS,
    N_NEURONS,
    N_SPIKES,
    Graph,
    assert_within,
    coefficients,
    draws,
    graph_of,
    graphs,
    in_blocks,
    layer_of,
    linear_loss,
    random_graph,
    random_network,
    random_population,
    same_bits,
    solve,
    value_and_gradient,
    well_conditioned,
    with_full_delays,
)
from oracle.gradient import forward_sensitivity, loss_gradient
from oracle.network import INPUT, Network, Projection
from oracle.parameters import parameter_vector, split_vector, with_parameter_vector
from oracle.simulate import simulate

pytestmark = pytest.mark.usefixtures("x64")

STEEPEST = 100.0


def solved(network):
    """The trajectory; bursts and draws with grazing spikes or near ties are left out."""
    trajectory = well_conditioned(network, gap=1e-7)
    assume(trajectory is not None)
    assume(len(trajectory.time) <= CAPACITY)
    return trajectory


def solved_and_tame(network):
    """Likewise, and nothing moves a spike too much."""
    trajectory = solved(network)
    slopes = forward_sensitivity(network, trajectory, ("weight", "input_time")).time
    assume(np.abs(slopes).max(initial=0) < STEEPEST)
    return trajectory


run = jax.jit(solve)


def neuron_of(network, trajectory):
    """The spiking neurons, counted through all populations."""
    return network.offsets[trajectory.population] + trajectory.index


class TestAgainstOracle:
    @draws(40)
    @given(graphs())
    def test_values(self, network):
        trajectory = solved(network)
        result = run(graph_of(network))
        n = len(trajectory.time)
        assert result.status == Status.OK
        assert result.count == n
        np.testing.assert_array_equal(result.spikes.index[:n], neuron_of(network, trajectory))
        np.testing.assert_allclose(result.spikes.time[:n], trajectory.time, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(result.spikes.index[n:], -1)
        np.testing.assert_array_equal(result.spikes.time[n:], np.inf)
        np.testing.assert_allclose(result.state.v, trajectory.v, rtol=0, atol=1e-8)
        np.testing.assert_allclose(result.state.i, trajectory.i, rtol=0, atol=1e-8)
        assert result.state.time == network.t_max
        assert result.queue.head == len(network.input_time)
        # the oracle keeps no release of a neuron without refractory periods
        t_ref = network.per_neuron("t_ref")
        spiked = np.isin(np.arange(N_NEURONS), result.spikes.index[:n])
        free_at = np.asarray(result.state.release)
        np.testing.assert_array_equal(free_at[~spiked], -np.inf)
        known = spiked & (t_ref > 0)
        np.testing.assert_allclose(free_at[known], trajectory.free_at[known], rtol=0, atol=1e-9)

    @draws(25)
    @given(graphs(), st.integers(0, 1000))
    def test_gradients(self, network, seed):
        network = with_full_delays(network)
        trajectory = solved_and_tame(network)
        graph, loss = graph_of(network), coefficients(seed)
        _, found = value_and_gradient(graph, loss)
        expected = loss_gradient(
            network,
            trajectory,
            dloss_dtime=loss[0][: len(trajectory.time)],
            dloss_dv_end=loss[1],
            dloss_di_end=loss[2],
            wrt=("weight", "delay", "input_time", "v0", "i0"),
        )
        weights, recurrent = in_blocks(network, expected["weight"], 0.0)
        delays, recurrent_delays = in_blocks(network, expected["delay"], 0.0)
        missing = np.isinf(graph.delays), np.isinf(graph.recurrent_delays)
        np.testing.assert_array_equal(found.weights[missing[0]], 0)
        np.testing.assert_array_equal(found.recurrent[missing[1]], 0)
        np.testing.assert_array_equal(found.delays[missing[0]], 0)
        np.testing.assert_array_equal(found.recurrent_delays[missing[1]], 0)
        assert_within(found.weights, weights, 1e-8, "weights")
        assert_within(found.recurrent, recurrent, 1e-8, "recurrent")
        assert_within(found.delays, delays, 1e-8, "delays")
        assert_within(found.recurrent_delays, recurrent_delays, 1e-8, "recurrent_delays")
        assert_within(found.inputs.time, expected["input_time"][0], 1e-8, "inputs.time")
        assert_within(found.state.v, np.concatenate(expected["v0"]), 1e-8, "state.v")
        assert_within(found.state.i, np.concatenate(expected["i0"]), 1e-8, "state.i")
        # t_max moves the final state along its own rate, and nothing else
        tau_mem, tau_syn, v_leak = map(network.per_neuron, ("tau_mem", "tau_syn", "v_leak"))
        free = ~(trajectory.free_at > network.t_max)
        v_rate = (trajectory.i - (trajectory.v - v_leak)) / tau_mem * free
        i_rate = -trajectory.i / tau_syn
        assert_within(found.t_max, loss[1] @ v_rate + loss[2] @ i_rate, 1e-8, "t_max")

    def test_the_draws_have_what_they_should(self):
        """Cycles, self connections, all kinds of delay, missing synapses, releases, many spikes."""
        kept = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            populations = [random_population(rng, n, refractory=n == 4) for n in (2, 1, 4)]
            network = random_graph(rng, populations, n_in=N_INPUTS, n_spikes=N_SPIKES)
            trajectory = well_conditioned(network, gap=1e-7)
            if trajectory is not None:
                kept.append((network, trajectory))
        projections = [p for network, _ in kept for p in network.projections]
        assert len(kept) > 6
        assert any(p.src == p.dst for p in projections)
        assert any(p.src != INPUT and p.src > p.dst for p in projections)
        assert {p.delay.ndim for p in projections} == {0, 1, 2}
        assert any(np.isinf(p.delay).any() for p in projections)
        assert any(np.all(p.delay == 0) and p.src != INPUT for p in projections)
        assert np.median([len(trajectory.time) for _, trajectory in kept]) > 10
        releases = [type(event).__name__ for _, t in kept for event in t.events].count("Release")
        assert releases > 20


# A central difference with four points: its error is the fourth power of the step, times what five
# derivatives of a spike time are. Rounding adds 1e-15 by the slope by the step: some 1e-9.
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
STEP = 1e-5


class TestAgainstDifferences:
    GROUPS = ("weight", "delay", "input_time", "v0", "i0")

    @draws(8)
    @given(graphs(), st.integers(0, 1000))
    def test_of_the_oracle_in_random_directions(self, network, seed):
        network = with_full_delays(network)
        # zero cannot be made smaller
        network = replace(
            network,
            projections=[replace(p, delay=np.maximum(p.delay, 0.005)) for p in network.projections],
        )
        trajectory = solved_and_tame(network)
        rng, loss = np.random.default_rng(seed), coefficients(seed)
        _, found = value_and_gradient(graph_of(network), loss)
        compared = 0
        for group in self.GROUPS:
            start = parameter_vector(network, (group,))
            direction = rng.normal(size=start.shape) / np.sqrt(start.size)
            direction[np.isinf(start)] = 0
            values = []
            for steps, _ in STENCIL:
                with np.errstate(invalid="ignore"):
                    moved = np.where(np.isinf(start), start, start + steps * STEP * direction)
                moved_network = with_parameter_vector(network, (group,), moved)
                other = simulate(moved_network, max_spikes=2000)
                if other.order != trajectory.order:
                    break
                values.append(
                    loss[0][: len(other.time)] @ other.time + loss[1] @ other.v + loss[2] @ other.i
                )
            else:
                numeric = sum(c * v for (_, c), v in zip(STENCIL, values, strict=True)) / STEP
                exact = self.along(network, found, group, direction)
                assert abs(exact - numeric) < 1e-7 * (1 + abs(exact)), group
                compared += 1
        assume(compared > 0)

    @staticmethod
    def along(network, found, group, direction):
        parts = split_vector(network, (group,), direction)[group]
        if group in ("weight", "delay"):
            inputs, neurons = in_blocks(network, parts, 0.0)
            own = ("weights", "recurrent") if group == "weight" else ("delays", "recurrent_delays")
            by_inputs, by_neurons = (getattr(found, name) for name in own)
            return float(np.sum(by_inputs * inputs) + np.sum(by_neurons * neurons))
        if group == "input_time":
            return float(found.inputs.time @ parts[0])
        by_state = found.state.v if group == "v0" else found.state.i
        return float(
            by_state
            @ np.concatenate(
                [np.broadcast_to(p, n) for p, n in zip(parts, network.sizes, strict=True)]
            )
        )

    @draws(8)
    @given(graphs(), st.integers(0, 1000))
    def test_of_every_entry(self, network, seed):
        """With what the oracle has no parameters for: start, refractory start, past spikes."""
        solved_and_tame(network)
        rng, loss = np.random.default_rng(seed), coefficients(seed)
        graph, past = in_full_swing(graph_of(network), rng)
        vector = vector_of(graph, past)
        size = vector.size
        # zero delays and missing synapses stay what they are
        entries = np.flatnonzero(np.isfinite(vector) & ~((vector == 0) & is_delay(graph, past)))
        values, orders = values_along(graph, past, loss, jnp.asarray(vector[None]))
        assume(orders[0, -1] == -1)  # all spikes fit
        moved = np.tile(vector, (len(entries), len(STENCIL) + 2, 1))
        steps = [s for s, _ in STENCIL] + [-4, 4]
        for row, entry in enumerate(entries):
            moved[row, :, entry] += STEP * np.array(steps)
        found, kinds = values_along(graph, past, loss, jnp.asarray(moved.reshape(-1, size)))
        found, kinds = (np.asarray(x).reshape(*moved.shape[:2], -1) for x in (found, kinds))
        unchanged = np.all(kinds == np.asarray(orders), axis=(1, 2))
        found = found[..., 0]
        numeric = found[:, :4] @ np.array([c for _, c in STENCIL]) / STEP
        # with twice the steps: another number only where an arrival passes a spike in between
        coarse = found[:, [4, 0, 3, 5]] @ np.array([c for _, c in STENCIL]) / (2 * STEP)
        unchanged &= np.abs(coarse - numeric) < 1e-7 * (1 + np.abs(numeric))
        assume(unchanged.mean() > 0.8)
        exact = np.asarray(gradient_along(graph, past, loss, jnp.asarray(vector)))[entries]
        error = np.abs(exact - numeric) / (1 + np.abs(exact))
        assert np.max(error[unchanged]) < 1e-7
        assert np.isfinite(values).all()


def in_full_swing(graph, rng):
    """The same network started late: some neurons refractory, spikes and inputs under way."""
    start = 0.35
    release = np.where(rng.random(N_NEURONS) < 0.4, rng.uniform(0.4, 0.8, N_NEURONS), -np.inf)
    release[0], release[1] = -np.inf, 0.5
    past = Spikes(
        jnp.asarray(np.sort(rng.uniform(0, start - 0.01, 6))),
        jnp.asarray(rng.integers(0, N_NEURONS, 6), jnp.int32),
    )
    state = graph.state._replace(release=jnp.asarray(release), time=jnp.asarray(start))
    time = graph.inputs.time
    inputs = graph.inputs._replace(time=start + 0.01 + time * (graph.t_max - 0.7) / graph.t_max)
    return graph._replace(state=state, inputs=inputs), past


def moving_parts(graph, past):
    state = graph.state
    return (
        graph.weights,
        graph.recurrent,
        graph.delays,
        graph.recurrent_delays,
        state.v,
        state.i,
        state.release,
        state.time,
        graph.inputs.time,
        past.time,
        jnp.asarray(graph.t_max),
    )


def vector_of(graph, past):
    return np.concatenate([np.ravel(x) for x in moving_parts(graph, past)])


def is_delay(graph, past):
    parts = moving_parts(graph, past)
    return np.concatenate([np.full(np.size(x), k in (2, 3)) for k, x in enumerate(parts)])


def solve_vector(graph, past, vector):
    parts, start = [], 0
    for part in moving_parts(graph, past):
        parts.append(vector[start : start + part.size].reshape(part.shape))
        start += part.size
    weights, recurrent, delays, recurrent_delays, v, i, release, time, at, past_time, t_max = parts
    return event_loop(
        graph.params,
        weights,
        LIFState(v, i, release, time),
        Spikes(at, graph.inputs.index),
        t_max=t_max,
        max_events=CAPACITY,
        delays=delays,
        recurrent=recurrent,
        recurrent_delays=recurrent_delays,
        past=Spikes(past_time, past.index),
    )


@jax.jit
def values_along(graph, past, loss, vectors):
    results = jax.vmap(partial(solve_vector, graph, past))(vectors)
    return jax.vmap(lambda r: linear_loss(r, loss))(results), results.spikes.index


@jax.jit
def gradient_along(graph, past, loss, vector):
    return jax.grad(lambda x: linear_loss(solve_vector(graph, past, x), loss))(vector)


class TestForms:
    """The same delays, written in every form that can hold them."""

    @staticmethod
    def delays_of(kind, rng, n_sources):
        shape = {"one": (1, 1), "source": (n_sources, 1), "target": (1, N_NEURONS)}[kind]
        delays = rng.uniform(0.05, 0.4, shape)
        if kind != "one":
            delays.flat[1], delays.flat[2] = np.inf, delays.flat[0]
        return delays

    @pytest.mark.parametrize("kind", ["one", "source", "target"])
    @pytest.mark.parametrize("seed", range(3))
    def test_same_spikes_bit_for_bit_and_same_gradient(self, kind, seed):
        rng = np.random.default_rng(seed)
        population = random_population(rng, N_NEURONS, refractory=seed == 1)
        network = random_graph(rng, [population], n_in=N_INPUTS, n_spikes=N_SPIKES, density=1.0)
        sizes = N_INPUTS, N_NEURONS
        short = [self.delays_of(kind, rng, n) for n in sizes]
        forms = [
            short,
            [np.broadcast_to(d, (n, N_NEURONS)) for d, n in zip(short, sizes, strict=True)],
        ]
        if kind == "one":
            forms.append([d[0, 0] for d in short])
            forms.append([np.broadcast_to(d[0], n) for d, n in zip(short, sizes, strict=True)])
            forms.append([np.broadcast_to(d, (1, N_NEURONS)) for d in short])
        elif kind == "source":
            forms.append([d[:, 0] for d in short])
        graph, loss = graph_of(network), coefficients(seed)
        found = []
        for delays, recurrent_delays in forms:
            own = graph._replace(
                delays=jnp.asarray(delays), recurrent_delays=jnp.asarray(recurrent_delays)
            )
            found.append((run(own), *value_and_gradient(own, loss)))
        assert found[0][0].count > 8
        for result, value, gradient in found[1:]:
            same_bits(result, found[0][0])
            assert value == found[0][1]
            without = {"delays": None, "recurrent_delays": None}
            # sums over the targets of an arrival are taken in another order where they come apart
            for part, expected in zip(
                jax.tree.leaves(gradient._replace(**without)),
                jax.tree.leaves(found[0][2]._replace(**without)),
                strict=True,
            ):
                if part.dtype != jax.dtypes.float0:
                    assert_within(part, expected, 1e-12)
        # the gradient of a delay is the sum over all synapses that have it
        every = found[1][2]
        for (delays, recurrent_delays), (_, _, gradient) in zip(forms, found, strict=True):
            for part, whole, form in (
                (gradient.delays, every.delays, delays),
                (gradient.recurrent_delays, every.recurrent_delays, recurrent_delays),
            ):
                assert part.shape == np.shape(form)
                shape = part.shape if part.ndim == 2 else (part.size, 1)
                axes = tuple(a for a in (0, 1) if shape[a] == 1)
                expected = whole.sum(axes, keepdims=True).reshape(part.shape)
                assert_within(part, expected, 1e-12)  # a sum in another order

    @pytest.mark.usefixtures("unchecked")
    def test_every_number_is_a_delay_for_all(self):
        rng = np.random.default_rng(4)
        network = random_graph(rng, [random_population(rng, N_NEURONS)], n_in=N_INPUTS)
        graph = graph_of(network)
        expected = solve(graph, delays=jnp.asarray(0.25), recurrent_delays=jnp.full((1, 1), 0.25))
        for delay in (0.25, np.float64(0.25), np.full((1, 1), 0.25), np.full(N_INPUTS, 0.25)):
            same_bits(solve(graph, delays=delay, recurrent_delays=0.25), expected)
        assert expected.count > 0

    def test_a_missing_synapse_is_one_without_weight(self):
        """Nobody can tell the difference, except for the number of arrivals."""
        rng = np.random.default_rng(5)
        network = random_graph(rng, [random_population(rng, N_NEURONS)], n_in=N_INPUTS, instant=0)
        graph = graph_of(network)._replace(delays=jnp.full((N_INPUTS, N_NEURONS), 0.125))
        missing = rng.random((N_NEURONS, N_NEURONS)) < 0.4
        delays = jnp.asarray(rng.uniform(0.1, 0.4, missing.shape))
        without = graph._replace(recurrent_delays=jnp.where(missing, jnp.inf, delays))
        weightless = graph._replace(
            recurrent=jnp.where(missing, 0.0, graph.recurrent), recurrent_delays=delays
        )
        one, other = run(without), run(weightless)
        assert one.count > 10
        np.testing.assert_array_equal(one.spikes.index, other.spikes.index)
        # intervals between arrivals are cut in other places
        np.testing.assert_allclose(one.spikes.time, other.spikes.time, rtol=0, atol=1e-11)
        loss = coefficients(5)
        (_, one), (_, other) = (value_and_gradient(g, loss) for g in (without, weightless))
        assert_within(one.recurrent, np.where(missing, 0, other.recurrent), 1e-9)
        assert_within(one.weights, other.weights, 1e-9)


def acyclic(graph):
    return event_loop(
        graph.params,
        graph.weights,
        graph.state,
        graph.inputs,
        t_max=graph.t_max,
        max_events=CAPACITY,
    )


@jax.jit
def acyclic_gradient(graph, loss):
    def value(moving):
        result = acyclic(moving._replace(params=graph.params))
        return linear_loss(result, loss), result

    moving = graph._replace(params=None, t_max=jnp.asarray(graph.t_max))
    return jax.value_and_grad(value, allow_int=True, has_aux=True)(moving)


@st.composite
def layers(draw):
    options = {
        "ratio": draw(st.sampled_from(GRAPH_RATIOS)),
        "refractory": draw(st.booleans()),
        "tonic": draw(st.booleans()),
        "per_neuron": draw(st.booleans()),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_network(rng, (N_NEURONS,), n_in=N_INPUTS, n_spikes=N_SPIKES, **options)


class TestTheAcyclicPath:
    @draws(15)
    @given(layers(), st.sampled_from(["no delay", "no weights"]), st.integers(0, 1000))
    def test_the_same_numbers(self, network, form, seed):
        solved_and_tame(network)
        layer, loss = layer_of(network), coefficients(seed)
        nothing = jnp.zeros((N_NEURONS, N_NEURONS))
        graph = Graph(*layer, jnp.asarray(0.0), nothing if form == "no weights" else None, None)
        (value, expected), gradient = acyclic_gradient(graph, loss)
        assume(expected.status == Status.OK)
        result = run(graph)
        assert result.count == expected.count
        np.testing.assert_array_equal(result.spikes.index, expected.spikes.index)
        for name, one, other in (
            ("time", result.spikes.time, expected.spikes.time),
            ("v", result.state.v, expected.state.v),
            ("i", result.state.i, expected.state.i),
            ("release", result.state.release, expected.state.release),
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11, err_msg=name)
        found_value, found = value_and_gradient(graph, loss)
        assert float(found_value) == pytest.approx(float(value), abs=1e-10)
        for name in ("weights", "inputs", "state", "t_max"):
            pairs = zip(
                jax.tree.leaves(getattr(found, name)),
                jax.tree.leaves(getattr(gradient, name)),
                strict=True,
            )
            for one, other in pairs:
                if one.dtype != jax.dtypes.float0:
                    assert_within(one, other, 1e-9, name)

    @draws(12)
    @given(
        st.integers(0, 2**32),
        st.sampled_from([(3, 4), (2, 2, 3)]),
        st.sampled_from(GRAPH_RATIOS),
        st.booleans(),
    )
    def test_layers_are_quadrants_of_one_matrix(self, seed, sizes, ratio, refractory):
        rng = np.random.default_rng(seed)
        network = random_network(
            rng,
            sizes,
            n_in=N_INPUTS,
            n_spikes=N_SPIKES,
            mean=1.5,
            ratio=ratio,
            refractory=refractory,
        )
        trajectory = solved_and_tame(network)
        last = trajectory.population == len(sizes) - 1
        assume(np.any(last))
        loss = coefficients(seed % 1000)
        states = [layer_of_population(p) for p in network.populations]
        weights = [jnp.asarray(p.weight) for p in network.projections]
        inputs = graph_of(network).inputs
        value, (by_weights, by_time) = layered_gradient(
            states, weights, inputs, network.t_max, loss
        )
        graph = graph_of(network)
        start = N_NEURONS - sizes[-1]
        found_value, found = quadrants_gradient(graph, start, loss)
        # the same arithmetic in another order; sums of up to 96 times
        assert float(found_value) == pytest.approx(float(value), abs=1e-10)
        blocks = in_blocks(network, by_weights, 0.0)
        # where the layered form has no weight at all, the merged one has a missing synapse
        assert_within(found.weights, blocks[0], 1e-10)
        assert_within(found.recurrent, blocks[1], 1e-10)
        assert_within(found.inputs.time, by_time, 1e-10)


def layer_of_population(population):
    return layer_of(
        Network(
            [population], [Projection(INPUT, 0, np.zeros((1, population.size)))], t_max=1.0, n_in=1
        )
    )


def loss_of_last(times, v, loss):
    times = jnp.sort(times)[:CAPACITY]
    by_time, by_v, _ = loss
    return jnp.where(jnp.isfinite(times), times, 0) @ by_time + v @ by_v[: v.size]


@jax.jit
def layered_gradient(layers, weights, inputs, t_max, loss):
    def value(weights, time):
        spikes = inputs._replace(time=time)
        for layer, weight in zip(layers, weights, strict=True):
            result = event_loop(
                layer.params, weight, layer.state, spikes, t_max=t_max, max_events=CAPACITY
            )
            spikes = result.spikes
        return loss_of_last(spikes.time, result.state.v, loss)

    return jax.value_and_grad(value, argnums=(0, 1))(weights, inputs.time)


@partial(jax.jit, static_argnums=1)
def quadrants_gradient(graph, start, loss):
    def value(moving):
        result = solve(moving._replace(params=graph.params))
        times = jnp.where(result.spikes.index >= start, result.spikes.time, jnp.inf)
        return loss_of_last(times, result.state.v[start:], loss)

    moving = graph._replace(params=None, t_max=jnp.asarray(graph.t_max))
    return jax.value_and_grad(value, allow_int=True)(moving)
