"""BrainScaleS-2: networks of :class:`jaxsnn.event.Graph` on the chip, or on an emulated one."""

from jaxsnn.event.hardware.errors import HardwareCapacityError, HardwareError
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

__all__ = [
    "Backend",
    "Calibration",
    "HardwareCapacityError",
    "HardwareError",
    "Issue",
    "NetworkSpec",
    "OperatingPoint",
    "PopulationSpec",
    "ProjectionSpec",
    "RunRequest",
    "RunResult",
    "SourceSpec",
]
