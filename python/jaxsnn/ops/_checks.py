"""What can be said about arguments before anything runs: shapes, dtypes and concrete values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import LIFParameters, LIFState, SpikeQueue, Spikes

PARAMETERS = tuple(field.name for field in dataclasses.fields(LIFParameters))


def _positive(x):
    return np.isfinite(x) & (x > 0)


def _duration(x):
    return np.isfinite(x) & (x >= 0)


_VALID: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tau_mem": (_positive, "a finite time > 0"),
    "tau_syn": (_positive, "a finite time > 0"),
    "v_th": (lambda x: x > -np.inf, "a voltage, inf for neurons that never spike"),
    "v_leak": (np.isfinite, "a finite voltage"),
    "v_reset": (np.isfinite, "a finite voltage below v_th"),
    "t_ref": (_duration, "a finite time >= 0"),
}


def is_concrete(value: Any) -> bool:
    """Whether a value can be looked at without waiting for a device: Python and NumPy numbers."""
    return isinstance(value, int | float | np.ndarray | np.generic)


def check_parameters(op: str, params: LIFParameters) -> None:
    """Raises ``ValueError`` for parameters that are plain numbers and out of range.

    JAX arrays are checked when the operation runs.
    """
    if not isinstance(params, LIFParameters):
        raise TypeError(f"{op}: params is {type(params).__name__}, expected LIFParameters")
    for name, (valid, expected) in _VALID.items():
        value = getattr(params, name)
        if is_concrete(value) and not np.all(valid(np.asarray(value))):
            raise ValueError(f"{op}: params.{name} is {value}, expected {expected}")
    v_reset, v_th = params.v_reset, params.v_th
    if is_concrete(v_reset) and is_concrete(v_th) and not np.all(np.less(v_reset, v_th)):
        raise ValueError(f"{op}: params.v_reset is {v_reset}, expected a voltage below v_th={v_th}")


def check_t_max(op: str, t_max: Any) -> None:
    """Raises ``ValueError`` unless a concrete horizon is finite and > 0."""
    if is_concrete(t_max) and not np.all(_positive(np.asarray(t_max))):
        raise ValueError(f"{op}: t_max is {t_max}, expected a finite time > 0")


def check_count(op: str, name: str, value: Any) -> int:
    """Raises unless a static count is an integer >= 1; returns it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{op}: {name} is {value!r}, expected an integer >= 1")
    if value < 1:
        raise ValueError(f"{op}: {name} is {value}, expected an integer >= 1")
    return int(value)


def real_array(op: str, name: str, value: Any) -> jax.Array:
    """The array whose dtype rules a call: float32 or float64."""
    array = jnp.asarray(value)
    if array.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"{op}: {name} has dtype {array.dtype}, expected float32 or float64")
    return array


def like(op: str, name: str, value: Any, dtype: jnp.dtype) -> jax.Array:
    """``value`` as an array of ``dtype``; only Python numbers are converted to it."""
    if is_concrete(value) and not isinstance(value, np.ndarray):
        return jnp.asarray(value, dtype)
    array = jnp.asarray(value)
    if array.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    return array


def integers(op: str, name: str, value: Any) -> jax.Array:
    """``value`` as an int32 array."""
    array = jnp.asarray(value)
    if array.dtype != jnp.int32:
        raise TypeError(f"{op}: {name} has dtype {array.dtype}, expected int32")
    return array


def core_shape(op: str, name: str, array: jax.Array, expected: str, core: Sequence[int]) -> None:
    """Raises unless the last axes of an array are ``core``."""
    rank = len(core)
    if array.ndim < rank or tuple(array.shape[array.ndim - rank :]) != tuple(core):
        raise ValueError(f"{op}: {name} has shape {array.shape}, expected {expected}")


