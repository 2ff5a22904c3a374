from pathlib import Path

import numpy as np
import pytest

from jaxsnn import dataset

GOLDEN = Path(__file__).parent / "golden" / "yinyang"
GENERATORS = [dataset.yinyang, dataset.circle, dataset.linear, dataset.constant]
RANDOM = GENERATORS[:3]


@pytest.mark.parametrize(
    ("name", "seed", "size"), [("train", 42, 5000), ("validation", 41, 1000), ("test", 40, 1000)]
)
def test_yinyang_equals_the_published_data_bit_for_bit(name, seed, size):
    result = dataset.yinyang(seed, size)
    for field in ("samples", "labels"):
        published = np.load(GOLDEN / f"{name}_{field}.npy")
        produced = getattr(result, field)
        assert produced.dtype == published.dtype
        assert produced.shape == published.shape
        assert produced.tobytes() == published.tobytes()


@pytest.mark.parametrize(("r_small", "r_big"), [(0.1, 0.5), (0.05, 0.3), (0.2, 0.45)])
def test_yinyang_labels_follow_from_the_geometry(r_small, r_big):
    samples, labels = dataset.yinyang(3, 600, r_small=r_small, r_big=r_big)
    np.testing.assert_array_equal(samples[:, 2:], 1 - samples[:, :2])

    centred = samples[:, :2] - r_big
    assert np.all(np.linalg.norm(centred, axis=1) <= r_big)
    left = np.linalg.norm(centred - [-r_big / 2, 0], axis=1)
    right = np.linalg.norm(centred - [r_big / 2, 0], axis=1)
    dot = np.minimum(left, right) < r_small
    yang = np.where(left < r_big / 2, True, np.where(right < r_big / 2, False, centred[:, 1] > 0))
    np.testing.assert_array_equal(labels, np.where(dot, 2, yang))


def test_yinyang_classes_are_balanced():
    labels = dataset.yinyang(7, 3000).labels
    # Binomial(3000, 1/3) has a standard deviation of 26.
    assert np.all(np.abs(np.bincount(labels, minlength=3) - 1000) < 4 * 26)


def test_yinyang_of_a_smaller_size_is_a_prefix():
    small, large = dataset.yinyang(42, 17), dataset.yinyang(42, 60)
    np.testing.assert_array_equal(small.samples, large.samples[:17])
    np.testing.assert_array_equal(small.labels, large.labels[:17])


@pytest.mark.parametrize("radii", [{"r_big": 0.51}, {"r_big": 0.0}, {"r_big": float("nan")}])
def test_yinyang_rejects_big_radius(radii):
    with pytest.raises(ValueError, match=r"yinyang: r_big is (0\.51|0\.0|nan), expected 0 < r_big"):
        dataset.yinyang(0, 5, **radii)


@pytest.mark.parametrize("r_small", [0.0, -0.1, 0.25, float("nan")])
def test_yinyang_rejects_small_radius(r_small):
    with pytest.raises(ValueError, match=r"yinyang: r_small is .*, expected .* r_big / 2 = 0\.25"):
        dataset.yinyang(0, 5, r_small=r_small)


def test_circle_labels_and_area():
    samples, labels = dataset.circle(5, 4000)
    for (x, y), label in zip(samples, labels, strict=True):
        assert label == (np.hypot(x - 0.5, y - 0.5) <= np.sqrt(0.5 / np.pi))
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_linear_labels():
    samples, labels = dataset.linear(5, 4000)
    np.testing.assert_array_equal(labels == 1, samples[:, 1] - samples[:, 0] > 0)
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("generator", [dataset.circle, dataset.linear])
def test_plane_points_fill_the_unit_square_evenly(generator):
    samples, labels = generator(11, 10_000)
    assert samples.shape == (10_000, 2)
    assert labels.shape == (10_000,)
    counts, _, _ = np.histogram2d(*samples.T, bins=4, range=[[0, 1], [0, 1]])
    assert counts.sum() == 10_000
    assert np.all(np.abs(counts - 625) < 4.5 * np.sqrt(625))


def test_constant_rows():
    samples, targets = dataset.constant(0, 3, t_max=2.0)
    np.testing.assert_array_equal(samples, [[0.2, 0.4, 2.0]] * 3)
    np.testing.assert_array_equal(targets, [[0.4, 0.6]] * 3)
    custom = dataset.constant(9, 2, inputs=[0.5], targets=[0.25, 0.75, 1.0])
    np.testing.assert_array_equal(custom.samples, [[0.5]] * 2)
    np.testing.assert_array_equal(custom.labels, [[0.25, 0.75, 1.0]] * 2)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("inputs", []),
        ("inputs", [0.1, 1.1]),
        ("inputs", [[0.1]]),
        ("targets", [-0.1]),
        ("targets", [float("nan")]),
        ("t_max", 0.0),
        ("t_max", float("inf")),
    ],
)
def test_constant_rejects(argument, value):
    with pytest.raises(ValueError, match=f"constant: {argument} is .*, expected"):
        dataset.constant(0, 2, **{argument: value})


@pytest.mark.parametrize("generator", GENERATORS)
def test_field_types(generator):
    result = generator(1, 12)
    assert isinstance(result, dataset.Dataset)
    assert result.samples.dtype == np.float64
    assert result.labels.dtype == (np.float64 if generator is dataset.constant else np.int64)
    assert len(result.samples) == len(result.labels) == 12


@pytest.mark.parametrize("generator", RANDOM)
def test_seed_alone_decides(generator):
    np.random.seed(0)
    first = generator(13, 30)
    state = np.random.get_state()[1].copy()
    np.random.rand(5)
    second, other = generator(np.uint32(13), 30), generator(14, 30)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(first.samples, other.samples)
    np.random.seed(0)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, None])
def test_rejects_seed(generator, seed):
    with pytest.raises(ValueError, match=rf"{generator.__name__}: seed is {seed}, expected an int"):
        generator(seed, 4)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("size", [0, -3, 2.0, True])
def test_rejects_size(generator, size):
    with pytest.raises(ValueError, match=rf"{generator.__name__}: size is {size}, expected an int"):
        generator(0, size)
