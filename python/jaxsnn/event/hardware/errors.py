"""What can go wrong between a script and a chip."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CalibrationError",
    "CalibrationMissingError",
    "HardwareAPIError",
    "HardwareCapacityError",
    "HardwareConnectionError",
    "HardwareError",
    "HardwareUnavailableError",
    "RoutingError",
    "RunTooLongError",
]


class HardwareError(RuntimeError):
    """Base of all errors of backends; the message says what to do."""


class HardwareCapacityError(HardwareError):
    """A network or a run does not fit the chip; the message names each rule that it breaks."""


class RunTooLongError(HardwareCapacityError):
    """A run is longer than the timer of the chip can count."""


class RoutingError(HardwareCapacityError):
    """The vendor's router found no way to connect the populations."""


class HardwareConnectionError(HardwareError):
    """The packages are there, but no chip answers, or the backend was not opened."""


class HardwareUnavailableError(HardwareError):
    """Packages of the vendor are missing.

    Attributes:
        missing: their names.
    """

    def __init__(self, missing: Sequence[str], hint: str) -> None:
        self.missing = tuple(missing)
        super().__init__(f"missing packages: {', '.join(missing)}; {hint}")


class HardwareAPIError(HardwareError):
    """The vendor's packages are not of a generation that this version knows.

    Attributes:
        symbol: what is missing or answers in another way.
    """

    def __init__(self, symbol: str, reason: str = "is missing") -> None:
        self.symbol = symbol
        super().__init__(
            f"{symbol} {reason}: the installed packages of the vendor are of a generation that "
            "this version does not know"
        )


class CalibrationError(HardwareError):
    """A calibration is damaged, belongs to another chip, or cannot be measured."""


class CalibrationMissingError(CalibrationError):
    """There is no calibration yet; the message has the command that makes it."""
