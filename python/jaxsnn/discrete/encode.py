"""Values to dense spikes ``[*batch, n_steps, n_channels]``; step k stands for the time ``k dt``.

Times are in seconds. Values are checked wherever they are known, as in `jaxsnn.event.encode`.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxsnn.base.types import Array, Float, LIFParameters, Shaped, Spikes
from jaxsnn.discrete.integrate import euler_integrate, refractory_steps, step_coefficients
from jaxsnn.discrete.surrogate import Surrogate, superspike
from jaxsnn.ops._checks import check_count
from jaxsnn.ops._lif_steps import lif_step, rest

__all__ = [
    "constant_current_lif_encode",
    "latency_encode",
    "poisson_encode",
    "spatio_temporal_encode",
    "spikes_from_steps",
    "steps_from_spikes",
]

_MODULE = "jaxsnn.discrete.encode"

#: What becomes of a spike between two steps.
Between = Literal["nearest", "shared"]

Steps = Float[Array, "*batch n_steps n_channels"]


def spatio_temporal_encode(
    values: Float[ArrayLike, "*batch n_features"],
    *,
    n_steps: int,
    dt: float,
    t_late: float,
    bias_time: float | None = None,
    between: Between = "nearest",
) -> Steps:
    """One spike per value ``x``, at the time ``x t_late``.

    A time between two steps counts in the nearer one, which loses what is finer than a step; or the
    spike is shared between both steps in proportion, so that their mean is its time.

    Args:
        values: ``[*batch, n_features]`` floating point, in ``[0, 1]``.
        n_steps: number of steps.
        dt: time step, s.
        t_late: spike time of the value 1, s.
        bias_time: spike time of an additional last channel, the same for all samples, s.
        between: ``"nearest"`` or ``"shared"``.

    Returns:
        ``[*batch, n_steps, n_channels]``, 1 where there is a spike, or two parts of it.

    Raises:
        ValueError: a value is NaN or outside ``[0, 1]``, or a spike would be after the last step.
    """
    where = f"{_MODULE}.spatio_temporal_encode"
    _check_steps(where, n_steps, dt)
    if between not in ("nearest", "shared"):
        raise ValueError(f"{where}: between is {between!r}, expected 'nearest' or 'shared'")
    behind = 0.5 if between == "nearest" else 1e-6  # steps behind the last one
    for name, time in (("t_late", t_late), ("bias_time", bias_time)):
        if time is not None and not 0 <= time <= (n_steps - 1 + behind) * dt:
            raise ValueError(
                f"{where}: {name} is {time}, expected a time of the steps, from 0 to "
                f"{(n_steps - 1) * dt:g}"
            )
    values = _in_range(where, values, 0.0, 1.0)
    times = values * t_late
    if bias_time is not None:
        bias = jnp.full((*times.shape[:-1], 1), bias_time, times.dtype)
        times = jnp.concatenate((times, bias), -1)
    return (_one_hot if between == "nearest" else _shared)(times, n_steps, dt)


def latency_encode(
    currents: Float[ArrayLike, "*batch n_features"],
    *,
    n_steps: int,
    dt: float,
    tau: float = 20e-3,
    v_th: float = 1.0,
) -> Steps:
    """One spike per current ``x``, when it would charge a membrane to the threshold.

    That is at ``tau log(x / (x - v_th))`` for ``x > v_th``, the solution of ``tau v' = x - v`` from
    0, in the nearest step. Smaller currents, and those that take longer than the steps, never
    spike.

    Args:
        currents: ``[*batch, n_features]`` floating point, >= 0, in the unit of the threshold.
        n_steps: number of steps.
        dt: time step, s.
        tau: time constant of the membrane, s.
        v_th: threshold, > 0.

    Returns:
        ``[*batch, n_steps, n_features]``, 1 where there is a spike.

    Raises:
        ValueError: an argument is out of range.
    """
    where = f"{_MODULE}.latency_encode"
    _check_steps(where, n_steps, dt)
    for name, value in (("tau", tau), ("v_th", v_th)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{where}: {name} is {value}, expected a finite number > 0")
    currents = _in_range(where, currents, 0.0, np.inf)
    enough = currents > v_th
    safe = jnp.where(enough, currents, 2 * v_th)
    times = jnp.where(enough, -tau * jnp.log1p(-v_th / safe), jnp.inf)
    return _one_hot(times, n_steps, dt)


def poisson_encode(
    key: Array,
    values: Float[ArrayLike, "*batch n_features"],
    *,
    n_steps: int,
    dt: float,
    rate: float,
) -> Steps:
    """Spikes at random, in every step with probability ``x rate dt``.

    Args:
        key: of the random numbers.
        values: ``[*batch, n_features]`` floating point, in ``[0, 1]``.
        n_steps: number of steps.
        dt: time step, s.
        rate: of the value 1, spikes per second, at most ``1 / dt``.

    Returns:
        ``[*batch, n_steps, n_features]``, 1 where there is a spike.

    Raises:
        ValueError: an argument is out of range.
    """
    where = f"{_MODULE}.poisson_encode"
    _check_steps(where, n_steps, dt)
    if not 0 <= rate * dt <= 1:
        raise ValueError(f"{where}: rate is {rate}, expected 0 to 1 / dt = {1 / dt:g}")
    values = _in_range(where, values, 0.0, 1.0)
    shape = (*values.shape[:-1], n_steps, values.shape[-1])
    drawn = jax.random.uniform(key, shape, values.dtype)
    return (drawn < values[..., None, :] * (rate * dt)).astype(values.dtype)


_ENCODER = LIFParameters(tau_mem=10e-3, v_th=0.6)
_SUPERSPIKE = superspike()


def constant_current_lif_encode(
    currents: Float[ArrayLike, "*batch n_features"],
    *,
    n_steps: int,
    dt: float = 1e-3,
    params: LIFParameters = _ENCODER,
    surrogate: Surrogate = _SUPERSPIKE,
) -> Steps:
    """Spikes of one LIF neuron per value, driven by it as a constant current.

    ``v += dt / tau_mem (v_leak - v + x)``, threshold and reset, from ``v = 0`` on. Differentiable,
    through the surrogate. The default parameters are upstream jaxsnn's.

    Args:
        currents: ``[*batch, n_features]`` floating point.
        n_steps: number of steps.
        dt: time step, s.
        params: of the neurons; ``tau_syn`` plays no part.
        surrogate: the derivative of the threshold.

    Returns:
        ``[*batch, n_steps, n_features]``, 1 where there is a spike.

    Raises:
        ValueError: an argument is out of range.
    """
    where = f"{_MODULE}.constant_current_lif_encode"
    _check_steps(where, n_steps, dt)
    currents = _in_range(where, currents, -np.inf, np.inf)
    steady = step_coefficients(params, dt, where=where)._replace(decay=1.0)
    state = rest(steady, currents.shape[-1], currents.dtype)
    hold = jnp.zeros(currents.shape, jnp.int32)
    state = state._replace(
        v=jnp.zeros_like(currents), i=currents, spikes=jnp.zeros_like(currents), hold=hold
    )
    refractory = refractory_steps(params, dt, where=where)

    def step(state, nothing):
        state, spikes, _ = lif_step(
            steady, state, nothing, surrogate=surrogate, refractory=refractory
        )
        return state, spikes

    _, spikes = euler_integrate(step, state, jnp.zeros((n_steps, 1), currents.dtype))
    return spikes


def steps_from_spikes(
    spikes: Spikes, n_channels: int, *, n_steps: int, dt: float, dtype: DTypeLike | None = None
) -> Steps:
    """Spikes with times as dense steps: each counts in the step nearest to its time.

    Args:
        spikes: times in s; padding and spikes after the last step are left out.
        n_channels: number of channels.
        n_steps: number of steps.
        dt: time step, s.
        dtype: of the result, by default that of the times.

    Returns:
        ``[*batch, n_steps, n_channels]``, numbers of spikes.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    where = f"{_MODULE}.steps_from_spikes"
    check_count(where, "n_channels", n_channels)
    _check_steps(where, n_steps, dt)
    step = jnp.round(spikes.time / dt)
    inside = (spikes.index >= 0) & (step >= 0) & (step < n_steps)
    step = jnp.where(inside, step, 0).astype(jnp.int32)
    dense = jnp.zeros((*step.shape[:-1], n_steps, n_channels), dtype or spikes.time.dtype)
    lead = jnp.indices(step.shape, sparse=True)[:-1]
    at = (*lead, step, jnp.maximum(spikes.index, 0))
    return dense.at[at].add(inside.astype(dense.dtype))


