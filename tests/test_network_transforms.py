"""Networks under JAX's transformations, in float32, at any number of threads; symmetries at size.

Values under a transformation are the same to the last bit, gradients the same but for the order of
sums (1e-12 of the largest entry, or more where it says so).
"""

import functools
import os
import subprocess
import sys
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.ops import Status, event_loop
from networks import (
    CAPACITY,
    coefficients,
    draws,
    graph_of,
    graphs,
    same_bits,
    solve,
    value_and_gradient,
    well_conditioned,
)

pytestmark = pytest.mark.usefixtures("x64")

N_INPUTS, N_NEURONS, N_SPIKES, N_PAST, ROOM = 2, 4, 5, 3, 32
PARTS = ("weights", "recurrent", "delays", "recurrent_delays", "state", "inputs", "past", "t_max")
PARAMS = LIFParameters(tau_mem=1.0, tau_syn=0.6, t_ref=0.1)


def draw(seed, batch=(), dtype=np.float64):
    """Arguments by part, all of them with these leading axes."""
    rng = np.random.default_rng(seed)

    def uniform(low, high, *shape):
        return jnp.asarray(rng.uniform(low, high, (*batch, *shape)), dtype)

    def indices(high, *shape):
        return jnp.asarray(rng.integers(0, high, (*batch, *shape)), jnp.int32)

    return {
        "weights": uniform(1.0, 5.0, N_INPUTS, N_NEURONS),
        "recurrent": uniform(-1.5, 2.0, N_NEURONS, N_NEURONS),
        "delays": uniform(0.0, 0.3, N_INPUTS, 1),
        "recurrent_delays": uniform(0.05, 0.4, N_NEURONS, N_NEURONS),
        "state": LIFState(
            v=uniform(-0.1, 0.7, N_NEURONS),
            i=uniform(-0.5, 1.0, N_NEURONS),
            release=jnp.where(uniform(0, 1, N_NEURONS) < 0.5, -jnp.inf, uniform(0, 0.4, N_NEURONS)),
            time=uniform(-0.1, 0.0),
        ),
        "inputs": Spikes(jnp.sort(uniform(0.05, 1.2, N_SPIKES)), indices(N_INPUTS, N_SPIKES)),
        "past": Spikes(jnp.sort(uniform(-0.3, -0.1, N_PAST)), indices(N_NEURONS, N_PAST)),
        "t_max": uniform(1.2, 1.5),
    }


def loop(a, max_events=ROOM, **options):
    return event_loop(
        PARAMS,
        a["weights"],
        a["state"],
        a["inputs"],
        t_max=a["t_max"],
        max_events=max_events,
        delays=a["delays"],
        recurrent=a["recurrent"],
        recurrent_delays=a["recurrent_delays"],
        past=a["past"],
        **options,
    )


def numbers(result):
    """All floats of a result, inf replaced, so that they can be summed."""
    floats = [x for x in jax.tree.leaves(result) if jnp.issubdtype(x.dtype, jnp.floating)]
    return [jnp.where(jnp.isfinite(x), x, 0.0) for x in floats]


def by_loop(a):
    result = loop(a)
    return result.spikes, result.state, result.count


def scalar(a):
    """A loss in which every number has its own weight."""
    rng = np.random.default_rng(5)
    return sum(
        jnp.sum(x * jnp.asarray(rng.normal(size=x.shape), x.dtype)) for x in numbers(by_loop(a)[:2])
    )


def leaves(tree):
    return [g for g in jax.tree.leaves(tree) if g.dtype != jax.dtypes.float0]


def gradient(a):
    return leaves(jax.grad(scalar, allow_int=True)(a))


def example(a, batched, k):
    """The k-th example of arguments of which some parts are batched."""
    return {
        name: jax.tree.map(lambda x: x[k], part) if name in batched else part
        for name, part in a.items()
    }


