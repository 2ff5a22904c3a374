"""Calibrations as folders: ``calibration.json`` and, of a real chip, its configuration.

Files are written under another name and renamed, the JSON last: a folder holds a whole calibration
or the one before, whenever writing ends. Checksums are checked by every load.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jaxsnn.event.hardware.errors import CalibrationError, CalibrationMissingError
from jaxsnn.event.hardware.spec import Calibration, OperatingPoint

_JSON = "calibration.json"
_SCHEMA = 1


def name_of(wafer: str, point: OperatingPoint) -> str:
    """The name of the calibration of a chip, as upstream names its files, without a suffix."""
    return (
        f"calibration_{wafer}_leak{point.leak:.0f}_th{point.threshold:.0f}_reset{point.reset:.0f}"
        f"_taus-{point.tau_syn * 1e6:.0f}us_taum-{point.tau_mem * 1e6:.0f}us"
        f"_trefrac-{point.refractory_time * 1e6:.1f}us_isyningm-{point.i_synin_gm:.0f}"
        f"_sdbias-{point.synapse_dac_bias:.0f}"
    )


def save(calibration: Calibration, folder: str | Path, payload: bytes | None = None) -> Calibration:
    """Writes a calibration.

    Args:
        calibration: to write; its payload, a path, is copied where no other is given.
        folder: made where it is missing; a calibration in it is replaced.
        payload: configuration of the chip.

    Returns:
        The calibration as `load` returns it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if payload is None and calibration.payload is not None:
        payload = Path(calibration.payload).read_bytes()
    content: dict[str, Any] = {
        "weight_scale": calibration.weight_scale,
        "time_offset_cycles": calibration.time_offset_cycles,
        "operating_point": dataclasses.asdict(calibration.operating_point),
        "chip": calibration.chip,
        "name": calibration.name,
        "payload": None,
    }
    if payload is not None:
        file = save_payload(payload, folder)
        content["payload"] = {"file": file.name, "sha256": hashlib.sha256(payload).hexdigest()}
    whole = {"schema": _SCHEMA, "sha256": _checksum(content), "content": content}
    _replace(folder / _JSON, (json.dumps(whole, indent=2) + "\n").encode())
    for stale in folder.glob("chip-*.pbin"):
        if content["payload"] is None or stale.name != content["payload"]["file"]:
            stale.unlink()
    return load(folder)


def save_payload(payload: bytes, folder: Path) -> Path:
    """Writes the configuration of a chip alone, which is no calibration before `save`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"chip-{hashlib.sha256(payload).hexdigest()[:16]}.pbin"
    _replace(path, payload)
    return path


def load(folder: str | Path) -> Calibration:
    """Reads a calibration; ``payload`` is the path of the configuration of the chip.

    Raises:
        CalibrationMissingError: there is none.
        CalibrationError: it is damaged, or of another version.
    """
    path = Path(folder) / _JSON
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CalibrationMissingError(
            f"there is no calibration in {folder}, expected {path}; make one with "
            "python -m jaxsnn.event.hardware.calib.neuron_calib"
        ) from None
    try:
        whole = json.loads(text)
        schema, checksum, content = whole["schema"], whole["sha256"], whole["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path} is damaged: {error!r}") from None
    if schema != _SCHEMA:
        raise CalibrationError(f"{path} has schema {schema}, expected {_SCHEMA}")
    if checksum != _checksum(content):
        raise CalibrationError(f"{path} is damaged: its checksum does not match")
    payload = content.pop("payload")
    point = OperatingPoint(**content.pop("operating_point"))
    return Calibration(
        operating_point=point, payload=_checked_payload(Path(folder), payload), **content
    )


def _checked_payload(folder: Path, payload: dict[str, str] | None) -> Path | None:
    if payload is None:
        return None
    path = folder / payload["file"]
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise CalibrationError(f"{path}, the configuration of the chip, is missing") from None
    if found != payload["sha256"]:
        raise CalibrationError(f"{path} is damaged: its checksum does not match")
    return path


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
