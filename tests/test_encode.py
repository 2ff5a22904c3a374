import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxsnn import dataset
from jaxsnn.event.encode import latency_encode, target_times

BATCHES = [(), (2, 3), (0,)]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def encode_by_hand(sample, *, t_early, t_late, mirror, bias_time, duplication, duplicate_channels):
    """Times and channels of one sample, in NumPy, straight from the definition."""
    values = [*sample, *(1 - x for x in sample)] if mirror else list(sample)
    times = [(1 - x) * t_early + x * t_late for x in values]
    if bias_time is not None:
        times.append(sample.dtype.type(bias_time))
    pairs = [
        (time, channel * duplication + copy if duplicate_channels else channel)
        for channel, time in enumerate(times)
        for copy in range(duplication)
    ]
    pairs.sort()
    return [time for time, _ in pairs], [channel for _, channel in pairs]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("duplication", "duplicate_channels"), [(1, True), (3, False), (3, True)])
@settings(deadline=None, max_examples=40)
@given(
    # Few distinct values, so that ties are common.
    samples=hnp.arrays(np.float64, (2, 3), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1, 0.1])),
    t_early=st.sampled_from([0.0, 0.25, 2.0]),
    bias_time=st.sampled_from([0.0, 2.5, 9.0]),
)
def test_equals_the_definition(
    *, samples, t_early, mirror, with_bias, bias_time, duplication, duplicate_channels
):
    options = {
        "t_early": t_early,
        "t_late": 3.0,
        "mirror": mirror,
        "bias_time": bias_time if with_bias else None,
        "duplication": duplication,
        "duplicate_channels": duplicate_channels,
    }
    with jax.enable_x64(True):
        spikes = latency_encode(samples, **options)
    n = (3 * (1 + mirror) + with_bias) * duplication
    assert spikes.time.shape == spikes.index.shape == (2, n)
    assert spikes.time.dtype == np.float64
    assert spikes.index.dtype == np.int32
    for row in range(2):
        time, index = encode_by_hand(samples[row], **options)
        np.testing.assert_array_equal(spikes.index[row], index)
        np.testing.assert_array_equal(spikes.time[row], time)


def test_example_by_numbers(dtype):
    spikes = latency_encode(np.array([0.75, 0.25, 1.0], dtype), t_late=4.0, bias_time=1.0)
    np.testing.assert_array_equal(spikes.time, [1, 1, 3, 4])
    np.testing.assert_array_equal(spikes.index, [1, 3, 0, 2])  # the tie goes to the lower channel
    assert spikes.time.dtype == dtype

    doubled = latency_encode(np.array([0.75, 0.25], dtype), t_late=4.0, duplication=2)
    np.testing.assert_array_equal(doubled.time, [1, 1, 3, 3])
    np.testing.assert_array_equal(doubled.index, [1, 1, 0, 0])
    spread = latency_encode(
        np.array([0.75, 0.25], dtype), t_late=4.0, duplication=2, duplicate_channels=True
    )
    np.testing.assert_array_equal(spread.time, doubled.time)
    np.testing.assert_array_equal(spread.index, [2, 3, 0, 1])


def test_interval_ends_are_exact(dtype):
    intervals = np.random.default_rng(0).random((20, 2)) + np.array([0, 1])
    for ends in intervals.astype(dtype):
        spikes = latency_encode(np.array([0.0, 1.0], dtype), t_early=ends[0], t_late=ends[1])
        np.testing.assert_array_equal(spikes.time, ends)


def test_zeros_of_either_sign_tie(dtype):
    spikes = latency_encode(np.array([0.0, -0.0], dtype), t_late=1.0, bias_time=-0.0)
    np.testing.assert_array_equal(spikes.index, [0, 1, 2])


@pytest.mark.parametrize("batch", BATCHES)
def test_jit_and_vmap_agree_with_the_batch(dtype, batch):
    def encode(samples):
        return latency_encode(
            samples,
            t_late=2.0,
            t_early=0.5,
            mirror=True,
            bias_time=1.0,
            duplication=2,
            duplicate_channels=True,
        )

    samples = np.random.default_rng(0).random((*batch, 3)).astype(dtype)
    expected = encode(samples)
    mapped = encode
    for _ in batch:
        mapped = jax.vmap(mapped)
    for result in (jax.jit(encode)(samples), mapped(samples)):
        assert result.time.shape == expected.time.shape == (*batch, 14)
        np.testing.assert_allclose(result.time, expected.time, rtol=2 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(result.index, expected.index)


def test_gradient_is_the_slope_of_every_copy(dtype):
    samples = jnp.array([[0.5, 0.25, 0.5], [1.0, 0.0, 0.125]], dtype)
    weights = jnp.array(np.random.default_rng(1).normal(size=(2, 14)), dtype)

    def total(samples, t_early, t_late, bias_time):
        spikes = latency_encode(
            samples,
            t_early=t_early,
            t_late=t_late,
            mirror=True,
            bias_time=bias_time,
            duplication=2,
        )
        return jnp.sum(weights * spikes.time), spikes.index

    operands = (samples, dtype.type(1.0), dtype.type(4.0), dtype.type(2.0))
    gradients, index = jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*operands)

    by_channel = np.zeros((2, 7))
    for row, channels in enumerate(np.asarray(index)):
        np.add.at(by_channel[row], channels, np.asarray(weights[row], np.float64))
    plain, mirrored, bias = by_channel[:, :3], by_channel[:, 3:6], by_channel[:, 6]
    x = np.asarray(samples, np.float64)
    expected = (
        3.0 * (plain - mirrored),
        np.sum(plain * (1 - x) + mirrored * x),
        np.sum(plain * x + mirrored * (1 - x)),
        np.sum(bias),
    )
    for gradient, value in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, value, rtol=0, atol=32 * np.finfo(dtype).eps)


