import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.base.types import Spikes
from jaxsnn.event.encode import target_times
from jaxsnn.event.loss import (
    first_spike_times,
    mse_loss,
    predict,
    target_time_loss,
    ttfs_cross_entropy,
)

T_MAX = 4.0
TTFS = {"tau0": 0.7, "alpha": 0.03, "tau1": 1.3, "t_max": T_MAX}
TARGET = {"tau": 1.3, "t_max": T_MAX}
BATCHES = [(), (2, 3), (0,)]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


# Independent formulas for one sample: value and gradient with respect to the times.


def ttfs_by_hand(times, label, *, tau0, alpha, tau1, t_max):
    t = np.minimum(times, t_max)
    weight = np.exp(-(t - t.min()) / tau0)
    probability = weight / weight.sum()
    value = -math.log(probability[label]) + alpha * (math.exp(t[label] / tau1) - 1)
    own = np.arange(len(t)) == label
    gradient = (own - probability) / tau0 + own * alpha / tau1 * np.exp(t[label] / tau1)
    return value, np.where(times < t_max, gradient, 0.0)


def mse_by_hand(times, targets, tau, t_max):
    distance = np.minimum(times, t_max) - targets
    gradient = 2 * distance / tau**2 / len(times)
    return sum(d * d for d in distance) / len(times) / tau**2, np.where(
        times < t_max, gradient, 0.0
    )


def target_time_by_hand(times, targets, tau, t_max):
    distance = np.minimum(times, t_max) - targets
    value = -sum(math.log(1 + math.exp(-abs(d) / tau)) for d in distance)
    gradient = np.sign(distance) / tau / (1 + np.exp(np.abs(distance) / tau))
    return value, np.where(times < t_max, gradient, 0.0)


# Every loss as a function of times and labels, and the same by hand. The two losses of target times
# take the row of the label, so that all can be tested alike.
TARGETS = np.array([[0.8, 1.2, 2.5], [1.2, 0.7, 2.9], [3.1, 0.4, 0.9]])  # [label, neuron]
CASES = {
    "ttfs": (partial(ttfs_cross_entropy, **TTFS), partial(ttfs_by_hand, **TTFS)),
    "mse": (
        lambda times, label: mse_loss(times, jnp.asarray(TARGETS)[label], **TARGET),
        lambda times, label: mse_by_hand(times, TARGETS[label], **TARGET),
    ),
    "target_time": (
        lambda times, label: target_time_loss(times, jnp.asarray(TARGETS)[label], **TARGET),
        lambda times, label: target_time_by_hand(times, TARGETS[label], **TARGET),
    ),
}
LOSSES = pytest.mark.parametrize(("loss", "by_hand"), CASES.values(), ids=CASES.keys())


def random_times(rng, shape, missing=0.0):
    times = rng.uniform(0, T_MAX, shape)
    return np.where(rng.random(shape) < missing, np.inf, times)


@LOSSES
@pytest.mark.parametrize("batch", BATCHES)
def test_value_and_gradient_equal_the_formula(dtype, loss, by_hand, batch):
    rng = np.random.default_rng(3)
    times = random_times(rng, (*batch, 3), missing=0.4).astype(dtype)
    labels = rng.integers(0, 3, batch)
    value, pullback = jax.vjp(lambda times: loss(times, labels), times)
    assert value.shape == batch
    assert value.dtype == dtype
    (gradient,) = pullback(jnp.ones_like(value))
    assert gradient.dtype == dtype

    tolerance = {"rtol": 16 * np.finfo(dtype).eps, "atol": 16 * np.finfo(dtype).eps}
    for sample in np.ndindex(batch):
        expected, slope = by_hand(times[sample].astype(np.float64), int(labels[sample]))
        np.testing.assert_allclose(value[sample], expected, **tolerance)
        np.testing.assert_allclose(gradient[sample], slope, **tolerance)
    np.testing.assert_array_equal(np.asarray(gradient)[np.isinf(times)], 0)


@LOSSES
@pytest.mark.parametrize("label", range(3))
def test_gradient_equals_central_differences(loss, by_hand, label):
    del by_hand
    rng = np.random.default_rng(4 + label)
    with jax.enable_x64(True):
        for missing in (0.0, 0.4):
            times = random_times(rng, 3, missing)
            gradient = np.asarray(jax.grad(loss)(jnp.asarray(times), label))
            for k in np.flatnonzero(np.isfinite(times)):
                step = np.zeros(3)
                step[k] = 1e-3
                f = [float(loss(jnp.asarray(times + n * step), label)) for n in (-2, -1, 1, 2)]
                # Fourth order: truncation and rounding are both about 1e-12.
                difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step[k])
                np.testing.assert_allclose(gradient[k], difference, rtol=1e-10, atol=1e-11)


