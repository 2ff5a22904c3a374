"""Losses on first-spike times, and on voltages.

Every loss on spikes takes ``times [*batch, n_neurons]``, the time of the first spike of each output
neuron (see `first_spike_times`), and returns one value per sample, ``[*batch]``; averaging is left
to the caller. Times and time constants are in any one unit of time, losses have none.

A neuron that did not fire within the window has ``inf`` for its time. Every loss takes that, as
any time at or after `t_max`, for `t_max` with a gradient of exactly zero: such a neuron adds to the
loss, but only other spikes can reduce it. Loss and gradients are therefore finite whichever spikes
are missing, and the loss is continuous where a spike leaves the window. NaN, the mark of a failed
simulation, stays NaN.

The values of arguments are checked as in `jaxsnn.event.encode`: wherever they are not traced.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsnn.base.types import Array, Float, Int, Int32, Spikes
from jaxsnn.event.encode import check_labels, is_traced
from jaxsnn.ops._gather import Gather, gather_spikes

__all__ = [
    "first_spike_times",
    "mse_loss",
    "predict",
    "target_time_loss",
    "ttfs_cross_entropy",
    "voltage_cross_entropy",
]

_MODULE = "jaxsnn.event.loss"


def first_spike_times(spikes: Spikes, n_neurons: int) -> Float[Array, "*batch n_neurons"]:
    """Time of the first spike of every neuron.

    The gradient of a neuron's time goes to its first spike, of equal times the first recorded, and
    to no other. Memory grows with ``n_spikes + n_neurons`` per sample, not with their product.

    Args:
        spikes: Spikes ``[*batch, n_spikes]`` in time order. Those of an index outside
            ``[0, n_neurons)``, such as padding, are left out.
        n_neurons: Number of neurons, at least 1.

    Returns:
        ``[*batch, n_neurons]`` in the unit of ``spikes.time``: ``inf`` for a neuron that never
        fires, NaN for all neurons of a sample in which any time is NaN.

    Raises:
        ValueError: `n_neurons` is out of range or the fields of `spikes` differ in shape.
    """
    where = f"{_MODULE}.first_spike_times"
    if not isinstance(n_neurons, (int, np.integer)) or n_neurons < 1:
        raise ValueError(f"{where}: n_neurons is {n_neurons!r}, expected an integer >= 1")
    time, index = jnp.asarray(spikes.time), jnp.asarray(spikes.index, jnp.int32)
    if time.ndim < 1 or time.shape != index.shape:
        raise ValueError(
            f"{where}: spikes have time {time.shape} and index {index.shape}, "
            "expected twice (*batch, n_spikes)"
        )

    first = gather_spikes(
        Spikes(time, index), (0, int(n_neurons)), int(n_neurons), Gather.FIRST_OF_EACH
    )
    return first.time


def ttfs_cross_entropy(
    times: Float[ArrayLike, "*batch n_neurons"],
    labels: Int[ArrayLike, "*batch"],
    *,
    tau0: float | Array,
    alpha: float | Array = 0.0,
    tau1: float | Array = 1.0,
    t_max: float | Array,
) -> Float[Array, "*batch"]:
    """Cross-entropy of the order of first spikes, with an optional cost of a late correct spike.

    With ``t_l`` the time of the label's neuron::

        loss = -log( exp(-t_l / tau0) / sum_k exp(-t_k / tau0) ) + alpha * (exp(t_l / tau1) - 1)

    The paper trains Yin-Yang with ``tau0 = 0.5 ms``, ``tau1 = 6.4 ms`` and ``alpha = 0.003``.

    Args:
        times: ``[*batch, n_neurons]`` first-spike times, one neuron per class.
        labels: ``[*batch]`` classes, integers in ``[0, n_neurons)``.
        tau0: Scale of the time differences that count, positive.
        alpha: Weight of the cost of lateness, at least 0. If it is the number 0, the cost and
            `tau1` are left out.
        tau1: Time constant of the cost of lateness, positive.
        t_max: End of the window, positive.

    Returns:
        ``[*batch]``. A traced label out of range gives NaN.

    Raises:
        ValueError: An argument is out of range or has the wrong shape, or the cost of lateness at
            `t_max` overflows the type of `times`.

    Source:
        T. C. Wunderlich, C. Pehle, "Event-based backpropagation can compute exact gradients for
        spiking neural networks", Scientific Reports 11, 12829 (2021),
        doi:10.1038/s41598-021-91786-z.
    """
    where = f"{_MODULE}.ttfs_cross_entropy"
    times = _check_times(where, times)
    labels = check_labels(where, labels, times.shape[-1])
    if labels.shape != times.shape[:-1]:
        raise ValueError(f"{where}: labels have shape {labels.shape}, expected {times.shape[:-1]}")
    _check_positive(where, tau0=tau0, tau1=tau1, t_max=t_max)
    times = _within_window(times, t_max)

    log_p = jax.nn.log_softmax(-times / jnp.asarray(tau0, times.dtype))
    loss = -_of_label(log_p, labels)
    if isinstance(alpha, (int, float)) and alpha == 0:
        return loss
    _check_lateness(where, times.dtype, alpha, tau1, t_max)
    lateness = jnp.expm1(_of_label(times, labels) / jnp.asarray(tau1, times.dtype))
    return loss + jnp.asarray(alpha, times.dtype) * lateness


def mse_loss(
    times: Float[ArrayLike, "*batch n_neurons"],
    targets: Float[ArrayLike, "*#batch n_neurons"],
    *,
    tau: float | Array,
    t_max: float | Array,
) -> Float[Array, "*batch"]:
    """Mean squared distance of first spikes from their targets, in units of `tau`.

    ::

        loss = 1 / n_neurons * sum_k ((t_k - target_k) / tau)**2

    In upstream jaxsnn 0.3 the loss of this name is the sum, without ``1 / n_neurons``, and its
    window is fixed to ``t_max = 2 * tau``.

    Args:
        times: ``[*batch, n_neurons]`` first-spike times.
        targets: Target times, finite, of a shape that broadcasts to that of `times`; see
            `jaxsnn.event.encode.target_times`.
        tau: Unit of the distances, positive.
        t_max: End of the window, positive. A target after it cannot be reached.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: An argument is out of range or has the wrong shape.
    """
    distance = _distance_to_targets(f"{_MODULE}.mse_loss", times, targets, tau, t_max)
    return jnp.mean(distance**2, axis=-1)


def target_time_loss(
    times: Float[ArrayLike, "*batch n_neurons"],
    targets: Float[ArrayLike, "*#batch n_neurons"],
    *,
    tau: float | Array,
    t_max: float | Array,
) -> Float[Array, "*batch"]:
    """Reward of first spikes near their targets, which large distances do not dominate.

    ::

        loss = -sum_k log(1 + exp(-|t_k - target_k| / tau))

    This is the loss of the same name in upstream jaxsnn 0.3, which has no `t_max`: a missing spike
    counts 0 there, the limit of a late `t_max`. It lies between ``-n_neurons * log(2)``, every
    target hit, and 0. The gradient is at most ``1 / (2 tau)`` per neuron, near the target; it dies
    away over `tau` and changes its sign at the target, where it is defined as 0. Where times start
    far from their targets, use `mse_loss`.

    Args:
        times: ``[*batch, n_neurons]`` first-spike times.
        targets: Target times, finite, of a shape that broadcasts to that of `times`; see
            `jaxsnn.event.encode.target_times`.
        tau: Range of the reward, positive.
        t_max: End of the window, positive. A target after it cannot be reached.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: An argument is out of range or has the wrong shape.
    """
    distance = _distance_to_targets(f"{_MODULE}.target_time_loss", times, targets, tau, t_max)
    # The derivative of jnp.abs at 0 is 1, that of this is 0.
    magnitude = distance * jnp.sign(distance)
    return -jnp.sum(jnp.log1p(jnp.exp(-magnitude)), axis=-1)


def predict(times: Float[ArrayLike, "*batch n_neurons"]) -> Int32[Array, "*batch"]:
    """Class that fires first; ``jnp.mean(predict(times) == labels)`` is the accuracy.

    Args:
        times: ``[*batch, n_neurons]`` first-spike times, one neuron per class.

    Returns:
        ``[*batch]`` index of the earliest time, of equal ones the lowest; -1 for a sample without
        any spike or with a NaN, which is thus never counted as correct.

    Raises:
        ValueError: `times` has the wrong shape or type.
    """
    times = _check_times(f"{_MODULE}.predict", times)
    fired = jnp.isfinite(jnp.min(times, axis=-1))
    return jnp.where(fired, jnp.argmin(times, axis=-1), -1).astype(jnp.int32)


def voltage_cross_entropy(
    voltages: Float[ArrayLike, "*batch n_neurons"],
    labels: Int[ArrayLike, "*batch"],
    *,
    scale: float | Array = 1.0,
) -> Float[Array, "*batch"]:
    """Cross-entropy of what is read from leaky integrators: a maximum or an integral over time.

    ::

        loss = -log softmax(voltages / scale)[label]

    Wunderlich & Pehle (2021) use the maximum over time; on long inputs the integral, weighted or
    not, is the better one (Nowotny, Turner and Knight, arXiv:2212.01232).

    Args:
        voltages: ``[*batch, n_neurons]``, one neuron per class, see
            `jaxsnn.event.leaky_integrate.LeakyIntegrator`.
        labels: ``[*batch]`` classes, integers in ``[0, n_neurons)``.
        scale: Difference that counts, positive, in the unit of `voltages`.

    Returns:
        ``[*batch]``. A traced label out of range gives NaN.

    Raises:
        ValueError: An argument is out of range or has the wrong shape.
    """
    where = f"{_MODULE}.voltage_cross_entropy"
    voltages = _check_values(where, "voltages", voltages)
    labels = check_labels(where, labels, voltages.shape[-1])
    if labels.shape != voltages.shape[:-1]:
        raise ValueError(
            f"{where}: labels have shape {labels.shape}, expected {voltages.shape[:-1]}"
        )
    _check_positive(where, scale=scale)
    return -_of_label(jax.nn.log_softmax(voltages / jnp.asarray(scale, voltages.dtype)), labels)


def _within_window(times: Array, t_max: float | Array) -> Array:
    """Times with missing and late spikes at `t_max`, without gradient; NaN stays."""
    t_max = jnp.asarray(t_max, times.dtype)
    return jnp.where(times >= t_max, t_max, times)


def _of_label(values: Array, labels: Array) -> Array:
    """Value ``[*batch]`` of the label's neuron, NaN for a label out of range."""
    column = jnp.where(labels < 0, values.shape[-1], labels)[..., None]
    return jnp.take_along_axis(values, column, axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def _distance_to_targets(
    where: str, times: ArrayLike, targets: ArrayLike, tau: float | Array, t_max: float | Array
) -> Array:
    """Signed distance ``[*batch, n_neurons]`` of times from their targets in units of tau."""
    times = _check_times(where, times)
    shape = np.shape(targets)
    if shape[-1:] != times.shape[-1:] or not _broadcasts_to(shape, times.shape):
        raise ValueError(f"{where}: targets have shape {shape}, expected {times.shape}")
    if not is_traced(targets) and not np.all(np.isfinite(targets)):
        raise ValueError(f"{where}: targets contain inf or NaN, expected finite times")
    _check_positive(where, tau=tau, t_max=t_max)
    targets, tau = jnp.asarray(targets, times.dtype), jnp.asarray(tau, times.dtype)
    return (_within_window(times, t_max) - targets) / tau


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _check_times(where: str, times: ArrayLike) -> Array:
    return _check_values(where, "times", times)


def _check_values(where: str, name: str, values: ArrayLike) -> Array:
    values = jnp.asarray(values)
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ValueError(
            f"{where}: {name} have shape {values.shape}, expected (*batch, n_neurons >= 1)"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{where}: {name} are {values.dtype}, expected floating point")
    return values


def _check_positive(where: str, **values: float | Array) -> None:
    for name, value in values.items():
        known = not is_traced(value)
        if np.ndim(value) != 0 or (known and not (np.isfinite(value) and value > 0)):
            raise ValueError(f"{where}: {name} is {value!r}, expected a finite positive number")


def _check_lateness(
    where: str,
    dtype: np.dtype,
    alpha: float | Array,
    tau1: float | Array,
    t_max: float | Array,
) -> None:
    """Raises if the cost of lateness or its derivative may overflow, or alpha is out of range."""
    known = not is_traced(alpha)
    if np.ndim(alpha) != 0 or (known and not (np.isfinite(alpha) and alpha >= 0)):
        raise ValueError(f"{where}: alpha is {alpha!r}, expected a finite number >= 0")
    if any(is_traced(value) for value in (alpha, tau1, t_max)):
        return
    factor = max(1.0, float(alpha)) * max(1.0, 1.0 / float(tau1))
    exponent = float(t_max) / float(tau1)
    if exponent + math.log(factor) >= math.log(float(jnp.finfo(dtype).max)):
        raise ValueError(
            f"{where}: t_max / tau1 is {exponent:.4g}, which overflows exp in {dtype}; "
            f"expected a larger tau1 than {tau1!r}"
        )