def spikes_from_steps(steps: Steps, *, n_spikes: int, dt: float) -> Spikes:
    """Dense spikes as times ``k dt``, in ascending order; equal times by channel.

    Args:
        steps: ``[*batch, n_steps, n_channels]``; other than 0 is one spike.
        n_spikes: room for spikes per sample; the earliest are kept.
        dt: time step, s.

    Returns:
        Spikes ``[*batch, n_spikes]``, padded.
    """
    where = f"{_MODULE}.spikes_from_steps"
    check_count(where, "n_spikes", n_spikes)
    n_channels = steps.shape[-1]
    flat = (steps != 0).reshape(*steps.shape[:-2], -1)
    place = jnp.where(flat, jnp.arange(flat.shape[-1]), flat.shape[-1])
    place = jnp.sort(place, axis=-1)[..., :n_spikes]
    there = place < flat.shape[-1]
    time = jnp.where(there, (place // n_channels).astype(steps.dtype) * dt, jnp.inf)
    return Spikes(time, jnp.where(there, place % n_channels, -1).astype(jnp.int32))


def _one_hot(times: Shaped[Array, ...], n_steps: int, dt: float) -> Steps:
    step = jnp.round(times / dt)[..., None, :]
    return (step == jnp.arange(n_steps, dtype=times.dtype)[:, None]).astype(times.dtype)


def _shared(times: Shaped[Array, ...], n_steps: int, dt: float) -> Steps:
    distance = jnp.abs((times / dt)[..., None, :] - jnp.arange(n_steps, dtype=times.dtype)[:, None])
    return jnp.maximum(1 - distance, 0)


def _check_steps(where: str, n_steps: int, dt: float) -> None:
    check_count(where, "n_steps", n_steps)
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"{where}: dt is {dt}, expected a finite time > 0")


def _in_range(where: str, values: ArrayLike, low: float, high: float) -> Array:
    array = jnp.asarray(values)
    if array.ndim < 1 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{where}: values are {array.dtype} of shape {array.shape}, expected floating point "
            "(..., n_features)"
        )
    if not isinstance(array, Tracer):
        known = np.asarray(array)
        wrong = known[~((known >= low) & (known <= high))]  # NaN fails both comparisons
        if wrong.size:
            raise ValueError(
                f"{where}: values contain {wrong[0]}, expected values in [{low}, {high}]"
            )
    return array