times_of_samples = st.lists(
    st.one_of(
        st.just(math.inf),
        st.floats(0, 1e3, width=32),
        st.sampled_from([0.0, 0.8, 1.2, T_MAX, np.nextafter(np.float32(T_MAX), np.float32(0))]),
    ),
    min_size=3,
    max_size=3,
)


@LOSSES
@pytest.mark.parametrize("precision", ["float32", "float64"])
@settings(deadline=None, max_examples=60)
@given(times=times_of_samples, label=st.integers(0, 2))
def test_any_missing_or_late_spikes_give_finite_values(loss, by_hand, precision, times, label):
    del by_hand
    with jax.enable_x64(precision == "float64"):
        times = jnp.asarray(np.array(times, precision))
        value, gradient = jax.value_and_grad(loss)(times, label)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))
        late = np.asarray(times >= T_MAX)
        np.testing.assert_array_equal(np.asarray(gradient)[late], 0)
        unchanged = loss(times, label)  # which `value` need not equal to the last bit
        for stand_in in (np.inf, T_MAX, 2 * T_MAX):
            assert loss(jnp.where(late, stand_in, times), label) == unchanged


@LOSSES
def test_a_spike_leaves_the_window_continuously(loss, by_hand):
    del by_hand
    with jax.enable_x64(True):
        for k in range(3):
            missing = jnp.array([0.3, 1.7, 2.2]).at[k].set(jnp.inf)
            last = missing.at[k].set(np.nextafter(T_MAX, 0.0))
            np.testing.assert_allclose(loss(missing, 1), loss(last, 1), rtol=0, atol=1e-14)
            assert jax.grad(loss)(last, 1)[k] != 0


@LOSSES
def test_jit_and_vmap_agree_with_the_batch(dtype, loss, by_hand):
    del by_hand
    rng = np.random.default_rng(5)
    times = jnp.asarray(random_times(rng, (2, 3, 3), 0.3), dtype)
    labels = jnp.asarray(rng.integers(0, 3, (2, 3)))

    def value_and_gradient(loss):
        def total(times):
            value = loss(times, labels)
            return jnp.sum(value), value

        (_, value), gradient = jax.value_and_grad(total, has_aux=True)(times)
        return value, gradient

    eps = np.finfo(dtype).eps
    expected = value_and_gradient(loss)
    for other in (jax.jit(loss), jax.vmap(jax.vmap(loss))):
        for result, batched in zip(value_and_gradient(other), expected, strict=True):
            np.testing.assert_allclose(result, batched, rtol=8 * eps, atol=8 * eps)


@LOSSES
def test_nan_is_not_hidden(dtype, loss, by_hand):
    del by_hand
    times = jnp.array([[1.0, jnp.nan, 2.0], [1.0, 1.5, 2.0]], dtype)
    value = loss(times, jnp.array([1, 1]))
    np.testing.assert_array_equal(np.isnan(value), [True, False])


@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
def test_constants_are_differentiable_whatever_is_missing(missing):
    rng = np.random.default_rng(6)
    times = random_times(rng, (5, 3), missing)
    labels = rng.integers(0, 3, 5)
    with jax.enable_x64(True):

        def total(tau0, alpha, tau1, t_max, tau):
            ttfs = ttfs_cross_entropy(times, labels, tau0=tau0, alpha=alpha, tau1=tau1, t_max=t_max)
            mse = mse_loss(times, TARGETS[labels], tau=tau, t_max=t_max)
            target = target_time_loss(times, TARGETS[labels], tau=tau, t_max=t_max)
            return jnp.sum(ttfs + mse + target)

        constants = np.array([0.7, 0.03, 1.3, T_MAX, 1.1])
        gradient = jax.grad(total, argnums=(0, 1, 2, 3, 4))(*constants)
        for k in range(5):
            step = np.zeros(5)
            step[k] = 1e-3 * constants[k]
            f = [float(total(*(constants + n * step))) for n in (-2, -1, 1, 2)]
            difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step[k])
            np.testing.assert_allclose(gradient[k], difference, rtol=1e-9, atol=1e-10)