def test_dtype():
    with jax.enable_x64(True):
        samples = np.array([0.3, 0.6], np.float32)
        # Strongly typed scalars do not decide the type.
        wide = {"t_late": np.float64(1), "t_early": np.float64(0.1), "bias_time": np.float64(0.5)}
        assert latency_encode(samples, **wide).time.dtype == np.float32
        assert latency_encode(samples, **wide, dtype=jnp.float16).time.dtype == np.float16
        assert latency_encode(samples, **wide, dtype=float).time.dtype == np.float64


def test_yinyang_input_of_the_published_recipe(dtype):
    samples = dataset.yinyang(42, 20).samples
    spikes = latency_encode(samples.astype(dtype), t_late=30e-3, bias_time=0.0)
    assert spikes.time.shape == (20, 5)
    np.testing.assert_array_equal(np.asarray(spikes.index)[:, 0], 4)
    np.testing.assert_array_equal(np.asarray(spikes.time)[:, 0], 0)
    assert np.all(np.diff(np.asarray(spikes.time)) >= 0)
    assert np.asarray(spikes.time).max() <= 30e-3


@pytest.mark.parametrize("value", [np.nan, -1e-9, 1.5, np.inf])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_rejects_known_samples(value, convert):
    samples = convert(np.array([[0.5, 0.5], [value, 0.5]], np.float32))
    with pytest.raises(ValueError, match=r"latency_encode: samples contain .*expected .*\[0, 1\]"):
        latency_encode(samples, t_late=1.0)


def test_traced_samples_are_not_checked():
    samples = np.array([np.nan, 0.5, 2.0], np.float32)
    spikes = jax.jit(lambda samples: latency_encode(samples, t_late=1.0))(samples)
    np.testing.assert_array_equal(spikes.time, np.array([0.5, 2.0, np.nan], np.float32))
    np.testing.assert_array_equal(spikes.index, [1, 2, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.float32(0.5)}, r"samples have shape \(\)"),
        ({"samples": np.array([0, 1])}, "samples are int32, expected floating"),
        ({"t_late": 0.0}, r"t_late is 0\.0, expected more than t_early = 0\.0"),
        ({"t_late": np.inf}, "t_late is inf, expected a finite scalar"),
        ({"t_late": np.ones(2)}, "t_late is array"),
        ({"t_early": np.nan}, "t_early is nan"),
        ({"bias_time": np.inf}, "bias_time is inf"),
        ({"duplication": 0}, "duplication is 0, expected an integer >= 1"),
        ({"duplication": 1.5}, r"duplication is 1\.5"),
        ({"dtype": np.int32}, "dtype is .*int32.*, expected a floating"),
    ],
)
def test_rejects(change, message):
    arguments = {"samples": np.array([0.5], np.float32), "t_late": 1.0} | change
    with pytest.raises(ValueError, match=f"latency_encode: {message}"):
        latency_encode(**arguments)


@pytest.mark.parametrize("batch", BATCHES)
def test_target_times(dtype, batch):
    labels = np.random.default_rng(2).integers(0, 4, batch)
    expected = np.full((*batch, 4), 1.2, dtype)
    for position in np.ndindex(batch):
        expected[(*position, labels[position])] = 0.8

    def encode(labels):
        return target_times(labels, 4, t_correct=0.8, t_wrong=1.2)

    mapped = encode
    for _ in batch:
        mapped = jax.vmap(mapped)
    for result in (encode(labels), jax.jit(encode)(labels), mapped(labels)):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_target_times_of_a_given_type_and_their_gradient(dtype):
    labels = np.array([0, 2, 2], np.uint8)
    half = target_times(labels, 3, t_correct=1.0, t_wrong=2.0, dtype=jnp.float16)
    assert half.dtype == np.float16

    def total(t_correct, t_wrong):
        return jnp.sum(target_times(labels, 3, t_correct=t_correct, t_wrong=t_wrong, dtype=dtype))

    assert jax.grad(total, argnums=(0, 1))(dtype.type(1), dtype.type(2)) == (3.0, 6.0)


def test_target_times_mark_traced_labels_out_of_range():
    encode = jax.jit(lambda labels: target_times(labels, 2, t_correct=0.5, t_wrong=1.0))
    np.testing.assert_array_equal(
        encode(np.array([-1, 1, 2])), [[np.nan, np.nan], [1.0, 0.5], [np.nan, np.nan]]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 3])}, r"labels contain 3, expected \[0, 3\)"),
        ({"labels": np.array([-1])}, r"labels contain -1"),
        ({"labels": np.array([0.0], np.float32)}, "labels are float32, expected integers"),
        ({"n_classes": 0}, "n_classes is 0, expected an integer >= 1"),
        ({"n_classes": 3.0}, r"n_classes is 3\.0"),
        ({"t_correct": np.inf}, "t_correct is inf"),
        ({"t_wrong": np.nan}, "t_wrong is nan"),
        ({"dtype": int}, "dtype is .*int.*, expected a floating"),
    ],
)
def test_target_times_reject(change, message):
    arguments = {"labels": np.array([0]), "n_classes": 3, "t_correct": 0.5, "t_wrong": 1.0}
    with pytest.raises(ValueError, match=f"target_times: {message}"):
        target_times(**(arguments | change))
