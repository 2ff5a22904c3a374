"""jaxsnn.ops under JAX's transformations: the same numbers, no copies, no deadlocks."""

import os
import subprocess
import sys
from functools import partial
from itertools import product
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.ops import EventKind, Status, event_loop, event_step, flow, next_crossing

pytestmark = pytest.mark.usefixtures("x64")

N_INPUTS, N_NEURONS, N_SPIKES, CAPACITY, T_MAX = 3, 4, 6, 40, 2.0
PARTS = ("params", "weights", "state", "inputs", "t_max")


def draw(seed, batch=()):
    """Arguments by part, all of them with these leading axes."""
    rng = np.random.default_rng(seed)

    def uniform(low, high, *shape):
        return jnp.asarray(rng.uniform(low, high, (*batch, *shape)))

    return {
        "params": LIFParameters(
            tau_mem=uniform(0.8, 1.5, N_NEURONS),
            tau_syn=uniform(0.4, 0.9, 1),
            v_th=uniform(0.9, 1.1, N_NEURONS),
            v_leak=uniform(-0.2, 0.2, N_NEURONS),
            v_reset=uniform(-0.4, 0.2, 1),
            t_ref=uniform(0.0, 0.2, N_NEURONS),
        ),
        "weights": uniform(0.5, 5.0, N_INPUTS, N_NEURONS),
        "state": LIFState(
            v=uniform(-0.1, 0.7, N_NEURONS),
            i=uniform(-0.5, 1.0, N_NEURONS),
            release=jnp.where(uniform(0, 1, N_NEURONS) < 0.5, -jnp.inf, uniform(0, 0.4, N_NEURONS)),
            time=uniform(-0.2, 0.0),
        ),
        "inputs": Spikes(
            jnp.sort(uniform(0.05, 1.5, N_SPIKES)),
            jnp.asarray(rng.integers(0, N_INPUTS, (*batch, N_SPIKES)), jnp.int32),
        ),
        "t_max": uniform(1.6, 2.0),
    }


def numbers(result):
    """All floats of a result as one tree, inf replaced, so that they can be summed."""
    floats = [x for x in jax.tree.leaves(result) if jnp.issubdtype(x.dtype, jnp.floating)]
    return [jnp.where(jnp.isfinite(x), x, 0.0) for x in floats]


def by_loop(a):
    result = event_loop(
        a["params"], a["weights"], a["state"], a["inputs"], t_max=a["t_max"], max_events=CAPACITY
    )
    return result.spikes, result.state, result.count


def by_step(a):
    result = event_step(a["params"], a["weights"], a["state"], a["inputs"], t_max=a["t_max"])
    return result.event, result.state


def scalar(op, a):
    """A loss in which every number has its own weight."""
    rng = np.random.default_rng(5)
    return sum(jnp.sum(x * rng.normal(size=x.shape)) for x in numbers(op(a)[:2]))


MOVING = ("weights", "state", "inputs", "t_max")


def gradient(op, a):
    moving = {name: a[name] for name in MOVING}
    found = jax.grad(lambda m: scalar(op, a | m), allow_int=True)(moving)
    return [g for g in jax.tree.leaves(found) if g.dtype != jax.dtypes.float0]


def example(a, batched, k):
    """The k-th example of arguments of which some parts are batched."""
    return {
        name: jax.tree.map(lambda x: x[k], part) if name in batched else part
        for name, part in a.items()
    }