def test_ttfs_at_the_published_constants(dtype):
    # Yin-Yang of Wunderlich & Pehle in seconds; 60 ms is 120 tau0, whose exponential underflows in
    # float32 unless the softmax is shifted.
    constants = {"tau0": 0.5e-3, "tau1": 6.4e-3, "alpha": 0.003, "t_max": 60e-3}
    times = np.array([[10e-3, 10.5e-3, np.inf], [np.inf, 1e-3, 59e-3], [np.inf] * 3], dtype)
    labels = np.array([0, 2, 1])
    value, gradient = jax.value_and_grad(
        lambda times: jnp.sum(ttfs_cross_entropy(times, labels, **constants))
    )(times)
    by_hand = [
        ttfs_by_hand(row.astype(np.float64), label, **constants)
        for row, label in zip(times, labels, strict=True)
    ]
    # exp(60 / 6.4) amplifies the rounding of the times tenfold.
    rtol = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, sum(v for v, _ in by_hand), rtol=rtol)
    np.testing.assert_allclose(gradient, [g for _, g in by_hand], rtol=rtol, atol=1e-12)


def test_ttfs_without_spikes_is_chance():
    with jax.enable_x64(True):
        value = ttfs_cross_entropy(np.full(3, np.inf), 0, tau0=0.1, t_max=1.0)
        np.testing.assert_allclose(value, math.log(3), rtol=1e-15)


def test_ttfs_without_lateness_ignores_tau1():
    # exp(t_max / tau1) would be infinite here.
    times = np.array([100.0, np.inf], np.float32)
    value, gradient = jax.value_and_grad(ttfs_cross_entropy)(times, 1, tau0=50.0, t_max=200.0)
    np.testing.assert_allclose(value, math.log1p(math.exp(2.0)), rtol=1e-6)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(("precision", "limit"), [("float32", 88.7), ("float64", 709.7)])
def test_ttfs_lateness_at_the_limit_of_the_type(precision, limit):
    with jax.enable_x64(precision == "float64"):
        late = partial(ttfs_cross_entropy, tau0=1.0, alpha=1.0, tau1=1.0)
        times = jnp.full(2, jnp.inf, precision)
        assert np.isfinite(late(times, 0, t_max=limit))
        before = jnp.full(2, np.nextafter(np.array(limit, precision), 0), precision)
        assert np.all(np.isfinite(jax.grad(late)(before, 0, t_max=limit)))
        with pytest.raises(ValueError, match=rf"t_max / tau1 is .* overflows exp in {precision}"):
            late(times, 0, t_max=limit + 0.1)


def test_ttfs_marks_traced_labels_out_of_range():
    times = np.array([[1.0, 2.0]] * 3, np.float32)
    value = jax.jit(partial(ttfs_cross_entropy, **TTFS))(times, np.array([-1, 0, 2]))
    np.testing.assert_array_equal(np.isnan(value), [True, False, True])


def test_target_losses_at_their_best(dtype):
    times = jnp.asarray(TARGETS, dtype)
    np.testing.assert_array_equal(mse_loss(times, TARGETS, **TARGET), np.zeros(3))
    eps = np.finfo(dtype).eps
    best = target_time_loss(times, TARGETS, **TARGET)
    np.testing.assert_allclose(best, [-3 * math.log(2)] * 3, rtol=2 * eps)
    for loss in (mse_loss, target_time_loss):
        gradient = jax.grad(lambda t, loss=loss: jnp.sum(loss(t, TARGETS, **TARGET)))(times)
        np.testing.assert_array_equal(gradient, np.zeros((3, 3)))


def test_targets_broadcast_over_the_batch(dtype):
    times = jnp.asarray(random_times(np.random.default_rng(7), (4, 2, 3), 0.2), dtype)
    for loss in (mse_loss, target_time_loss):
        whole = loss(times, np.broadcast_to(TARGETS[0], times.shape), **TARGET)
        assert whole.shape == (4, 2)
        np.testing.assert_array_equal(loss(times, TARGETS[0], **TARGET), whole)


