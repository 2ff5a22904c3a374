"""Lists of spikes: gathered into others, with their times differentiable."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.ops import _ffi


class Gather(enum.IntEnum):
    """What is gathered, of the spikes that belong to the channels asked for."""

    IN_TIME_ORDER = 0
    AS_THEY_STAND = 1
    FIRST_OF_EACH = 2  # channel, as it stands; its place is that of the channel


def gather_spikes(
    spikes: Spikes,
    channels: tuple[int, int],
    n_spikes: int,
    rule: Gather,
    *,
    parts: Sequence[int] | None = None,
    must_fit: bool = False,
    label: str = "gather_spikes",
) -> Spikes:
    """Spikes of the channels ``[begin, end)``, counted from ``begin``.

    Args:
        spikes: ``[*batch, any]``.
        channels: begin and end.
        n_spikes: length of the result; of the first ones, number of channels.
        rule: what is gathered.
        parts: lengths of the lists that stand behind each other; the default is a single one.
        must_fit: whether to raise where there are more spikes; else later ones are left out.
        label: how errors name the result.

    Returns:
        ``[*batch, n_spikes]``, padded; with NaN where ``spikes`` has NaN, of a window that failed.
    """
    begin, end = channels
    gathered = _ffi.gather_spikes(
        spikes.time,
        spikes.index,
        sizes={"gathered": n_spikes},
        parts=tuple(parts or (spikes.time.shape[-1],)),
        begin=np.int64(begin),
        end=np.int64(end),
        rule=np.int64(rule),
        must_fit=must_fit,
        label=label,
    )
    return Spikes(gathered["time"], gathered["index"])
