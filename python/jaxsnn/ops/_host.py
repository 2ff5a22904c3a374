"""The event loop on NumPy arrays, for code that must not wait for JAX.

A computation of JAX inside of one of its callbacks may wait for others that wait for the callback
in turn. What runs there calls the compiled loop without JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxsnn import _core
from jaxsnn.base.types import LIFParameters, Spikes

_PARAMS = tuple(field.name for field in dataclasses.fields(LIFParameters))


def host_loop(
    params: Mapping[str, np.ndarray],
    weights: np.ndarray,
    inputs: Spikes,
    *,
    t_max: float,
    max_events: int,
    recurrent: np.ndarray | None = None,
    recurrent_delay: float = 0.0,
) -> tuple[Spikes, np.ndarray]:
    """What `event_loop` gives for neurons at rest, in the calling thread and threads of its own.

    Args:
        params: the fields of `LIFParameters`, ``[B or 1, n_neurons]``.
        weights: ``[n_inputs, n_neurons]``, whose dtype, float32 or float64, is that of all.
        inputs: ``[B, any]`` in time order.
        t_max: the horizon.
        max_events: room for spikes per sample.
        recurrent: ``[n_neurons, n_neurons]``, from the first axis to the second.
        recurrent_delay: one for all recurrent connections.

    Returns:
        Spikes ``[B, max_events]`` and a `Status` for each sample.
    """
    dtype = weights.dtype
    n_neurons = weights.shape[1]
    n_samples = inputs.time.shape[0]
    own = {name: _rows(params[name], dtype) for name in _PARAMS}
    time = np.empty((n_samples, max_events), dtype)
    index = np.empty((n_samples, max_events), np.int32)
    status = np.empty(n_samples, np.int32)
    v_leak = own["v_leak"]
    _core.host_loop(
        # One value for all neurons is faster than the same one for each.
        tuple(x[:1, :1] if (x == x.flat[0]).all() else x for x in own.values()),
        _rows(weights, dtype),
        _rows(np.broadcast_to(v_leak, (v_leak.shape[0], n_neurons)), dtype),
        _rows(np.empty((0, n_neurons)) if recurrent is None else recurrent, dtype),
        recurrent_delay,
        _rows(inputs.time, dtype),
        _rows(inputs.index, np.int32),
        t_max,
        time,
        index,
        status,
    )
    return Spikes(time, index), status  # pyright: ignore[reportArgumentType]


def _rows(array: object, dtype: np.dtype | type) -> np.ndarray:
    return np.ascontiguousarray(array, dtype)