def stack(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def assert_close(found, expected, rtol=1e-12):
    """Different order of summation, nothing else."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = max(1.0, np.abs(np.where(np.isfinite(other), other, 0)).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("op", [by_loop, by_step])
class TestJit:
    def test_value_and_gradient(self, op):
        a = draw(0)
        assert_close(jax.jit(partial(op))(a), op(a), 0)
        assert_close(jax.jit(partial(gradient, op))(a), gradient(op, a), 1e-14)


MIXES = [
    tuple(name for name, is_batched in zip(PARTS, flags, strict=True) if is_batched)
    for flags in product([False, True], repeat=len(PARTS))
    if any(flags)
]


class TestVmap:
    SIZE = 3

    @classmethod
    def arguments(cls, batched):
        shared, own = draw(1), draw(2, (cls.SIZE,))
        return {name: (own if name in batched else shared)[name] for name in PARTS}

    @pytest.mark.parametrize(
        ("op", "batched"),
        # both operations share their batching rule
        [(by_loop, mix) for mix in MIXES] + [(by_step, (name,)) for name in PARTS],
    )
    def test_every_mix(self, op, batched):
        """Values, gradients of each example, and the gradient of the sum over examples."""
        a = self.arguments(batched)
        axes = ({name: 0 if name in batched else None for name in PARTS},)
        singles = [example(a, batched, k) for k in range(self.SIZE)]
        assert_close(jax.vmap(op, axes)(a), stack([op(s) for s in singles]), 0)
        if len(batched) in (3, 4):
            return  # gradients of single arguments, pairs and all: the others take a minute more

        gradients = [gradient(op, s) for s in singles]
        assert_close(jax.vmap(partial(gradient, op), axes)(a), stack(gradients))

        def total(moving):
            return jax.vmap(partial(scalar, op), axes)(a | moving).sum()

        moving = {name: a[name] for name in MOVING}
        found = jax.grad(total, allow_int=True)(moving)
        # leaves of `found` in the order of `gradient`, summed where the argument is shared
        is_shared = jax.tree.leaves(
            {n: jax.tree.map(lambda _, n=n: n not in batched, a[n]) for n in MOVING}
        )
        leaves = [
            (g, s)
            for g, s in zip(jax.tree.leaves(found), is_shared, strict=True)
            if g.dtype != jax.dtypes.float0
        ]
        expected = [
            g.sum(0) if s else g for g, (_, s) in zip(stack(gradients), leaves, strict=True)
        ]
        assert_close([g for g, _ in leaves], expected)

    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_axes_other_than_the_first(self, axis):
        a = draw(3, (self.SIZE,))
        weights = jnp.moveaxis(a["weights"], 0, axis)
        found = jax.vmap(lambda w, rest: by_loop(rest | {"weights": w}), in_axes=(axis, 0))(
            weights, {name: a[name] for name in PARTS if name != "weights"}
        )
        assert_close(found, by_loop_each(a, self.SIZE), 0)

    def test_native_batch_is_vmap(self):
        a = draw(4, (self.SIZE,))
        native, mapped = by_loop(a), jax.vmap(by_loop)(a)
        assert_close(native, mapped, 0)
        assert_close(gradient(by_loop, a), native_gradient(a))

    def test_native_axes_broadcast(self):
        shared, many = draw(5), draw(6, (2, 3))
        a = shared | {"inputs": many["inputs"], "t_max": many["t_max"][0]}
        a["weights"] = many["weights"][:, :1]  # [2, 1, inputs, neurons]
        found = by_loop(a)
        for j, k in product(range(2), range(3)):
            single = shared | {
                "weights": a["weights"][j, 0],
                "inputs": jax.tree.map(lambda x, j=j, k=k: x[j, k], a["inputs"]),
                "t_max": a["t_max"][k],
            }
            assert_close(jax.tree.map(lambda x, j=j, k=k: x[j, k], found), by_loop(single), 0)

        moving = {name: a[name] for name in ("weights", "t_max")}
        found = jax.grad(lambda m: sum(x.sum() for x in numbers(by_loop(a | m))))(moving)
        full = {
            "weights": jnp.broadcast_to(a["weights"], many["weights"].shape),
            "t_max": jnp.broadcast_to(a["t_max"], (2, 3)),
        }
        each = jax.grad(lambda m: sum(x.sum() for x in numbers(by_loop(a | m))))(full)
        assert_close(found["weights"], each["weights"].sum(1, keepdims=True))
        assert_close(found["t_max"], each["t_max"].sum(0))

    @pytest.mark.parametrize("op", [by_loop, by_step])
    def test_nested(self, op):
        outer, inner = draw(7, (2,)), draw(8, (3,))
        shared = draw(9)

        def run(weights, inputs):
            return partial(op)(shared | {"weights": weights, "inputs": inputs})

        def loss(weights, inputs):
            return scalar(op, shared | {"weights": weights, "inputs": inputs})

        both = jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None))
        found = both(outer["weights"], inner["inputs"])
        by_both = jax.vmap(jax.vmap(jax.grad(loss), in_axes=(None, 0)), in_axes=(0, None))
        gradients = by_both(outer["weights"], inner["inputs"])
        half = jax.vmap(
            jax.grad(lambda w, x: jax.vmap(loss, in_axes=(None, 0))(w, x).sum()), in_axes=(0, None)
        )(outer["weights"], inner["inputs"])
        assert_close(half, gradients.sum(1))
        for j, k in product(range(2), range(3)):
            pair = outer["weights"][j], jax.tree.map(lambda x, k=k: x[k], inner["inputs"])
            assert_close(jax.tree.map(lambda x, j=j, k=k: x[j, k], found), run(*pair), 0)
            assert_close(gradients[j, k], jax.grad(loss)(*pair))

    def test_neurons(self):
        a = draw(10, (3,))
        v, i = a["state"].v, a["state"].i * 20
        dt = jnp.asarray([0.1, 0.2, 0.3])
        arguments = a["params"], v, i, dt
        singles = [jax.tree.map(lambda x, k=k: x[k], arguments) for k in range(3)]

        def check(op):
            def loss(*x):
                return sum(x.sum() for x in numbers(op(*x)))

            assert_close(jax.vmap(op)(*arguments), stack([op(*s) for s in singles]), 0)
            gradient = jax.grad(loss, argnums=(1, 2, 3))
            assert_close(jax.vmap(gradient)(*arguments), stack([gradient(*s) for s in singles]))
            each = jax.vmap(loss, in_axes=(0, None, 0, 0))
            shared = jax.grad(lambda v: each(arguments[0], v, *arguments[2:]).sum())(v[0])
            summed = jax.grad(lambda v: sum(loss(x[0], v, *x[2:]) for x in singles))(v[0])
            assert_close(shared, summed)

        check(flow)
        check(lambda params, v, i, _: next_crossing(params, v, i))

    def test_jacobian(self):
        a = draw(11)

        def times(weights):
            spikes, state, _ = by_loop(a | {"weights": weights})
            return jnp.concatenate([spikes.time[:6], state.v])

        found = jax.jacrev(times)(a["weights"])
        rows = [jax.grad(lambda w, k=k: times(w)[k])(a["weights"]) for k in range(6 + N_NEURONS)]
        assert np.isfinite(times(a["weights"])).all()
        assert_close(found, jnp.stack(rows))


def by_loop_each(a, size):
    return stack([by_loop(example(a, PARTS, k)) for k in range(size)])


def native_gradient(a):
    """The gradient of the loss of a native batch, example by example."""
    cotangents = [x.shape for x in numbers(by_loop(a)[:2])]
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=shape) for shape in cotangents]
    size = len(a["t_max"])

    def single(moving, k):
        result = numbers(by_loop(example(a, PARTS, k) | moving)[:2])
        return sum(jnp.sum(x * w[k]) for x, w in zip(result, weights, strict=True))

    gradients = [
        jax.grad(single, allow_int=True)({n: example(a, PARTS, k)[n] for n in MOVING}, k)
        for k in range(size)
    ]
    return [
        jnp.stack(g)
        for g in zip(*(jax.tree.leaves(g) for g in gradients), strict=True)
        if g[0].dtype != jax.dtypes.float0
    ]


class TestControlFlow:
    """The same trajectory in one call, in a scan of windows, in a scan of steps, rematerialised."""

    @staticmethod
    def loss(a, route, moving):
        a = a | moving
        times, state = route(a)
        times = jnp.sort(times)[:CAPACITY]
        rng = np.random.default_rng(0)
        total = jnp.where(jnp.isfinite(times), times, 0) @ rng.normal(size=CAPACITY)
        return total + state.v @ rng.normal(size=N_NEURONS) + state.i @ rng.normal(size=N_NEURONS)

    @staticmethod
    def once(a):
        spikes, state, _ = by_loop(a)
        return spikes.time, state

    @staticmethod
    def windows(a, wrap=lambda f: f, size=3):
        def window(carry, _):
            state, queue = carry
            result = event_loop(
                a["params"], a["weights"], state, queue, t_max=a["t_max"], max_events=size
            )
            return (result.state, result.queue), result.spikes.time

        carry = a["state"], SpikeQueue(*a["inputs"], jnp.zeros((), jnp.int32))
        (state, _), times = jax.lax.scan(wrap(window), carry, None, length=CAPACITY // size + 1)
        return times.ravel(), state

    @staticmethod
    def steps(a, wrap=lambda f: f):
        def step(carry, _):
            state, queue = carry
            result = event_step(a["params"], a["weights"], state, queue, t_max=a["t_max"])
            time = jnp.where(result.event.kind == EventKind.SPIKE, result.event.time, jnp.inf)
            return (result.state, result.queue), time

        carry = a["state"], SpikeQueue(*a["inputs"], jnp.zeros((), jnp.int32))
        (state, _), times = jax.lax.scan(wrap(step), carry, None, length=CAPACITY + N_SPIKES + 1)
        return times, state

    ROUTES = (
        windows,
        steps,
        partial(windows, wrap=jax.checkpoint),
        partial(steps, wrap=jax.checkpoint),
        lambda a: jax.checkpoint(lambda a: TestControlFlow.once(a))(a),  # noqa: PLW0108
        lambda a: jax.lax.cond(a["t_max"] > 0, TestControlFlow.once, TestControlFlow.once, a),
    )

    @pytest.mark.parametrize("route", range(len(ROUTES)))
    @pytest.mark.parametrize("jit", [True, False])
    def test_same_gradient(self, route, jit):
        a = draw(20)
        assert by_loop(a)[2] < CAPACITY
        route = self.ROUTES[route]
        route = getattr(route, "__func__", route)
        moving = {name: a[name] for name in MOVING}
        expected = jax.grad(partial(self.loss, a, self.once), allow_int=True)(moving)
        differentiate = jax.grad(partial(self.loss, a, route), allow_int=True)
        found = jax.jit(differentiate)(moving) if jit else differentiate(moving)
        # sums in another order, over some tens of events
        assert_close(
            *(
                [g for g in jax.tree.leaves(x) if g.dtype != jax.dtypes.float0]
                for x in (found, expected)
            ),
            1e-10,
        )

    def test_vmap_of_scan(self):
        a = draw(21, (3,))
        axes = ({name: 0 if name != "params" else None for name in PARTS},)
        a["params"] = draw(22)["params"]
        times, _ = jax.vmap(self.steps, axes)(a)
        expected = jax.vmap(self.once, axes)(a)[0]
        assert_close(jnp.sort(times)[:, :CAPACITY], expected)

    def test_while_loop(self):
        """A forward-only loop until nothing happens any more."""
        a = draw(23)

        def more(carry):
            return carry[2] != EventKind.NONE

        def step(carry):
            state, queue, _, n = carry
            result = event_step(a["params"], a["weights"], state, queue, t_max=a["t_max"])
            n += result.event.kind == EventKind.SPIKE
            return result.state, result.queue, result.event.kind, n

        queue = SpikeQueue(*a["inputs"], jnp.zeros((), jnp.int32))
        one = jnp.ones((), jnp.int32)
        _, _, _, n = jax.lax.while_loop(more, step, (a["state"], queue, one, 0))
        assert n == by_loop(a)[2]


class TestWhatCannotBeDifferentiated:
    OPS = (by_loop, by_step)
    MESSAGE = MappingProxyType(
        {
            op: f"{name} has a reverse-mode derivative only: use jax.grad"
            for op, name in ((by_loop, "event_loop"), (by_step, "event_step"))
        }
    )

    @pytest.mark.parametrize("op", OPS)
    @pytest.mark.parametrize("jit", [False, True])
    def test_forward_mode(self, op, jit):
        a = draw(30)

        def times(weights):
            return scalar(op, a | {"weights": weights})

        times = jax.jit(times) if jit else times
        with pytest.raises(NotImplementedError, match=self.MESSAGE[op]):
            jax.jvp(times, (a["weights"],), (a["weights"],))
        if not jit:
            with pytest.raises(NotImplementedError, match=self.MESSAGE[op]):
                jax.jacfwd(times)(a["weights"])

    @pytest.mark.parametrize("op", OPS)
    def test_forward_mode_of_a_batch_of_tangents(self, op):
        a = draw(30)
        times = jax.jit(lambda weights: scalar(op, a | {"weights": weights}))
        with pytest.raises(NotImplementedError, match=self.MESSAGE[op]):
            jax.jacfwd(times)(a["weights"])

    def test_forward_mode_of_neurons(self):
        v = jnp.zeros(2)
        for op in (
            lambda v: flow(LIFParameters(), v, v, 0.1)[0],
            lambda v: next_crossing(LIFParameters(), v, v),
        ):
            with pytest.raises(NotImplementedError, match="reverse-mode derivative only"):
                jax.jvp(op, (v,), (v,))


class TestBatchesOfAllSizes:
    """The reverse sweep is cut by examples or by neurons: the cut shows in no gradient."""

    @staticmethod
    def problem(n_batch, n_inputs, n_neurons):
        rng = np.random.default_rng(n_batch + n_neurons)
        weights = jnp.asarray(rng.normal(0.5, 1.5, (n_inputs, n_neurons)))
        inputs = Spikes(
            jnp.asarray(np.sort(rng.uniform(0, 1, (n_batch, 12)))),
            jnp.asarray(rng.integers(0, n_inputs, (n_batch, 12)), jnp.int32),
        )
        return weights, inputs

    @staticmethod
    def loss(weights, time, index, start):
        params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=0.1)
        state = initial_state(params, weights.shape[-1], weights.dtype)._replace(time=start)
        result = event_loop(params, weights, state, Spikes(time, index), t_max=1.5, max_events=2000)
        return sum(jnp.sin(7 * x).sum() for x in numbers((result.spikes, result.state)))

    @pytest.mark.parametrize(
        ("n_batch", "n_inputs", "n_neurons"),
        [(1, 3, 5), (2, 3, 300), (17, 3, 5), (40, 5, 130), (2, 500, 300), (20, 500, 300)],
    )
    def test_gradient_is_the_sum_of_examples(self, n_batch, n_inputs, n_neurons):
        weights, inputs = self.problem(n_batch, n_inputs, n_neurons)
        start = jnp.zeros(())
        each = [
            jax.grad(self.loss, argnums=(0, 1, 3))(weights, time, index, start)
            for time, index in zip(*inputs, strict=True)
        ]
        by_weights, by_time, by_start = jax.grad(self.loss, argnums=(0, 1, 3))(
            weights, *inputs, start
        )
        # cut by neurons or not, it is a sum of the same terms in another order
        assert_close(by_weights, sum(g[0] for g in each), 1e-11)
        assert_close(by_time, jnp.stack([g[1] for g in each]), 1e-11)
        assert_close(by_start, sum(g[2] for g in each), 1e-11)


def test_memory_of_shared_weights():
    """vmap inside grad keeps one weight gradient, not one per sample."""
    n_batch, n_inputs, n_neurons = 256, 700, 512
    params = LIFParameters()

    def loss(weights, time, index):
        def single(time, index):
            state = initial_state(params, n_neurons, weights.dtype)
            result = event_loop(
                params, weights, state, Spikes(time, index), t_max=0.1, max_events=1000
            )
            return jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0).sum()

        return jax.vmap(single)(time, index).sum()

    shapes = (
        jax.ShapeDtypeStruct((n_inputs, n_neurons), np.float32),
        jax.ShapeDtypeStruct((n_batch, 700), np.float32),
        jax.ShapeDtypeStruct((n_batch, 700), np.int32),
    )
    for argnums in (0, (0, 1)):
        compiled = jax.jit(jax.grad(loss, argnums=argnums)).lower(*shapes).compile()
        size = compiled.memory_analysis().temp_size_in_bytes
        # spikes with their positions and currents, twice the state: about 10 MB; the gradients of
        # all samples would be 367 MB
        assert 0 < size < 20e6


def run_python(code, *prefix, **environment):
    """Runs code in a process of its own; a hang is a failure."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env={**os.environ, "JAX_ENABLE_X64": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMON = """
import numpy as np, jax, jax.numpy as jnp
from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.event.leaky_integrate_and_fire import LIF, EventPropLIF
from jaxsnn.ops import event_loop
"""

FINGERPRINT = (
    COMMON
    + """
import hashlib, itertools, os
digest = hashlib.sha256()
params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=0.05)
sizes = [(1, 4, 300, 20), (32, 8, 100, 20), (20, 600, 300, 20)]
dtypes = (np.float32, np.float64)
for (n_batch, n_inputs, n_neurons, n_spikes), dtype in itertools.product(sizes, dtypes):
    rng = np.random.default_rng(n_batch)
    weights = jnp.asarray(rng.normal(0.4, 1.5, (n_inputs, n_neurons)), dtype)
    time = jnp.asarray(np.sort(rng.uniform(0, 1, (n_batch, n_spikes))), dtype)
    index = jnp.asarray(rng.integers(0, n_inputs, (n_batch, n_spikes)), jnp.int32)
    def loss(weights, time):
        result = event_loop(
            params, weights, initial_state(params, n_neurons, np.dtype(dtype)), Spikes(time, index),
            t_max=1.5, max_events=1000)
        times = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0)
        return jnp.sin(9 * times).sum(axis=-1), result
    each, pull, result = jax.vjp(loss, weights, time, has_aux=True)
    for x in jax.tree.leaves((each, result, pull(jnp.ones(n_batch, dtype)))):
        digest.update(np.asarray(x).tobytes())