def test_constants_do_not_decide_the_type():
    wide = np.float64(1.5)
    with jax.enable_x64(True):
        times = jnp.asarray([0.5, 1.0, 2.0], jnp.float32)
        targets = target_times(0, 3, t_correct=0.5, t_wrong=1.5)
        assert targets.dtype == np.float64
        for loss in (
            partial(ttfs_cross_entropy, labels=0, tau0=wide, alpha=wide, tau1=wide, t_max=wide),
            partial(mse_loss, targets=targets, tau=wide, t_max=wide),
            partial(target_time_loss, targets=targets, tau=wide, t_max=wide),
        ):
            assert loss(times).dtype == np.float32


# first_spike_times


@st.composite
def spike_trains(draw):
    n_padding = draw(st.integers(0, 12))
    n_spikes = 12 - n_padding
    # Few distinct times, so that ties are common; 5 stands for neurons that are not asked for.
    time = draw(st.lists(st.sampled_from([0, 0.5, 1, 2.5]), min_size=n_spikes, max_size=n_spikes))
    index = draw(st.lists(st.integers(0, 5), min_size=n_spikes, max_size=n_spikes))
    return Spikes(
        np.array([*sorted(time), *[np.inf] * n_padding], np.float64),
        np.array([*index, *[-1] * n_padding], np.int32),
    )


@settings(deadline=None, max_examples=200)
@given(train=spike_trains())
def test_first_spikes_and_their_gradient_equal_a_search(train):
    expected = np.full(5, np.inf)
    slope = np.zeros(12)
    cotangent = np.arange(1.0, 6.0)
    for neuron in range(5):
        positions = [position for position, index in enumerate(train.index) if index == neuron]
        if positions:
            expected[neuron] = train.time[positions[0]]
            slope[positions[0]] = cotangent[neuron]
    with jax.enable_x64(True):
        first, pullback = jax.vjp(
            lambda time: first_spike_times(Spikes(time, jnp.asarray(train.index)), 5), train.time
        )
        (gradient,) = pullback(jnp.asarray(cotangent))
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(gradient, slope)


def random_spikes(rng, batch, n_spikes, n_neurons, dtype):
    time = np.sort(rng.uniform(0, T_MAX, (*batch, n_spikes)), axis=-1).astype(dtype)
    index = rng.integers(0, n_neurons, (*batch, n_spikes)).astype(np.int32)
    padding = np.arange(n_spikes) >= rng.integers(0, n_spikes + 1, (*batch, 1))
    return Spikes(
        jnp.asarray(np.where(padding, np.inf, time).astype(dtype)),
        jnp.asarray(np.where(padding, -1, index)),
    )


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n_spikes", [0, 20])
def test_first_spikes_of_any_batch(dtype, batch, n_spikes):
    spikes = random_spikes(np.random.default_rng(8), batch, n_spikes, 6, dtype)
    time, index = (np.asarray(field) for field in spikes)
    masked = np.where(index[..., None, :] == np.arange(6)[:, None], time[..., None, :], np.inf)
    expected = np.min(masked, axis=-1, initial=np.inf)

    mapped = partial(first_spike_times, n_neurons=6)
    for _ in batch:
        mapped = jax.vmap(mapped)
    for result in (
        first_spike_times(spikes, 6),
        jax.jit(first_spike_times, static_argnums=1)(spikes, 6),
        mapped(spikes),
    ):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_nan_times_mark_the_whole_sample(dtype):
    time = jnp.array([[0.5, jnp.nan, jnp.inf], [0.5, 1.0, jnp.inf]], dtype)
    for index in (jnp.array([[0, -1, -1], [0, 1, -1]]), jnp.array([[0, 1, -1], [0, 1, -1]])):
        first = first_spike_times(Spikes(time, index.astype(jnp.int32)), 3)
        np.testing.assert_array_equal(first, [[np.nan] * 3, [0.5, 1.0, np.inf]])


def largest_intermediate(jaxpr):
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                sizes.append(largest_intermediate(inner))
    return max(sizes, default=0)


def test_first_spikes_of_many_spikes_and_neurons_take_little_memory():
    n_spikes, n_neurons = 50_000, 2_000
    spikes = random_spikes(np.random.default_rng(9), (2,), n_spikes, n_neurons, np.float32)

    def total(time):
        return jnp.sum(jnp.minimum(first_spike_times(Spikes(time, spikes.index), n_neurons), 9.0))

    # A comparison of every spike with every neuron would hold 2e8 values. A scatter or gather
    # carries two coordinates per element.
    assert largest_intermediate(jax.make_jaxpr(jax.grad(total))(spikes.time).jaxpr) <= 4 * n_spikes
    assert np.all(np.isfinite(jax.grad(total)(spikes.time)))


