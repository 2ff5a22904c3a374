"""Layers, encoders, decoders and losses of `jaxsnn.discrete`, by formulas written out here."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, Spikes, discrete
from jaxsnn.discrete import LI, LIF, RecurrentLIF, RecurrentWeights, serial
from jaxsnn.discrete.integrate import refractory_steps
from oracle import steps as oracle

DT = 5e-4
PARAMS = LIFParameters(tau_mem=10e-3, tau_syn=5e-3, v_th=0.6, v_leak=0.05, v_reset=-0.1)


def inputs_of(seed, shape, density=0.1):
    return jnp.asarray(np.random.default_rng(seed).random(shape) < density, jnp.result_type(float))


def oracle_operands(weights, inputs, n_neurons, *, leak, drive, decay, params=PARAMS):
    same = {"leak": leak, "drive": drive, "decay": decay}
    same |= {name: getattr(params, name) for name in ("v_th", "v_leak", "v_reset")}
    zeros = np.zeros(n_neurons)
    recurrent = getattr(weights, "recurrent", None)
    return {
        "weights": np.asarray(getattr(weights, "input", weights)),
        "recurrent": None if recurrent is None else np.asarray(recurrent),
        "inputs": np.asarray(inputs),
        "v": zeros + params.v_leak,
        "i": zeros,
        "spikes": zeros,
        "hold": np.zeros(n_neurons, int),
        **{name: zeros + value for name, value in same.items()},
    }


EULER = {"leak": DT / 10e-3, "drive": DT / 10e-3, "decay": 1 - DT / 5e-3}


@pytest.mark.usefixtures("x64")
class TestLayers:
    @pytest.mark.parametrize("jump", ["after", "before"])
    def test_lif(self, jump):
        layer = LIF(7, dt=DT, params=PARAMS, jump=jump, mean=3.0, std=2.0)
        n, weights = layer.init(jax.random.key(0), 4)
        inputs = inputs_of(0, (40, 4))
        expected = oracle.run(
            oracle_operands(weights, inputs, 7, **EULER), surrogate="superspike", jump=jump
        )
        assert n == 7
        assert expected["spikes"].sum() > 10
        np.testing.assert_array_equal(layer.apply(weights, inputs), expected["spikes"])
        result = layer.run(weights, inputs)
        np.testing.assert_allclose(result.voltage, expected["voltage"], atol=1e-13)

    def test_recurrent_lif_with_refractory_steps(self):
        params = dataclasses.replace(PARAMS, t_ref=3.2 * DT)
        assert refractory_steps(params, DT) == 3
        layer = RecurrentLIF(7, dt=DT, params=params, mean=3.0, std=2.0, recurrent_std=2.0)
        _, weights = layer.init(jax.random.key(0), 4)
        assert isinstance(weights, RecurrentWeights)
        inputs = inputs_of(1, (40, 4))
        expected = oracle.run(
            oracle_operands(weights, inputs, 7, **EULER), surrogate="superspike", refractory=3
        )
        np.testing.assert_array_equal(layer.apply(weights, inputs), expected["spikes"])

    def test_li(self):
        layer = LI(3, dt=DT, params=PARAMS, std=0.5)
        _, weights = layer.init(jax.random.key(0), 4)
        inputs = inputs_of(2, (40, 4))
        silent = dataclasses.replace(PARAMS, v_th=np.inf)
        operands = oracle_operands(weights, inputs, 3, **EULER, params=silent)
        expected = oracle.run(operands, surrogate="superspike", jump="before")
        np.testing.assert_allclose(layer.apply(weights, inputs), expected["voltage"], atol=1e-13)

    def test_order_of_li_shifts_by_a_step(self):
        """Added after the flow, what arrives is seen one step later."""
        inputs = inputs_of(3, (30, 4))
        voltages = []
        for jump in ("before", "after"):
            layer = LI(3, dt=DT, jump=jump)
            voltages.append(layer.apply(layer.init(jax.random.key(0), 4)[1], inputs))
        np.testing.assert_allclose(voltages[1][1:], voltages[0][:-1], atol=1e-14)

    @pytest.mark.parametrize("make", [LIF, RecurrentLIF, LI])
    def test_step_by_step_is_the_same(self, make):
        layer = make(6, dt=DT, std=4.0)
        _, weights = layer.init(jax.random.key(1), 4)
        inputs = inputs_of(4, (5, 30, 4))
        state = layer.rest(weights)
        state = type(state)(*(jnp.broadcast_to(x, (5, 6)) for x in state))
        _, outputs = discrete.euler_integrate(
            lambda state, x: layer.step(weights, state, x), state, inputs
        )
        np.testing.assert_allclose(outputs, layer.apply(weights, inputs), atol=1e-13)

    def test_windows_go_on(self):
        layer = LIF(6, dt=DT, std=4.0)
        _, weights = layer.init(jax.random.key(1), 4)
        inputs = inputs_of(5, (5, 30, 4))
        first = layer.run(weights, inputs[:, :13])
        second = layer.run(weights, inputs[:, 13:], first.state)
        both = jnp.concatenate((first.spikes, second.spikes), 1)
        np.testing.assert_array_equal(both, layer.apply(weights, inputs))

    def test_serial(self):
        layers = LIF(6, dt=DT, std=4.0), LI(3, dt=DT)
        n, weights = serial(*layers).init(jax.random.key(2), 4)
        inputs = inputs_of(6, (5, 30, 4))
        hidden, voltages = serial(*layers).apply(weights, inputs)
        assert n == 3
        assert hidden.sum() > 10
        np.testing.assert_array_equal(hidden, layers[0].apply(weights[0], inputs))
        np.testing.assert_array_equal(voltages, layers[1].apply(weights[1], hidden))

    @pytest.mark.parametrize("shape", [(), (6,)])
    def test_trained_parameters(self, shape):
        """The same numbers as those of event layers; at the start they change nothing."""
        params = LIFParameters(
            tau_mem=jnp.full(shape, 10e-3), tau_syn=jnp.full(shape, 5e-3), v_th=jnp.full(shape, 0.6)
        )
        train = ("tau_mem", "tau_syn", "v_th")
        layer = LIF(6, dt=DT, params=params, std=4.0, train=train)
        _, weights = layer.init(jax.random.key(1), 4)
        assert {name: x.shape for name, x in weights["params"].items()} == dict.fromkeys(
            train, shape
        )
        inputs = inputs_of(7, (8, 30, 4))
        plain = LIF(6, dt=DT, params=LIFParameters(tau_mem=10e-3, tau_syn=5e-3, v_th=0.6))
        np.testing.assert_array_equal(
            layer.apply(weights, inputs), plain.apply(weights["weights"], inputs)
        )

        def voltage(weights):
            return jnp.sum(layer.run(weights, inputs).voltage)

        gradient = jax.grad(voltage)(weights)["params"]
        assert all(jnp.all(g != 0) for g in gradient.values())

    def test_gradients_of_trained_parameters(self):
        """Without a threshold there is no surrogate: against finite differences."""
        params = LIFParameters(tau_mem=10e-3, tau_syn=jnp.full(3, 5e-3), v_leak=0.1)
        layer = LI(3, dt=DT, params=params, train=("tau_mem", "tau_syn", "v_leak"))
        _, weights = layer.init(jax.random.key(1), 4)
        inputs = inputs_of(8, (8, 30, 4))

        def loss(numbers):
            return jnp.sum(layer.apply(weights | {"params": numbers}, inputs) ** 2)

        gradient, h = jax.grad(loss)(weights["params"]), 1e-5
        for name, number in weights["params"].items():
            up, down = (loss(weights["params"] | {name: number + sign * h}) for sign in (1, -1))
            np.testing.assert_allclose(jnp.sum(gradient[name]), (up - down) / (2 * h), rtol=1e-6)


@pytest.mark.usefixtures("x64")
class TestCoefficients:
    def test_exponential_step_is_the_flow(self):
        """Against the matrix exponential of the linear equations, by its series."""
        for tau_mem, tau_syn in ((10e-3, 5e-3), (5e-3, 10e-3), (7e-3, 7e-3), (7e-3, 7.0000001e-3)):
            params = LIFParameters(tau_mem=tau_mem, tau_syn=tau_syn)
            c = discrete.step_coefficients(params, 2e-3, "exponential")
            a = np.array([[-1 / tau_mem, 1 / tau_mem], [0, -1 / tau_syn]]) * 2e-3
            power, flow = np.eye(2), np.eye(2)
            for k in range(1, 30):
                power = power @ a / k
                flow = flow + power
            found = [1 - c.leak, c.drive, c.decay]
            np.testing.assert_allclose(found, [flow[0, 0], flow[0, 1], flow[1, 1]], rtol=1e-12)
            traced = jax.jit(
                lambda m, s: discrete.step_coefficients(
                    LIFParameters(tau_mem=m, tau_syn=s), 2e-3, "exponential"
                )[:3]
            )(tau_mem, tau_syn)
            np.testing.assert_allclose(traced, c[:3], rtol=1e-13)

    def test_gradient_through_equal_time_constants(self):
        def drive(tau_mem, tau_syn):
            params = LIFParameters(tau_mem=tau_mem, tau_syn=tau_syn)
            return discrete.step_coefficients(params, 2e-3, "exponential").drive

        h = 1e-6
        found = jax.grad(drive)(7e-3, 7e-3)
        expected = (drive(7e-3 + h, 7e-3) - drive(7e-3 - h, 7e-3)) / (2 * h)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LIF(0, dt=DT), "n_neurons is 0, expected an integer >= 1"),
        (lambda: LIF(3, dt=0.0), "dt is 0.0, expected a finite time > 0"),
        (lambda: LIF(3, dt=6e-3), "dt is 0.006, expected less than tau_syn=0.005"),
        (lambda: LIF(3, dt=DT, method="midpoint"), "method is 'midpoint', expected 'euler' or"),
        (lambda: LIF(3, dt=DT, train=("t_ref",)), "train has 't_ref', expected names among"),
        (lambda: LI(3, dt=DT, train=("v_th",), name="out"), "out: train has 'v_th'"),
        (
            lambda: LIF(3, dt=DT, params=LIFParameters(t_ref=jnp.ones(3))),
            "params.t_ref is .*, expected one plain number",
        ),
        (lambda: LIF(3, dt=DT, params=LIFParameters(v_reset=2.0)), "v_reset is 2.0, expected"),
        (serial, "layers is empty"),
        (lambda: serial(LI(3, dt=DT)).apply([], jnp.ones((5, 2))), "weights has 0 entries"),
    ],
)
def test_bad_layers_are_rejected(make, said):
    with pytest.raises(ValueError, match=said):
        make()


class TestEncoders:
    def test_spatio_temporal(self):
        values = jnp.asarray([[0.0, 0.5, 1.0], [0.26, 0.24, 0.9]])
        found = discrete.spatio_temporal_encode(
            values, n_steps=5, dt=1e-3, t_late=4e-3, bias_time=2e-3
        )
        expected = np.zeros((2, 5, 4))
        for b, steps in enumerate([[0, 2, 4, 2], [1, 1, 4, 2]]):
            for channel, step in enumerate(steps):
                expected[b, step, channel] = 1
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.usefixtures("x64")
    def test_shared_between_steps(self):
        """One spike in all, at the right time on average, in two neighbouring steps."""
        values = np.random.default_rng(0).random((40, 3))
        values[0] = 0.0, 0.5, 1.0
        found = np.asarray(
            discrete.spatio_temporal_encode(
                jnp.asarray(values), n_steps=5, dt=1e-3, t_late=4e-3, bias_time=2e-3,
                between="shared",
            )
        )  # fmt: skip
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
        times = np.concatenate((values * 4e-3, np.full((40, 1), 2e-3)), 1)
        mean = np.einsum("bkc,k->bc", found, np.arange(5) * 1e-3)
        np.testing.assert_allclose(mean, times, atol=1e-15)
        distance = abs(times[:, None] - np.arange(5)[:, None] * 1e-3)
        assert np.all(found[distance >= 1e-3] == 0)
        assert found.min() >= 0

    def test_latency(self):
        currents = jnp.asarray([0.5, 1.0, 1.5, 3.0, 100.0])
        found = discrete.latency_encode(currents, n_steps=30, dt=1e-3, tau=20e-3)
        expected = np.zeros((30, 5))
        for channel, x in enumerate(currents[2:].tolist(), 2):
            expected[round(20 * math.log(x / (x - 1))), channel] = 1
        np.testing.assert_array_equal(found, expected)

    def test_poisson(self):
        values = jnp.asarray([0.0, 0.25, 1.0])
        found = discrete.poisson_encode(
            jax.random.key(0), values, n_steps=20_000, dt=1e-3, rate=200.0
        )
        assert set(np.unique(found)) == {0.0, 1.0}
        p = np.asarray([0.0, 0.05, 0.2])
        deviation = 5 * np.sqrt(p * (1 - p) / 20_000)  # five standard deviations
        assert np.all(abs(np.asarray(found).mean(0) - p) <= deviation)

    def test_constant_current(self):
        """The example in the documentation of upstream's encoder, and its equation."""
        found = discrete.constant_current_lif_encode(jnp.asarray([2.0, 4.0, 8.0, 16.0]), n_steps=2)
        np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 1, 1, 1]])
        currents = np.asarray([0.5, 1.0, 2.0])
        v, expected = np.zeros(3), []
        for _ in range(50):
            v = v + 0.1 * (currents - v)
            expected.append(v > 0.6)
            v = np.where(v > 0.6, 0, v)
        found = discrete.constant_current_lif_encode(jnp.asarray(currents), n_steps=50)
        np.testing.assert_array_equal(found, expected)

    def test_spikes_and_back(self):
        spikes = Spikes(
            jnp.asarray([[0.0, 1.4e-3, 2e-3, 9e-3], [1e-3, 1e-3, jnp.inf, jnp.inf]]),
            jnp.asarray([[2, 0, 1, 0], [1, 1, -1, -1]], jnp.int32),
        )
        dense = discrete.steps_from_spikes(spikes, 3, n_steps=4, dt=1e-3)
        expected = np.zeros((2, 4, 3))
        expected[0, 0, 2] = expected[0, 1, 0] = expected[0, 2, 1] = 1
        expected[1, 1, 1] = 2
        np.testing.assert_array_equal(dense, expected)
        back = discrete.spikes_from_steps(dense, n_spikes=3, dt=1e-3)
        np.testing.assert_array_equal(back.index, [[2, 0, 1], [1, -1, -1]])
        np.testing.assert_allclose(back.time, [[0, 1e-3, 2e-3], [1e-3, np.inf, np.inf]], rtol=1e-6)

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (
                lambda: discrete.spatio_temporal_encode(
                    jnp.ones(2), n_steps=5, dt=1e-3, t_late=6e-3
                ),
                "t_late is 0.006, expected a time of the steps, from 0 to 0.004",
            ),
            (
                lambda: discrete.spatio_temporal_encode(
                    jnp.ones(2), n_steps=5, dt=1e-3, t_late=4.4e-3, between="shared"
                ),
                "t_late is 0.0044, expected a time of the steps, from 0 to 0.004",
            ),
            (
                lambda: discrete.spatio_temporal_encode(
                    jnp.ones(2), n_steps=5, dt=1e-3, t_late=1e-3, between="both"
                ),
                "between is 'both', expected 'nearest' or 'shared'",
            ),
            (
                lambda: discrete.spatio_temporal_encode(
                    2 * jnp.ones(2), n_steps=5, dt=1e-3, t_late=1e-3
                ),
                "values contain 2.0, expected values in",
            ),
            (
                lambda: discrete.poisson_encode(
                    jax.random.key(0), jnp.ones(2), n_steps=5, dt=1e-3, rate=2000.0
                ),
                "rate is 2000.0, expected 0 to 1 / dt = 1000",
            ),
            (
                lambda: discrete.latency_encode(jnp.ones(2), n_steps=5, dt=1e-3, tau=0.0),
                "tau is 0.0, expected a finite number > 0",
            ),
            (
                lambda: discrete.constant_current_lif_encode(jnp.ones(2, jnp.int32), n_steps=5),
                "values are int32 of shape",
            ),
        ],
    )
    def test_bad_values_are_rejected(self, call, said):
        with pytest.raises(ValueError, match=said):
            call()


