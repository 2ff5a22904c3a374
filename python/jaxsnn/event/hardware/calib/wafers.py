"""The chips on which upstream's experiments ran, by the names that it gave them.

Their operating points and weight scales are known; the configurations of the chips are not here,
and fit no other chip.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import NamedTuple

from jaxsnn.event.hardware.calib.artefact import load, name_of
from jaxsnn.event.hardware.errors import CalibrationMissingError
from jaxsnn.event.hardware.spec import Calibration, OperatingPoint

#: Where calibrations are looked for, and where `neuron_calib` writes them.
CALIB_DIR = "calib_files"

_PROGRAM = "python -m jaxsnn.event.hardware.calib.neuron_calib"


class WaferConfig(NamedTuple):
    """A calibrated chip.

    Attributes:
        wafer: which chip: wafer and FPGA.
        point: its operating point.
        weight_scale: LSB per unit of model weight.
    """

    wafer: str
    point: OperatingPoint
    weight_scale: float

    @property
    def name(self) -> str:
        """The name of the calibration's folder."""
        return name_of(self.wafer, self.point)

    def command(self, calib_dir: str | Path = CALIB_DIR) -> str:
        """The command that makes the calibration."""
        defaults, options = OperatingPoint(), []
        for field in dataclasses.fields(self.point):
            value = getattr(self.point, field.name)
            if value != getattr(defaults, field.name):
                options.append(f"--{field.name.replace('_', '-')} {value}")
        if str(calib_dir) != CALIB_DIR:
            options.append(f"--calib-dir {shlex.quote(str(calib_dir))}")
        return " ".join([_PROGRAM, f"--wafer {self.wafer}", *options])


_SHORT = OperatingPoint()
_SLOW = OperatingPoint(tau_mem=12e-6)
_LONG = OperatingPoint(tau_mem=12e-6, refractory_time=30e-6)
_LONG_130 = OperatingPoint(tau_mem=12e-6, refractory_time=30e-6, threshold=130)

WAFER_CONFIGS = {
    "W_69_F0": WaferConfig("W69F0", _SHORT, 48.0),
    "W_66_F3": WaferConfig("W66F3", _SHORT, 48.0),
    "W_66_F3_TAU_MEM_FACTOR_2": WaferConfig("W66F3", _SLOW, 48.0),
    "W_69_F0_TAU_MEM_FACTOR_2": WaferConfig("W69F0", _SLOW, 48.0),
    "W_69_F0_LONG_REFRAC": WaferConfig("W69F0", _LONG, 56.0),
    "W_63_F3_LONG_REFRAC": WaferConfig("W63F3", _LONG, 48.0),
    "W_69_F0_LONG_REFRAC_130_THRESHOLD": WaferConfig("W69F0", _LONG_130, 32.0),
    "W_63_F3_LONG_REFRAC_130_THRESHOLD": WaferConfig("W63F3", _LONG_130, 30.0),
}


def load_wafer(name: str, calib_dir: str | Path = CALIB_DIR) -> Calibration:
    """The calibration of one of `WAFER_CONFIGS`.

    Args:
        name: its name.
        calib_dir: folder of calibrations.

    Raises:
        ValueError: there is no such name.
        CalibrationMissingError: it has not been made; the message has the command that does.
        CalibrationError: it is damaged.
    """
    if name not in WAFER_CONFIGS:
        raise ValueError(
            f"load_wafer: name is {name!r}, expected one of {', '.join(WAFER_CONFIGS)}"
        )
    config = WAFER_CONFIGS[name]
    try:
        return load(Path(calib_dir) / config.name)
    except CalibrationMissingError:
        raise CalibrationMissingError(
            f"the calibration of {name} is not in {calib_dir}; make it with\n  "
            f"{config.command(calib_dir)}"
        ) from None
