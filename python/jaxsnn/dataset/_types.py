"""The result of every generator and the checks of the arguments that all of them take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MAX_SEED = 2**32 - 1  # the largest that every NumPy generator takes


class Dataset(NamedTuple):
    """Samples and what is to be learned from them.

    Attributes:
        samples: ``[size, n_features]`` float64, one sample per row.
        labels: ``[size]`` int64 class of each sample; `constant` alone has target times
            ``[size, n_targets]`` float64 here.
    """

    samples: np.ndarray
    labels: np.ndarray


def check_seed_and_size(function: str, seed: int, size: int) -> None:
    """Raises ValueError unless ``0 <= seed < 2**32`` and ``size >= 1``, both integers."""
    if not _is_integer(seed) or not 0 <= seed <= _MAX_SEED:
        raise ValueError(
            f"jaxsnn.dataset.{function}: seed is {seed!r}, expected an integer in [0, 2**32)"
        )
    if not _is_integer(size) or size < 1:
        raise ValueError(f"jaxsnn.dataset.{function}: size is {size!r}, expected an integer >= 1")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
