"""Bad arguments of networks: each is named, with its value and what it should be."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, LIFState, SpikeQueue, Spikes
from jaxsnn.ops import FAILURES, Status, event_loop, status_message

# The annotations would refuse some of these arguments before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")

# JAX raises ValueError instead when a jitted function runs again that has run well before.
RUNTIME_ERROR = (jax.errors.JaxRuntimeError, ValueError)

N_INPUTS, N_NEURONS = 2, 3
PARAMS = LIFParameters(tau_mem=1.0, tau_syn=0.5)


def arguments(**changes):
    given = {
        "weights": jnp.full((N_INPUTS, N_NEURONS), 3.0),
        "time": jnp.asarray(0.125),
        "input_time": jnp.asarray([0.0, 0.25, 0.5, jnp.inf]),
        "input_index": jnp.asarray([0, 0, 1, -1], jnp.int32),
        "head": jnp.asarray(1, jnp.int32),
        "delays": jnp.full((N_INPUTS, N_NEURONS), 0.25),
        "recurrent": jnp.full((N_NEURONS, N_NEURONS), 0.25),
        "recurrent_delays": jnp.full((N_NEURONS, N_NEURONS), 0.25),
        "past_time": jnp.asarray([-0.25, 0.0, 0.125, jnp.inf]),
        "past_index": jnp.asarray([0, 2, 1, -1], jnp.int32),
        "populations": None,
        "max_events": 40,
        "raise_on": FAILURES,
        "label": "event_loop",
        "t_max": 2.0,
    }
    assert not changes.keys() - given.keys()
    return given | changes


def call(**changes):
    a = arguments(**changes)
    past = None if a["past_time"] is None else Spikes(a["past_time"], a["past_index"])
    state = LIFState(
        jnp.zeros(N_NEURONS), jnp.zeros(N_NEURONS), jnp.full(N_NEURONS, -jnp.inf), a["time"]
    )
    return event_loop(
        PARAMS,
        a["weights"],
        state,
        SpikeQueue(a["input_time"], a["input_index"], a["head"]),
        past=past,
        **{
            name: a[name]
            for name in (
                "delays",
                "recurrent",
                "recurrent_delays",
                "populations",
                "max_events",
                "raise_on",
                "label",
                "t_max",
            )
        },
    )


def test_the_call_without_changes_is_valid():
    result = call()
    assert result.status == Status.OK
    assert result.count > 0


NO_SYNAPSE = {"delays": jnp.full((N_INPUTS, N_NEURONS), jnp.inf)}


def test_no_synapse_at_all_is_valid():
    result = call(
        recurrent_delays=jnp.full((N_NEURONS, N_NEURONS), jnp.inf), past_time=None, **NO_SYNAPSE
    )
    assert result.count == 0
    assert result.queue.head == 3


SHAPES = [
    (
        {"recurrent": jnp.ones((N_NEURONS, 2))},
        "recurrent has shape (3, 2), expected (*batch, n_neurons=3, 3)",
    ),
    ({"recurrent": jnp.ones(3)}, "recurrent has shape (3,), expected (*batch, n_neurons=3, 3)"),
    (
        {"delays": jnp.ones(3)},
        "delays has shape (3,), expected (), (n_inputs=2,) or (*batch, n_inputs=2 or 1, "
        "n_neurons=3 or 1)",
    ),
    (
        {"delays": jnp.ones((3, 2))},
        "delays has shape (3, 2), expected (), (n_inputs=2,) or (*batch, n_inputs=2 or 1, "
        "n_neurons=3 or 1)",
    ),
    (
        {"recurrent_delays": jnp.ones((2, 3))},
        "recurrent_delays has shape (2, 3), expected (), (n_neurons=3,) or (*batch, n_neurons=3 "
        "or 1, n_neurons=3 or 1)",
    ),
    ({"past_time": jnp.zeros(())}, "past.time has shape (), expected (*batch, n_spikes)"),
    (
        {"past_index": jnp.zeros(2, jnp.int32)},
        "past.index has shape (2,), expected (*batch, n_spikes=4)",
    ),
    (
        {"recurrent": jnp.ones((4, 3, 3)), "delays": jnp.ones((5, 1, 1))},
        "batch axes do not broadcast: recurrent (4,), delays (5,)",
    ),
    (
        {"past_time": jnp.zeros((4, 4)), "recurrent_delays": jnp.ones((5, 3, 3))},
        "batch axes do not broadcast: recurrent_delays (5,), past.time (4,)",
    ),
]

TYPES = [
    (
        {"recurrent": jnp.ones((3, 3), jnp.int32)},
        "recurrent has dtype int32, expected float32",
    ),
    ({"delays": jnp.ones((), jnp.int32)}, "delays has dtype int32, expected float32"),
    (
        {"recurrent_delays": jnp.ones(3, jnp.float16)},
        "recurrent_delays has dtype float16, expected float32",
    ),
    ({"past_time": jnp.zeros(4, jnp.int32)}, "past.time has dtype int32, expected float32"),
    ({"past_index": jnp.zeros(4)}, "past.index has dtype float32, expected int32"),
]

ABSENT = [
    ({"recurrent": None, "past_time": None}, "recurrent_delays is given, but recurrent is not"),
    ({"recurrent": None, "recurrent_delays": None}, "past is given, but recurrent is not"),
]

POPULATIONS = [
    (
        {"populations": (1, 1), "max_events": (4, 4)},
        ValueError,
        "populations is (1, 1), expected sizes that add up to n_neurons=3",
    ),
    ({"populations": (), "max_events": ()}, ValueError, "populations is (), expected sizes"),
    (
        {"populations": (3, 0), "max_events": (4, 4)},
        ValueError,
        "populations is 0, expected an integer >= 1",
    ),
    (
        {"populations": (1.5, 1.5), "max_events": (4, 4)},
        TypeError,
        "populations is 1.5, expected an integer >= 1",
    ),
    (
        {"populations": (1, 2), "max_events": 20},
        ValueError,
        "max_events is 20, expected one for each of 2 populations",
    ),
    (
        {"populations": (1, 2), "max_events": (4, 4, 4)},
        ValueError,
        "max_events is (4, 4, 4), expected one for each of 2 populations",
    ),
    (
        {"populations": (1, 2), "max_events": (4, 0)},
        ValueError,
        "max_events is 0, expected an integer >= 1",
    ),
    (
        {"populations": None, "max_events": (4, 4)},
        TypeError,
        "max_events is (4, 4), expected an integer >= 1",
    ),
]

LABELS = [
    ({"populations": (1, 2), "max_events": (4, 4)}, ["a"], 2),
    ({"populations": (1, 2), "max_events": (4, 4)}, ["a", "b", "c"], 2),
    ({"populations": None}, ["a", "b"], 1),
]


class TestWhenTraced:
    """What shapes, dtypes and plain numbers show is said before anything runs."""

    @staticmethod
    def check(changes, error, message):
        pattern = f"^event_loop: {re.escape(message)}"
        with pytest.raises(error, match=pattern):
            call(**changes)
        with pytest.raises(error, match=pattern):
            jax.eval_shape(lambda: call(**changes))

    @pytest.mark.parametrize(("changes", "message"), SHAPES + ABSENT)
    def test_shapes(self, changes, message):
        self.check(changes, ValueError, message)

    @pytest.mark.parametrize(("changes", "message"), TYPES)
    def test_dtypes(self, changes, message):
        self.check(changes, TypeError, message)

    @pytest.mark.parametrize(("changes", "error", "message"), POPULATIONS)
    def test_populations(self, changes, error, message):
        self.check(changes, error, message)

    @pytest.mark.parametrize(("changes", "label", "count"), LABELS)
    def test_labels(self, changes, label, count):
        message = f"label is {label}, expected one for each of {count} populations"
        with pytest.raises(ValueError, match=re.escape(message)):
            call(label=label, **changes)

    @pytest.mark.parametrize("name", ["delays", "recurrent_delays"])
    @pytest.mark.parametrize("value", [-0.25, np.nan, np.float32(-1), np.array([[-0.5]])])
    def test_plain_delays(self, name, value):
        self.check({name: value}, ValueError, f"{name} is {value}, expected times >= 0")


def changed(name, place, value):
    return {name: arguments()[name].at[place].set(value)}


TIME = "times that ascend up to state.time, inf for padding at the end"
DELAY = "a time >= 0, inf where there is no synapse"
INDEX = "a neuron in [0, n_neurons), -1 only with time inf"

# changes, status, argument, element, value, what it should be
VALUES = [
    (changed("recurrent", (1, 2), jnp.nan), Status.NON_FINITE, "recurrent", 5, np.nan, "finite"),
    (changed("recurrent", (0, 0), jnp.inf), Status.NON_FINITE, "recurrent", 0, np.inf, "finite"),
    (changed("weights", (1, 1), jnp.nan), Status.NON_FINITE, "weights", 4, np.nan, "finite"),
    (changed("delays", (1, 0), -0.25), Status.INVALID_VALUE, "delays", 3, -0.25, DELAY),
    (changed("delays", (0, 2), jnp.nan), Status.NON_FINITE, "delays", 2, np.nan, DELAY),
    ({"delays": jnp.asarray(-1.0)}, Status.INVALID_VALUE, "delays", 0, -1, DELAY),
    ({"delays": jnp.asarray([0.5, -2.0])}, Status.INVALID_VALUE, "delays", 1, -2, DELAY),
    ({"delays": jnp.asarray([-jnp.inf, 0])}, Status.INVALID_VALUE, "delays", 0, -np.inf, DELAY),
    (
        changed("recurrent_delays", (2, 2), -0.125),
        Status.INVALID_VALUE,
        "recurrent_delays",
        8,
        -0.125,
        DELAY,
    ),
    (
        changed("recurrent_delays", (0, 1), jnp.nan),
        Status.NON_FINITE,
        "recurrent_delays",
        1,
        np.nan,
        DELAY,
    ),
    (changed("past_time", 1, -0.5), Status.UNSORTED_INPUT, "past.time", 1, -0.5, TIME),
    (changed("past_time", 2, 0.25), Status.INVALID_VALUE, "past.time", 2, 0.25, TIME),
    (changed("past_time", 0, jnp.nan), Status.NON_FINITE, "past.time", 0, np.nan, TIME),
    (
        {
            "past_time": jnp.asarray([0.0, jnp.inf, 0.125, jnp.inf]),
            "past_index": jnp.asarray([0, -1, 1, -1], jnp.int32),
        },
        Status.UNSORTED_INPUT,
        "past.time",
        2,
        0.125,
        TIME,
    ),
    (changed("past_index", 0, 3), Status.INVALID_VALUE, "past.index", 0, 3, INDEX),
    (changed("past_index", 1, -2), Status.INVALID_VALUE, "past.index", 1, -2, INDEX),
    (changed("past_index", 2, -1), Status.INVALID_VALUE, "past.index", 2, -1, INDEX),
    (
        changed("input_index", 2, 2),
        Status.INVALID_VALUE,
        "inputs.index",
        2,
        2,
        "an input in [0, n_inputs)",
    ),
    (
        changed("input_index", 0, 7),  # taken already, but perhaps still under way
        Status.INVALID_VALUE,
        "inputs.index",
        0,
        7,
        "an input in [0, n_inputs)",
    ),
    (
        {
            "input_time": jnp.asarray([0.1, 0.0, 0.25, jnp.inf]),
            "head": jnp.asarray(2, jnp.int32),
        },
        Status.UNSORTED_INPUT,
        "inputs.time",
        1,
        0.0,
        "times that ascend",
    ),
    (
        {"head": jnp.asarray(0, jnp.int32)},
        Status.UNSORTED_INPUT,
        "inputs.time",
        0,
        0.0,
        "times that ascend from state.time",
    ),
    (
        {"head": jnp.asarray(5, jnp.int32)},
        Status.INVALID_VALUE,
        "inputs.head",
        0,
        5,
        "a position in the queue",
    ),
    (
        {"head": jnp.asarray(3, jnp.int32)},  # behind an input that is still to come
        Status.INVALID_VALUE,
        "inputs.head",
        0,
        3,
        "behind times up to state.time",
    ),
    ({"t_max": jnp.asarray(0.0625)}, Status.INVALID_VALUE, "t_max", 0, 0.0625, "a finite time > 0"),
]


@pytest.mark.parametrize(("changes", "status", "name", "element", "value", "expected"), VALUES)
class TestWhenRun:
    def test_raises(self, changes, status, name, element, value, expected):
        del status
        text = f"{name} is {value:g} at element {element}, expected "
        for run in (lambda: call(**changes), jax.jit(lambda: call(**changes))):
            with pytest.raises(RUNTIME_ERROR, match=re.escape(text)) as info:
                jax.block_until_ready(run())
            assert "jaxsnn: event_loop, sample 0: " in str(info.value)
            assert expected in str(info.value)

    def test_status(self, changes, status, name, element, value, expected):
        result = call(raise_on=(), **changes)
        assert result.status == status
        text = status_message(int(result.status), np.asarray(result.detail))
        assert text.startswith(f"{name} is {value:g} at element {element}, expected ")
        assert expected in text
        floats = [x for x in jax.tree.leaves((result[0], result.state)) if x.dtype == jnp.float32]
        assert all(np.isnan(x).all() for x in floats)
        assert result.count == 0


class TestOneBadExample:
    """NaN in the results and gradients of that example, and the right numbers in all others."""

    N_BATCH, BAD = 4, 2
    NAMES = ("recurrent", "recurrent_delays", "delays", "past_time", "input_time")

    @classmethod
    def batch(cls, bad):
        rng = np.random.default_rng(0)

        def uniform(low, high, *shape):
            return jnp.asarray(rng.uniform(low, high, (cls.N_BATCH, *shape)), jnp.float32)

        a = {
            "recurrent": uniform(0.25, 0.5, N_NEURONS, N_NEURONS),
            "recurrent_delays": uniform(0.1, 0.4, N_NEURONS, N_NEURONS),
            "delays": uniform(0.1, 0.4, N_INPUTS, 1),
            "past_time": jnp.sort(uniform(-0.2, 0.1, 4)),
            "input_time": jnp.sort(uniform(0.2, 1, 4)),
        }
        if bad is not None:
            broken = a[bad].at[cls.BAD].set(-a[bad][cls.BAD])
            if bad in ("recurrent", "input_time"):
                broken = a[bad].at[cls.BAD].set(jnp.nan)
            a[bad] = broken
        return a

    @staticmethod
    def value(a):
        result = call(
            head=jnp.zeros((), jnp.int32),
            input_index=jnp.asarray([0, 1, 0, 1], jnp.int32),
            past_index=jnp.asarray([0, 1, 2, 0], jnp.int32),
            raise_on=(),
            **a,
        )
        spikes = jnp.where(jnp.isinf(result.spikes.time), 0, result.spikes.time)
        return spikes.sum() + result.state.v.sum() + result.state.i.sum(), result

    @pytest.mark.parametrize("bad", NAMES)
    def test_all_arguments_batched(self, bad):
        differentiate = jax.vmap(jax.value_and_grad(self.value, has_aux=True))
        (value, result), found = differentiate(self.batch(bad))
        (expected_value, expected_result), expected = differentiate(self.batch(None))
        good = np.arange(self.N_BATCH) != self.BAD
        assert result.status[self.BAD] not in (Status.OK, Status.EVENT_CAPACITY)
        np.testing.assert_array_equal(expected_result.status, Status.OK)
        np.testing.assert_array_equal(result.status[good], Status.OK)
        np.testing.assert_array_equal(value[good], expected_value[good])
        assert np.isnan(value[self.BAD])
        for name in self.NAMES:
            np.testing.assert_array_equal(found[name][good], expected[name][good])
            assert np.isnan(found[name][self.BAD]).all()

    @pytest.mark.parametrize("bad", ["past_time", "input_time"])
    def test_shared_operands(self, bad):
        """A sum over the batch with a NaN in it is NaN; what belongs to one example is not."""
        a = self.batch(bad)
        shared = ("recurrent", "recurrent_delays", "delays")
        a |= {name: a[name][0] for name in shared}
        axes = {name: None if name in shared else 0 for name in a}
        found = jax.grad(lambda a: jax.vmap(self.value, in_axes=(axes,))(a)[0].sum())(a)
        good = np.arange(self.N_BATCH) != self.BAD
        for name in shared:
            assert np.isnan(found[name]).all()
        for name in ("past_time", "input_time"):
            assert np.isnan(found[name][self.BAD]).all()
            assert np.isfinite(found[name][good]).all()

    def test_shared_operands_spoil_all(self):
        a = self.batch(None)
        a["recurrent_delays"] = jnp.full((N_NEURONS, N_NEURONS), -1.0)
        axes = {name: None if name == "recurrent_delays" else 0 for name in a}
        result = jax.vmap(self.value, in_axes=(axes,))(a)[1]
        np.testing.assert_array_equal(result.status, Status.INVALID_VALUE)

    def test_the_error_names_the_sample(self):
        a = self.batch("recurrent")
        pattern = rf"event_loop, sample {self.BAD}: recurrent is nan"
        with pytest.raises(RUNTIME_ERROR, match=pattern):
            call(recurrent=a["recurrent"])

    def test_an_error_is_raised_after_good_calls_too(self):
        run = jax.jit(lambda recurrent: call(recurrent=recurrent).spikes.time)
        good = jnp.full((N_NEURONS, N_NEURONS), 0.25)
        for _ in range(3):
            run(good)
        with pytest.raises(RUNTIME_ERROR, match="recurrent is nan"):
            run(good * jnp.nan)