print(digest.hexdigest(), len(os.sched_getaffinity(0)))
"""
)


def test_results_do_not_depend_on_threads():
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        pytest.skip("needs two cores")
    settings = [
        (("taskset", "-c", str(available[0])), {}),
        (("taskset", "-c", f"{available[0]},{available[1]}"), {}),
        ((), {"NPROC": "3"}),
    ]
    outputs = [run_python(FINGERPRINT, *prefix, **env).split() for prefix, env in settings]
    assert [int(n) for _, n in outputs[:2]] == [1, 2]
    assert len({digest for digest, _ in outputs}) == 1


BRANCHES = (
    COMMON
    + """
params = LIFParameters(tau_mem=1.0, tau_syn=0.5)
rng = np.random.default_rng(0)
weights = jnp.asarray(rng.normal(0.5, 1.5, (12, 50, 200)))
time = jnp.asarray(np.sort(rng.uniform(0, 1, (64, 60))))
index = jnp.asarray(rng.integers(0, 50, (64, 60)), jnp.int32)
def branch(w):
    result = event_loop(params, w, initial_state(params, 200, w.dtype), Spikes(time, index),
                        t_max=1.2, max_events=3000)
    return jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0).sum()
def graph(weights):
    parts = [branch(weights[k]) * (k + 1) for k in range(12)]
    return sum(parts)