@LOSSES
def test_from_spikes_to_a_finite_gradient(dtype, loss, by_hand):
    del by_hand
    spikes = random_spikes(np.random.default_rng(10), (50,), 4, 3, dtype)
    labels = np.arange(50) % 3

    def total(time):
        return jnp.sum(loss(first_spike_times(Spikes(time, spikes.index), 3), labels))

    value, gradient = jax.jit(jax.value_and_grad(total))(spikes.time)
    assert np.any(np.isinf(first_spike_times(spikes, 3)))
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(np.asarray(gradient)[np.asarray(spikes.index) == -1], 0)
    assert np.any(np.asarray(gradient) != 0)


# predict


def test_predict(dtype):
    inf, nan = np.inf, np.nan
    times = np.array(
        [[2, 1, 3], [1, 1, 2], [inf, inf, 5], [inf] * 3, [nan, 1, 2], [1, nan, 2]], dtype
    )
    expected = [1, 0, 2, -1, -1, -1]
    for result in (predict(times), jax.jit(predict)(times), jax.vmap(predict)(times)):
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, expected)
    assert predict(times[0]) == 1


# Errors

OK_TIMES = np.array([[0.5, 1.0, 2.0]] * 2, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.float32(1.0)}, r"times have shape \(\)"),
        ({"times": np.ones((2, 0), np.float32)}, r"times have shape \(2, 0\)"),
        ({"times": np.ones((2, 3), np.int32)}, "times are int32, expected floating"),
        ({"labels": np.array([0, 3])}, r"labels contain 3, expected \[0, 3\)"),
        ({"labels": np.array([-1, 0])}, "labels contain -1"),
        ({"labels": np.array([0, 1, 2])}, r"labels have shape \(3,\), expected \(2,\)"),
        ({"labels": np.array([0.0, 1.0], np.float32)}, "labels are float32, expected integers"),
        ({"tau0": 0.0}, r"tau0 is 0\.0, expected a finite positive"),
        ({"tau1": -1.0}, r"tau1 is -1\.0"),
        ({"t_max": np.inf}, "t_max is inf"),
        ({"t_max": np.ones(3)}, "t_max is array"),
        ({"alpha": -0.1}, r"alpha is -0\.1, expected a finite number >= 0"),
        ({"alpha": np.nan}, "alpha is nan"),
    ],
)
def test_ttfs_rejects(change, message):
    arguments = {"times": OK_TIMES, "labels": np.array([0, 1])} | TTFS | change
    with pytest.raises(ValueError, match=f"loss.ttfs_cross_entropy: {message}"):
        ttfs_cross_entropy(**arguments)


@pytest.mark.parametrize("loss", [mse_loss, target_time_loss])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.ones((2, 3), np.int32)}, "times are int32"),
        ({"targets": np.float32(1.0)}, r"targets have shape \(\), expected \(2, 3\)"),
        ({"targets": np.ones(1, np.float32)}, r"targets have shape \(1,\), expected \(2, 3\)"),
        ({"targets": np.ones((3, 3), np.float32)}, r"targets have shape \(3, 3\)"),
        ({"targets": np.ones((4, 2, 3), np.float32)}, r"targets have shape \(4, 2, 3\)"),
        ({"targets": np.array([1, np.inf, 2], np.float32)}, "targets contain inf or NaN"),
        ({"tau": 0.0}, r"tau is 0\.0"),
        ({"t_max": np.nan}, "t_max is nan"),
    ],
)
def test_target_losses_reject(loss, change, message):
    arguments = {"times": OK_TIMES, "targets": TARGETS[0].astype(np.float32)} | TARGET | change
    with pytest.raises(ValueError, match=f"loss.{loss.__name__}: {message}"):
        loss(**arguments)


@pytest.mark.parametrize("n_neurons", [0, -1, 2.0])
def test_first_spike_times_reject_a_number_of_neurons(n_neurons):
    spikes = Spikes(jnp.zeros(2), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match="first_spike_times: n_neurons is"):
        first_spike_times(spikes, n_neurons)


def test_first_spike_times_reject_differing_fields():
    spikes = Spikes(jnp.zeros((2, 3)), jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match=r"time \(2, 3\) and index \(3,\)"):
        first_spike_times(spikes, 2)


def test_predict_rejects_integers():
    with pytest.raises(ValueError, match="predict: times are int32"):
        predict(np.ones((2, 3), np.int32))
