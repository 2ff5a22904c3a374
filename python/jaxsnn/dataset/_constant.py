"""One sample with its target times, over and over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsnn.dataset._types import Dataset, check_seed_and_size


def constant(
    seed: int,
    size: int,
    *,
    inputs: Sequence[float] = (0.1, 0.2, 1.0),
    targets: Sequence[float] = (0.2, 0.3),
    t_max: float = 1.0,
) -> Dataset:
    """The same input times and target times in every row: the smallest regression on spike times.

    Args:
        seed: Unused, as nothing is random; taken, and checked, so that all generators are
            called alike.
        size: Number of samples, at least 1.
        inputs: Input time of each channel as a fraction of ``t_max``, in ``[0, 1]``.
        targets: Target time of each output neuron as a fraction of ``t_max``, in ``[0, 1]``.
        t_max: The unit of both, finite and positive; any unit of time. With the default 1 the
            samples are values for `jaxsnn.event.encode.latency_encode`.

    Returns:
        Samples ``[size, n_inputs]`` and, in place of labels, target times ``[size, n_targets]``.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_seed_and_size("constant", seed, size)
    if not (np.isfinite(t_max) and t_max > 0):
        raise ValueError(
            f"jaxsnn.dataset.constant: t_max is {t_max!r}, expected a finite positive number"
        )
    rows = (_fractions("inputs", inputs), _fractions("targets", targets))
    return Dataset(*(np.tile(row * t_max, (size, 1)) for row in rows))


def _fractions(name: str, values: Sequence[float]) -> np.ndarray:
    row = np.asarray(values, np.float64)
    if row.ndim != 1 or row.size == 0 or not np.all((row >= 0) & (row <= 1)):
        raise ValueError(
            f"jaxsnn.dataset.constant: {name} is {values!r}, "
            "expected a non-empty sequence of numbers in [0, 1]"
        )
    return row