class TestDecodersAndLosses:
    trace = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    lengths = (6, 3, 1, 5)

    def test_decoders(self):
        mask = discrete.length_mask(jnp.asarray(self.lengths), 6)
        for b, length in enumerate(self.lengths):
            own = self.trace[b, :length].astype(np.float64)
            for decode, expected in (
                (discrete.max_over_time, own.max(0)),
                (discrete.sum_over_time, own.sum(0)),
                (discrete.spike_count, own.sum(0)),
                (discrete.last_step, own[-1]),
                (
                    discrete.max_over_time_decode,
                    own.max(0) - np.log(np.exp(own.max(0)).sum()),
                ),
            ):
                found = decode(jnp.asarray(self.trace), mask)[b]
                np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
                if length == 6:
                    np.testing.assert_array_equal(decode(jnp.asarray(self.trace[b])), found)

    def test_later_steps_change_nothing(self):
        """Gradients of what is masked are zero."""
        mask = discrete.length_mask(jnp.asarray(self.lengths), 6)
        for decode in (discrete.max_over_time_decode, discrete.sum_over_time, discrete.last_step):
            gradient = jax.grad(lambda x, d=decode: jnp.sum(d(x, mask) ** 2))(
                jnp.asarray(self.trace)
            )
            assert np.all(np.asarray(gradient)[~np.asarray(mask)] == 0)
            assert np.any(np.asarray(gradient) != 0)

    def test_losses(self):
        labels = jnp.asarray([0, 2, 1, 1])
        counts = np.asarray([[3, 1, 0], [0, 0, 4], [2, 2, 1], [5, 5, 5]], np.float32)
        spikes = np.zeros((4, 6, 3), np.float32)
        for b, n in np.ndindex(4, 3):
            spikes[b, : int(counts[b, n]), n] = 1
        spikes = jnp.asarray(spikes)
        log_p = counts - np.log(np.exp(counts.astype(np.float64)).sum(-1, keepdims=True))
        expected = -log_p[np.arange(4), labels]
        np.testing.assert_allclose(discrete.nll_loss(jnp.asarray(log_p), labels), expected)
        np.testing.assert_allclose(
            discrete.rate_cross_entropy(spikes, labels), expected, rtol=1e-5, atol=1e-6
        )
        targets = np.where(np.arange(3) == np.asarray(labels)[:, None], 4, 1)
        np.testing.assert_allclose(
            discrete.rate_mse(spikes, labels, correct=4.0, wrong=1.0),
            ((counts - targets) ** 2).mean(-1),
        )
        np.testing.assert_allclose(
            discrete.spike_count_regulariser(spikes, target=0.8, strength=1e-2),
            1e-2 * ((counts - 0.8) ** 2).sum(-1),
            rtol=1e-5,
        )
        assert discrete.accuracy(jnp.asarray(counts), labels) == 0.5  # of equal scores the first

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (
                lambda: discrete.nll_loss(jnp.zeros((4, 3)), jnp.asarray([0, 1, 2, 3])),
                r"labels contain 3, expected \[0, 3\)",
            ),
            (
                lambda: discrete.nll_loss(jnp.zeros((4, 3)), jnp.zeros(3, jnp.int32)),
                r"labels has shape \(3,\), expected \(4,\)",
            ),
            (
                lambda: discrete.sum_over_time(jnp.zeros((4, 5, 3)), jnp.ones((4, 3), bool)),
                r"mask has shape \(4, 3\), expected \(..., n_steps=5\)",
            ),
        ],
    )
    def test_bad_arguments_are_rejected(self, call, said):
        with pytest.raises(ValueError, match=said):
            call()
