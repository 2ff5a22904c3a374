"""How active a network is, and terms of a loss that keep its activity in a range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, Spikes, initial_state
from jaxsnn.event import (
    activity,
    changed_spikes,
    silent_neuron_loss,
    spike_count_loss,
    spike_counts,
    threshold_slopes,
    voltage_cross_entropy,
)
from jaxsnn.ops import event_loop
from networks import graph_of, params_of, random_graph, random_population, solve, spike_slopes
from oracle.simulate import simulate

pytestmark = pytest.mark.usefixtures("x64")


def spikes_of(*samples):
    """Padded lists of indices; times do not matter."""
    room = max(map(len, samples)) + 2
    index = np.array([[*s, *[-1] * (room - len(s))] for s in samples])
    time = np.where(index < 0, np.inf, np.arange(1.0, room + 1))
    return Spikes(jnp.asarray(time), jnp.asarray(index, jnp.int32))


BATCH = spikes_of([0, 2, 0, 0], [], [1, 1, 2])
COUNTS = np.array([[3, 0, 1, 0], [0, 0, 0, 0], [0, 2, 1, 0]])


class TestCounts:
    def test_values(self):
        found = spike_counts(BATCH, 4)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, COUNTS)

    def test_transformed(self):
        np.testing.assert_array_equal(jax.jit(spike_counts, static_argnums=1)(BATCH, 4), COUNTS)
        np.testing.assert_array_equal(jax.vmap(lambda s: spike_counts(s, 4))(BATCH), COUNTS)
        one = jax.tree.map(lambda x: x[0], BATCH)
        np.testing.assert_array_equal(spike_counts(one, 4), COUNTS[0])
        twice = jax.tree.map(lambda x: jnp.stack([x, x]), BATCH)
        np.testing.assert_array_equal(spike_counts(twice, 4), np.stack([COUNTS, COUNTS]))

    def test_others_are_left_out(self):
        np.testing.assert_array_equal(spike_counts(BATCH, 1), COUNTS[:, :1])

    def test_no_spikes(self):
        none = Spikes(jnp.zeros((2, 0)), jnp.zeros((2, 0), jnp.int32))
        np.testing.assert_array_equal(spike_counts(none, 3), np.zeros((2, 3)))

    def test_changes(self):
        after = spikes_of([0, 0, 3], [1], [1, 1, 2])
        dropped, created = changed_spikes(BATCH, after, 4)
        assert (int(dropped), int(created)) == (2, 2)
        dropped, created = jax.jit(changed_spikes, static_argnums=2)(after, BATCH, 4)
        assert (int(dropped), int(created)) == (2, 2)
        assert changed_spikes(BATCH, BATCH, 4) == (0, 0)

    def test_changes_do_not_depend_on_the_order(self):
        """Spikes that swap are neither lost nor won."""
        assert changed_spikes(spikes_of([0, 1, 1]), spikes_of([1, 0, 1]), 2) == (0, 0)


def networks():
    """Networks with delays and recurrence, all parameters per neuron, or shared."""
    for seed, per_neuron in ((0, True), (1, True), (2, False)):
        rng = np.random.default_rng(seed)
        population = random_population(rng, 7, refractory=seed != 1, per_neuron=per_neuron)
        yield random_graph(rng, [population], density=1.0)


class TestSlopes:
    def test_oracle(self):
        """The current of a spike is off by what its time is: 1e-13, times 100 at most."""
        for network in networks():
            expected = spike_slopes(network, simulate(network))
            assert len(expected) > 5
            params = params_of(network.populations[0])
            result = solve(graph_of(network)._replace(params=params))
            found = threshold_slopes(params, result)
            np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-9, atol=1e-10)
            np.testing.assert_array_equal(found[len(expected) :], np.inf)

    def test_of_a_layer(self):
        """By differences: a lower threshold makes the spike earlier by the inverse of the slope."""

        def run(v_th):
            params = LIFParameters(1.0, 0.5, v_th, 0.1, -0.2, 0.0)
            result = event_loop(
                params,
                jnp.asarray([[3.0]]),
                initial_state(params, 1, np.float64),
                Spikes(jnp.asarray([0.2]), jnp.zeros(1, jnp.int32)),
                t_max=2.0,
                max_events=3,
            )
            return result.spikes.time[0], threshold_slopes(params, result)

        (early, _), (late, _), (_, slopes) = run(0.6 - 1e-5), run(0.6 + 1e-5), run(0.6)
        assert float(slopes[0]) == pytest.approx(2e-5 / float(late - early), rel=1e-8)
        assert slopes[1] == np.inf

    def test_batches_and_gradient(self):
        (network, *_) = networks()
        params, graph = params_of(network.populations[0]), graph_of(network)
        times = graph.inputs.time * jnp.asarray([1.0, 0.95])[:, None]

        def one(time):
            own = graph._replace(inputs=Spikes(time, graph.inputs.index))
            return threshold_slopes(params, solve(own))

        expected = np.stack([one(t) for t in times])
        np.testing.assert_array_equal(jax.jit(jax.vmap(one))(times), expected)
        index = jnp.broadcast_to(graph.inputs.index, times.shape)
        native = solve(graph._replace(inputs=Spikes(times, index)))
        np.testing.assert_array_equal(threshold_slopes(params, native), expected)
        gradient = jax.grad(lambda t: jnp.sum(jnp.where(jnp.isfinite(s := one(t)), s, 0)))(times[0])
        np.testing.assert_array_equal(gradient, 0)


class TestActivity:
    def test_values(self):
        for network in networks():
            params = params_of(network.populations[0])
            graph = graph_of(network)._replace(params=params)
            trajectory = simulate(network)
            slopes = spike_slopes(network, trajectory)
            neuron = trajectory.index
            unit = (network.per_neuron("v_th") - network.per_neuron("v_reset"))[neuron]
            slopes = slopes / (unit / network.per_neuron("tau_mem")[neuron])
            limit = float(np.median(slopes))
            found = jax.jit(lambda p, g, x=limit: activity(p, solve(g), grazing_limit=x))(
                params, graph
            )
            assert float(found.smallest_slope) == pytest.approx(slopes.min(), rel=1e-9)
            # the median itself may be on either side by rounding
            assert abs(int(found.grazing) - np.sum(slopes < limit)) <= 1
            assert float(found.silent) == pytest.approx(np.mean(~np.isin(np.arange(7), neuron)))
            assert float(found.spikes) == pytest.approx(len(neuron) / 7)

    def test_batches(self):
        """Means over samples; silent is who fires in none of them."""
        params = LIFParameters(1.0, 0.5)
        weights = jnp.asarray([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
        spikes = Spikes(jnp.asarray([[0.1], [0.2], [0.3]]), jnp.asarray([[0], [1], [0]], jnp.int32))
        result = event_loop(
            params,
            weights,
            initial_state(params, 3, np.float64),
            spikes,
            t_max=1.0,
            max_events=9,
        )
        counts = np.asarray(spike_counts(result.spikes, 3))
        assert np.all(counts[[0, 2], 0] > 0)
        assert counts[1, 1] > 0
        found = activity(params, result)
        assert float(found.silent) == pytest.approx(1 / 3)
        assert float(found.spikes) == pytest.approx(counts.mean())
        assert found.grazing == 0

    def test_silence(self):
        params = LIFParameters(1.0, 0.5)
        result = event_loop(
            params,
            jnp.zeros((1, 2)),
            initial_state(params, 2, np.float64),
            Spikes(jnp.asarray([0.1]), jnp.zeros(1, jnp.int32)),
            t_max=1.0,
            max_events=3,
        )
        assert activity(params, result) == (np.inf, 0, 1.0, 0.0)


class TestSilentNeurons:
    def test_value(self):
        """The nearest sample counts, a neuron that fires anywhere does not."""
        maximum = jnp.asarray([[0.2, 1.0, 0.5], [0.7, 0.1, 0.4]])
        assert float(silent_neuron_loss(maximum, 1.0)) == pytest.approx((0.3 + 0 + 0.5) / 3)
        v_th = jnp.asarray([1.0, 1.0, 2.0])
        assert float(silent_neuron_loss(maximum, v_th)) == pytest.approx((0.3 + 0 + 1.5) / 3)
        margin = silent_neuron_loss(maximum, 1.0, margin=0.1)
        assert float(margin) == pytest.approx((0.4 + 0 + 0.6) / 3)

    def test_gradient_of_voltages(self):
        maximum = jnp.asarray([[0.2, 1.0, 0.5], [0.7, 0.1, 0.4]])
        found = jax.grad(silent_neuron_loss)(maximum, 1.0)
        np.testing.assert_allclose(found, [[0, 0, -1 / 3], [-1 / 3, 0, 0]], atol=1e-15)

    @staticmethod
    def loss(weights):
        params = LIFParameters(1.0, 0.5)
        spikes = Spikes(jnp.asarray([[0.1, 0.4], [0.2, 0.3]]), jnp.asarray([[0, 1]] * 2, jnp.int32))
        result = event_loop(
            params,
            weights,
            initial_state(params, 3, np.float64),
            spikes,
            t_max=2.0,
            max_events=20,
            maximum=True,
        )
        counts = spike_counts(result.spikes, 3)
        return silent_neuron_loss(result.maximum.v, params.v_th), counts

    @pytest.mark.parametrize("jit", [False, True])
    def test_it_wakes_silent_neurons(self, jit):
        """Positive input lifts it; those that fire are left alone, and descent makes it fire."""
        weights = jnp.asarray([[4.0, 1.0, 0.1], [4.0, 1.0, 0.2]])
        gradient = jax.value_and_grad(self.loss, has_aux=True)
        gradient = jax.jit(gradient) if jit else gradient
        (value, counts), found = gradient(weights)
        assert value > 0
        np.testing.assert_array_equal(counts.sum(0) > 0, [True, False, False])
        np.testing.assert_array_equal(found[:, 0], 0)
        assert np.all(found[:, 1:] < 0)
        for _ in range(60):
            (value, counts), found = gradient(weights)
            weights = weights - 1.5 * found
        assert np.all(counts.sum(0) > 0)
        assert value == 0
        np.testing.assert_array_equal(found, 0)

    def test_under_vmap(self):
        batch = jnp.stack([jnp.full((2, 3), 0.4), jnp.full((2, 3), 0.5)])
        each = [jax.grad(lambda w: self.loss(w)[0])(w) for w in batch]
        found = jax.vmap(jax.grad(lambda w: self.loss(w)[0]))(batch)
        np.testing.assert_allclose(found, np.stack(each), rtol=0, atol=1e-14)
        assert np.all(found < 0)


class TestCountLoss:
    def test_value(self):
        """Half the mean square of how far the batch mean is out of bounds."""
        mean = COUNTS.mean(0)
        slopes = jnp.ones(BATCH.time.shape)
        found = spike_count_loss(BATCH, slopes, 4, lower=0.5, upper=0.75)
        excess = np.maximum(mean - 0.75, 0) - np.maximum(0.5 - mean, 0)
        assert np.count_nonzero(excess) == 2
        assert float(found) == pytest.approx(np.mean(excess**2) / 2, abs=1e-15)
        jitted = jax.jit(lambda s, x: spike_count_loss(s, x, 4, lower=0.5, upper=0.75))
        assert float(jitted(BATCH, slopes)) == pytest.approx(float(found), abs=1e-15)
        assert spike_count_loss(BATCH, slopes, 4) == 0
        assert spike_count_loss(BATCH, slopes, 4, upper=1.0) == 0

    def test_gradient_of_times(self):
        """As defined: minus excess times slope, over samples and neurons."""
        rng = np.random.default_rng(0)
        slopes = jnp.where(BATCH.index < 0, jnp.inf, rng.uniform(1, 2, BATCH.time.shape))

        def value(time):
            return spike_count_loss(Spikes(time, BATCH.index), slopes, 4, lower=0.9, upper=0.95)

        found = jax.grad(value)(BATCH.time.astype(np.float64))
        excess = {0: 1.0 - 0.95, 1: 2 / 3 - 0.9, 2: 2 / 3 - 0.9}
        expected = np.array(
            [
                [
                    -excess.get(int(k), 0) * float(s) / 12 if k >= 0 else 0
                    for k, s in zip(*row, strict=True)
                ]
                for row in zip(BATCH.index, slopes, strict=True)
            ]
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)

    @staticmethod
    def run(weights):
        params = LIFParameters(1.0, 0.5)
        rng = np.random.default_rng(1)
        times = jnp.asarray(np.sort(rng.uniform(0, 2, (3, 6))))
        index = jnp.asarray(rng.integers(0, 2, (3, 6)), jnp.int32)
        result = event_loop(
            params,
            weights,
            initial_state(params, 2, np.float64),
            Spikes(times, index),
            t_max=3.0,
            max_events=80,
        )
        return result, threshold_slopes(params, result)

    @pytest.mark.parametrize(("bounds", "sign"), [({"upper": 1.0}, 1), ({"lower": 20.0}, -1)])
    def test_it_moves_counts(self, bounds, sign):
        """Descent fires less above the bound, and more below it."""

        @jax.jit
        def gradient(weights):
            def value(weights):
                result, slopes = self.run(weights)
                return spike_count_loss(result.spikes, slopes, 2, **bounds)

            return jax.value_and_grad(value)(weights)

        weights = jnp.asarray([[3.0, 2.5], [2.0, 3.5]])
        before = spike_counts(self.run(weights)[0].spikes, 2).sum(0)
        assert np.all(before > 3)
        first, found = gradient(weights)
        assert np.all(sign * found.sum(0) > 0)
        for _ in range(20):
            value, found = gradient(weights)
            weights = weights - 0.1 * found
        after = spike_counts(self.run(weights)[0].spikes, 2).sum(0)
        assert np.all(sign * (before - after) > 0)
        assert value < first

    def test_no_gradient_inside_the_bounds(self):
        def value(weights):
            result, slopes = self.run(weights)
            return spike_count_loss(result.spikes, slopes, 2, lower=0.0, upper=1e3)

        np.testing.assert_array_equal(jax.grad(value)(jnp.full((2, 2), 3.0)), 0)

    def test_under_vmap(self):
        def value(weights):
            result, slopes = self.run(weights)
            return spike_count_loss(result.spikes, slopes, 2, upper=1.0)

        batch = jnp.stack([jnp.full((2, 2), 3.0), jnp.full((2, 2), 2.5)])
        expected = np.stack([jax.grad(value)(w) for w in batch])
        assert np.all(np.isfinite(expected))
        np.testing.assert_allclose(jax.vmap(jax.grad(value))(batch), expected, rtol=0, atol=1e-13)


class TestVoltageCrossEntropy:
    VOLTAGES = np.array([[0.1, 0.7, -0.2], [2.0, 1.0, 0.0]])
    LABELS = np.array([1, 2])

    def expected(self, scale):
        x = self.VOLTAGES / scale
        return np.log(np.exp(x).sum(-1)) - x[[0, 1], self.LABELS]

    @pytest.mark.parametrize("scale", [1.0, 0.25])
    def test_value_and_gradient(self, scale):
        def value(voltages):
            return voltage_cross_entropy(voltages, jnp.asarray(self.LABELS), scale=scale)

        voltages = jnp.asarray(self.VOLTAGES)
        for found in (value(voltages), jax.jit(value)(voltages)):
            np.testing.assert_allclose(found, self.expected(scale), rtol=0, atol=1e-14)
        softmax = np.exp(self.VOLTAGES / scale)
        softmax /= softmax.sum(-1, keepdims=True)
        expected = (softmax - np.eye(3)[self.LABELS]) / scale
        gradient = jax.grad(lambda v: value(v).sum())(voltages)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-14)

    def test_under_vmap(self):
        found = jax.vmap(voltage_cross_entropy)(
            jnp.asarray(self.VOLTAGES), jnp.asarray(self.LABELS)
        )
        np.testing.assert_allclose(found, self.expected(1.0), rtol=0, atol=1e-14)

    def test_large_voltages(self):
        """No overflow: a difference of 1e5 is the loss."""
        found = voltage_cross_entropy(jnp.asarray([0.0, 1e5]), jnp.asarray(0))
        assert float(found) == 1e5

    def test_a_label_out_of_range(self):
        voltages = jnp.asarray(self.VOLTAGES)
        found = jax.jit(voltage_cross_entropy)(voltages, jnp.asarray([1, 3]))
        np.testing.assert_array_equal(np.isnan(found), [False, True])

    def test_rejects(self):
        voltages, labels = jnp.asarray(self.VOLTAGES), jnp.asarray(self.LABELS)
        where = "jaxsnn.event.loss.voltage_cross_entropy: "
        with pytest.raises(ValueError, match=where):
            voltage_cross_entropy(voltages, jnp.asarray([0, 3]))
        with pytest.raises(ValueError, match=where + r"labels have shape \(1,\), expected \(2,\)"):
            voltage_cross_entropy(voltages, labels[:1])
        with pytest.raises(ValueError, match=where + "scale"):
            voltage_cross_entropy(voltages, labels, scale=0.0)
        with pytest.raises(ValueError, match=where + "voltages are int"):
            voltage_cross_entropy(voltages.astype(int), labels)
