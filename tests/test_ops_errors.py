"""Bad arguments: each is named, with its value and what it should be, and spoils nothing else."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.event.leaky_integrate_and_fire import LIF, EventPropLIF
from jaxsnn.ops import (
    FAILURES,
    Status,
    event_loop,
    event_step,
    flow,
    next_crossing,
    status_message,
)

# The annotations would refuse some of these arguments before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")

# JAX raises ValueError instead when a jitted function runs again that has run well before.
RUNTIME_ERROR = (jax.errors.JaxRuntimeError, ValueError)

N_INPUTS, N_NEURONS = 2, 3


def arguments(**changes):
    """A valid call with some changes; ``v``, ``head``, ... reach into the state and the queue."""
    given = {
        "params": LIFParameters(tau_mem=1.0, tau_syn=0.5),
        "weights": jnp.full((N_INPUTS, N_NEURONS), 3.0),
        "v": jnp.zeros(N_NEURONS),
        "i": jnp.zeros(N_NEURONS),
        "release": jnp.full(N_NEURONS, -jnp.inf),
        "time": jnp.zeros(()),
        "input_time": jnp.asarray([0.25, 0.5, jnp.inf]),
        "input_index": jnp.asarray([0, 1, -1], jnp.int32),
        "head": jnp.zeros((), jnp.int32),
        "t_max": 2.0,
        "max_events": 8,
    }
    assert not changes.keys() - given.keys()
    return SimpleNamespace(**(given | changes))


def loop(*, raise_on=FAILURES, **changes):
    a = arguments(**changes)
    return event_loop(
        a.params,
        a.weights,
        LIFState(a.v, a.i, a.release, a.time),
        SpikeQueue(a.input_time, a.input_index, a.head),
        t_max=a.t_max,
        max_events=a.max_events,
        raise_on=raise_on,
    )


def step(*, raise_on=FAILURES, **changes):
    a = arguments(**changes)
    return event_step(
        a.params,
        a.weights,
        LIFState(a.v, a.i, a.release, a.time),
        SpikeQueue(a.input_time, a.input_index, a.head),
        t_max=a.t_max,
        raise_on=raise_on,
    )


def with_params(**values):
    return {"params": LIFParameters(**({"tau_mem": 1.0, "tau_syn": 0.5} | values))}


def test_the_call_without_changes_is_valid():
    assert loop().status == Status.OK
    assert step().status == Status.OK


PARAMETER_RANGES = [
    ("tau_mem", 0.0, "a finite time > 0"),
    ("tau_mem", -1.0, "a finite time > 0"),
    ("tau_mem", np.inf, "a finite time > 0"),
    ("tau_mem", np.nan, "a finite time > 0"),
    ("tau_syn", 0.0, "a finite time > 0"),
    ("tau_syn", -0.5, "a finite time > 0"),
    ("v_th", np.nan, "a voltage, inf for neurons that never spike"),
    ("v_th", -np.inf, "a voltage, inf for neurons that never spike"),
    ("v_leak", np.inf, "a finite voltage"),
    ("v_reset", np.nan, "a finite voltage below v_th"),
    ("v_reset", 1.0, "below v_th"),
    ("v_reset", 1.5, "below v_th"),
    ("t_ref", -0.25, "a finite time >= 0"),
    ("t_ref", np.inf, "a finite time >= 0"),
]

SHAPES = [
    ({"weights": jnp.ones(3)}, "weights has shape (3,), expected (*batch, n_inputs, n_neurons)"),
    (
        {"weights": jnp.ones((N_INPUTS, 4))},
        "state.v has shape (3,), expected (*batch, n_neurons=4)",
    ),
    ({"v": jnp.zeros(2)}, "state.v has shape (2,), expected (*batch, n_neurons=3)"),
    ({"i": jnp.zeros(())}, "state.i has shape (), expected (*batch, n_neurons=3)"),
    ({"release": jnp.zeros(4)}, "state.release has shape (4,), expected (*batch, n_neurons=3)"),
    ({"input_time": jnp.zeros(())}, "inputs.time has shape (), expected (*batch, n_spikes)"),
    (
        {"input_index": jnp.zeros(2, jnp.int32)},
        "inputs.index has shape (2,), expected (*batch, n_spikes=3)",
    ),
    (
        with_params(tau_mem=jnp.ones(2)),
        "params.tau_mem has shape (2,), expected () or (*batch, n_neurons=3)",
    ),
    (
        {"weights": jnp.ones((0, N_NEURONS))},
        "weights has no inputs, but inputs.time has 3 entries",
    ),
    (
        {"v": jnp.zeros((4, N_NEURONS)), "time": jnp.zeros(5)},
        "batch axes do not broadcast: state.v (4,), state.time (5,)",
    ),
    (
        {"t_max": jnp.full(4, 2.0), "head": jnp.zeros(5, jnp.int32)},
        "batch axes do not broadcast: inputs.head (5,), t_max (4,)",
    ),
]

DTYPES = [
    (
        {"weights": jnp.ones((N_INPUTS, N_NEURONS), jnp.int32)},
        "weights has dtype int32, expected float32 or float64",
    ),
    (
        {"weights": jnp.ones((N_INPUTS, N_NEURONS), jnp.bfloat16)},
        "weights has dtype bfloat16, expected float32 or float64",
    ),
    ({"v": jnp.zeros(N_NEURONS, jnp.int32)}, "state.v has dtype int32, expected float32"),
    ({"i": jnp.zeros(N_NEURONS, jnp.float16)}, "state.i has dtype float16, expected float32"),
    ({"time": jnp.zeros((), jnp.int32)}, "state.time has dtype int32, expected float32"),
    ({"input_time": jnp.zeros(3, jnp.int32)}, "inputs.time has dtype int32, expected float32"),
    ({"input_index": jnp.zeros(3)}, "inputs.index has dtype float32, expected int32"),
    ({"input_index": jnp.zeros(3, jnp.uint8)}, "inputs.index has dtype uint8, expected int32"),
    ({"head": jnp.zeros(())}, "inputs.head has dtype float32, expected int32"),
    ({"t_max": jnp.asarray(2)}, "t_max has dtype int32, expected float32"),
    (
        with_params(tau_syn=jnp.ones((), jnp.float16)),
        "params.tau_syn has dtype float16, expected float32",
    ),
]


@pytest.mark.parametrize("call", [loop, step])
class TestWhenTraced:
    """What shapes, dtypes and plain numbers show is said before anything runs."""

    @staticmethod
    def check(call, changes, error, message):
        name = {"loop": "event_loop", "step": "event_step"}[call.__name__]
        pattern = f"^{name}: {re.escape(message)}"
        with pytest.raises(error, match=pattern):
            call(**changes)
        with pytest.raises(error, match=pattern):
            jax.eval_shape(lambda: call(**changes))

    @pytest.mark.parametrize(("changes", "message"), SHAPES)
    def test_shapes(self, call, changes, message):
        self.check(call, changes, ValueError, message)

    @pytest.mark.parametrize(("changes", "message"), DTYPES)
    def test_dtypes(self, call, changes, message):
        self.check(call, changes, TypeError, message)

    @pytest.mark.parametrize("kind", [float, np.float64, lambda x: np.array([0.25, 0.25, x])])
    @pytest.mark.parametrize(("name", "value", "expected"), PARAMETER_RANGES)
    def test_parameters(self, call, kind, name, value, expected):
        with pytest.raises(ValueError, match=f"params.{name} is .*, expected .*{expected}") as info:
            call(**with_params(**{name: kind(value)}))
        assert str(float(value)).rstrip("0") in str(info.value)

    @pytest.mark.parametrize("t_max", [0, 0.0, -1.0, np.inf, np.nan, np.float32(-2)])
    def test_horizon(self, call, t_max):
        self.check(
            call, {"t_max": t_max}, ValueError, f"t_max is {t_max}, expected a finite time > 0"
        )

    def test_params_of_another_type(self, call):
        self.check(call, {"params": {}}, TypeError, "params is dict, expected LIFParameters")


@pytest.mark.parametrize("max_events", [0, -3])
def test_capacity_below_one(max_events):
    message = f"event_loop: max_events is {max_events}, expected an integer >= 1"
    with pytest.raises(ValueError, match=message):
        loop(max_events=max_events)


@pytest.mark.parametrize("max_events", [2.0, True, None, "8"])
def test_capacity_that_is_no_integer(max_events):
    message = f"event_loop: max_events is {max_events!r}, expected an integer >= 1"
    with pytest.raises(TypeError, match=message):
        loop(max_events=max_events)


def array(name, value):
    """A parameter as a JAX array, one value per neuron, the last of which is bad."""
    values = jnp.full(N_NEURONS, 0.25).at[-1].set(value)
    return with_params(**{name: values})


def entry(name, shape, value):
    return {name: jnp.zeros(shape).at[-1].set(value)}


WEIGHTS = jnp.full((N_INPUTS, N_NEURONS), 3.0)

# changes, status, argument, element, value, what it should be
VALUES = [
    *(
        (
            array(name, value),
            Status.NON_FINITE if np.isnan(value) else Status.INVALID_VALUE,
            f"params.{name}",
            2,
            value,
            expected if name != "v_reset" else "a finite voltage below v_th",
        )
        for name, value, expected in PARAMETER_RANGES
    ),
    (
        {"weights": WEIGHTS.at[1, 0].set(jnp.nan)},
        Status.NON_FINITE,
        "weights",
        3,
        np.nan,
        "finite values",
    ),
    (
        {"weights": WEIGHTS.at[0, 2].set(-jnp.inf)},
        Status.NON_FINITE,
        "weights",
        2,
        -np.inf,
        "finite values",
    ),
    (entry("v", 3, jnp.nan), Status.NON_FINITE, "state.v", 2, np.nan, "finite values"),
    (entry("v", 3, jnp.inf), Status.NON_FINITE, "state.v", 2, np.inf, "finite values"),
    (entry("i", 3, jnp.nan), Status.NON_FINITE, "state.i", 2, np.nan, "finite values"),
    (
        entry("release", 3, jnp.nan),
        Status.NON_FINITE,
        "state.release",
        2,
        np.nan,
        "a time, or -inf for none",
    ),
    (
        entry("release", 3, jnp.inf),
        Status.INVALID_VALUE,
        "state.release",
        2,
        np.inf,
        "a time, or -inf for none",
    ),
    ({"time": jnp.nan}, Status.NON_FINITE, "state.time", 0, np.nan, "a finite time"),
    ({"time": jnp.inf}, Status.NON_FINITE, "state.time", 0, np.inf, "a finite time"),
    (
        {"input_time": jnp.asarray([0.5, 0.25, jnp.inf])},
        Status.UNSORTED_INPUT,
        "inputs.time",
        1,
        0.25,
        "times that ascend from state.time",
    ),
    (
        {"time": jnp.asarray(0.375)},
        Status.UNSORTED_INPUT,
        "inputs.time",
        0,
        0.25,
        "times that ascend from state.time",
    ),
    (
        {"input_time": jnp.asarray([0.25, jnp.nan, jnp.inf])},
        Status.NON_FINITE,
        "inputs.time",
        1,
        np.nan,
        "times that ascend",
    ),
    (
        {"input_time": jnp.asarray([0.25, jnp.inf, 0.5]), "input_index": jnp.asarray([0, -1, 1])},
        Status.UNSORTED_INPUT,
        "inputs.time",
        2,
        0.5,
        "inf for padding at the end",
    ),
    (
        {"input_index": jnp.asarray([0, 2, -1], jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.index",
        1,
        2,
        "an input in [0, n_inputs), -1 only with time inf",
    ),
    (
        {"input_index": jnp.asarray([-2, 1, -1], jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.index",
        0,
        -2,
        "an input in [0, n_inputs)",
    ),
    (
        {"input_index": jnp.asarray([0, -1, -1], jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.index",
        1,
        -1,
        "-1 only with time inf",
    ),
    (
        {"head": jnp.asarray(4, jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.head",
        0,
        4,
        "a position in the queue",
    ),
    (
        {"head": jnp.asarray(-1, jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.head",
        0,
        -1,
        "a position in the queue",
    ),
    (
        {"t_max": jnp.asarray(-1.0)},
        Status.INVALID_VALUE,
        "t_max",
        0,
        -1.0,
        "a finite time > 0, not before state.time",
    ),
    (
        {"time": jnp.asarray(0.125), "t_max": jnp.asarray(0.0625)},
        Status.INVALID_VALUE,
        "t_max",
        0,
        0.0625,
        "a finite time > 0, not before state.time",
    ),
    (
        {"t_max": jnp.asarray(jnp.inf)},
        Status.INVALID_VALUE,
        "t_max",
        0,
        np.inf,
        "a finite time > 0, not before state.time",
    ),
]


@pytest.mark.parametrize("call", [loop, step])
@pytest.mark.parametrize(("changes", "status", "name", "element", "value", "expected"), VALUES)
class TestWhenRun:
    def test_raises(self, call, changes, status, name, element, value, expected):
        del status
        text = f"{name} is {value:g} at element {element}, expected "
        name = {"loop": "event_loop", "step": "event_step"}[call.__name__]
        for run in (lambda: call(**changes), jax.jit(lambda: call(**changes))):
            with pytest.raises(RUNTIME_ERROR, match=re.escape(text)) as info:
                jax.block_until_ready(run())
            assert f"jaxsnn: {name}, sample 0: " in str(info.value)
            assert expected in str(info.value)

    def test_status(self, call, changes, status, name, element, value, expected):
        result = call(raise_on=(), **changes)
        assert result.status == status
        text = status_message(int(result.status), np.asarray(result.detail))
        assert text.startswith(f"{name} is {value:g} at element {element}, expected ")
        assert expected in text
        floats = [x for x in jax.tree.leaves((result[0], result.state)) if x.dtype == jnp.float32]
        assert all(np.isnan(x).all() for x in floats)


class TestOneBadExample:
    """NaN in the outputs and gradients of that example, and the right numbers in all others."""

    N_BATCH, BAD = 4, 2

    @classmethod
    def batch(cls, bad):
        """Per-example arguments: state.v, input times and weights."""
        rng = np.random.default_rng(0)
        v = jnp.asarray(rng.uniform(0, 0.5, (cls.N_BATCH, N_NEURONS)), jnp.float32)
        times = jnp.asarray(np.sort(rng.uniform(0.1, 1, (cls.N_BATCH, 3))), jnp.float32)
        weights = jnp.asarray(rng.uniform(2, 5, (cls.N_BATCH, N_INPUTS, N_NEURONS)), jnp.float32)
        if bad == "v":
            v = v.at[cls.BAD, 1].set(jnp.nan)
        elif bad == "time":
            times = times.at[cls.BAD].set(times[cls.BAD, ::-1])
        elif bad == "weights":
            weights = weights.at[cls.BAD, 0, 0].set(jnp.inf)
        return weights, v, times

    @staticmethod
    def by_loop(weights, v, times):
        index = jnp.asarray([0, 1, 0], jnp.int32)
        result = loop(weights=weights, v=v, input_time=times, input_index=index, raise_on=())
        spikes = jnp.where(jnp.isinf(result.spikes.time), 0, result.spikes.time)
        return spikes.sum() + result.state.v.sum() + result.state.i.sum(), result

    @staticmethod
    def by_step(weights, v, times):
        index = jnp.asarray([0, 1, 0], jnp.int32)
        result = step(weights=weights, v=v, input_time=times, input_index=index, raise_on=())
        return result.event.time + result.state.v.sum() + result.state.i.sum(), result

    @pytest.mark.parametrize("bad", ["v", "time", "weights"])
    @pytest.mark.parametrize("route", ["by_loop", "by_step"])
    def test_all_arguments_batched(self, route, bad):
        gradient = jax.vmap(
            jax.value_and_grad(getattr(self, route), argnums=(0, 1, 2), has_aux=True)
        )
        (value, result), found = gradient(*self.batch(bad))
        (expected_value, expected_result), expected = gradient(*self.batch(None))
        good = np.arange(self.N_BATCH) != self.BAD
        assert result.status[self.BAD] not in (Status.OK, Status.EVENT_CAPACITY)
        np.testing.assert_array_equal(result.status[good], expected_result.status[good])
        np.testing.assert_array_equal(value[good], expected_value[good])
        assert np.isnan(value[self.BAD])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[good], other[good])
            assert np.isnan(one[self.BAD]).all()

    @pytest.mark.parametrize("bad", ["v", "time"])
    @pytest.mark.parametrize("route", ["by_loop", "by_step"])
    def test_shared_weights(self, route, bad):
        """A sum over the batch with a NaN in it is NaN; what belongs to one example is not."""
        weights, v, times = self.batch(bad)

        def total(weights, v, times):
            axes = None, 0, 0
            return jax.vmap(getattr(self, route), in_axes=axes)(weights, v, times)[0].sum()

        by_weights, by_v, by_times = jax.grad(total, argnums=(0, 1, 2))(weights[0], v, times)
        good = np.arange(self.N_BATCH) != self.BAD
        assert np.isnan(by_weights).all()
        for gradient in (by_v, by_times):
            assert np.isnan(gradient[self.BAD]).all()
            assert np.isfinite(gradient[good]).all()

    def test_shared_weights_spoil_all(self):
        _, v, times = self.batch(None)
        weights = jnp.full((N_INPUTS, N_NEURONS), jnp.nan)
        result = jax.vmap(self.by_loop, in_axes=(None, 0, 0))(weights, v, times)[1]
        np.testing.assert_array_equal(result.status, Status.NON_FINITE)

    def test_the_error_names_the_sample(self):
        weights, v, _ = self.batch("v")
        with pytest.raises(RUNTIME_ERROR, match=rf"event_loop, sample {self.BAD}: state\.v is nan"):
            jax.vmap(lambda w, v: loop(weights=w, v=v).status)(weights, v)

    def test_only_the_statuses_asked_for_raise(self):
        changes = {"v": jnp.full(N_NEURONS, jnp.nan)}
        assert loop(raise_on=[Status.UNSORTED_INPUT], **changes).status == Status.NON_FINITE
        with pytest.raises(RUNTIME_ERROR, match=r"state\.v is nan"):
            loop(raise_on=[Status.NON_FINITE], **changes)


def test_an_error_is_raised_after_good_calls_too():
    run = jax.jit(lambda v: loop(v=v).spikes.time)
    for _ in range(3):
        run(jnp.zeros(N_NEURONS))
    with pytest.raises(RUNTIME_ERROR, match=r"state\.v is nan"):
        run(jnp.zeros(N_NEURONS) * jnp.nan)


def test_status_message_of_a_good_end():
    result = loop()
    assert status_message(int(result.status), np.asarray(result.detail)) == "ok"


def test_every_status_has_a_message():
    messages = {status_message(status, (0.0, 0.0, 3.0)) for status in Status}
    assert "unknown status" not in messages
    assert len(messages) >= 4


BURST = {"weights": jnp.full((N_INPUTS, N_NEURONS), 20.0)}


class TestCapacity:
    def test_a_window_that_is_full_is_no_error_by_default(self):
        full = loop(**BURST, max_events=4)
        assert full.status == Status.EVENT_CAPACITY
        assert full.count == 4
        message = status_message(int(full.status), np.asarray(full.detail))
        assert "more spikes before t_max than there is room for, which is 4" in message

    def test_it_keeps_the_earliest(self):
        everything = loop(**BURST, max_events=100)
        assert everything.status == Status.OK
        n = int(everything.count)
        assert n > 10
        for max_events in range(1, n):
            some = loop(**BURST, max_events=max_events)
            assert some.status == Status.EVENT_CAPACITY
            np.testing.assert_array_equal(some.spikes.time, everything.spikes.time[:max_events])
            np.testing.assert_array_equal(some.spikes.index, everything.spikes.index[:max_events])
        exactly = loop(**BURST, max_events=n)
        assert exactly.status == Status.OK
        np.testing.assert_array_equal(exactly.spikes.time, everything.spikes.time[:n])

    def test_it_raises_if_asked(self):
        count = int(loop(**BURST, max_events=100).count)
        with pytest.raises(RUNTIME_ERROR, match=f"room for, which is 4: it fired {count}"):
            loop(**BURST, max_events=4, raise_on=[Status.EVENT_CAPACITY])

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    def test_layers_name_layer_sample_and_count(self, factory):
        layer = factory(2, n_spikes=3, t_max=2.0, params=LIFParameters(1.0, 0.5), name="hidden")
        time = jnp.asarray([[0.1, 0.5], [0.1, 0.2]])
        spikes = Spikes(time, jnp.asarray([[0, 1], [1, 1]], jnp.int32))
        weights = jnp.asarray([[0.1, 0.2], [5.5, 5.5]])  # two spikes in sample 0, more in sample 1
        with pytest.raises(RUNTIME_ERROR, match=r"hidden, sample 1: .*which is 3: it fired \d+"):
            layer.apply(weights, spikes)

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    def test_layers_truncate_if_told(self, factory):
        options = {"t_max": 2.0, "params": LIFParameters(1.0, 0.5)}
        spikes = Spikes(jnp.asarray([0.1, 0.5]), jnp.asarray([0, 1], jnp.int32))
        weights = jnp.full((2, 2), 9.0) + jnp.asarray([0.0, 0.5])
        everything = factory(2, n_spikes=40, **options).apply(weights, spikes)
        assert np.isfinite(everything.time[:6]).all()
        some = factory(2, n_spikes=5, truncate=True, **options).apply(weights, spikes)
        np.testing.assert_array_equal(some.time, everything.time[:5])
        np.testing.assert_array_equal(some.index, everything.index[:5])


class TestHorizon:
    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    def test_spikes_after_t_max_are_ignored(self, factory):
        layer = factory(2, n_spikes=8, t_max=1.0, params=LIFParameters(1.0, 0.5))
        weights = jnp.asarray([[4.0, 5.0], [30.0, 30.0]])
        late = Spikes(jnp.asarray([0.1, 1.5, 2.0]), jnp.asarray([0, 1, 1], jnp.int32))
        early = Spikes(late.time[:1], late.index[:1])
        for found, expected in zip(
            layer.apply(weights, late), layer.apply(weights, early), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        gradient = jax.grad(lambda w: layer.apply(w, late).time[0])(weights)
        np.testing.assert_array_equal(gradient[1], 0)

    def test_they_stay_in_the_queue(self):
        result = loop(t_max=0.375)
        assert result.queue.head == 1
        rest = event_loop(
            LIFParameters(1.0, 0.5),
            jnp.full((N_INPUTS, N_NEURONS), 3.0),
            result.state,
            result.queue,
            t_max=2.0,
            max_events=8,
        )
        assert rest.queue.head == 2


class TestNeurons:
    """``flow`` and ``next_crossing``."""

    PARAMS = LIFParameters(tau_mem=1.0, tau_syn=0.5)

    @pytest.mark.parametrize("op", [lambda *a: flow(*a, 0.1), next_crossing])
    def test_shapes_and_dtypes(self, op):
        with pytest.raises(ValueError, match=r"v has shape \(\), expected \(\*batch, n_neurons\)"):
            op(self.PARAMS, jnp.zeros(()), jnp.zeros(()))
        with pytest.raises(
            ValueError, match=r"i has shape \(2,\), expected \(\*batch, n_neurons=3"
        ):
            op(self.PARAMS, jnp.zeros(3), jnp.zeros(2))
        with pytest.raises(ValueError, match="batch axes do not broadcast"):
            op(self.PARAMS, jnp.zeros((2, 3)), jnp.zeros((4, 3)))
        with pytest.raises(TypeError, match="v has dtype int32, expected float32 or float64"):
            op(self.PARAMS, jnp.zeros(3, jnp.int32), jnp.zeros(3))
        with pytest.raises(TypeError, match="i has dtype int32, expected float32"):
            op(self.PARAMS, jnp.zeros(3), jnp.zeros(3, jnp.int32))

    @pytest.mark.parametrize(("name", "value", "expected"), PARAMETER_RANGES)
    @pytest.mark.parametrize("op", [lambda *a: flow(*a, 0.1), next_crossing])
    def test_parameters(self, op, name, value, expected):
        v = jnp.zeros(N_NEURONS)
        with pytest.raises(ValueError, match=f"params.{name} is .*{expected}"):
            op(with_params(**{name: value})["params"], v, v)
        with pytest.raises(RUNTIME_ERROR, match=f"params.{name} is {value:g} at element 2"):
            op(array(name, value)["params"], v, v)

    @pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
    @pytest.mark.parametrize("name", ["v", "i"])
    def test_state(self, name, bad):
        state = {"v": jnp.zeros(2), "i": jnp.zeros(2)} | {name: jnp.asarray([0.0, bad])}
        with pytest.raises(RUNTIME_ERROR, match=f"state.{name} is {float(bad):g} at element 1"):
            next_crossing(self.PARAMS, **state)
        with pytest.raises(RUNTIME_ERROR, match=f"state.{name} is {float(bad):g} at element 1"):
            flow(self.PARAMS, dt=0.1, **state)

    @pytest.mark.parametrize("dt", [-0.5, np.nan, np.inf])
    def test_step(self, dt):
        v = jnp.zeros(2)
        with pytest.raises(ValueError, match=f"flow: dt is {dt}, expected a finite time >= 0"):
            flow(self.PARAMS, v, v, dt)
        with pytest.raises(RUNTIME_ERROR, match=f"dt is {dt:g} at element 0, expected a finite"):
            flow(self.PARAMS, v, v, jnp.asarray(dt))
        with pytest.raises(ValueError, match=r"flow: dt has shape \(3,\), expected \(\) or"):
            flow(self.PARAMS, v, v, jnp.zeros(3))

    def test_nan_without_raising(self):
        v = jnp.asarray([[0.0, 0.1], [0.0, jnp.nan]])
        i = jnp.full((2, 2), 9.0)
        at = next_crossing(self.PARAMS, v, i, raise_on=())
        assert np.isfinite(at[0]).all()
        assert np.isnan(at[1]).all()
        moved = flow(self.PARAMS, v, i, 0.1, raise_on=())
        for x in moved:
            assert np.isfinite(x[0]).all()
            assert np.isnan(x[1]).all()

    def test_gradient_of_a_bad_example_is_nan(self):
        v = jnp.asarray([[0.0, 0.1], [0.0, jnp.nan]])
        i = jnp.full((2, 2), 9.0)
        crossing = jax.grad(
            lambda v, i: next_crossing(self.PARAMS, v, i, raise_on=()).sum(), (0, 1)
        )
        flown = jax.grad(lambda v, i: flow(self.PARAMS, v, i, 0.1, raise_on=())[0].sum(), (0, 1))
        for by_v, by_i in (crossing(v, i), flown(v, i)):
            assert np.isfinite(by_v[0]).all()
            assert np.isfinite(by_i[0]).all()
        assert np.isnan(np.asarray(crossing(v, i))[:, 1]).all()


class TestLayers:
    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"n_neurons": 0}, ValueError, "n_neurons is 0, expected an integer >= 1"),
            ({"n_neurons": 2.0}, TypeError, "n_neurons is 2.0, expected an integer >= 1"),
            ({"n_spikes": 0}, ValueError, "n_spikes is 0, expected an integer >= 1"),
            ({"t_max": 0.0}, ValueError, "t_max is 0.0, expected a finite time > 0"),
            ({"params": LIFParameters(tau_mem=-1.0)}, ValueError, "params.tau_mem is -1.0"),
            ({"params": LIFParameters(v_reset=2.0)}, ValueError, "params.v_reset is 2.0"),
        ],
    )
    def test_construction(self, factory, changes, error, message):
        given = {"n_neurons": 3, "n_spikes": 4, "t_max": 1.0} | changes
        with pytest.raises(error, match=f"^hidden: {message}"):
            factory(given.pop("n_neurons"), **given, name="hidden")

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    def test_weights_of_the_wrong_size(self, factory):
        layer = factory(3, n_spikes=4, t_max=1.0, name="hidden")
        spikes = Spikes(jnp.asarray([0.1]), jnp.zeros(1, jnp.int32))
        with pytest.raises(
            ValueError, match=r"^hidden: .*has shape \(3,\), expected .*n_neurons=4"
        ):
            layer.apply(jnp.ones((2, 4)), spikes)

    @pytest.mark.parametrize("factory", [LIF, EventPropLIF])
    def test_an_index_outside_the_inputs(self, factory):
        layer = factory(3, n_spikes=4, t_max=1.0, name="hidden")
        spikes = Spikes(jnp.asarray([[0.1], [0.2]]), jnp.asarray([[0], [7]], jnp.int32))
        with pytest.raises(
            RUNTIME_ERROR, match=r"hidden, sample 1: inputs\.index is 7 at element 0"
        ):
            layer.apply(jnp.ones((2, 3)), spikes)

    def test_initial_state_shapes(self):
        state = initial_state(LIFParameters(v_leak=jnp.zeros((4, 1))), 3, jnp.dtype(jnp.float32))
        assert state.v.shape == (4, 3)
        assert state.time.shape == ()
