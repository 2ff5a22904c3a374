"""Values to input spikes, classes to target times.

Times are in any unit of time, the one used for the network's time constants. The values of
arguments are checked wherever they are known: always outside JAX transformations; under `jax.jit`,
`jax.grad` or `jax.vmap` for the arguments that are not traced.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxsnn.base.types import Array, Float, Int, Spikes

__all__ = ["latency_encode", "target_times"]


def latency_encode(
    samples: Float[ArrayLike, "*batch n_features"],
    *,
    t_late: float | Array,
    t_early: float | Array = 0.0,
    mirror: bool = False,
    bias_time: float | Array | None = None,
    duplication: int = 1,
    duplicate_channels: bool = False,
    dtype: DTypeLike | None = None,
) -> Spikes:
    """Encodes each value ``x`` in the time of a spike: ``(1 - x) * t_early + x * t_late``.

    The channels are, in this order, the features ``x``, their mirror images ``1 - x`` if `mirror`,
    and the bias if `bias_time` is given: ``n = n_features * (1 + mirror) + (bias given)``.
    Differentiable with respect to the samples and to all times.

    Args:
        samples: ``[*batch, n_features]`` floating point, in ``[0, 1]``.
        t_late: Spike time of the value 1, a scalar.
        t_early: Spike time of the value 0, a scalar less than `t_late`.
        mirror: Whether to add a channel of ``1 - x`` for every feature. Yin-Yang samples hold
            these features already.
        bias_time: Spike time of an additional channel that is the same for all samples.
        duplication: How many times every spike occurs, the bias included.
        duplicate_channels: False: the copies of a spike are on its own channel, of ``n`` in all.
            True: the copies of channel ``c`` are on the channels ``c * duplication`` to
            ``(c + 1) * duplication - 1``, of ``n * duplication`` in all.
        dtype: Floating-point type of the times, by default that of the samples.

    Returns:
        Spikes ``[*batch, n * duplication]``, sorted by time, equal times by channel. There is no
        padding.

    Raises:
        ValueError: A sample is NaN or outside ``[0, 1]``, or another argument is out of its range
            or has the wrong shape. Samples that are traced cannot be checked: values out of range
            are extrapolated and NaN becomes a NaN time at the end, which the simulation reports.
    """
    where = "jaxsnn.event.encode.latency_encode"
    _check_samples(where, samples)
    for name, time in (("t_early", t_early), ("t_late", t_late), ("bias_time", bias_time)):
        if time is not None:
            _check_finite_scalar(where, name, time)
    if not is_traced(t_early) and not is_traced(t_late) and not t_early < t_late:
        raise ValueError(f"{where}: t_late is {t_late!r}, expected more than t_early = {t_early!r}")
    if not isinstance(duplication, (int, np.integer)) or duplication < 1:
        raise ValueError(f"{where}: duplication is {duplication!r}, expected an integer >= 1")

    dtype = _floating_dtype(where, jnp.result_type(samples) if dtype is None else dtype)
    values = jnp.asarray(samples, dtype)
    if mirror:
        values = jnp.concatenate((values, 1 - values), axis=-1)
    # This form, unlike t_early + x * (t_late - t_early), is exact at both ends.
    time = (1 - values) * jnp.asarray(t_early, dtype) + values * jnp.asarray(t_late, dtype)
    if bias_time is not None:
        bias = jnp.full((*time.shape[:-1], 1), bias_time, dtype)
        time = jnp.concatenate((time, bias), axis=-1)

    channel = jnp.argsort(time, axis=-1, stable=True).astype(jnp.int32)
    time = jnp.take_along_axis(time, channel, axis=-1)
    if duplication > 1:
        time = jnp.repeat(time, duplication, axis=-1)
        channel = jnp.repeat(channel, duplication, axis=-1)
        if duplicate_channels:
            copy = jnp.arange(channel.shape[-1], dtype=jnp.int32) % duplication
            channel = channel * duplication + copy
    return Spikes(time, channel)


def target_times(
    labels: Int[ArrayLike, "*batch"],
    n_classes: int,
    *,
    t_correct: float | Array,
    t_wrong: float | Array,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*batch n_classes"]:
    """Target first-spike time of every output neuron, one neuron per class.

    Args:
        labels: ``[*batch]``, integers in ``[0, n_classes)``.
        n_classes: Number of classes, at least 1.
        t_correct: Target time of the neuron of the sample's own class, a scalar.
        t_wrong: Target time of all other neurons, a scalar.
        dtype: Floating-point type of the result, by default JAX's default.

    Returns:
        ``[*batch, n_classes]``: `t_correct` where the class is the label, else `t_wrong`. A traced
        label out of range gives a row of NaN.

    Raises:
        ValueError: A label is out of range, or another argument is.
    """
    where = "jaxsnn.event.encode.target_times"
    if not isinstance(n_classes, (int, np.integer)) or n_classes < 1:
        raise ValueError(f"{where}: n_classes is {n_classes!r}, expected an integer >= 1")
    labels = check_labels(where, labels, int(n_classes))
    _check_finite_scalar(where, "t_correct", t_correct)
    _check_finite_scalar(where, "t_wrong", t_wrong)
    dtype = _floating_dtype(where, jnp.result_type(float) if dtype is None else dtype)
    own = labels[..., None] == jnp.arange(n_classes)
    times = jnp.where(own, jnp.asarray(t_correct, dtype), jnp.asarray(t_wrong, dtype))
    return jnp.where(jnp.any(own, axis=-1, keepdims=True), times, jnp.nan)


def is_traced(value: object) -> bool:
    """Whether the value of an argument is unknown, as under `jax.jit`; for `jaxsnn.event` alone."""
    return isinstance(value, Tracer)


def check_labels(where: str, labels: ArrayLike, n_classes: int) -> Int[Array, "*batch"]:
    """Labels as an array, for `jaxsnn.event` alone.

    Args:
        where: Full name of the public function, for the message.
        labels: ``[*batch]`` class of each sample.
        n_classes: Number of classes.

    Returns:
        The labels; those that are traced are unchecked.

    Raises:
        ValueError: The labels are not integers or not in ``[0, n_classes)``.
    """
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"{where}: labels are {jnp.result_type(labels)}, expected integers")
    if not is_traced(labels):
        values = np.asarray(labels)
        wrong = values[(values < 0) | (values >= n_classes)]
        if wrong.size:
            raise ValueError(f"{where}: labels contain {wrong[0]}, expected [0, {n_classes})")
    return jnp.asarray(labels)


def _check_samples(where: str, samples: ArrayLike) -> None:
    if np.ndim(samples) < 1:
        raise ValueError(f"{where}: samples have shape (), expected (*batch, n_features)")
    if not jnp.issubdtype(jnp.result_type(samples), jnp.floating):
        raise ValueError(
            f"{where}: samples are {jnp.result_type(samples)}, expected floating point"
        )
    if is_traced(samples):
        return
    values = np.asarray(samples)
    wrong = values[~((values >= 0) & (values <= 1))]  # NaN fails both comparisons
    if wrong.size:
        raise ValueError(f"{where}: samples contain {wrong[0]}, expected values in [0, 1]")


def _check_finite_scalar(where: str, name: str, value: float | Array) -> None:
    if np.ndim(value) != 0 or not (is_traced(value) or np.isfinite(value)):
        raise ValueError(f"{where}: {name} is {value!r}, expected a finite scalar")


def _floating_dtype(where: str, dtype: DTypeLike) -> DTypeLike:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{where}: dtype is {dtype!r}, expected a floating-point type")
    return dtype
