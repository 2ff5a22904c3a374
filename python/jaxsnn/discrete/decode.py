"""Voltages or spikes over time ``[*batch, n_steps, n_outputs]`` to one score per output.

A ``mask [*batch, n_steps]`` is true in the steps that belong to a sample and false behind its end,
for samples of different lengths. A layer need not know of it: later steps change nothing before.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Bool, Float

__all__ = [
    "last_step",
    "length_mask",
    "max_over_time",
    "max_over_time_decode",
    "spike_count",
    "sum_over_time",
]

Trace = Float[Array, "*batch n_steps n_outputs"]
Scores = Float[Array, "*batch n_outputs"]
Mask = Bool[Array, "*#batch n_steps"]


def length_mask(lengths: Array, n_steps: int) -> Bool[Array, "*batch n_steps"]:
    """The mask of samples that have ``lengths [*batch]`` steps of ``n_steps``."""
    return jnp.arange(n_steps) < jnp.asarray(lengths)[..., None]


def max_over_time(voltages: Trace, mask: Mask | None = None) -> Scores:
    """The largest voltage of every output."""
    _check_mask("max_over_time", voltages, mask)
    if mask is not None:
        voltages = jnp.where(mask[..., None], voltages, -jnp.inf)
    return jnp.max(voltages, axis=-2)


def max_over_time_decode(voltages: Trace, mask: Mask | None = None) -> Scores:
    """Log-probabilities: the log-softmax of the largest voltages."""
    return jax.nn.log_softmax(max_over_time(voltages, mask), axis=-1)


def sum_over_time(voltages: Trace, mask: Mask | None = None) -> Scores:
    """The sum over all steps."""
    _check_mask("sum_over_time", voltages, mask)
    if mask is not None:
        voltages = jnp.where(mask[..., None], voltages, 0)
    return jnp.sum(voltages, axis=-2)


def last_step(voltages: Trace, mask: Mask | None = None) -> Scores:
    """The value in the last step of every sample."""
    _check_mask("last_step", voltages, mask)
    if mask is None:
        return voltages[..., -1, :]
    last = jnp.broadcast_to(jnp.sum(mask, -1) - 1, voltages.shape[:-2])
    return jnp.take_along_axis(voltages, last[..., None, None], axis=-2)[..., 0, :]


def spike_count(spikes: Trace, mask: Mask | None = None) -> Scores:
    """The number of spikes of every output."""
    return sum_over_time(spikes, mask)


def _check_mask(name: str, values: Array, mask: Array | None) -> None:
    if mask is not None and (mask.ndim < 1 or mask.shape[-1] != values.shape[-2]):
        raise ValueError(
            f"jaxsnn.discrete.decode.{name}: mask has shape {mask.shape}, expected "
            f"(..., n_steps={values.shape[-2]})"
        )
