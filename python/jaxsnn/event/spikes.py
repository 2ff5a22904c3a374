"""Lists of spikes: merged, and taken apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxsnn.base.types import Spikes
from jaxsnn.ops._gather import Gather, gather_spikes

_MOST_CHANNELS = 2**31 - 1


def merge_spikes(
    sources: Sequence[Spikes],
    sizes: Sequence[int],
    *,
    n_spikes: int | None = None,
    truncate: bool = False,
    label: str = "merge_spikes",
) -> Spikes:
    """Spikes of several sources in one list in time order, their channels counted through.

    Args:
        sources: with any leading batch axes, which broadcast; in any order.
        sizes: number of channels of each source.
        n_spikes: length of the result; the default is that of all lists together.
        truncate: keep the ``n_spikes`` earliest spikes where there are more, instead of raising.
        label: how errors name the list.

    Returns:
        All spikes, with the padding at the end. Simultaneous spikes stay in the order of the
        sources. Where a list has NaN, of a window that failed, so has the padding.

    Raises:
        jax.errors.JaxRuntimeError: when run, for more than ``n_spikes`` spikes.
    """
    lead = jnp.broadcast_shapes(*(s.time.shape[:-1] for s in sources))
    times, indices = [], []
    for spikes, offset in zip(sources, itertools.accumulate(sizes, initial=0), strict=False):
        shape = (*lead, spikes.time.shape[-1])
        times.append(jnp.broadcast_to(spikes.time, shape))
        index = jnp.where(spikes.index < 0, -1, spikes.index + offset)
        indices.append(jnp.broadcast_to(index.astype(jnp.int32), shape))
    return gather_spikes(
        Spikes(jnp.concatenate(times, -1), jnp.concatenate(indices, -1)),
        (0, _MOST_CHANNELS),
        sum(t.shape[-1] for t in times) if n_spikes is None else n_spikes,
        Gather.IN_TIME_ORDER,
        parts=[t.shape[-1] for t in times],
        must_fit=not truncate,
        label=label,
    )


def take_spikes(spikes: Spikes, begin: int, end: int, n_spikes: int) -> Spikes:
    """The spikes of the neurons in ``[begin, end)``, counted from ``begin``.

    Args:
        spikes: ``[*batch, any]`` in time order.
        begin: first neuron.
        end: behind the last neuron.
        n_spikes: length of the result. Later spikes than that are left out.

    Returns:
        Spikes ``[*batch, n_spikes]`` in time order, padded.
    """
    return gather_spikes(spikes, (begin, end), n_spikes, Gather.AS_THEY_STAND)
