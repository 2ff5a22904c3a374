"""LIF and EventPropLIF: one function by two routes, and the gradient of the oracle."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, Spikes
from jaxsnn.event.compose import serial
from jaxsnn.event.leaky_integrate_and_fire import LIF, EventPropLIF
from networks import inputs_of, params_of, random_network, well_conditioned
from oracle.gradient import loss_gradient

pytestmark = pytest.mark.usefixtures("x64")

FACTORIES = [LIF, EventPropLIF]
SIZES = [(5,), (4, 3), (5, 4, 3)]


def draw(sizes, *, refractory=True, seed=0):
    """A network from rest with several spikes per neuron, and its trajectory."""
    for attempt in range(100):
        rng = np.random.default_rng((seed, attempt))
        network = random_network(
            rng, sizes, mean=1.0, refractory=refractory, ratio=rng.uniform(0.3, 1.2), started=False
        )
        trajectory = well_conditioned(network)
        if trajectory is None:
            continue
        counts = [
            np.bincount(trajectory.index[trajectory.population == p], minlength=n)
            for p, n in enumerate(sizes)
        ]
        if all(c.max() >= 2 for c in counts) and len(trajectory.time) < 150:
            return network, trajectory
    raise AssertionError("no draw has several spikes per neuron in each layer")


def layers_of(factory, network, spare=3, **options):
    """The network as layers that have some room more than they need."""
    counts = np.bincount(well_conditioned(network).population, minlength=len(network.sizes))
    return serial(
        *(
            factory(
                population.size,
                n_spikes=int(count) + spare,
                t_max=network.t_max,
                params=params_of(population),
                **options,
            )
            for population, count in zip(network.populations, counts, strict=True)
        )
    )


def weights_of(network):
    return [jnp.asarray(projection.weight) for projection in network.projections]


def loss_of(net, spikes, coefficients):
    """A linear loss in the spike times of all layers."""

    def loss(weights, time):
        recorded = net.apply(weights, Spikes(time, spikes.index))
        return sum(
            jnp.where(jnp.isfinite(layer.time), layer.time, 0)[: len(c)] @ c
            for layer, c in zip(recorded, coefficients, strict=True)
        )

    return loss


@pytest.mark.parametrize("refractory", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
class TestNetworks:
    """Leak, reset and time constants differ for each neuron, refractory periods too."""

    @pytest.mark.parametrize("factory", FACTORIES)
    def test_oracle(self, factory, sizes, refractory):
        network, trajectory = draw(sizes, refractory=refractory)
        net, weights, spikes = layers_of(factory, network), weights_of(network), inputs_of(network)
        by_time = np.random.default_rng(1).normal(size=len(trajectory.time))
        mine = [trajectory.population == p for p in range(len(sizes))]
        for layer, own in zip(net.apply(weights, spikes), mine, strict=True):
            n = int(own.sum())
            np.testing.assert_array_equal(layer.index[:n], trajectory.index[own])
            # well conditioned draws lose a factor 20 of 1e-15 per spike in a row
            np.testing.assert_allclose(layer.time[:n], trajectory.time[own], rtol=0, atol=1e-9)
            np.testing.assert_array_equal(layer.time[n:], np.inf)
            np.testing.assert_array_equal(layer.index[n:], -1)

        loss = loss_of(net, spikes, [by_time[own] for own in mine])
        found, found_times = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, spikes.time)
        expected = loss_gradient(
            network, trajectory, dloss_dtime=by_time, wrt=("weight", "input_time")
        )
        for one, other in zip(found, expected["weight"], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-8 * max(1, np.abs(other).max()))
        other = expected["input_time"][0]
        np.testing.assert_allclose(
            found_times, other, rtol=0, atol=1e-8 * max(1, np.abs(other).max())
        )


@pytest.mark.parametrize("sizes", [(5,), (5, 4, 3)], ids=str)
def test_two_routes(sizes):
    network, trajectory = draw(sizes, seed=1)
    weights, spikes = weights_of(network), inputs_of(network)
    counts = np.bincount(trajectory.population, minlength=len(sizes))
    rng = np.random.default_rng(2)
    coefficients = [rng.normal(size=n) for n in counts]
    results = []
    for factory in FACTORIES:
        net = layers_of(factory, network)
        loss = loss_of(net, spikes, coefficients)
        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, spikes.time)
        results.append((net.apply(weights, spikes), gradient))
    (spikes_1, gradient_1), (spikes_2, gradient_2) = results
    for one, other in zip(spikes_1, spikes_2, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_allclose(one.time, other.time, rtol=0, atol=1e-9)
    for one, other in zip(jax.tree.leaves(gradient_1), jax.tree.leaves(gradient_2), strict=True):
        scale = max(1, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("factory", FACTORIES)
class TestOneLayer:
    def test_scalar_parameters_are_those_of_every_neuron(self, factory):
        scalar = LIFParameters(1.0, 0.6, v_leak=0.1, v_reset=-0.2, t_ref=0.1)
        many = LIFParameters(*(jnp.full(3, x) for x in (1.0, 0.6, 1.0, 0.1, -0.2, 0.1)))
        weights = jnp.asarray(np.random.default_rng(0).uniform(2, 6, (2, 3)))
        spikes = Spikes(jnp.asarray([0.1, 0.4, 0.9]), jnp.asarray([0, 1, 0], jnp.int32))
        one, other = (
            factory(3, n_spikes=30, t_max=2.0, params=p).apply(weights, spikes)
            for p in (scalar, many)
        )
        assert np.isfinite(one.time[:5]).all()
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_allclose(one.time, other.time, rtol=1e-14)

    @pytest.mark.parametrize("shared", [True, False])
    def test_vmap_is_the_native_batch(self, factory, shared):
        rng = np.random.default_rng(0)
        layer = factory(4, n_spikes=60, t_max=2.0, params=LIFParameters(1.0, 0.6, t_ref=0.05))
        weights = jnp.asarray(rng.uniform(0, 5, (2, 4) if shared else (3, 2, 4)))
        spikes = Spikes(
            jnp.asarray(np.sort(rng.uniform(0, 1.5, (3, 6)))),
            jnp.asarray(rng.integers(0, 2, (3, 6)), jnp.int32),
        )
        in_axes = (None if shared else 0, 0)
        native, mapped = (
            layer.apply(weights, spikes),
            jax.vmap(layer.apply, in_axes)(weights, spikes),
        )
        singles = [
            layer.apply(weights if shared else weights[k], Spikes(spikes.time[k], spikes.index[k]))
            for k in range(3)
        ]
        for k, single in enumerate(singles):
            for batch in (native, mapped):
                np.testing.assert_array_equal(batch.time[k], single.time)
                np.testing.assert_array_equal(batch.index[k], single.index)

        coefficients = rng.normal(size=(3, 60))

        def loss(apply):
            def value(weights, time):
                times = apply(weights, Spikes(time, spikes.index)).time
                return (jnp.where(jnp.isfinite(times), times, 0) * coefficients).sum()

            return value

        by_native, by_mapped = (
            jax.grad(loss(apply), argnums=(0, 1))(weights, spikes.time)
            for apply in (layer.apply, jax.vmap(layer.apply, in_axes))
        )
        for one, other in zip(by_native, by_mapped, strict=True):
            # the same terms, perhaps added in another order
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())

    def test_batch_of_zero(self, factory):
        layer = factory(4, n_spikes=5, t_max=2.0)
        spikes = Spikes(jnp.zeros((0, 3)), jnp.zeros((0, 3), jnp.int32))
        assert layer.apply(jnp.ones((2, 4)), spikes).time.shape == (0, 5)

    def test_no_input_spikes(self, factory):
        layer = factory(4, n_spikes=5, t_max=2.0)
        result = layer.apply(jnp.ones((2, 4)), Spikes(jnp.zeros(0), jnp.zeros(0, jnp.int32)))
        np.testing.assert_array_equal(result.time, np.inf)
        np.testing.assert_array_equal(result.index, -1)

    def test_tonic_neurons_fire_without_input(self, factory):
        params = LIFParameters(tau_mem=1.0, tau_syn=0.5, v_leak=1.5, t_ref=0.2)
        layer = factory(1, n_spikes=4, t_max=4.0, params=params)
        result = layer.apply(jnp.ones((1, 1)), Spikes(jnp.zeros(0), jnp.zeros(0, jnp.int32)))
        period = np.log(1.5 / 0.5)  # from the leak at the start: nothing to cross, it fires at once
        expected = [0, 0.2 + period, 0.4 + 2 * period]
        np.testing.assert_allclose(result.time[:3], expected, rtol=0, atol=1e-14)

    def test_float32(self, factory):
        with jax.enable_x64(False):
            layer = factory(4, n_spikes=20, t_max=0.05)
            _, weights = layer.init(jax.random.key(0), 3)
            spikes = Spikes(jnp.asarray([0.001, 0.002]), jnp.asarray([0, 2], jnp.int32))
            result = layer.apply(3 * weights, spikes)
            gradient = jax.grad(lambda w: layer.apply(w, spikes).time[0])(3 * weights)
        assert result.time.dtype == gradient.dtype == np.float32
        assert np.isfinite(result.time[0])
        assert np.isfinite(gradient).all()

    def test_init(self, factory):
        layer = factory(40, n_spikes=5, t_max=2.0, mean=3.0, std=0.5)
        n_outputs, weights = layer.init(jax.random.key(1), 50)
        assert n_outputs == 40
        assert weights.shape == (50, 40)
        # 2000 draws: the mean is known to 0.011, the deviation to 0.008; five times that
        assert abs(float(weights.mean()) - 3.0) < 0.056
        assert abs(float(weights.std()) - 0.5) < 0.04
        np.testing.assert_array_equal(weights, layer.init(jax.random.key(1), 50)[1])
        assert not np.array_equal(weights, layer.init(jax.random.key(2), 50)[1])


class TestSerial:
    def test_init_hands_sizes_on(self):
        net = serial(*(EventPropLIF(n, n_spikes=5, t_max=1.0) for n in (7, 2, 3)))
        n_outputs, weights = net.init(jax.random.key(0), 4)
        assert n_outputs == 3
        assert [w.shape for w in weights] == [(4, 7), (7, 2), (2, 3)]

    def test_layers_draw_different_weights(self):
        net = serial(*(EventPropLIF(3, n_spikes=5, t_max=1.0) for _ in range(2)))
        first, second = net.init(jax.random.key(0), 3)[1]
        assert not np.array_equal(first, second)

    def test_apply_is_one_layer_after_the_other(self):
        network, _ = draw((4, 3))
        layers = [
            EventPropLIF(p.size, n_spikes=80, t_max=network.t_max, params=params_of(p))
            for p in network.populations
        ]
        weights, spikes = weights_of(network), inputs_of(network)
        recorded = serial(*layers).apply(weights, spikes)
        for layer, w, found in zip(layers, weights, recorded, strict=True):
            spikes = layer.apply(w, spikes)
            np.testing.assert_array_equal(found.time, spikes.time)
            np.testing.assert_array_equal(found.index, spikes.index)

    def test_layers_of_both_kinds_mix(self):
        network, _ = draw((4, 3))
        results = []
        for kinds in ((LIF, EventPropLIF), (EventPropLIF, LIF)):
            layers = [
                kind(p.size, n_spikes=80, t_max=network.t_max, params=params_of(p))
                for kind, p in zip(kinds, network.populations, strict=True)
            ]
            loss = loss_of(serial(*layers), inputs_of(network), [np.zeros(0), np.ones(3)])
            weights = weights_of(network)
            results.append(jax.grad(loss, argnums=(0, 1))(weights, inputs_of(network).time))
        for one, other in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * (1 + np.abs(other).max()))

    def test_nested(self):
        network, _ = draw((5, 4, 3))
        layers = [
            EventPropLIF(p.size, n_spikes=80, t_max=network.t_max, params=params_of(p))
            for p in network.populations
        ]
        weights, spikes = weights_of(network), inputs_of(network)
        flat = serial(*layers).apply(weights, spikes)
        inner = serial(layers[0], layers[1]).apply(weights[:2], spikes)
        np.testing.assert_array_equal(layers[2].apply(weights[2], inner[-1]).time, flat[-1].time)

    def test_rejects(self):
        with pytest.raises(ValueError, match="layers is empty, expected at least one layer"):
            serial()
        net = serial(EventPropLIF(3, n_spikes=5, t_max=1.0))
        spikes = Spikes(jnp.zeros(1), jnp.zeros(1, jnp.int32))
        with pytest.raises(
            ValueError, match="weights has 2 entries, expected one for each of the 1"
        ):
            net.apply([jnp.ones((2, 3)), jnp.ones((3, 3))], spikes)

    @pytest.mark.parametrize("factory", FACTORIES)
    def test_a_silent_layer_silences_the_next(self, factory):
        network, _ = draw((4, 3))
        weights = weights_of(network)
        weights[0] = jnp.zeros_like(weights[0])
        populations = [replace(p, v_leak=0.0, v0=0.0) for p in network.populations]
        layers = [
            factory(p.size, n_spikes=10, t_max=network.t_max, params=params_of(p))
            for p in populations
        ]
        net, spikes = serial(*layers), inputs_of(network)
        for layer in net.apply(weights, spikes):
            np.testing.assert_array_equal(layer.time, np.inf)
        gradient = jax.grad(loss_of(net, spikes, [np.ones(10), np.ones(10)]))(weights, spikes.time)
        for g in gradient:
            np.testing.assert_array_equal(g, 0)
