"""Calibrations: what is measured of a chip, and the files that keep it."""

from jaxsnn.event.hardware.calib.artefact import load, name_of, save
from jaxsnn.event.hardware.calib.measure import (
    Sweep,
    measure_time_offset,
    measure_weight_scale,
    sweep_weights,
)
from jaxsnn.event.hardware.calib.wafers import WAFER_CONFIGS, WaferConfig, load_wafer

__all__ = [
    "WAFER_CONFIGS",
    "Sweep",
    "WaferConfig",
    "load",
    "load_wafer",
    "measure_time_offset",
    "measure_weight_scale",
    "name_of",
    "save",
    "sweep_weights",
]
