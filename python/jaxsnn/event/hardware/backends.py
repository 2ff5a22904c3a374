"""Backends by name."""

from __future__ import annotations

import logging

from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.emulator import EmulatedBackend
from jaxsnn.event.hardware.errors import HardwareUnavailableError
from jaxsnn.event.hardware.grenade import GrenadeBackend
from jaxsnn.event.hardware.grenade.probe import generation
from jaxsnn.event.hardware.spec import Backend

__all__ = ["get_backend"]

_log = logging.getLogger(__name__)


def get_backend(
    name: str = "auto", *, chip: int = 0, config: EmulatorConfig | None = None
) -> Backend:
    """A backend, not opened yet.

    Args:
        name: ``"grenade"`` for a real chip; ``"emulated"``; ``"auto"`` for a real one where the
            vendor's packages are installed, else, with a warning, an emulated one.
        chip: seed of the emulated chip.
        config: its effects.

    Raises:
        ValueError: there is no such backend.
        HardwareAPIError: with ``"auto"``, packages are installed but unknown.
    """
    if name not in ("auto", "emulated", "grenade"):
        raise ValueError(f"get_backend: name is {name!r}, expected 'auto', 'emulated' or 'grenade'")
    if name == "grenade":
        return GrenadeBackend()
    if name == "auto":
        try:
            generation()
        except HardwareUnavailableError as error:
            _log.warning("no chip is in reach, an emulated one takes its place: %s", error)
        else:
            return GrenadeBackend()
    return EmulatedBackend(chip, config)
