"""Lists of spikes on the host, and the noise of an emulated chip."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware._stages import Stage


def spikes_of(time: np.ndarray, index: np.ndarray, there: np.ndarray) -> Spikes:
    """The entries of lists that are spikes, with padding in place of all others."""
    time, index = np.where(there, time, np.inf), np.where(there, index, -1).astype(np.int32)
    return Spikes(time, index)  # pyright: ignore[reportArgumentType]


def delayed(spikes: Spikes, lost: np.ndarray | None = None, delay: float = 0.0) -> Spikes:
    """Spikes without those that are lost, the others a delay later, in s."""
    there = np.asarray(spikes.index) >= 0
    if lost is not None:
        there &= ~lost
    return spikes_of(np.asarray(spikes.time) + delay, np.asarray(spikes.index), there)


def merged(stage: Stage, spikes: Mapping[str, Spikes]) -> Spikes:
    """What a stage hears, in time order, as `Stage.inputs` has it under JAX."""
    begins = itertools.accumulate(stage.source_sizes, initial=0)
    heard = [spikes[name] for name in stage.sources]
    time = np.concatenate([np.asarray(own.time) for own in heard], -1)
    index = np.concatenate(
        [
            np.where(np.asarray(own.index) < 0, -1, np.asarray(own.index) + begin)
            for own, begin in zip(heard, begins, strict=False)
        ],
        -1,
    )
    order = np.argsort(time, -1, kind="stable")
    index = np.take_along_axis(index, order, -1)
    return spikes_of(np.take_along_axis(time, order, -1), index, index >= 0)


def ordinals(index: np.ndarray) -> np.ndarray:
    """How often each number of a row, ``[n_rows, n]``, stands in it before."""
    order = np.argsort(index, -1, kind="stable")
    ranked = np.take_along_axis(index, order, -1)
    place = np.broadcast_to(np.arange(index.shape[-1]), index.shape)
    begins = np.concatenate([np.ones_like(ranked[:, :1], bool), np.diff(ranked, axis=-1) != 0], -1)
    first = np.maximum.accumulate(np.where(begins, place, 0), -1)
    found = np.empty(index.shape, np.int64)
    np.put_along_axis(found, order, place - first, -1)
    return found


def split(stage: Stage, spikes: Spikes) -> dict[str, Spikes]:
    """The spikes of each population of a stage."""
    begin, found = 0, {}
    for population in stage.populations:
        index = np.asarray(spikes.index) - begin
        mine = (index >= 0) & (index < population.size)
        time = np.where(mine, np.asarray(spikes.time), np.inf)
        order = np.argsort(time, -1, kind="stable")
        found[population.name] = spikes_of(
            *(np.take_along_axis(x, order, -1) for x in (time, index, mine))
        )
        begin += population.size
    return found


class Noise:
    """Trial noise: a generator per effect and population."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, effect: str) -> np.random.Generator:
        return generator("trial", self._seed, effect)


def generator(*words: Any) -> np.random.Generator:
    """Random numbers that belong to these words."""
    return np.random.default_rng(
        [word if isinstance(word, int) else zlib.crc32(word.encode()) for word in words]
    )


def gain(std: float, normal: np.ndarray) -> np.ndarray:
    """Factors around 1 that stay above 0."""
    return np.maximum(1 + std * normal, 0.05)
