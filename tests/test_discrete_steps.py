"""`jaxsnn.ops.lif_steps` against an independent simulation, and its two forms with each other."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters
from jaxsnn.discrete import step_coefficients
from jaxsnn.discrete import surrogate as surrogates
from jaxsnn.ops import StepCoefficients, StepState, lif_steps, lif_steps_reference
from jaxsnn.ops._lif_steps import rest
from oracle import steps as oracle

FORMS = {"compiled": lif_steps, "reference": lif_steps_reference}
SURROGATES = {name: getattr(surrogates, name)() for name in oracle.SURROGATES}
COEFFICIENTS = StepCoefficients._fields


def problem(
    seed,
    *,
    n_inputs=6,
    n_neurons=9,
    n_steps=25,
    recurrent=False,
    refractory=2,
    dtype=np.float64,
):
    """One sample, as the oracle takes it; neurons differ, about a third of the steps spike."""
    rng = np.random.default_rng(seed)

    def normal(*shape, mean=0.0, std=1.0):
        return rng.normal(mean, std, shape)

    operands = {
        "weights": normal(n_inputs, n_neurons, mean=0.6, std=0.6),
        "recurrent": normal(n_neurons, n_neurons, std=0.4) if recurrent else None,
        "inputs": (rng.random((n_steps, n_inputs)) < 0.15) * 1.0,
        "v": normal(n_neurons, std=0.2),
        "i": normal(n_neurons, std=0.2),
        "spikes": (rng.random(n_neurons) < 0.3) * 1.0,
        "hold": rng.integers(0, 3, n_neurons) * (refractory > 0),
        "leak": rng.uniform(0.05, 0.2, n_neurons),
        "drive": rng.uniform(0.1, 0.4, n_neurons),
        "decay": rng.uniform(0.7, 0.95, n_neurons),
        "v_th": rng.uniform(0.3, 0.6, n_neurons),
        "v_leak": normal(n_neurons, std=0.1),
        "v_reset": normal(n_neurons, mean=-0.2, std=0.1),
    }
    operands["inputs"] *= rng.uniform(0.5, 1.5, operands["inputs"].shape)  # graded
    if not recurrent:
        operands["spikes"][:] = 0
    kinds = {name: np.int32 if name == "hold" else dtype for name in operands}
    return {name: x if x is None else x.astype(kinds[name]) for name, x in operands.items()}


def call(form, operands, **options):
    """The function under test on operands as the oracle has them."""
    state = StepState(*(operands[name] for name in StepState._fields))
    coefficients = StepCoefficients(*(operands[name] for name in COEFFICIENTS))
    recurrent = operands["recurrent"]
    return form(
        StepCoefficients(*map(jnp.asarray, coefficients)),
        jnp.asarray(operands["weights"]),
        StepState(*map(jnp.asarray, state)),
        jnp.asarray(operands["inputs"]),
        recurrent=None if recurrent is None else jnp.asarray(recurrent),
        **options,
    )


OPTIONS = [
    {"recurrent": r, "refractory": hold, "jump": jump}
    for r, hold, jump in itertools.product((False, True), (0, 2), ("after", "before"))
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("x64")
def test_values_equal_the_oracle(form, options):
    for seed in range(3):
        rest = {name: options[name] for name in ("refractory", "jump")}
        operands = problem(seed, recurrent=options["recurrent"], refractory=rest["refractory"])
        expected = oracle.run(operands, surrogate="superspike", **rest)
        found = call(FORMS[form], operands, surrogate=SURROGATES["superspike"], **rest)
        assert expected["spikes"].mean() > 0.1
        np.testing.assert_array_equal(found.spikes, expected["spikes"])
        np.testing.assert_allclose(found.voltage, expected["voltage"], rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.state.v, expected["v"], rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.state.i, expected["i"], rtol=0, atol=1e-14)
        np.testing.assert_array_equal(found.state.hold, expected["hold"])
        np.testing.assert_array_equal(found.state.spikes, expected["spikes"][-1])


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("x64")
def test_gradients_equal_the_oracle(form, name):
    """Along random directions of all operands, for a random linear loss of all results."""
    rng = np.random.default_rng(1)
    for options in OPTIONS if name == "superspike" and form == "compiled" else OPTIONS[-1:]:
        rest = {key: options[key] for key in ("refractory", "jump")}
        operands = problem(3, recurrent=options["recurrent"], refractory=rest["refractory"])
        real = {
            key: jnp.asarray(x) for key, x in operands.items() if x is not None and key != "hold"
        }
        shapes = oracle.run(operands, surrogate=name, **rest)
        loss_of = {k: rng.normal(size=x.shape) for k, x in shapes.items() if k != "hold"}

        def loss(real, operands=operands, rest=rest, loss_of=loss_of):
            result = call(FORMS[form], operands | real, surrogate=SURROGATES[name], **rest)
            values = {"spikes": result.spikes, "voltage": result.voltage}
            values |= {"v": result.state.v, "i": result.state.i}
            return sum(jnp.sum(c * values[k]) for k, c in loss_of.items())

        gradient = jax.jit(jax.grad(loss))(real)
        for key, value in real.items():
            direction = {k: np.zeros_like(x) for k, x in real.items()}
            direction[key] = rng.normal(size=value.shape)
            _, changes = oracle.run(operands, surrogate=name, direction=direction, **rest)
            expected = sum(np.sum(c * changes[k]) for k, c in loss_of.items())
            found = np.sum(np.asarray(gradient[key]) * direction[key])
            scale = np.abs(np.asarray(gradient[key]) * direction[key]).sum()
            assert abs(found - expected) <= 1e-12 * max(scale, abs(expected)), key


def float32_layer(recurrent):
    """Coefficients, operands, and the loss of a form: a random linear one of all results."""
    rng = np.random.default_rng(2)
    n_batch, n_steps, n_inputs, n_neurons = 16, 60, 20, 50
    coefficients = step_coefficients(LIFParameters(tau_mem=10e-3, tau_syn=5e-3, v_th=0.6), 5e-4)
    coefficients = StepCoefficients(*(jnp.float32(value) for value in coefficients))
    operands = {
        "weights": 0.2 + 0.7 * rng.normal(size=(n_inputs, n_neurons)),
        "inputs": rng.random((n_batch, n_steps, n_inputs)) < 0.03,
    }
    if recurrent:
        operands["recurrent"] = 0.06 * rng.normal(size=(n_neurons, n_neurons))
    operands = {key: jnp.asarray(x, jnp.float32) for key, x in operands.items()}
    shape = (n_batch, n_steps, n_neurons)
    of_spikes, of_voltage = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))

    def loss(coefficients, operands, form, surrogate, samples=slice(None)):
        state = rest(coefficients, n_neurons, jnp.float32)
        operands = operands | {"inputs": operands["inputs"][samples]}
        result = form(coefficients, state=state, surrogate=surrogate, **operands)
        weighed = of_spikes[samples] * result.spikes + of_voltage[samples] * result.voltage
        return jnp.sum(weighed), result

    return coefficients, operands, loss


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_both_forms_give_the_same_gradients_in_float32(name, recurrent):
    """To 1e-6 of a gradient's length, once spikes are the same and voltages equal to rounding."""
    coefficients, operands, loss = float32_layer(recurrent)
    both = [
        jax.jit(jax.value_and_grad(partial(loss, form=form, surrogate=SURROGATES[name]), 1, True))
        for form in FORMS.values()
    ]
    ((_, own), gradient), ((_, other), expected) = (run(coefficients, operands) for run in both)
    assert own.spikes.sum() > 2 * own.spikes.shape[0] * own.spikes.shape[2]
    np.testing.assert_array_equal(own.spikes, other.spikes)
    np.testing.assert_allclose(own.voltage, other.voltage, rtol=0, atol=1e-6)
    for key, value in gradient.items():
        distance = np.linalg.norm(value - expected[key])
        assert distance <= 1e-6 * np.linalg.norm(expected[key]), (key, distance)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_both_forms_give_the_same_gradients_of_shared_coefficients_in_float32(name, recurrent):
    """To 1e-6 of what neurons and samples contribute, most of which cancels in the sum."""
    coefficients, operands, loss = float32_layer(recurrent)
    chosen = {"surrogate": SURROGATES[name]}
    own, expected = (
        jax.jit(jax.grad(partial(loss, form=form, **chosen), has_aux=True))(coefficients, operands)[
            0
        ]
        for form in FORMS.values()
    )

    def of_sample(sample):
        per_neuron = jax.tree.map(lambda x: jnp.full(50, x), coefficients)
        samples = sample + jnp.arange(1)
        partly = partial(loss, form=FORMS["reference"], samples=samples, **chosen)
        return jax.grad(partly, has_aux=True)(per_neuron, operands)[0]

    parts = jax.jit(jax.vmap(of_sample))(jnp.arange(16))
    for key, value, other, part in zip(own._fields, own, expected, parts, strict=True):
        assert np.sum(part) == pytest.approx(float(other), abs=1e-6 * float(np.abs(part).sum()))
        assert abs(float(value - other)) <= 1e-6 * float(np.abs(part).sum()), key


