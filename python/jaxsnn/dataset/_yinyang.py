"""The Yin-Yang data set."""

from __future__ import annotations

import math

import numpy as np

from jaxsnn.dataset._types import Dataset, check_seed_and_size

_YIN, _YANG, _DOT = range(3)


def yinyang(seed: int, size: int, *, r_small: float = 0.1, r_big: float = 0.5) -> Dataset:
    """Points of a Yin-Yang symbol, to be told apart into yin, yang and dots.

    The three classes are about equally frequent: each sample first draws its class, then points
    of the enclosing square until one is of that class. The result equals, bit for bit, that of
    the generator published with the paper; its data are ``(seed, size)`` = (42, 5000) for
    training, (41, 1000) for validation and (40, 1000) for testing, with the default radii.

    Args:
        seed: Seed of the random numbers, an integer in ``[0, 2**32)``.
        size: Number of samples, at least 1.
        r_small: Radius of the two dots, ``0 < r_small < r_big / 2``. A dot sample takes about
            ``(r_big / r_small)**2`` draws to find.
        r_big: Radius of the symbol, ``0 < r_big <= 0.5``. Its centre is ``(r_big, r_big)``.

    Returns:
        Samples ``[size, 4]``, columns ``x, y, 1 - x, 1 - y``, all in ``[0, 1]``, and labels
        ``[size]``: 0 yin, 1 yang, 2 dot.

    Raises:
        ValueError: An argument is out of its range.

    Source:
        L. Kriener, J. Göltz, M. A. Petrovici, "The Yin-Yang dataset", NICE 2022,
        doi:10.1145/3517343.3517380.
    """
    check_seed_and_size("yinyang", seed, size)
    if not 0 < r_big <= 0.5:
        raise ValueError(f"jaxsnn.dataset.yinyang: r_big is {r_big!r}, expected 0 < r_big <= 0.5")
    if not 0 < r_small < r_big / 2:
        raise ValueError(
            f"jaxsnn.dataset.yinyang: r_small is {r_small!r}, "
            f"expected 0 < r_small < r_big / 2 = {r_big / 2!r}"
        )

    rng = np.random.RandomState(seed)  # the legacy stream is part of the published definition
    points = np.empty((size, 2))
    labels = np.empty(size, np.int64)
    for row in range(size):
        labels[row] = rng.randint(3)
        while True:
            x, y = (rng.rand(2) * 2.0 * r_big).tolist()
            if _class_of(x, y, r_small, r_big) == labels[row]:
                break
        points[row] = x, y
    return Dataset(np.hstack((points, 1.0 - points)), labels)


def _class_of(x: float, y: float, r_small: float, r_big: float) -> int | None:
    """Class of a point, None outside the symbol."""
    if _distance(x, y, r_big, r_big) > r_big:
        return None
    left = _distance(x, y, 0.5 * r_big, r_big)
    right = _distance(x, y, 1.5 * r_big, r_big)
    if left < r_small or right < r_small:
        return _DOT
    # Yang is the upper half disc, plus the lobe around the left dot, less that around the right.
    if left <= 0.5 * r_big or (y > r_big and right > 0.5 * r_big):
        return _YANG
    return _YIN


def _distance(x: float, y: float, center_x: float, center_y: float) -> float:
    # Not math.hypot, whose last bit may differ from the published square root.
    return math.sqrt((x - center_x) ** 2 + (y - center_y) ** 2)