def stack(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def assert_close(found, expected, rtol=1e-12):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = max(1.0, np.abs(np.where(np.isfinite(other), other, 0)).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


# Each part alone, some shared alone, all of them, and some in between.
MIXES = [
    *((name,) for name in PARTS),
    *(tuple(n for n in PARTS if n != name) for name in ("recurrent", "delays", "past")),
    PARTS,
    ("weights", "delays", "inputs"),
    ("recurrent", "past", "t_max"),
    ("inputs", "state"),
    ("recurrent_delays", "delays"),
]


class TestVmap:
    SIZE = 3

    def test_the_draws_do_something(self):
        for seed in (1, 2, 3, 4):
            result = loop(draw(seed))
            assert ROOM > result.count > 4
            assert result.status == Status.OK

    @pytest.mark.parametrize("batched", MIXES)
    def test_every_mix(self, batched):
        """Values, gradients of each example, and the gradient of the sum over examples."""
        shared, own = draw(1), draw(2, (self.SIZE,))
        a = {name: (own if name in batched else shared)[name] for name in PARTS}
        axes = ({name: 0 if name in batched else None for name in PARTS},)
        singles = [example(a, batched, k) for k in range(self.SIZE)]
        same_bits(jax.vmap(by_loop, axes)(a), stack([by_loop(s) for s in singles]))
        gradients = stack([gradient(s) for s in singles])
        assert_close(jax.jit(jax.vmap(gradient, axes))(a), gradients)

        found = jax.jit(jax.grad(lambda a: jax.vmap(scalar, axes)(a).sum(), allow_int=True))(a)
        # leaves of `found` in the order of `gradient`, summed where the argument is shared
        is_shared = jax.tree.leaves(
            {n: jax.tree.map(lambda _, n=n: n not in batched, a[n]) for n in PARTS}
        )
        moving = [
            (g, s)
            for g, s in zip(jax.tree.leaves(found), is_shared, strict=True)
            if g.dtype != jax.dtypes.float0
        ]
        expected = [g.sum(0) if s else g for g, (_, s) in zip(gradients, moving, strict=True)]
        assert_close([g for g, _ in moving], expected)

    @pytest.mark.parametrize("form", [(), (N_NEURONS,), (1, N_NEURONS), (N_NEURONS, 1), (1, 1)])
    def test_delays_of_every_form(self, form):
        a = draw(3)
        rng = np.random.default_rng(0)
        delays = jnp.asarray(rng.uniform(0.05, 0.4, (self.SIZE, *form)))

        def loss(delays):
            return scalar(a | {"recurrent_delays": delays})

        values = jax.vmap(loss)(delays)
        same_bits(values, jnp.stack([loss(d) for d in delays]))
        expected = jnp.stack([jax.grad(loss)(d) for d in delays])
        assert_close(jax.vmap(jax.grad(loss))(delays), expected)
        # one array of delays for all examples, which differ in their inputs
        own = draw(4, (self.SIZE,))["inputs"]

        def total(delays):
            return jax.vmap(lambda x: scalar(a | {"inputs": x, "recurrent_delays": delays}))(
                own
            ).sum()

        each = [
            jax.grad(
                lambda d, k=k: scalar(
                    a | {"inputs": jax.tree.map(lambda x: x[k], own), "recurrent_delays": d}
                )
            )(delays[0])
            for k in range(self.SIZE)
        ]
        assert_close(jax.grad(total)(delays[0]), sum(each))

    @pytest.mark.parametrize("axis", [1, -1])
    def test_axes_other_than_the_first(self, axis):
        a = draw(3, (self.SIZE,))
        names = ("recurrent", "recurrent_delays")
        moved = {name: jnp.moveaxis(a[name], 0, axis) for name in names}
        rest = {name: part for name, part in a.items() if name not in names}
        found = jax.vmap(lambda m, rest: by_loop(rest | m), in_axes=(axis, 0))(moved, rest)
        same_bits(found, stack([by_loop(example(a, PARTS, k)) for k in range(self.SIZE)]))

    def test_native_batch_is_vmap(self):
        a = draw(4, (self.SIZE,))
        same_bits(by_loop(a), jax.vmap(by_loop)(a))

        def total(a):
            return sum(jnp.sin(x).sum() for x in numbers(by_loop(a)[:2]))

        native = jax.grad(total, allow_int=True)(a)
        mapped = jax.vmap(jax.grad(total, allow_int=True))(a)
        assert_close(leaves(native), leaves(mapped), 0)

    def test_native_axes_broadcast(self):
        """Each operand has its own leading axes; the gradient of each has the shape of it."""
        shared, many = draw(5), draw(6, (2, 3))
        a = shared | {
            "inputs": many["inputs"],
            "recurrent": many["recurrent"][:, :1],
            "recurrent_delays": many["recurrent_delays"][0],
            "t_max": many["t_max"][0],
        }
        found = by_loop(a)

        def pick(a, j, k):
            return a | {
                "inputs": jax.tree.map(lambda x: x[j, k], a["inputs"]),
                "recurrent": a["recurrent"][j, 0],
                "recurrent_delays": a["recurrent_delays"][k],
                "t_max": a["t_max"][k],
            }

        def total(a):
            return sum(jnp.sin(3 * x).sum() for x in numbers(by_loop(a)[:2]))

        for j, k in product(range(2), range(3)):
            single = jax.tree.map(lambda x, j=j, k=k: x[j, k], found)
            same_bits(single, by_loop(pick(a, j, k)))

        def each(a):
            return sum(total(pick(a, j, k)) for j, k in product(range(2), range(3)))

        one, other = (jax.grad(f, allow_int=True)(a) for f in (total, each))
        assert_close(leaves(one), leaves(other))

    def test_nested(self):
        outer, inner, shared = draw(7, (2,)), draw(8, (3,)), draw(9)

        def loss(own, inputs):
            return scalar(shared | own | {"inputs": inputs})

        own = {name: outer[name] for name in ("recurrent", "recurrent_delays")}
        both = jax.vmap(jax.vmap(jax.grad(loss), in_axes=(None, 0)), in_axes=(0, None))
        gradients = both(own, inner["inputs"])
        half = jax.vmap(
            jax.grad(lambda o, x: jax.vmap(loss, in_axes=(None, 0))(o, x).sum()), in_axes=(0, None)
        )(own, inner["inputs"])
        assert_close(half, jax.tree.map(lambda g: g.sum(1), gradients))
        for j, k in product(range(2), range(3)):
            pair = (
                jax.tree.map(lambda x, j=j: x[j], own),
                jax.tree.map(lambda x, k=k: x[k], inner["inputs"]),
            )
            expected = jax.grad(loss)(*pair)
            assert_close(jax.tree.map(lambda x, j=j, k=k: x[j, k], gradients), expected)


class TestOtherTransformations:
    def test_jit(self):
        a = draw(0)
        same_bits(jax.jit(by_loop)(a), by_loop(a))
        same_bits(jax.jit(gradient)(a), gradient(a))

    @pytest.mark.parametrize("route", ["scan", "checkpointed scan", "checkpoint", "cond"])
    @pytest.mark.parametrize("jit", [True, False])
    def test_same_gradient(self, route, jit):
        a = draw(1)

        def once(a):
            result = loop(a)
            return result.spikes.time, result.state

        def scan(a, wrap=lambda f: f, size=5):
            def window(carry, _):
                state, queue, past = carry
                result = loop(a | {"state": state, "inputs": queue, "past": past}, max_events=size)
                time = jnp.concatenate([past.time, result.spikes.time])
                index = jnp.concatenate([past.index, result.spikes.index])
                order = jnp.argsort(time, stable=True)[: ROOM + N_PAST]
                past = Spikes(time[order], index[order])
                return (result.state, result.queue, past), result.spikes.time

            pad = Spikes(jnp.full(ROOM, jnp.inf), jnp.full(ROOM, -1, jnp.int32))
            past = Spikes(*(jnp.concatenate(x) for x in zip(a["past"], pad, strict=True)))
            carry = a["state"], SpikeQueue(*a["inputs"], jnp.zeros((), jnp.int32)), past
            (state, _, _), times = jax.lax.scan(wrap(window), carry, None, length=ROOM // size + 1)
            return times.ravel(), state

        routes = {
            "scan": scan,
            "checkpointed scan": partial(scan, wrap=jax.checkpoint),
            "checkpoint": jax.checkpoint(once),
            "cond": lambda a: jax.lax.cond(a["t_max"] > 0, once, once, a),
        }

        def loss(route, a):
            times, state = route(a)
            times = jnp.sort(times)[:ROOM]
            rng = np.random.default_rng(0)
            total = jnp.where(jnp.isfinite(times), times, 0) @ rng.normal(size=ROOM)
            return total + state.v @ rng.normal(size=N_NEURONS) + state.i.sum()

        differentiate = jax.grad(partial(loss, routes[route]), allow_int=True)
        found = (jax.jit(differentiate) if jit else differentiate)(a)
        expected = jax.grad(partial(loss, once), allow_int=True)(a)
        assert_close(leaves(found), leaves(expected), 1e-10)

    def test_jacobian(self):
        a = draw(2)

        def times(delays):
            return by_loop(a | {"recurrent_delays": delays})[0].time[:5]

        rows = [jax.grad(lambda d, k=k: times(d)[k])(a["recurrent_delays"]) for k in range(5)]
        assert_close(jax.jacrev(times)(a["recurrent_delays"]), jnp.stack(rows))

    def test_forward_mode_is_refused(self):
        a = draw(3)
        with pytest.raises(NotImplementedError, match="network_loop has a reverse-mode derivative"):
            jax.jvp(lambda w: scalar(a | {"recurrent": w}), (a["recurrent"],), (a["recurrent"],))

    def test_abstract_evaluation_runs_nothing(self):
        a = draw(4)
        a["recurrent"] = a["recurrent"] * jnp.nan
        shapes = jax.eval_shape(by_loop, a)
        assert shapes[0].time.shape == (ROOM,)
        assert shapes[1].v.shape == (N_NEURONS,)

    def test_gradients_only_of_what_is_asked_for(self):
        a = draw(5)
        everything = jax.grad(scalar, allow_int=True)(a)
        for name in ("weights", "recurrent", "delays", "recurrent_delays", "t_max"):
            alone = jax.grad(lambda x, name=name: scalar(a | {name: x}))(a[name])
            np.testing.assert_array_equal(alone, everything[name])


class TestSums:
    """The reverse sweep is cut into chunks of the batch: the cut shows in no gradient."""

    @staticmethod
    def loss(weights, recurrent, delays, recurrent_delays, time, index):
        result = event_loop(
            PARAMS,
            weights,
            initial_state(PARAMS, weights.shape[-1], weights.dtype),
            Spikes(time, index),
            t_max=1.2,
            max_events=2000,
            delays=delays,
            recurrent=recurrent,
            recurrent_delays=recurrent_delays,
        )
        return sum(jnp.sin(7 * x).sum() for x in numbers((result.spikes, result.state)))

    @staticmethod
    def problem(n_batch, n_inputs, n_neurons):
        rng = np.random.default_rng(n_batch + n_neurons)
        weights = jnp.asarray(rng.normal(0.5, 1.5, (n_inputs, n_neurons)))
        recurrent = jnp.asarray(rng.normal(0, 1.5 / n_neurons, (n_neurons, n_neurons)))
        delays = jnp.asarray(rng.uniform(0, 0.2, n_inputs))
        recurrent_delays = jnp.asarray(rng.uniform(0, 0.2, (n_neurons, n_neurons)))
        time = jnp.asarray(np.sort(rng.uniform(0, 1, (n_batch, 12))))
        index = jnp.asarray(rng.integers(0, n_inputs, (n_batch, 12)), jnp.int32)
        return (weights, recurrent, delays, recurrent_delays), time, index

    @pytest.mark.parametrize(
        ("n_batch", "n_inputs", "n_neurons"), [(1, 3, 5), (2, 3, 60), (17, 3, 5), (40, 5, 20)]
    )
    def test_gradient_is_the_sum_of_examples(self, n_batch, n_inputs, n_neurons):
        shared, time, index = self.problem(n_batch, n_inputs, n_neurons)
        differentiate = jax.jit(jax.grad(self.loss, argnums=(0, 1, 2, 3, 4)))
        each = [differentiate(*shared, t, i) for t, i in zip(time, index, strict=True)]
        found = differentiate(*shared, time, index)
        for k in range(4):
            assert_close(found[k], sum(g[k] for g in each), 1e-11)
        same_bits(found[4], jnp.stack([g[4] for g in each]))


def test_memory_of_shared_operands():
    """vmap inside grad keeps one gradient of weights and delays, not one per sample."""
    n_batch, n_neurons, n_events = 256, 256, 1000

    def loss(shared, time, index):
        def single(time, index):
            result = event_loop(
                PARAMS,
                shared["weights"],
                initial_state(PARAMS, n_neurons, time.dtype),
                Spikes(time, index),
                t_max=0.1,
                max_events=n_events,
                delays=shared["delays"],
                recurrent=shared["recurrent"],
                recurrent_delays=shared["recurrent_delays"],
            )
            return jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0).sum()

        return jax.vmap(single)(time, index).sum()

    matrix = jax.ShapeDtypeStruct((n_neurons, n_neurons), np.float32)
    shared = dict.fromkeys(("weights", "recurrent", "delays", "recurrent_delays"), matrix)
    queue = (n_batch, 400)
    compiled = (
        jax.jit(jax.grad(loss, argnums=(0, 1)))
        .lower(
            shared,
            jax.ShapeDtypeStruct(queue, np.float32),
            jax.ShapeDtypeStruct(queue, np.int32),
        )
        .compile()
    )
    size = compiled.memory_analysis().temp_size_in_bytes
    # spikes and states, some MB; one of the four gradients for all samples would be 67 MB
    assert 0 < size < 20e6


class TestFloat32:
    @draws(15)
    @given(graphs())
    def test_close_to_float64(self, network):
        trajectory = well_conditioned(network, gap=1e-5)
        assume(trajectory is not None)
        assume(len(trajectory.time) < CAPACITY)
        with jax.enable_x64(False):
            graph = graph_of(network, np.float32)
            single = jax.jit(solve)(graph)
        double = solve(
            jax.tree.map(
                lambda x: jnp.asarray(np.asarray(x, np.float64)) if x.dtype == np.float32 else x,
                graph._replace(t_max=np.float32(graph.t_max)),
            )
        )
        assert single.spikes.time.dtype == np.float32
        # draws in which rounding moves a spike over a tie are left out
        assume(np.array_equal(single.spikes.index, double.spikes.index))
        n = int(double.count)
        # float32 carries 1e-7 of a voltage; a spike passes on 1/V' <= 20 times that, and a chain of
        # spikes some times more
        np.testing.assert_allclose(
            single.spikes.time[:n], double.spikes.time[:n], rtol=0, atol=1e-3
        )
        np.testing.assert_allclose(single.state.v, double.state.v, rtol=0, atol=1e-2)

    @draws(10)
    @given(graphs(), st.integers(0, 1000))
    def test_gradients_close_to_float64(self, network, seed):
        trajectory = well_conditioned(network, gap=1e-4)
        assume(trajectory is not None)
        assume(len(trajectory.time) < CAPACITY)
        loss = coefficients(seed)
        _, double = value_and_gradient(graph_of(network), loss)
        expected = np.asarray(solve(graph_of(network)).spikes.index)
        with jax.enable_x64(False):
            graph = graph_of(network, np.float32)
            single_loss = tuple(np.asarray(x, np.float32) for x in loss)
            _, single = value_and_gradient(graph, single_loss)
            index = np.asarray(solve(graph).spikes.index)
        assume(np.array_equal(index, expected))
        scale = max(np.abs(g).max() for g in leaves(double))
        assume(scale < 100)
        for one, other in zip(leaves(single), leaves(double), strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-2 * max(1, scale))


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
import os, numpy as np, jax, jax.numpy as jnp
from jaxsnn import LIFParameters, Spikes, initial_state
from jaxsnn.ops import event_loop
params = LIFParameters(tau_mem=1.0, tau_syn=0.5, t_ref=0.05)
def problem(seed, n_batch, n_inputs, n_neurons, n_spikes, dtype):
    rng = np.random.default_rng(seed)
    shared = dict(
        weights=rng.normal(0.6, 1.5, (n_inputs, n_neurons)),
        recurrent=rng.normal(0, 2 / n_neurons, (n_neurons, n_neurons)),
        delays=rng.uniform(0, 0.2, n_inputs),
        recurrent_delays=rng.uniform(0, 0.2, (n_neurons, n_neurons)))
    time = jnp.asarray(np.sort(rng.uniform(0, 1, (n_batch, n_spikes))), dtype)
    index = jnp.asarray(rng.integers(0, n_inputs, (n_batch, n_spikes)), jnp.int32)
    return {name: jnp.asarray(x, dtype) for name, x in shared.items()}, time, index
def run(shared, time, index):
    n_neurons = shared["weights"].shape[-1]
    return event_loop(
        params, shared["weights"], initial_state(params, n_neurons, time.dtype),
        Spikes(time, index), t_max=1.2, max_events=200, delays=shared["delays"],
        recurrent=shared["recurrent"], recurrent_delays=shared["recurrent_delays"])
def loss(shared, time, index):
    result = run(shared, time, index)
    times = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0)
    return jnp.sin(9 * times).sum(axis=-1) + (result.state.v ** 2).sum(axis=-1)
"""

FINGERPRINT = (
    COMMON
    + """
import hashlib
digest = hashlib.sha256()
spikes = 0
@jax.jit
def everything(shared, time, index):
    each, pull = jax.vjp(lambda *x: loss(*x, index), shared, time)
    return each, run(shared, time, index), pull(jnp.ones_like(each))
for size in ((17, 8, 20, 12), (5, 40, 50, 12)):
    for dtype in (np.float32, np.float64):
        found = everything(*problem(size[0], *size, dtype))
        spikes += int(found[1].count.sum())
        for x in jax.tree.leaves(found):
            digest.update(np.asarray(x).tobytes())
assert spikes > 1000, spikes
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


SHARDED = (
    COMMON
    + """
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert len(jax.devices()) == 2
shared, time, index = problem(0, 4, 3, 6, 7, np.float64)
mesh = Mesh(np.array(jax.devices()), ("data",))
def total(shared, time, index):
    return loss(shared, time, index).sum()
expected = jax.value_and_grad(total, argnums=(0, 1))(shared, time, index)
assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(expected[1]))
specs = dict(mesh=mesh, in_specs=(P(), P("data"), P("data")))
for check in (True, False):
    def outside(shared, time, index):
        return jax.lax.psum(total(shared, time, index), "data")
    def inside(shared, time, index):
        if check:
            shared = jax.lax.pcast(shared, "data", to="varying")
        value, (by_shared, by_time) = jax.value_and_grad(total, argnums=(0, 1))(shared, time, index)
        return jax.lax.psum(value, "data"), (jax.lax.psum(by_shared, "data"), by_time)
    outer = jax.value_and_grad(
        jax.shard_map(outside, out_specs=P(), check_vma=check, **specs), argnums=(0, 1))
    inner = jax.shard_map(inside, out_specs=(P(), (P(), P("data"))), check_vma=check, **specs)
    for found in (jax.jit(outer)(shared, time, index), jax.jit(inner)(shared, time, index)):
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
        print("ok")
# without shard_map: sharded operands under jit
sharded = [jax.device_put(x, NamedSharding(mesh, P("data"))) for x in (time, index)]
found = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(shared, *sharded)
for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
print("ok")
"""
)


def test_shard_map():
    """Gradients outside and inside, with and without check_vma; plain sharded operands."""
    output = run_python(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert output.split() == ["ok"] * 5


class TestSymmetriesAtSize:
    """Exact symmetries on more than ten thousand spikes: no oracle, no differences.

    A factor of two changes exponents only, so that everything scales to the last bit, however long
    errors have had to grow.
    """

    N_NEURONS, N_INPUTS, ROOM = 40, 20, 16384

    @classmethod
    def arguments(cls):
        rng = np.random.default_rng(0)
        n, n_in, n_spikes = cls.N_NEURONS, cls.N_INPUTS, 6000
        params = LIFParameters(
            tau_mem=jnp.asarray(rng.uniform(0.8, 1.5, n)),
            tau_syn=jnp.asarray(rng.uniform(0.3, 0.9, n)),
            v_th=jnp.asarray(rng.uniform(0.9, 1.1, n)),
            v_leak=jnp.asarray(rng.uniform(-0.2, 0.2, n)),
            v_reset=jnp.asarray(rng.uniform(-0.5, -0.2, n)),
            t_ref=jnp.asarray(rng.uniform(0, 0.05, n)),
        )
        time = jnp.asarray(np.sort(rng.uniform(0, 90, n_spikes)))
        return {
            "params": params,
            "weights": jnp.asarray(rng.normal(0.18, 0.1, (n_in, n))),
            "recurrent": jnp.asarray(rng.normal(-0.02, 0.05, (n, n))),
            "delays": jnp.asarray(rng.uniform(0, 0.5, (n_in, n))),
            "recurrent_delays": jnp.asarray(
                np.where(rng.random((n, n)) < 0.3, np.inf, rng.uniform(0.05, 0.5, (n, n)))
            ),
            "v": jnp.asarray(rng.uniform(-0.2, 0.8, n)),
            "i": jnp.asarray(rng.uniform(0, 2, n)),
            "inputs": Spikes(time, jnp.asarray(rng.integers(0, n_in, n_spikes), jnp.int32)),
            "t_max": jnp.asarray(100.0),
        }

    @classmethod
    def value(cls, moving, a, by_time):
        a = a | moving
        result = event_loop(
            a["params"],
            a["weights"],
            LIFState(a["v"], a["i"], jnp.full(cls.N_NEURONS, -jnp.inf), a["time"]),
            Spikes(a["at"], a["inputs"].index),
            t_max=a["t_max"],
            max_events=cls.ROOM,
            delays=a["delays"],
            recurrent=a["recurrent"],
            recurrent_delays=a["recurrent_delays"],
        )
        times = jnp.where(jnp.isfinite(result.spikes.time), result.spikes.time, 0)
        return times @ by_time, result

    @classmethod
    def solve(cls, a):
        by_time = np.random.default_rng(1).normal(size=cls.ROOM)
        names = ("weights", "recurrent", "delays", "recurrent_delays", "v", "i", "t_max")
        moving = {name: a[name] for name in names}
        moving |= {"at": a["inputs"].time, "time": jnp.zeros(())}
        (_, result), gradient = jax.jit(jax.value_and_grad(cls.value, has_aux=True))(
            moving, a, by_time
        )
        assert result.status == Status.OK
        assert result.count > 10_000
        return result, gradient, by_time[: int(result.count)]

    @staticmethod
    def scaled(params, names, factor):
        own = {n: getattr(params, n) for n in LIFParameters.__dataclass_fields__}
        return LIFParameters(**(own | {n: factor * own[n] for n in names}))

    @classmethod
    @functools.cache
    def once(cls):
        a = cls.arguments()
        return a, *cls.solve(a)

    def test_the_unit_of_voltage(self):
        a, result, gradient, _ = self.once()
        other = a | {name: 2 * a[name] for name in ("weights", "recurrent", "v", "i")}
        other["params"] = self.scaled(a["params"], ("v_th", "v_leak", "v_reset"), 2)
        found, found_gradient, _ = self.solve(other)
        same_bits(found.spikes, result.spikes)
        same_bits(found.state.v, 2 * result.state.v)
        for name, g in gradient.items():
            factor = 2 if name in ("weights", "recurrent", "v", "i") else 1
            same_bits(factor * found_gradient[name], g)

    def test_the_unit_of_time(self):
        a, result, gradient, _ = self.once()
        other = a | {name: 2 * a[name] for name in ("delays", "recurrent_delays", "t_max")}
        other["params"] = self.scaled(a["params"], ("tau_mem", "tau_syn", "t_ref"), 2)
        other["inputs"] = a["inputs"]._replace(time=2 * a["inputs"].time)
        found, found_gradient, _ = self.solve(other)
        same_bits(found.spikes.index, result.spikes.index)
        same_bits(found.spikes.time, 2 * result.spikes.time)
        for name, g in gradient.items():
            factor = 1 if name in ("delays", "recurrent_delays", "t_max", "at", "time") else 0.5
            same_bits(factor * found_gradient[name], g)

    def test_time_translation(self):
        """All times later by as much: every spike is later by as much."""
        _, _, gradient, by_time = self.once()
        total = float(jnp.sum(gradient["at"]) + gradient["time"] + gradient["t_max"])
        scale = float(jnp.abs(gradient["at"]).sum() + jnp.abs(gradient["time"]))
        # the sum cancels, down from terms that themselves went through thousands of roundings
        assert total == pytest.approx(by_time.sum(), abs=1e-12 * scale)
        assert scale < 1e9