step = jax.jit(jax.value_and_grad(graph))
for _ in range(5):
    value, gradient = jax.block_until_ready(step(weights))
expected = sum(float(branch(weights[k])) * (k + 1) for k in range(12))
assert abs(float(value) - expected) < 1e-9 * abs(expected)
assert np.isfinite(gradient).all()
print("done")
"""
)


@pytest.mark.parametrize("prefix", [(), ("taskset", "-c", str(min(os.sched_getaffinity(0))))])
def test_many_independent_calls_do_not_wait_for_each_other(prefix):
    """Twelve branches of one graph, each of which wants all threads of the pool."""
    assert run_python(BRANCHES, *prefix).strip() == "done"


SHARDED = (
    COMMON
    + """
from functools import partial
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert len(jax.devices()) == 2
params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=0.1)
rng = np.random.default_rng(0)
weights = jnp.asarray(rng.normal(2, 1, (3, 5)))
time = jnp.asarray(np.sort(rng.uniform(0, 2, (4, 7))))
index = jnp.asarray(rng.integers(0, 3, (4, 7)), jnp.int32)
mesh = Mesh(np.array(jax.devices()), ("data",))

def ops_loss(weights, time, index):
    result = event_loop(params, weights, initial_state(params, 5, weights.dtype),
                        Spikes(time, index), t_max=3.0, max_events=60)
    times = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0)
    return jnp.sin(times).sum() + (result.state.v ** 2).sum()