def parameter_arrays(
    op: str, params: LIFParameters, n_neurons: int, dtype: jnp.dtype
) -> list[jax.Array]:
    """The parameters as operands: last axis 1 (shared) or ``n_neurons``."""
    check_parameters(op, params)
    arrays = []
    for name in PARAMETERS:
        value = getattr(params, name)
        # Lists and NumPy arrays of plain numbers take the dtype of the call, as scalars do.
        if isinstance(value, np.ndarray | list | tuple):
            value = jnp.asarray(value, dtype)
        array = like(op, f"params.{name}", value, dtype)
        if array.ndim == 0:
            array = array.reshape(1)
        if array.shape[-1] not in (1, n_neurons):
            raise ValueError(
                f"{op}: params.{name} has shape {array.shape}, expected () or "
                f"(*batch, n_neurons={n_neurons})"
            )
        arrays.append(array)
    return arrays


def _delay_array(
    op: str, name: str, value: Any, sources: str, n_sources: int, n_neurons: int, dtype: jnp.dtype
) -> jax.Array:
    """Delays as an operand: the last two axes are 1 or ``n_sources``, and 1 or ``n_neurons``."""
    if is_concrete(value) and not np.all(np.asarray(value) >= 0):
        raise ValueError(f"{op}: {name} is {value}, expected times >= 0")
    if isinstance(value, np.ndarray | list | tuple):
        value = jnp.asarray(value, dtype)
    array = like(op, name, value, dtype)
    if array.ndim == 0:
        return array.reshape(1, 1)
    if array.shape == (n_sources,):
        return array.reshape(n_sources, 1)
    if (
        array.ndim < 2
        or array.shape[-2] not in (1, n_sources)
        or array.shape[-1] not in (1, n_neurons)
    ):
        raise ValueError(
            f"{op}: {name} has shape {array.shape}, expected (), ({sources}={n_sources},) or "
            f"(*batch, {sources}={n_sources} or 1, n_neurons={n_neurons} or 1)"
        )
    return array


def network_operands(
    op: str,
    problem: list[jax.Array],
    recurrent: Any,
    delays: Any,
    recurrent_delays: Any,
    past: Spikes | None,
    probes: Any,
) -> list[jax.Array]:
    """The operands of ``event_loop`` with delays or recurrent weights: ``problem`` and the rest."""
    weights = problem[0]
    dtype, (n_inputs, n_neurons) = weights.dtype, weights.shape[-2:]
    if recurrent is None:
        for name, value in (("recurrent_delays", recurrent_delays), ("past", past)):
            if value is not None:
                raise ValueError(f"{op}: {name} is given, but recurrent is not")
        recurrent = jnp.zeros((0, n_neurons), dtype)
        recurrent_delays = 0.0
    else:
        recurrent = like(op, "recurrent", recurrent, dtype)
        core = (n_neurons, n_neurons)
        core_shape(op, "recurrent", recurrent, f"(*batch, n_neurons={core[0]}, {core[1]})", core)
        recurrent_delays = 0.0 if recurrent_delays is None else recurrent_delays
    delays = _delay_array(
        op, "delays", 0.0 if delays is None else delays, "n_inputs", n_inputs, n_neurons, dtype
    )
    n_sources = recurrent.shape[-2]
    recurrent_delays = _delay_array(
        op, "recurrent_delays", recurrent_delays, "n_neurons", n_sources, n_neurons, dtype
    )
    if past is None:
        past = Spikes(jnp.zeros(0, dtype), jnp.zeros(0, jnp.int32))
    past_time = like(op, "past.time", past.time, dtype)
    past_index = integers(op, "past.index", past.index)
    if past_time.ndim < 1:
        raise ValueError(f"{op}: past.time has shape (), expected (*batch, n_spikes)")
    n_past = past_time.shape[-1]
    core_shape(op, "past.index", past_index, f"(*batch, n_spikes={n_past})", (n_past,))
    probe_time = probes if probes is not None else np.zeros(0)
    if isinstance(probe_time, np.ndarray | list | tuple):
        probe_time = jnp.asarray(probe_time, dtype)
    probe_time = like(op, "probes", probe_time, dtype)
    if probe_time.ndim < 1:
        raise ValueError(f"{op}: probes has shape (), expected (*batch, n_probes)")
    operands = [recurrent, delays, recurrent_delays, past_time, past_index, probe_time]
    names = ("recurrent", "delays", "recurrent_delays", "past.time", "past.index", "probes")
    ranks = (2, 2, 2, 1, 1, 1)
    leads = {
        name: array.shape[: array.ndim - rank]
        for name, array, rank in zip(names, operands, ranks, strict=True)
    }
    # The batch of `problem` has been checked by itself.
    batch_shape(op, {"weights": weights.shape[:-2], "inputs.time": problem[5].shape[:-1], **leads})
    return [*problem, *operands]


