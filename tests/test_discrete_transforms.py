"""The compiled form of `jaxsnn.ops.lif_steps` equals the one in JAX, under every transformation."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxsnn.discrete import surrogate as surrogates
from jaxsnn.ops import StepCoefficients, StepState, lif_steps, lif_steps_reference
from jaxsnn.ops._lif_steps import _OP

SURROGATES = {
    name: getattr(surrogates, name)()
    for name in ("superspike", "fast_sigmoid", "sigmoid", "arctan", "triangle", "gaussian")
}


def draw(seed, batch, n_inputs, n_neurons, n_steps, *, density, recurrent, dtype):
    """Arguments of a call: inputs and the state with batch axes, the rest without."""
    rng = np.random.default_rng(seed)

    def normal(mean, std, *shape):
        return jnp.asarray(rng.normal(mean, std, shape), dtype)

    n_active = max(1.0, density * n_inputs)
    coefficients = StepCoefficients(
        leak=jnp.asarray(rng.uniform(0.04, 0.1, n_neurons), dtype),
        drive=jnp.asarray(0.1, dtype),
        decay=jnp.asarray([0.9], dtype),
        v_th=jnp.asarray(rng.uniform(0.5, 0.8, n_neurons), dtype),
        v_leak=jnp.asarray(0.05, dtype),
        v_reset=jnp.asarray(rng.uniform(-0.2, 0.1, n_neurons), dtype),
    )
    return {
        "coefficients": coefficients,
        "weights": normal(0.5 / n_active, 1 / np.sqrt(n_active), n_inputs, n_neurons),
        "recurrent": normal(0, 1 / np.sqrt(n_neurons), n_neurons, n_neurons) if recurrent else None,
        "state": StepState(
            normal(0.2, 0.2, *batch, n_neurons),
            normal(0.2, 0.2, *batch, n_neurons),
            jnp.asarray(rng.random((*batch, n_neurons)) < 0.2 * recurrent, dtype),
            jnp.asarray(rng.integers(0, 3, (*batch, n_neurons)), jnp.int32),
        ),
        "inputs": jnp.asarray(rng.random((*batch, n_steps, n_inputs)) < density, dtype),
    }


def call(form, arguments, **options):
    options = {"surrogate": SURROGATES["superspike"]} | options
    return form(**arguments, **options)


def loss_of(form, hold, weights, **options):
    """A linear loss of all results, of arguments without ``hold``."""

    def loss(moving):
        arguments = moving | {"state": moving["state"]._replace(hold=hold)}
        result = call(form, arguments, **options)
        values = (result.spikes, result.voltage, result.state.v, result.state.i)
        return sum(jnp.sum(c * x) for c, x in zip(weights, values, strict=True))

    return loss


def split(arguments):
    """The arguments that have gradients, as one tree, and ``hold``."""
    state = arguments["state"]
    return arguments | {"state": state._replace(hold=None)}, state.hold


def loss_weights(seed, result):
    rng = np.random.default_rng(seed)
    shapes = [x.shape for x in (result.spikes, result.voltage, result.state.v, result.state.i)]
    return [jnp.asarray(rng.normal(size=s), result.spikes.dtype) for s in shapes]


def assert_close(found, expected, tolerance):
    """Within a part of the largest value of each array."""
    for path, b in jax.tree_util.tree_leaves_with_path(expected):
        a = dict(jax.tree_util.tree_leaves_with_path(found))[path]
        assert a.shape == b.shape
        error = np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0)
        scale = np.max(np.abs(np.asarray(b, np.float64)), initial=0)
        assert error <= tolerance * scale, (path, error, scale)


# (batch, n_inputs, n_neurons, n_steps, density): sparse and dense, whole and broken blocks
SIZES = [
    ((), 3, 1, 1, 0.5),
    ((7,), 5, 33, 11, 0.1),
    ((2, 9), 40, 20, 17, 0.05),
    ((8,), 12, 16, 24, 0.9),
    ((21,), 33, 70, 9, 0.7),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("recurrent", [False, True])
def test_forms_agree(sizes, recurrent):
    batch, n_inputs, n_neurons, n_steps, density = sizes
    for jump, refractory in (("after", 0), ("before", 2)) if n_neurons == 33 else (("after", 2),):
        arguments = draw(
            1, batch, n_inputs, n_neurons, n_steps,
            density=density, recurrent=recurrent, dtype=jnp.float64,
        )  # fmt: skip
        options = {"jump": jump, "refractory": refractory}
        expected = call(lif_steps_reference, arguments, **options)
        found = call(lif_steps, arguments, **options)
        np.testing.assert_array_equal(found.spikes, expected.spikes)
        assert_close(found, expected, 1e-14)
        weights = loss_weights(2, expected)
        moving, hold = split(arguments)
        gradients = [
            jax.jit(jax.grad(loss_of(form, hold, weights, **options)))(moving)
            for form in (lif_steps, lif_steps_reference)
        ]
        assert_close(*gradients, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("recurrent", [False, True])
def test_forms_agree_for_every_surrogate(name, recurrent):
    arguments = draw(3, (9,), 10, 24, 30, density=0.1, recurrent=recurrent, dtype=jnp.float64)
    result = call(lif_steps, arguments)
    assert 0.02 < float(result.spikes.mean()) < 0.5
    weights = loss_weights(4, result)
    moving, hold = split(arguments)
    gradients = [
        jax.jit(jax.grad(loss_of(form, hold, weights, surrogate=SURROGATES[name])))(moving)
        for form in (lif_steps, lif_steps_reference)
    ]
    assert_close(*gradients, 1e-12)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("recurrent", [False, True])
def test_float32_bit_for_bit_without_fusion(name, recurrent):
    """Values; and gradients to 1e-6.

    Operation by operation, JAX rounds as the compiled form does. Fused, it leaves out roundings,
    after which slopes as steep as superspike's differ in more digits. Sums of these weights are
    exact, so that their order is free. Coefficients are per neuron: the gradient of shared ones is
    a sum of many that cancel.
    """
    arguments = draw(5, (6,), 8, 12, 12, density=0.2, recurrent=recurrent, dtype=jnp.float32)
    for part in ("weights", "recurrent") if recurrent else ("weights",):
        arguments[part] = jnp.round(arguments[part] * 256) / 256
    arguments["coefficients"] = StepCoefficients(
        *(jnp.broadcast_to(x, 12) for x in arguments["coefficients"])
    )
    with jax.disable_jit():
        expected = call(lif_steps_reference, arguments)
    found = call(lif_steps, arguments)
    assert float(found.spikes.mean()) > 0.02
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    weights = loss_weights(6, expected)
    moving, hold = split(arguments)
    with jax.disable_jit():
        by_hand = jax.grad(loss_of(lif_steps_reference, hold, weights, surrogate=SURROGATES[name]))(
            moving
        )
    gradient = jax.grad(loss_of(lif_steps, hold, weights, surrogate=SURROGATES[name]))(moving)
    assert_close(gradient, by_hand, 1e-6)


@pytest.mark.usefixtures("x64")
def test_float32_is_close_to_float64():
    arguments = draw(7, (8,), 30, 40, 50, density=0.1, recurrent=True, dtype=jnp.float32)
    wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, arguments)
    found, expected = call(lif_steps, arguments), call(lif_steps, wide)
    np.testing.assert_array_equal(found.spikes, expected.spikes)
    assert_close(found.voltage, expected.voltage, 1e-5)


@pytest.mark.usefixtures("x64")
class TestTransforms:
    arguments = property(
        lambda _: draw(8, (6,), 5, 9, 14, density=0.2, recurrent=True, dtype=jnp.float64)
    )

    def test_vmap_is_the_native_batch(self):
        arguments = self.arguments
        axes = dict.fromkeys(arguments) | {"inputs": 0, "state": 0}
        found = jax.vmap(lambda a: call(lif_steps, a), in_axes=(axes,))(arguments)
        jax.tree.map(np.testing.assert_array_equal, found, call(lif_steps, arguments))

    @pytest.mark.parametrize("mapped", ["weights", "recurrent", "coefficients"])
    def test_vmap_over_what_is_shared(self, mapped):
        arguments = self.arguments
        changed = jax.tree.map(
            lambda x: jnp.stack([x, 1.1 * x, 0.9 * x], -1), {mapped: arguments[mapped]}
        )

        def run(value, form):
            moving, hold = split(arguments | value)
            weights = loss_weights(9, call(lif_steps_reference, arguments))
            return jax.value_and_grad(loss_of(form, hold, weights))(moving)

        found = jax.vmap(lambda v: run(v, lif_steps), in_axes=-1)(changed)
        each = [
            run(jax.tree.map(lambda x: x[..., k], changed), lif_steps_reference)  # noqa: B023
            for k in range(3)
        ]
        assert_close(found, jax.tree.map(lambda *x: jnp.stack(x), *each), 1e-12)

    def test_gradients_per_sample_add_up(self):
        arguments = self.arguments
        weights = loss_weights(10, call(lif_steps, arguments))

        def gradient(inputs, state, *weights):
            moving, hold = split(arguments | {"inputs": inputs, "state": state})
            return jax.grad(loss_of(lif_steps, hold, weights))(moving)

        whole = gradient(arguments["inputs"], arguments["state"], *weights)
        each = jax.vmap(gradient)(arguments["inputs"], arguments["state"], *weights)
        for name in ("weights", "recurrent", "coefficients"):
            total = jax.tree.map(lambda x: x.sum(0), each[name])
            assert_close(total, whole[name], 1e-12)

    @pytest.mark.parametrize("remember", [True, False])
    def test_windows_in_a_scan_are_one_run(self, remember):
        """And so are their gradients, with and without jax.checkpoint."""
        arguments = self.arguments
        windows = jnp.moveaxis(arguments["inputs"].reshape(6, 2, 7, 5), 1, 0)

        def in_windows(moving):
            def window(state, inputs):
                result = call(lif_steps, moving | {"state": state, "inputs": inputs}, refractory=2)
                return result.state, (result.spikes, result.voltage)

            body = window if remember else jax.checkpoint(window)
            state, (spikes, voltage) = jax.lax.scan(body, moving["state"], windows)
            return *(jnp.concatenate(list(x), 1) for x in (spikes, voltage)), state

        def at_once(moving):
            return call(lif_steps, moving, refractory=2)

        moving, hold = split(arguments)
        weights = loss_weights(11, at_once(arguments))

        def loss(run, moving):
            own = moving | {"state": moving["state"]._replace(hold=hold)}
            spikes, voltage, state = run(own)
            values = (spikes, voltage, state.v, state.i)
            return sum(jnp.sum(c * x) for c, x in zip(weights, values, strict=True))

        gradients = []
        for run in (in_windows, at_once):
            free = {name: x for name, x in moving.items() if name != "inputs"}
            gradients.append(
                jax.jit(
                    jax.value_and_grad(
                        lambda m, run=run: loss(run, m | {"inputs": arguments["inputs"]})
                    )
                )(free)
            )
        assert_close(*gradients, 1e-13)

    def test_forward_mode_is_refused(self):
        arguments = self.arguments
        with pytest.raises(NotImplementedError, match="reverse-mode"):
            jax.jvp(
                lambda w: call(lif_steps, arguments | {"weights": w}).spikes,
                (arguments["weights"],),
                (arguments["weights"],),
            )

    def test_other_platforms_run_the_form_in_jax(self):
        """There is no such platform here: what their calls are lowered to is called by hand."""
        arguments = self.arguments
        state = arguments["state"]
        operands = (
            arguments["weights"], arguments["recurrent"], arguments["inputs"], *state,
            *(jnp.atleast_1d(x) for x in arguments["coefficients"]),
        )  # fmt: skip
        attributes = tuple(
            {"refractory": 2, "jump_first": True, "shape": 0, "slope": 80.0, "scale": 1.0}.items()
        )
        forward, backward = _OP.elsewhere
        results = _OP._forward.bind(*operands, sizes=(), attributes=attributes)
        assert_close(forward(*operands, sizes=(), attributes=attributes), results, 1e-14)
        cotangents = [jnp.asarray(np.random.default_rng(12).normal(size=x.shape)) for x in results]
        wanted = tuple(field.name for field in _OP.inputs)
        for leads in (((), ()), ((6,), (1,))):
            static = {"sizes": (), "attributes": attributes, "leads": leads, "wanted": wanted}
            call = (*operands, *results[:2], *cotangents[:4])
            assert_close(backward(*call, **static), _OP._backward.bind(*call, **static), 1e-12)

    def test_lowers_for_other_platforms(self):
        moving, hold = split(self.arguments)
        weights = loss_weights(13, call(lif_steps, self.arguments))
        gradient = jax.jit(jax.grad(loss_of(lif_steps, hold, weights)))
        text = export.export(gradient, platforms=["cuda"])(moving).mlir_module()
        assert "jaxsnn" not in "".join(line for line in text.splitlines() if "custom_call" in line)


@pytest.mark.parametrize("form", [lif_steps, lif_steps_reference])
def test_program_does_not_grow_with_steps(form):
    """And so compile time does not."""
    sizes = []
    for n_steps in (10, 10_000):
        arguments = draw(1, (4,), 5, 9, n_steps, density=0.1, recurrent=True, dtype=jnp.float32)
        moving, hold = split(arguments)

        def loss(moving, hold=hold):
            arguments = moving | {"state": moving["state"]._replace(hold=hold)}
            return call(form, arguments).spikes.sum()

        sizes.append(len(jax.jit(jax.grad(loss)).lower(moving).as_text().splitlines()))
    assert sizes[0] == sizes[1]


THREADS = """
import os, sys
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))
sys.path.insert(0, sys.argv[2])
import hashlib, jax, jax.numpy as jnp, numpy as np
import test_discrete_transforms as t
arguments = t.draw(1, (70,), 60, 50, 40, density=0.1, recurrent=True, dtype=jnp.float32)
moving, hold = t.split(arguments)
weights = t.loss_weights(2, t.call(t.lif_steps, arguments))
found = jax.jit(jax.value_and_grad(t.loss_of(t.lif_steps, hold, weights)))(moving)
print(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(found))).hexdigest())
"""


def run_script(script, *arguments, **environment):
    folder = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments), folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_results_do_not_depend_on_threads():
    assert run_script(THREADS, 1) == run_script(THREADS, 64)


SHARDED = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P
import test_discrete_transforms as t
jax.config.update("jax_enable_x64", True)
arguments = t.draw(1, (8,), 6, 10, 12, density=0.2, recurrent=True, dtype=jnp.float64)
weights = t.loss_weights(2, t.call(t.lif_steps, arguments))
shared = {name: arguments[name] for name in ("weights", "recurrent", "coefficients")}
own = (arguments["inputs"], arguments["state"], tuple(weights))

def loss(shared, inputs, state, weights):
    moving, hold = t.split(shared | {"inputs": inputs, "state": state})
    return t.loss_of(t.lif_steps, hold, weights)(moving)

expected = jax.value_and_grad(loss)(shared, *own)
mesh = Mesh(jax.devices(), ("data",))
specs = dict(mesh=mesh, in_specs=(P(), P("data"), P("data"), P("data")))
for check in (True, False):
    total = jax.shard_map(
        lambda *x: jax.lax.psum(loss(*x), "data"), out_specs=P(), check_vma=check, **specs
    )
    t.assert_close(jax.jit(jax.value_and_grad(total))(shared, *own), expected, 1e-12)
print("ok")
"""


def test_shard_map():
    flags = "--xla_force_host_platform_device_count=2"
    assert run_script(SHARDED, XLA_FLAGS=flags) == "ok"
