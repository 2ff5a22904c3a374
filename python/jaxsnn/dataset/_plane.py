"""Two classes of points in the unit square."""

from __future__ import annotations

import numpy as np

from jaxsnn.dataset._types import Dataset, check_seed_and_size


def circle(seed: int, size: int) -> Dataset:
    """Uniform points of the unit square, inside or outside a centred circle of half its area.

    Args:
        seed: Seed of the random numbers, an integer in ``[0, 2**32)``.
        size: Number of samples, at least 1.

    Returns:
        Samples ``[size, 2]``, columns ``x, y`` in ``[0, 1)``, and labels ``[size]``: 1 where
        ``(x - 1/2)**2 + (y - 1/2)**2 <= 1 / (2 pi)``, else 0.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_seed_and_size("circle", seed, size)
    points = _uniform_points(seed, size)
    inside = np.sum((points - 0.5) ** 2, axis=1) <= 0.5 / np.pi
    return Dataset(points, inside.astype(np.int64))


def linear(seed: int, size: int) -> Dataset:
    """Uniform points of the unit square, above or below its diagonal.

    Args:
        seed: Seed of the random numbers, an integer in ``[0, 2**32)``.
        size: Number of samples, at least 1.

    Returns:
        Samples ``[size, 2]``, columns ``x, y`` in ``[0, 1)``, and labels ``[size]``: 1 where
        ``x < y``, else 0.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_seed_and_size("linear", seed, size)
    points = _uniform_points(seed, size)
    return Dataset(points, (points[:, 0] < points[:, 1]).astype(np.int64))


def _uniform_points(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).random((size, 2))
