"""``check_gradients`` and ``gradient_identities`` pass what is right, and find what is wrong."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import (
    LIFParameters,
    LIFState,
    Spikes,
    check_gradients,
    gradient_identities,
    gradients,
    initial_state,
)
from jaxsnn.event import Delay, EventPropLIF, Graph, LeakyIntegrator, Source, serial
from jaxsnn.ops import event_loop

pytestmark = pytest.mark.usefixtures("x64")

T_MAX = 2.5
PARAMS = LIFParameters(1.0, 0.5, 1.0, 0.1, -0.2, 0.15)


def inputs_of(seed, n_channels=2, n_spikes=8):
    rng = np.random.default_rng(seed)
    return Spikes(
        jnp.asarray(np.sort(rng.uniform(0.05, 2.0, n_spikes))),
        jnp.asarray(rng.integers(0, n_channels, n_spikes), jnp.int32),
    )


def layer(n, **options):
    return EventPropLIF(n, **({"n_spikes": 60, "t_max": T_MAX, "params": PARAMS} | options))


def finite(time):
    return jnp.where(jnp.isfinite(time), time, 0)


def time_loss(spikes):
    return jnp.sum(jnp.sin(2 * finite(spikes.time)))


class TestCorrectNetworks:
    def test_layers(self):
        net = serial(layer(3, mean=3.0), layer(2, mean=2.0))
        _, weights = net.init(jax.random.key(0), 2)
        report = check_gradients(
            net.apply, weights, inputs_of(0), lambda recorded: time_loss(recorded[-1])
        )
        assert report.ok, report
        assert "FAIL" not in str(report)
        assert set(report.parameters) == {
            "['inputs'].time",
            "['parameters'][0]",
            "['parameters'][1]",
        }
        for found in report.parameters.values():
            # 8 entries or all that there are, and a direction
            assert found.checked + found.left_out in (7, 9)
            assert found.checked > 4
            assert found.error < 1e-7

    def test_a_cycle_with_trained_delays_and_parameters(self):
        graph = Graph()
        graph.add("input", Source(2))
        graph.add("a", layer(3, mean=3.0, train=("tau_mem", "v_th")))
        graph.add("b", layer(2, mean=2.0))
        graph.connect("input", "a", delay=Delay("axonal", scale=0.1))
        graph.connect("a", "b", delay=Delay("synaptic", scale=0.1, std=0.5))
        graph.connect("b", "a", delay=Delay("projection", scale=0.2))
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(1))
        report = check_gradients(
            apply, parameters, inputs_of(1), lambda out: time_loss(out["a"]) + time_loss(out["b"])
        )
        assert report.ok, report
        assert len(report.parameters) == 9
        assert all(found.checked > 0 for found in report.parameters.values()), report

    def test_a_readout(self):
        graph = Graph()
        graph.add("input", Source(2))
        graph.add("hidden", layer(3, mean=3.0))
        graph.add(
            "out",
            LeakyIntegrator(
                2, t_max=T_MAX, tau_mem=1.0, tau_syn=0.5, times=[0.7], maximum=True, integral=True
            ),
        )
        graph.connect("input", "hidden")
        graph.connect("hidden", "hidden", delay=0.1)
        graph.connect("hidden", "out", delay=Delay("synaptic", scale=0.1))
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(2))

        def loss(out):
            reading = out["out"]
            seen = jnp.sum(jnp.sin(reading.probes.v)) + jnp.sum(reading.final**2)
            return seen + jnp.sum(jnp.cos(reading.maximum.v)) + reading.integral[0]

        # The loss is of order 10, so that its differences are rounded by 1e-15 * 10 / step = 1e-9,
        # and delays hardly move it, by 1e-3.
        report = check_gradients(apply, parameters, inputs_of(2), loss, tolerance=1e-5)
        assert report.ok, report
        assert all(found.checked > 4 for found in report.parameters.values()), report

    def test_in_double_precision_whatever_comes_in(self):
        net = layer(3, mean=3.0)
        _, weights = net.init(jax.random.key(0), 2)
        narrow = weights.astype(np.float32)
        spikes = inputs_of(0)
        spikes = spikes._replace(time=spikes.time.astype(np.float32))
        with jax.enable_x64(False):
            report = check_gradients(net.apply, narrow, spikes, time_loss)
        assert report.ok, report
        assert max(found.error for found in report.parameters.values()) < 1e-7


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def doctored(change, x):
    """The number itself, whose gradient goes through ``change``."""
    del change
    return x


doctored.defvjp(lambda _, x: (x, None), lambda change, _, g: (change(g),))


class TestPlantedErrors:
    """Each leaves the values alone."""

    @staticmethod
    def network():
        rng = np.random.default_rng(3)
        return {
            "weights": jnp.asarray(rng.normal(3.0, 1.0, (2, 3))),
            "recurrent": jnp.asarray(rng.normal(0.5, 1.0, (3, 3))),
            "delays": jnp.asarray(rng.uniform(0.05, 0.4, (3, 3))),
        }

    @staticmethod
    def run(p, spikes, params=PARAMS):
        return event_loop(
            params,
            p["weights"],
            initial_state(params, 3, jnp.float64),
            spikes,
            t_max=T_MAX,
            max_events=80,
            recurrent=p["recurrent"],
            recurrent_delays=p["delays"],
        ).spikes

    def report(self, apply, parameters=None):
        return check_gradients(apply, parameters or self.network(), inputs_of(3), time_loss)

    def test_nothing_planted(self):
        report = self.report(self.run)
        assert report.ok, report

    @pytest.mark.parametrize("name", ["weights", "recurrent", "delays"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda g: -g,
            lambda g: 1.00001 * g,
            lambda g: g.at[0, 1].set(0.0),
            jnp.zeros_like,
            lambda g: jnp.full_like(g, jnp.nan),
        ],
        ids=["sign", "scale", "entry", "zero", "nan"],
    )
    def test_one_gradient(self, name, change):
        """The array is found, the others are not blamed."""

        def apply(p, spikes):
            return self.run(p | {name: doctored(change, p[name])}, spikes)

        report = self.report(apply)
        assert not report.ok
        for key, found in report.parameters.items():
            assert (found.error <= report.tolerance) == (name not in key), report
        assert f"FAIL ['parameters']['{name}']" in str(report)

    def test_times_of_inputs(self):
        def apply(p, spikes):
            return self.run(p, spikes._replace(time=doctored(lambda g: 0.9 * g, spikes.time)))

        report = self.report(apply)
        assert not report.ok
        assert report.parameters["['inputs'].time"].error > 0.05

    def test_a_missing_term_of_the_reset(self):
        """Without refractory period: what a spike hands on to the next one through the reset."""
        params = LIFParameters(1.0, 0.5, 1.0, 0.1, -0.2, 0.0)
        weights = jnp.asarray([[4.0, 6.0]])

        def apply(weights, spikes, truth):
            """Window by window of one spike, each from the state that the one before left."""
            state = initial_state(params, 1, jnp.float64)
            times = []
            for _ in range(2):
                result = event_loop(
                    params, weights.reshape(2, 1), state, spikes, t_max=T_MAX, max_events=1
                )
                times.append(result.spikes.time[0])
                state, spikes = result.state, result.queue
                if not truth:
                    state = state._replace(time=jax.lax.stop_gradient(state.time))
            return Spikes(jnp.stack(times), jnp.zeros(2, jnp.int32))

        spikes = Spikes(jnp.asarray([0.2, 0.5]), jnp.asarray([0, 1], jnp.int32))
        for truth in (True, False):
            report = check_gradients(partial(apply, truth=truth), weights, spikes, time_loss)
            assert report.ok == truth, report

    def test_a_large_constant_in_the_loss(self):
        """Rounding of the loss is not taken for an error of its gradient."""
        init, apply = layer(3, mean=3.0)
        _, weights = init(jax.random.key(0), 2)
        report = check_gradients(apply, weights, inputs_of(0), lambda s: 1e8 + time_loss(s))
        assert report.ok, report

    def test_an_array_that_has_no_say(self):
        """Its gradient is zero and so are the differences; one that is not zero is found."""

        def apply(p, spikes):
            return self.run(p, spikes)

        parameters = self.network() | {"nothing": jnp.ones(3)}
        report = self.report(apply, parameters)
        assert report.ok
        assert report.parameters["['parameters']['nothing']"].error == 0

        @jax.custom_vjp
        def ghost(x, y):
            del y
            return x

        ghost.defvjp(lambda x, y: (x, y), lambda y, g: (g, jnp.full_like(y, 1e-3)))

        def haunted(p, spikes):
            return self.run(p | {"weights": ghost(p["weights"], p["nothing"])}, spikes)

        report = self.report(haunted, parameters)
        assert not report.ok
        assert report.parameters["['parameters']['nothing']"].error == pytest.approx(1, abs=1e-6)


class TestWhatIsLeftOut:
    @staticmethod
    def first(weights, spikes):
        params = LIFParameters(1.0, 0.5)
        return event_loop(
            params,
            weights,
            initial_state(params, weights.shape[-1], jnp.float64),
            spikes,
            t_max=T_MAX,
            max_events=8,
        ).spikes

    def test_a_spike_that_vanishes(self):
        """A weight at which one is about to appear: named, not compared, and no failure."""
        spikes = Spikes(jnp.asarray([0.2]), jnp.asarray([0], jnp.int32))
        # the peak of the response is weight / 4 for equal time constants times two
        grazing = 4.0 * (1 - 1e-7)
        report = check_gradients(self.first, jnp.asarray([[grazing, 8.0]]), spikes, time_loss)
        (name, *_) = (k for k in report.parameters if "parameters" in k)
        own = report.parameters[name]
        assert own.left_out == 2  # the entry, and the direction that moves it
        assert own.checked == 1
        assert report.ok, report
        assert any("a spike of neuron 0 instead of" in change for change in report.changes)
        assert str(report).count("left out: ") == len(report.changes)

    def test_spikes_that_swap(self):
        """Two neurons with almost the same weight fire almost together."""
        spikes = Spikes(jnp.asarray([0.2]), jnp.asarray([0], jnp.int32))
        report = check_gradients(self.first, jnp.asarray([[8.0, 8.0 + 1e-7]]), spikes, time_loss)
        expected = "event 0 is a spike of neuron 0 instead of a spike of neuron 1"
        assert any(expected in change for change in report.changes), report
        own = report.parameters["['parameters']"]
        assert own.checked + own.left_out == 3
        assert own.left_out > 0

    def test_nothing_compared_is_not_ok(self):
        spikes = Spikes(jnp.asarray([0.2]), jnp.asarray([0], jnp.int32))
        report = check_gradients(
            lambda w, s: self.first(w, jax.lax.stop_gradient(s)),
            jnp.asarray([[4.0 * (1 - 1e-9)]]),
            spikes._replace(time=jnp.asarray([jnp.inf]), index=jnp.asarray([-1], jnp.int32)),
            lambda s: jnp.sum(finite(s.time)),
        )
        # the input is padding, so there is a weight that moves nothing, and no time to compare
        assert report.parameters["['inputs'].time"].checked == 0
        assert report.parameters["['parameters']"].error == 0

    def test_a_step_out_of_range(self):
        """A delay of zero cannot be made smaller: left out, with the error of the package."""
        spikes = inputs_of(0)

        def apply(delay, spikes):
            params = LIFParameters(1.0, 0.5)
            return event_loop(
                params,
                jnp.full((2, 2), 3.0),
                initial_state(params, 2, jnp.float64),
                spikes,
                t_max=T_MAX,
                max_events=40,
                delays=delay,
            ).spikes

        report = check_gradients(apply, jnp.asarray([0.0, 0.2]), spikes, time_loss)
        own = report.parameters["['parameters']"]
        assert own.left_out == 2
        assert any("delays" in change for change in report.changes), report

    def test_the_sample_is_named(self):
        spikes = Spikes(jnp.asarray([[0.2], [0.2]]), jnp.asarray([[1], [0]], jnp.int32))
        weights = jnp.asarray([[4.0 * (1 - 1e-7)], [9.0]])
        report = check_gradients(self.first, weights, spikes, time_loss)
        assert any("sample 1, event 0" in change for change in report.changes), report


def random_recurrent(n, seed=0):
    rng = np.random.default_rng(seed)
    tau_mem = rng.uniform(0.015, 0.025, n)
    params = LIFParameters(
        *(
            jnp.asarray(x)
            for x in (
                tau_mem,
                rng.uniform(0.004, 0.008, n),
                rng.uniform(0.9, 1.1, n),
                rng.uniform(-0.1, 0.1, n),
                rng.uniform(-0.3, 0.1, n),
                rng.uniform(0.001, 0.003, n),
            )
        )
    )
    weights = jnp.asarray(rng.normal(1.0, 0.5, (20, n)))
    network = {
        "recurrent": jnp.asarray(rng.normal(0, 0.3, (n, n))),
        "recurrent_delays": jnp.asarray(rng.uniform(0.001, 0.005, (n, 1))),
        "delays": jnp.asarray(rng.uniform(0.001, 0.005, (20, 1))),
    }
    return params, weights, network


class TestIdentities:
    def inputs(self, t_max, rate=60.0):
        rng = np.random.default_rng(1)
        n = int(20 * rate * t_max)
        return Spikes(
            jnp.asarray(np.sort(rng.uniform(0, t_max, n))),
            jnp.asarray(rng.integers(0, 20, n), jnp.int32),
        )

    def residuals(self, n, t_max, max_events, loss, **options):
        params, weights, network = random_recurrent(n)
        return jax.jit(
            lambda: gradient_identities(
                loss,
                params,
                weights,
                self.inputs(t_max),
                t_max=t_max,
                max_events=max_events,
                **network,
                **options,
            )
        )()

    @staticmethod
    def loss(times):
        return jnp.sum(jnp.sin(50 * finite(times)) * jnp.isfinite(times))

    def test_many_spikes(self):
        params, weights, network = random_recurrent(200)
        t_max, room = 1.0, 40_000
        result = event_loop(
            params,
            weights,
            initial_state(params, 200, jnp.float64),
            self.inputs(t_max),
            t_max=t_max,
            max_events=room,
            **network,
        )
        assert result.count > 10_000
        found = self.residuals(200, t_max, room, self.loss)
        assert max(map(float, found)) < 1e-11, found

    @pytest.mark.parametrize("started", [False, True])
    def test_small(self, started):
        state = None
        if started:
            rng = np.random.default_rng(4)
            state = LIFState(
                jnp.asarray(rng.uniform(-0.1, 0.5, 10)),
                jnp.asarray(rng.uniform(0, 0.5, 10)),
                jnp.where(jnp.arange(10) % 3 == 0, 2e-3, -jnp.inf),
                jnp.zeros(()),
            )
        found = self.residuals(10, 0.1, 400, self.loss, state=state)
        assert max(map(float, found)) < 1e-12, found

    def test_a_layer(self):
        params, weights, _ = random_recurrent(10)
        found = gradient_identities(
            self.loss, params, weights, self.inputs(0.1), t_max=0.1, max_events=400
        )
        assert max(map(float, found)) < 1e-12, found

    def test_nothing_happens(self):
        params, weights, _ = random_recurrent(10)
        found = gradient_identities(
            self.loss, params, 0 * weights, self.inputs(0.1), t_max=0.1, max_events=40
        )
        assert found == (0, 0, 0)

    @pytest.mark.parametrize(
        ("place", "broken"),
        [
            ("weights", ["voltage_scaling"]),
            ("inputs", ["time_scaling", "time_translation"]),
            ("tau_mem", ["time_scaling"]),
            ("v_th", ["voltage_scaling"]),
            ("recurrent_delays", ["time_scaling"]),
        ],
    )
    def test_doctored_gradients(self, place, broken, monkeypatch):
        """A gradient that is 1% off breaks those sums in which it has a part, and no other."""

        def off(x):
            return doctored(lambda g: 1.01 * g, x)

        def run(params, weights, state, inputs, **options):
            if place in ("tau_mem", "v_th"):
                params = replace(params, **{place: off(getattr(params, place))})
            elif place == "weights":
                weights = off(weights)
            elif place == "inputs":
                inputs = inputs._replace(time=off(inputs.time))
            else:
                options[place] = off(options[place])
            return event_loop(params, weights, state, inputs, **options)

        monkeypatch.setattr(gradients, "event_loop", run)
        found = self.residuals(10, 0.1, 400, self.loss)._asdict()
        for name, residual in found.items():
            if name in broken:
                assert residual > 1e-7, found
            else:
                assert residual < 1e-12, found
