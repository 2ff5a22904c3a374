"""How active a network is, and terms of a loss that keep its activity in a range.

Spike counts are piecewise constant, so that their exact gradient is zero: a neuron that is silent
learns nothing. The two terms here give it another one. They are *not* exact gradients of anything
that the network computes, and nothing uses them unless it is asked to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Float, Int, LIFParameters, Spikes
from jaxsnn.ops import LoopResult

__all__ = [
    "Activity",
    "activity",
    "changed_spikes",
    "silent_neuron_loss",
    "spike_count_loss",
    "spike_counts",
    "threshold_slopes",
]


def spike_counts(spikes: Spikes, n_neurons: int) -> Int[Array, "*batch n_neurons"]:
    """How often every neuron fired.

    Args:
        spikes: ``[*batch, n_spikes]``.
        n_neurons: size of the population.

    Returns:
        ``[*batch, n_neurons]`` int32.
    """
    lead = jnp.indices(spikes.index.shape, sparse=True)[:-1]
    neuron = jnp.where(spikes.index < 0, n_neurons, spikes.index)
    counts = jnp.zeros((*spikes.index.shape[:-1], n_neurons), jnp.int32)
    return counts.at[(*lead, neuron)].add(1, mode="drop")


def threshold_slopes(params: LIFParameters, result: LoopResult) -> Float[Array, "*batch n_spikes"]:
    """How fast the voltage rose at each spike, just before it; ``inf`` for padding.

    Gradients of spike times grow with the inverse of it: where it is small the voltage grazed the
    threshold, and the spike is about to disappear. It has no gradient of its own.

    Args:
        params: of the population.
        result: of :func:`jaxsnn.ops.event_loop`.

    Returns:
        ``[*batch, n_spikes]``, voltage per time.
    """
    index = jnp.maximum(result.spikes.index, 0)

    def own(value: Any) -> Any:
        return jnp.asarray(value)[..., index] if jnp.ndim(value) == 1 else value

    drive = own(params.v_th) - own(params.v_leak)
    slopes = (result.current - drive) / own(params.tau_mem)
    return jax.lax.stop_gradient(jnp.where(result.spikes.index < 0, jnp.inf, slopes))


class Activity(NamedTuple):
    """The state of health of a population in a batch.

    Attributes:
        smallest_slope: the smallest slope of the voltage at a spike, in thresholds per ``tau_mem``;
            ``inf`` without spikes.
        grazing: number of spikes whose slope is below the limit.
        silent: fraction of the neurons that fired in no sample.
        spikes: per sample and neuron.
    """

    smallest_slope: Float[Array, ""]
    grazing: Int[Array, ""]
    silent: Float[Array, ""]
    spikes: Float[Array, ""]


def activity(params: LIFParameters, result: LoopResult, *, grazing_limit: float = 1e-2) -> Activity:
    """Summarises a run of a population over a batch; cheap, and works under ``jit``.

    Args:
        params: of the population.
        result: of :func:`jaxsnn.ops.event_loop`.
        grazing_limit: a slope below which a spike counts as grazing, in thresholds per ``tau_mem``,
            where a threshold is ``v_th - v_reset``.

    Returns:
        The summary.
    """
    n_neurons = result.state.v.shape[-1]
    index = jnp.maximum(result.spikes.index, 0)
    unit = (jnp.asarray(params.v_th) - jnp.asarray(params.v_reset)) / jnp.asarray(params.tau_mem)
    unit = unit[..., index] if unit.ndim == 1 else unit
    slopes = threshold_slopes(params, result) / unit
    counts = spike_counts(result.spikes, n_neurons).reshape(-1, n_neurons)
    return Activity(
        jnp.min(slopes, initial=jnp.inf),
        jnp.sum(slopes < grazing_limit),
        jnp.mean(jnp.sum(counts, 0) == 0, dtype=slopes.dtype),
        jnp.mean(counts, dtype=slopes.dtype),
    )


def changed_spikes(
    before: Spikes, after: Spikes, n_neurons: int
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many spikes the same samples lost and won between two sets of parameters.

    At such a change the loss jumps, which no gradient can foresee.

    Args:
        before: ``[*batch, n_spikes]``.
        after: of the same samples.
        n_neurons: size of the population.

    Returns:
        Spikes dropped and spikes created, over all samples and neurons.
    """
    change = spike_counts(after, n_neurons) - spike_counts(before, n_neurons)
    return jnp.sum(jnp.maximum(-change, 0)), jnp.sum(jnp.maximum(change, 0))


def silent_neuron_loss(
    maximum: Float[Array, "*batch n_neurons"], v_th: float | Array, *, margin: float = 0.0
) -> Float[Array, ""]:
    """How far silent neurons stay below their threshold.

    For every neuron the distance of its highest voltage to the threshold, in the sample in which it
    came nearest; 0 for a neuron that fired in any sample. Its gradient is that of the voltage and
    lifts a silent neuron until it fires, where the exact gradient is zero.

    Args:
        maximum: ``[*batch, n_neurons]`` largest voltages, as :func:`jaxsnn.ops.event_loop` returns
            them.
        v_th: threshold, scalar or per neuron.
        margin: lift neurons this far above the threshold.

    Returns:
        The mean over the neurons, in units of the voltage.
    """
    # The highest voltage of a neuron that fired is its threshold, rounded. It gets no gradient.
    rounding = 4 * jnp.finfo(maximum.dtype).eps * jnp.abs(v_th)
    distance = jnp.where(maximum < v_th - rounding, v_th + margin - maximum, 0)
    return jnp.mean(jnp.min(distance.reshape(-1, distance.shape[-1]), axis=0))


def spike_count_loss(
    spikes: Spikes,
    slopes: Float[Array, "*batch n_spikes"],
    n_neurons: int,
    *,
    lower: float = 0.0,
    upper: float = float("inf"),
) -> Float[Array, ""]:
    """Keeps the mean spike count of every neuron between two bounds.

    The value is half the squared distance of the count, averaged over the batch, to the bounds. The
    gradient is a substitute: at every spike of a neuron that fires too often it lowers the voltage
    in proportion to the excess, and raises it where a neuron fires too rarely (Nowotny, Turner and
    Knight, arXiv:2212.01232, section on regularisation). It acts at spikes only; for neurons that
    are wholly silent there is `silent_neuron_loss`.

    Args:
        spikes: ``[*batch, n_spikes]``.
        slopes: of :func:`threshold_slopes`.
        n_neurons: size of the population.
        lower: least count per sample.
        upper: largest count per sample.

    Returns:
        The mean over the neurons.
    """
    counts = spike_counts(spikes, n_neurons).reshape(-1, n_neurons)
    mean = jnp.mean(counts, axis=0, dtype=slopes.dtype)
    excess = jnp.maximum(mean - upper, 0) - jnp.maximum(lower - mean, 0)
    value = jnp.mean(excess**2) / 2
    # A change of the voltage at a spike moves it by the inverse slope: dL/dt = -dL/dv * slope.
    fired = spikes.index >= 0
    push = jnp.where(fired, excess[jnp.maximum(spikes.index, 0)] * slopes, 0)
    moved = -jax.lax.stop_gradient(push) * jnp.where(fired, spikes.time, 0)
    substitute = jnp.sum(moved) / (counts.shape[0] * n_neurons)
    return value + substitute - jax.lax.stop_gradient(substitute)
