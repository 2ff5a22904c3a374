"""Between numbers of the model and of the chip: weights, times, lists of spikes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes

CLOCK_HZ = 125e6
WEIGHT_MAX = 63

# The ADC of one membrane: about 190 LSB from leak to threshold where these are 70 LSB of the CADC
# apart, and 315 LSB at a leak of 80.
_MADC_PER_CADC = 190 / 70
_MADC_AT_ZERO = 315 - 80 * _MADC_PER_CADC


def linear_saturating(weights: np.ndarray, scale: float, weight_max: int = WEIGHT_MAX):
    """Weights in LSB: ``round(clip(scale * w, -max, max))`` as int32, of the same shape."""
    scaled = np.clip(np.asarray(weights, np.float64) * scale, -weight_max, weight_max)
    return np.rint(scaled).astype(np.int32)


def quantise(weights: Array, scale: float, weight_max: int = WEIGHT_MAX) -> Array:
    """The weights that the chip has, in model units; the gradient passes straight through."""
    on_chip = jnp.round(jnp.clip(weights * scale, -weight_max, weight_max)) / scale
    return weights + jax.lax.stop_gradient(on_chip - weights)


def to_cycles(seconds: np.ndarray, clock_hz: float = CLOCK_HZ) -> np.ndarray:
    """Times to the nearest cycle, int64."""
    return np.rint(np.asarray(seconds, np.float64) * clock_hz).astype(np.int64)


def to_seconds(cycles: np.ndarray, offset_cycles: int = 0, clock_hz: float = CLOCK_HZ):
    """Recorded cycles as times of the model, float64 s: the latency is off, none is below 0."""
    return np.maximum(np.asarray(cycles, np.float64) - offset_cycles, 0) / clock_hz


def sendable(spikes: Spikes, runtime: float) -> np.ndarray:
    """Which entries of a list are spikes that can be sent, a mask of its shape."""
    time, index = np.asarray(spikes.time), np.asarray(spikes.index)
    return (index >= 0) & np.isfinite(time) & (time >= 0) & (time < runtime)


def fill_slots(
    time: np.ndarray, index: np.ndarray, n_slots: int
) -> tuple[Spikes, np.ndarray, np.ndarray]:
    """Puts recorded spikes into a fixed number of slots, as the vendor's stack does.

    Args:
        time: ``[n_samples, any]`` s, ``inf`` where there is none, in any order.
        index: likewise, -1 where there is none.
        n_slots: room per sample. Where there are more spikes, those of the neurons with the highest
            index are left out, and of one neuron the latest.

    Returns:
        Spikes ``[n_samples, n_slots]`` in time order (equal times by index), and per sample how
        many there were and how many were left out.
    """
    time, index = np.asarray(time), np.asarray(index)
    there = index >= 0
    n_recorded = there.sum(-1).astype(np.int32)
    place = np.where(there, index, np.iinfo(np.int32).max)
    if place.shape[-1] > n_slots:
        order = np.lexsort((time, place), axis=-1)[..., :n_slots]
        time, index = (np.take_along_axis(x, order, -1) for x in (time, index))
    else:
        pad = [(0, 0)] * (time.ndim - 1) + [(0, n_slots - time.shape[-1])]
        time = np.pad(time, pad, constant_values=np.inf)
        index = np.pad(index, pad, constant_values=-1)
    time = np.where(index >= 0, time, np.inf)
    order = np.lexsort((index, time), axis=-1)
    spikes = Spikes(
        np.take_along_axis(time, order, -1),  # pyright: ignore[reportArgumentType]
        np.take_along_axis(index, order, -1).astype(np.int32),  # pyright: ignore[reportArgumentType]
    )
    return spikes, n_recorded, np.maximum(n_recorded - n_slots, 0)


def quantise_refractory(seconds: float) -> float:
    """The refractory time that the chip can have next to this one, s.

    A counter of at most 255 periods of ``2^(s+1) / 250 MHz``, with ``s`` changed from 4 until a
    period is between 1/255 and 1/30 of the time.
    """
    if seconds <= 0:
        return 0.0
    power = 4
    period = 2.0 ** (power + 1) / 250e6
    while period < seconds / 255:
        power += 1
        period = 2.0 ** (power + 1) / 250e6
    while period > seconds / 30 and power > 0:
        power -= 1
        period = 2.0 ** (power + 1) / 250e6
    return min(int(seconds / period + 1e-9) + 1, 255) * period


def madc_scale(leak: int, threshold: int) -> tuple[float, float]:
    """LSB of the MADC at the leak, and from there to the threshold; both are given in CADC LSB."""
    return _MADC_AT_ZERO + leak * _MADC_PER_CADC, (threshold - leak) * _MADC_PER_CADC