def layer_loss(factory, weights, time, index):
    layer = factory(5, n_spikes=60, t_max=3.0, params=params)
    times = layer.apply(weights, Spikes(time, index)).time
    return jnp.sin(jnp.where(jnp.isfinite(times), times, 0)).sum()

def each(loss, weights, time, index):
    return jax.vmap(loss, in_axes=(None, 0, 0))(weights, time, index).sum()

losses = {"ops": ops_loss, "vmap": partial(each, ops_loss),
          "EventPropLIF": partial(layer_loss, EventPropLIF), "LIF": partial(layer_loss, LIF)}
specs = dict(mesh=mesh, in_specs=(P(), P("data"), P("data")))
for name, loss in losses.items():
    expected = jax.value_and_grad(loss, argnums=(0, 1))(weights, time, index)
    for check in (True, False):
        def outside(weights, time, index):
            return jax.lax.psum(loss(weights, time, index), "data")
        def inside(weights, time, index):
            if check:
                weights = jax.lax.pcast(weights, "data", to="varying")
            value, (by_weights, by_time) = jax.value_and_grad(loss, argnums=(0, 1))(
                weights, time, index)
            return jax.lax.psum(value, "data"), (jax.lax.psum(by_weights, "data"), by_time)
        outer = jax.value_and_grad(
            jax.shard_map(outside, out_specs=P(), check_vma=check, **specs), argnums=(0, 1))
        inner = jax.shard_map(inside, out_specs=(P(), (P(), P("data"))), check_vma=check, **specs)
        for where, run in (("outside", outer), ("inside", inner)):
            try:
                found = jax.jit(run)(weights, time, index)
            except Exception as error:
                print(name, check, where, "failed:", type(error).__name__, str(error).split()[:40])
                continue
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-11, err_msg=name)
            print(name, check, where, "ok")
