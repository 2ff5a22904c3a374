"""What an adapter to a generation of the vendor's interface does.

Adapters speak whole numbers: cycles and LSB. Everything else is the matter of `GrenadeBackend`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxsnn.event.hardware.grenade.probe import symbol
from jaxsnn.event.hardware.spec import NetworkSpec, OperatingPoint

#: Times of the spikes of every channel of every sample, in cycles.
Trains = list[list[list[int]]]


class Setup(NamedTuple):
    """What a network needs to be built.

    Attributes:
        spec: the network.
        payload: file with the calibrated chip, None where the stack is to calibrate.
        point: operating point.
        wait: least time between samples, cycles.
        recorded: population and neuron whose membrane is recorded, or None.
    """

    spec: NetworkSpec
    payload: Path | None
    point: OperatingPoint
    wait: int
    recorded: tuple[str, int] | None


class Recorded(NamedTuple):
    """What a run gave.

    Attributes:
        spikes: per population indices and cycles ``[n_samples, room]``, int; -1 where there is
            none.
        samples: per sample the times, in cycles, and values, in LSB, of the recorded membrane.
    """

    spikes: dict[str, tuple[np.ndarray, np.ndarray]]
    samples: list[list[tuple[int, int]]] | None


@runtime_checkable
class Program(Protocol):
    """A network on the chip."""

    def run(
        self,
        weights: Mapping[str, np.ndarray],
        trains: Mapping[str, Trains],
        cycles: int,
        room: Mapping[str, int],
    ) -> Recorded:
        """Runs a batch.

        Args:
            weights: per projection, under its label, ``[n_source, n_target]`` LSB with sign.
            trains: per source.
            cycles: how long a sample runs.
            room: per population how many spikes of a sample to return.
        """
        ...


class Adapter(ABC):
    """A generation of the interface; what none of them changed is written here.

    Args:
        required: the symbols without which it is not that generation.
    """

    generation: str

    def __init__(self, required: Iterable[str]) -> None:
        for path in required:
            symbol(path)

    def connect(self) -> None:
        """Takes hold of the chip."""
        symbol("hxtorch.init_hardware")()

    def release(self) -> None:
        """Lets go of it."""
        symbol("hxtorch.release_hardware")()

    def chip(self) -> str:
        """The identifier of the chip."""
        return str(symbol("_hxtorch_core.get_unique_identifier")()[0])

    def max_cycles(self) -> int:
        """The longest run, which is what the chip's timer can count."""
        return int(symbol("dlens_vx_v3.hal.Timer.Value.max"))

    @abstractmethod
    def build(self, setup: Setup) -> Program:
        """Maps a network to the chip."""


def spike_arrays(index: np.ndarray, cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the stack's extraction returned as int64, without its infinities."""
    index = np.asarray(index, np.int64)
    there = index >= 0
    cycles = np.rint(np.where(there, np.asarray(cycles, np.float64), -1)).astype(np.int64)
    return np.where(there, index, -1), cycles