def populations(
    op: str, n_neurons: int, sizes: Sequence[int] | None, max_events: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many neurons each population has, and room for how many spikes."""
    if sizes is None:
        return (n_neurons,), (check_count(op, "max_events", max_events),)
    sizes = tuple(check_count(op, "populations", size) for size in sizes)
    if sum(sizes) != n_neurons:
        raise ValueError(
            f"{op}: populations is {sizes}, expected sizes that add up to n_neurons={n_neurons}"
        )
    if not isinstance(max_events, Sequence) or len(max_events) != len(sizes):
        raise ValueError(
            f"{op}: max_events is {max_events}, expected one for each of {len(sizes)} populations"
        )
    return sizes, tuple(check_count(op, "max_events", room) for room in max_events)


def check_label(op: str, label: str | Sequence[str], n_populations: int) -> None:
    """Raises unless a label is a text, or one for each population."""
    if not isinstance(label, str) and len(label) != n_populations:
        raise ValueError(
            f"{op}: label is {label}, expected one for each of {n_populations} populations"
        )


def batch_shape(op: str, leads: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The common batch of operands with these leading axes."""
    try:
        return np.broadcast_shapes(*leads.values())
    except ValueError:
        listed = ", ".join(f"{name} {lead}" for name, lead in leads.items() if lead)
        raise ValueError(f"{op}: batch axes do not broadcast: {listed}") from None


def problem_operands(
    op: str,
    params: LIFParameters,
    weights: Any,
    state: LIFState,
    inputs: Spikes | SpikeQueue,
    t_max: Any,
) -> list[jax.Array]:
    """The operands of ``event_loop`` and ``event_step``, checked."""
    weights = real_array(op, "weights", weights)
    if weights.ndim < 2:
        raise ValueError(
            f"{op}: weights has shape {weights.shape}, expected (*batch, n_inputs, n_neurons)"
        )
    dtype, n_neurons = weights.dtype, weights.shape[-1]
    per_neuron = f"(*batch, n_neurons={n_neurons})"
    v = like(op, "state.v", state.v, dtype)
    i = like(op, "state.i", state.i, dtype)
    release = like(op, "state.release", state.release, dtype)
    for name, array in (("state.v", v), ("state.i", i), ("state.release", release)):
        core_shape(op, name, array, per_neuron, (n_neurons,))
    time = like(op, "state.time", state.time, dtype)
    input_time = like(op, "inputs.time", inputs.time, dtype)
    input_index = integers(op, "inputs.index", inputs.index)
    if input_time.ndim < 1:
        raise ValueError(f"{op}: inputs.time has shape (), expected (*batch, n_spikes)")
    n_spikes = input_time.shape[-1]
    core_shape(op, "inputs.index", input_index, f"(*batch, n_spikes={n_spikes})", (n_spikes,))
    head = inputs.head if isinstance(inputs, SpikeQueue) else jnp.zeros((), jnp.int32)
    head = integers(op, "inputs.head", head)
    check_t_max(op, t_max)
    t_max = like(op, "t_max", t_max, dtype)
    arrays = parameter_arrays(op, params, n_neurons, dtype)
    leads = {
        "weights": weights.shape[:-2],
        "state.v": v.shape[:-1],
        "state.i": i.shape[:-1],
        "state.release": release.shape[:-1],
        "state.time": time.shape,
        "inputs.time": input_time.shape[:-1],
        "inputs.index": input_index.shape[:-1],
        "inputs.head": head.shape,
        "t_max": t_max.shape,
        **{f"params.{n}": a.shape[:-1] for n, a in zip(PARAMETERS, arrays, strict=True)},
    }
    batch = batch_shape(op, leads)
    if math.prod(batch) > 0 and weights.shape[-2] == 0 and n_spikes > 0:
        raise ValueError(f"{op}: weights has no inputs, but inputs.time has {n_spikes} entries")
    return [weights, v, i, release, time, input_time, input_index, head, t_max, *arrays]