@pytest.mark.parametrize("jump", ["after", "before"])
@pytest.mark.usefixtures("x64")
def test_gradients_of_many_inputs_and_steps(jump):
    """More than the compiled form keeps at once on its way back."""
    operands = problem(5, n_inputs=2000, n_neurons=7, n_steps=40, recurrent=True, refractory=0)
    operands["inputs"] *= np.random.default_rng(0).random(operands["inputs"].shape) < 0.02
    rng = np.random.default_rng(1)
    of_spikes, of_voltage = rng.normal(size=(2, 40, 7))
    trained = {key: jnp.asarray(operands[key]) for key in ("weights", "recurrent", "inputs", "i")}

    def loss(trained, form):
        result = call(form, operands | trained, surrogate=SURROGATES["superspike"], jump=jump)
        return jnp.sum(of_spikes * result.spikes) + jnp.sum(of_voltage * result.voltage)

    own, other = (jax.jit(jax.grad(partial(loss, form=form)))(trained) for form in FORMS.values())
    for key, expected in other.items():
        assert np.linalg.norm(expected) > 0
        distance = np.linalg.norm(own[key] - expected)
        assert distance <= 1e-12 * np.linalg.norm(expected), (key, distance)


@pytest.mark.usefixtures("x64")
def test_surrogates_equal_their_formulas():
    x = np.linspace(-3, 3, 241)
    for name, made in SURROGATES.items():
        np.testing.assert_array_equal(made(jnp.asarray(x)), np.where(x > 0, 1.0, 0.0))
        expected = [oracle.SURROGATES[name](value) for value in x]
        found = jax.vmap(jax.grad(made))(jnp.asarray(x))
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_surrogates_of_height_one_have_area_one():
    """Those that are the derivative of a step of height 1, over a range beyond which it ends."""
    x = np.linspace(-1000, 1000, 4_000_001)
    for name in ("sigmoid", "arctan", "gaussian"):
        area = np.trapezoid(np.asarray(SURROGATES[name].derivative(x)), x)
        assert abs(area - 1) < 1e-3, name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: surrogates.superspike(0.0), "slope is 0.0, expected a finite number > 0"),
        (lambda: surrogates.gaussian(float("inf")), "slope is 0.0, expected a finite number > 0"),
        (lambda: surrogates.Surrogate("box", 1.0), "shape is 'box', expected one of superspike"),
    ],
)
def test_bad_surrogates_are_rejected(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def simple(**changed):
    """Arguments of one call, of which some are replaced."""
    arguments = {
        "coefficients": StepCoefficients(0.1, 0.1, 0.9, 1.0, 0.0, 0.0),
        "weights": jnp.ones((3, 4)),
        "state": StepState(jnp.zeros(4), jnp.zeros(4), jnp.zeros(4), jnp.zeros(4, jnp.int32)),
        "inputs": jnp.ones((2, 5, 3)),
        "surrogate": SURROGATES["superspike"],
    }
    return arguments | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs": jnp.ones((5, 4))}, r"inputs has shape \(5, 4\), expected .* n_inputs=3"),
        ({"inputs": jnp.ones((0, 3))}, r"inputs has shape \(0, 3\), expected .* n_steps >= 1"),
        ({"inputs": jnp.ones((5, 3), jnp.int32)}, "inputs has dtype int32, expected float32"),
        ({"weights": jnp.ones(3)}, r"weights has shape \(3,\), expected"),
        ({"recurrent": jnp.ones((3, 4))}, r"recurrent has shape \(3, 4\), expected"),
        (
            {"coefficients": StepCoefficients(0.1, 0.1, 0.9, jnp.ones(3), 0.0, 0.0)},
            r"coefficients.v_th has shape \(3,\), expected a scalar",
        ),
        ({"refractory": -1}, "refractory is -1, expected an integer >= 0"),
        ({"jump": "never"}, "jump is 'never', expected 'before' or 'after'"),
        ({"weights": jnp.ones((7, 3, 4))}, "leading axes do not broadcast"),
        (
            {"state": StepState(jnp.zeros(5), jnp.zeros(4), jnp.zeros(4), jnp.zeros(4, jnp.int32))},
            r"state.v has shape \(5,\), expected",
        ),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_bad_arguments_are_rejected(form, changed, said):
    with pytest.raises((ValueError, TypeError), match=said):
        FORMS[form](**simple(**changed))
