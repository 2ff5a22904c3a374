"""``flow`` and ``next_crossing``: single neurons between events."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from jaxsnn.base.types import Array, Float, LIFParameters
from jaxsnn.ops import _checks, _ffi
from jaxsnn.ops._status import FAILURES, Status, raise_mask


def _neurons(op: str, params: LIFParameters, v, i) -> tuple[Array, Array, list[Array]]:
    v = _checks.real_array(op, "v", v)
    if v.ndim < 1:
        raise ValueError(f"{op}: v has shape (), expected (*batch, n_neurons)")
    n_neurons = v.shape[-1]
    i = _checks.like(op, "i", i, v.dtype)
    _checks.core_shape(op, "i", i, f"(*batch, n_neurons={n_neurons})", (n_neurons,))
    arrays = _checks.parameter_arrays(op, params, n_neurons, v.dtype)
    names = (f"params.{name}" for name in _checks.PARAMETERS)
    leads = {n: a.shape[:-1] for n, a in zip(names, arrays, strict=True)}
    _checks.batch_shape(op, {"v": v.shape[:-1], "i": i.shape[:-1], **leads})
    return v, i, arrays


def flow(
    params: LIFParameters,
    v: Float[Array, "*#batch n_neurons"],
    i: Float[Array, "*#batch n_neurons"],
    dt: float | Float[Array, ...],
    *,
    raise_on: Collection[Status] = FAILURES,
) -> tuple[Float[Array, "*batch n_neurons"], Float[Array, "*batch n_neurons"]]:
    """Propagates free neurons exactly by a time step, threshold or not.

    ``I(t) = I e^{-t/tau_syn}`` and ``V(t) - v_leak = (V - v_leak) e^{-t/tau_mem} + k(t) I`` with
    ``k(t) = tau_syn / (tau_mem - tau_syn) (e^{-t/tau_mem} - e^{-t/tau_syn})``, evaluated in a form
    that keeps its digits for all ratios of the time constants, equality included.

    Args:
        params: parameters, scalar or per neuron; the time constants and ``v_leak`` are used.
        v: ``[*batch, n_neurons]`` membrane potential, float32 or float64.
        i: ``[*batch, n_neurons]`` synaptic current.
        dt: step, >= 0: a scalar, or with the neurons as last axis.
        raise_on: statuses for which to raise; results are NaN for the others.

    Returns:
        Membrane potential and current after ``dt``. Differentiable in ``v``, ``i`` and ``dt``.

    Raises:
        ValueError, TypeError: for shapes, dtypes and plain numbers that do not fit.
        jax.errors.JaxRuntimeError: for a status in ``raise_on``, when run.
    """
    op = "flow"
    v, i, arrays = _neurons(op, params, v, i)
    if _checks.is_concrete(dt) and not np.all(np.isfinite(dt) & (np.asarray(dt) >= 0)):
        raise ValueError(f"{op}: dt is {dt}, expected a finite time >= 0")
    dt = _checks.like(op, "dt", dt, v.dtype)
    if dt.ndim == 0:
        dt = dt.reshape(1)
    if dt.shape[-1] not in (1, v.shape[-1]):
        raise ValueError(
            f"{op}: dt has shape {dt.shape}, expected () or (*batch, n_neurons={v.shape[-1]})"
        )
    named = _ffi.flow(
        v,
        i,
        dt,
        *arrays,
        sizes={"facts": _ffi.FACTS},
        raise_on=np.int64(raise_mask(raise_on)),
        label=op,
    )
    return named["v"], named["i"]


def next_crossing(
    params: LIFParameters,
    v: Float[Array, "*#batch n_neurons"],
    i: Float[Array, "*#batch n_neurons"],
    *,
    raise_on: Collection[Status] = FAILURES,
) -> Float[Array, "*batch n_neurons"]:
    """The time until each free neuron reaches its threshold, without further input.

    Args:
        params: parameters, scalar or per neuron.
        v: ``[*batch, n_neurons]`` membrane potential, float32 or float64.
        i: ``[*batch, n_neurons]`` synaptic current.
        raise_on: statuses for which to raise; results are NaN for the others.

    Returns:
        ``[*batch, n_neurons]`` times from now: ``inf`` where there is no crossing, 0 where V stands
        at or above the threshold. Differentiable in ``v`` and ``i`` by the implicit function
        theorem; the derivative is 0 where the time is 0 or ``inf``.

    Raises:
        ValueError, TypeError: for shapes, dtypes and plain numbers that do not fit.
        jax.errors.JaxRuntimeError: for a status in ``raise_on``, when run.
    """
    op = "next_crossing"
    v, i, arrays = _neurons(op, params, v, i)
    named = _ffi.next_crossing(
        v,
        i,
        *arrays,
        sizes={"facts": _ffi.FACTS},
        raise_on=np.int64(raise_mask(raise_on)),
        label=op,
    )
    return named["delay"]
