"""BrainScaleS-2: networks of :class:`jaxsnn.event.Graph` on the chip, or on an emulated one."""

from jaxsnn.event.hardware.emulator import EmulatedBackend, EmulatorConfig
from jaxsnn.event.hardware.errors import HardwareCapacityError, HardwareError
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
    "EmulatedBackend",
    "EmulatorConfig",
    "HardwareCapacityError",
    "HardwareError",
    "InTheLoop",
    "Issue",
    "Losses",
    "NetworkSpec",
    "OperatingPoint",
    "PopulationSpec",
    "ProjectionSpec",
    "RunRequest",
    "RunResult",
    "SourceSpec",
    "validate",
]