# without shard_map: sharded operands under jit
sharded = [jax.device_put(x, NamedSharding(mesh, P("data"))) for x in (time, index)]
found = jax.jit(jax.value_and_grad(ops_loss, argnums=(0, 1)))(weights, *sharded)
expected = jax.value_and_grad(ops_loss, argnums=(0, 1))(weights, time, index)
for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)
print("jit ok")
"""
)


@pytest.fixture(scope="module")
def sharded():
    """What became of each case: value, and gradients of shared weights and of sharded times."""
    output = run_python(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    lines = [line.split(maxsplit=3) for line in output.splitlines()]
    return {tuple(words[:-1]): words[-1] for words in lines}


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize(
    ("name", "check"),
    list(product(["ops", "vmap", "EventPropLIF", "LIF"], ["True", "False"])),
)
def test_shard_map(sharded, name, check, where):
    """Gradients taken outside and inside, with and without check_vma."""
    assert sharded[name, check, where] == "ok"


def test_sharded_operands_of_jit(sharded):
    assert sharded["jit",] == "ok"


def test_abstract_evaluation_runs_nothing():
    """Shapes without data: a NaN is no error yet, and no kernel is called."""
    a = draw(40)
    a["weights"] = a["weights"] * jnp.nan
    shapes = jax.eval_shape(by_loop, a)
    assert shapes[0].time.shape == (CAPACITY,)
    assert shapes[0].index.dtype == np.int32
    assert shapes[1].v.shape == (N_NEURONS,)


def test_gradients_only_of_what_is_asked_for():
    """Whatever the selection is, each gradient is the same."""
    a = draw(41)
    moving = {"weights": a["weights"], "time": a["inputs"].time, "v": a["state"].v}

    def loss(m):
        return scalar(
            by_loop,
            a
            | {"weights": m["weights"], "inputs": a["inputs"]._replace(time=m["time"])}
            | {"state": a["state"]._replace(v=m["v"])},
        )

    everything = jax.grad(loss)(moving)
    for name, value in moving.items():
        alone = jax.grad(lambda x, name=name: loss(moving | {name: x}))(value)
        np.testing.assert_array_equal(alone, everything[name])


def test_status_survives_transformations():
    a = draw(42, (3,))
    a["inputs"] = a["inputs"]._replace(time=a["inputs"].time.at[1].set(jnp.nan))

    def status(a):
        return event_loop(
            a["params"],
            a["weights"],
            a["state"],
            a["inputs"],
            t_max=a["t_max"],
            max_events=2,
            raise_on=(),
        ).status

    found = jax.jit(jax.vmap(status))(a)
    assert found[1] == Status.NON_FINITE
    assert found[0] == found[2] == Status.EVENT_CAPACITY
