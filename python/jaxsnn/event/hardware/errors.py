"""What can go wrong between a script and a chip."""

from __future__ import annotations

__all__ = ["HardwareCapacityError", "HardwareError"]


class HardwareError(RuntimeError):
    """Base of all errors of backends; the message says what to do."""


class HardwareCapacityError(HardwareError):
    """A network or a run does not fit the chip; the message names each rule that it breaks."""
