"""The files of a run: config.json, metrics.json, weights.npz."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

import jaxsnn
from jaxsnn.event.tasks._config import Options
from jaxsnn.event.tasks._network import Parameters, TaskNetwork
from jaxsnn.event.training import Epoch, Metrics


class Results:
    """A folder that holds the state after the last epoch at any time.

    Every file is replaced as a whole, so that a reader, or a run that is stopped, never leaves a
    part of one.

    Args:
        folder: made if missing; files of an earlier run are replaced. None writes nothing.
        program: name of the program, for config.json.
        config: the configuration.
        network: what is trained.
        parameters: its initial parameters.
    """

    def __init__(
        self,
        folder: Path | None,
        program: str,
        config: Options,
        network: TaskNetwork,
        parameters: Parameters,
    ) -> None:
        self._folder = folder
        self._network = network
        self._epochs: list[dict[str, Any]] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        versions = {"jaxsnn": jaxsnn.__version__, "jax": jax.__version__}
        self._write_json(
            "config.json",
            {"program": program, "versions": versions, **dataclasses.asdict(config)},
        )
        self._write(parameters)

    @property
    def n_epochs(self) -> int:
        """Epochs written so far."""
        return len(self._epochs)

    def add(self, epoch: Epoch, health: Mapping[str, Any] | None = None) -> None:
        """Writes the metrics of all epochs so far and the newest weights.

        Args:
            epoch: the newest epoch.
            health: what there is to say of its network, for metrics.json.
        """
        self._epochs.append(
            {
                "epoch": epoch.number,
                "train": self._metrics(epoch.train),
                **{name: self._metrics(metrics) for name, metrics in epoch.held_out.items()},
                **({} if health is None else {"health": health}),
                "seconds": epoch.seconds,
                "compile_seconds": epoch.compile_seconds,
            }
        )
        self._write(epoch.weights)

    def _write(self, parameters: Parameters) -> None:
        arrays: dict[str, Any] = {
            name: np.asarray(x) for name, x in self._network.arrays(parameters).items()
        }
        self._replace("weights.npz", lambda file: np.savez(file, **arrays))
        self._write_json("metrics.json", {"epochs": self._epochs})

    def _metrics(self, metrics: Metrics) -> dict[str, Any]:
        return {
            "loss": metrics.loss,
            "accuracy": metrics.accuracy,
            "spikes_per_sample": dict(zip(self._network.spiking, metrics.spikes, strict=True)),
        }

    def _write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        self._replace(name, lambda file: file.write(text.encode()))

    def _replace(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        if self._folder is None:
            return
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
            Path(temporary).chmod(0o666 & ~_umask())
            os.replace(temporary, self._folder / name)
        except BaseException:  # Ctrl-C included
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
