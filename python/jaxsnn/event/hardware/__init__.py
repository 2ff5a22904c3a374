"""BrainScaleS-2: networks of :class:`jaxsnn.event.Graph` on the chip, or on an emulated one."""

from jaxsnn.event.hardware.backends import get_backend
from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.emulator import EmulatedBackend
from jaxsnn.event.hardware.errors import (
    CalibrationError,
    CalibrationMissingError,
    HardwareAPIError,
    HardwareCapacityError,
    HardwareConnectionError,
    HardwareError,
    HardwareUnavailableError,
    RoutingError,
    RunTooLongError,
)
from jaxsnn.event.hardware.grenade import GrenadeBackend
from jaxsnn.event.hardware.itl import InTheLoop, Losses
from jaxsnn.event.hardware.spec import (
    Backend,
    Calibration,
    Issue,
    NetworkSpec,
    OperatingPoint,
    PopulationSpec,
    ProjectionSpec,
    RunRequest,
    RunResult,
    SourceSpec,
)
from jaxsnn.event.hardware.validate import validate

__all__ = [
    "Backend",
    "Calibration",
    "CalibrationError",
    "CalibrationMissingError",
    "EmulatedBackend",
    "EmulatorConfig",
    "GrenadeBackend",
    "HardwareAPIError",
    "HardwareCapacityError",
    "HardwareConnectionError",
    "HardwareError",
    "HardwareUnavailableError",
    "InTheLoop",
    "Issue",
    "Losses",
    "NetworkSpec",
    "OperatingPoint",
    "PopulationSpec",
    "ProjectionSpec",
    "RoutingError",
    "RunRequest",
    "RunResult",
    "RunTooLongError",
    "SourceSpec",
    "get_backend",
    "validate",
]
