"""Lists of spikes: merged, and taken apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Spikes


def merge_spikes(sources: Sequence[Spikes], sizes: Sequence[int]) -> Spikes:
    """Spikes of several sources in one list in time order, their channels counted through.

    Args:
        sources: with any leading batch axes, which broadcast; in any order.
        sizes: number of channels of each source.

    Returns:
        All spikes, with the padding at the end. Simultaneous spikes stay in the order of the
        sources.
    """
    lead = jnp.broadcast_shapes(*(s.time.shape[:-1] for s in sources))
    times, indices = [], []
    for spikes, offset in zip(sources, itertools.accumulate(sizes, initial=0), strict=False):
        shape = (*lead, spikes.time.shape[-1])
        times.append(jnp.broadcast_to(spikes.time, shape))
        index = jnp.where(spikes.index < 0, -1, spikes.index + offset)
        indices.append(jnp.broadcast_to(index.astype(jnp.int32), shape))
    time, index = jnp.concatenate(times, -1), jnp.concatenate(indices, -1)
    return Spikes(*jax.lax.sort((time, index), num_keys=1))


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
    mine = (spikes.index >= begin) & (spikes.index < end)
    place = jnp.where(mine, jnp.cumsum(mine, -1) - 1, n_spikes)
    lead = spikes.time.shape[:-1]

    def put(fill, values):
        rows = [x.reshape(-1, x.shape[-1]) for x in (place, values)]
        empty = jnp.full(n_spikes, fill, values.dtype)
        placed = jax.vmap(lambda at, v: empty.at[at].set(v, mode="drop"))(*rows)
        return placed.reshape(*lead, n_spikes)

    return Spikes(put(jnp.inf, spikes.time), put(-1, spikes.index - begin))
