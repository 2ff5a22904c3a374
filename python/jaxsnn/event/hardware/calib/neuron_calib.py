"""Calibrates the neurons of a chip, and measures its weight scale and latency.

On a chip (--backend grenade) the vendor's calix brings the neurons to the operating point, which
takes minutes; on an emulated one they are there already. Then weights are swept: the scale of the
weights and the offset of the times are measured, and written to the folder of the calibration with
checksums.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxsnn.event.hardware.backends import get_backend
from jaxsnn.event.hardware.calib.artefact import load, name_of, save, save_payload
from jaxsnn.event.hardware.calib.measure import (
    measure_time_offset,
    measure_weight_scale,
    model_parameters,
    sweep_weights,
)
from jaxsnn.event.hardware.calib.wafers import CALIB_DIR
from jaxsnn.event.hardware.effects import EmulatorConfig
from jaxsnn.event.hardware.emulator import EmulatedBackend
from jaxsnn.event.hardware.errors import (
    CalibrationError,
    CalibrationMissingError,
    HardwareError,
)
from jaxsnn.event.hardware.grenade import GrenadeBackend
from jaxsnn.event.hardware.grenade.calix import calibrate
from jaxsnn.event.hardware.spec import Backend, Calibration, OperatingPoint

_PROGRAM = "jaxsnn.event.hardware.calib.neuron_calib"
_HELP = {
    "leak": "leak potential, LSB of the CADC",
    "reset": "reset potential, LSB of the CADC",
    "threshold": "threshold, LSB of the CADC",
    "tau_syn": "synaptic time constant, s",
    "tau_mem": "membrane time constant, s",
    "refractory_time": "refractory time, s",
    "i_synin_gm": "bias of the synaptic input, LSB",
    "synapse_dac_bias": "bias of the synapses, LSB",
}


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {_PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--wafer", required=True, metavar="NAME", help="wafer and FPGA of the chip, such as W69F0"
    )
    for field in dataclasses.fields(OperatingPoint):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            metavar="X",
            help=f"{_HELP[field.name]} (default: {field.default})",
        )
    parser.add_argument(
        "--calib-dir",
        type=Path,
        default=Path(CALIB_DIR),
        metavar="DIR",
        help=f"folder of calibrations (default: {CALIB_DIR})",
    )
    parser.add_argument(
        "--calib-name",
        metavar="NAME",
        help="of the calibration's own folder (default: from wafer and operating point)",
    )
    parser.add_argument(
        "--recreate-calib-files",
        action="store_true",
        help="calibrate even where the calibration is there already",
    )
    parser.add_argument(
        "--backend",
        choices=("grenade", "emulated"),
        default="grenade",
        help="what to calibrate: a chip that the vendor's packages reach, or one in software "
        "(default: grenade)",
    )
    parser.add_argument(
        "--chip", type=int, default=0, metavar="SEED", help="emulated: which chip (default: 0)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status: 0, 1 after an error, 2 for wrong options.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(format=f"{parser.prog}: %(levelname)s: %(message)s")
    point = OperatingPoint(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(OperatingPoint)}
    )
    name = options.calib_name or name_of(options.wafer, point)
    folder = options.calib_dir / name
    try:
        model_parameters(point)
    except ValueError as error:
        parser.error(str(error))
    try:
        calibration = None if options.recreate_calib_files else _existing(folder, options)
        state = "is there already"
        if calibration is None:
            calibration = _calibrate(options, point, folder, name)
            state = "written"
    except (HardwareError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    print(
        f"{folder}: {state}; chip {calibration.chip}, weight scale "
        f"{calibration.weight_scale:.2f} LSB, time offset {calibration.time_offset_cycles} cycles"
    )
    return 0


def _existing(folder: Path, options: argparse.Namespace) -> Calibration | None:
    """The calibration that is there, if it is of the chip that is asked for."""
    try:
        calibration = load(folder)
    except CalibrationMissingError:
        return None
    emulated = options.backend == "emulated"
    if (calibration.payload is None) != emulated or (
        emulated and calibration.chip != EmulatedBackend(options.chip).calibration().chip
    ):
        raise CalibrationError(
            f"{folder} holds a calibration of chip {calibration.chip!r}; expected another "
            "--calib-name, or --recreate-calib-files to replace it"
        )
    return calibration


def _calibrate(
    options: argparse.Namespace, point: OperatingPoint, folder: Path, name: str
) -> Calibration:
    payload = calibrate(point) if options.backend == "grenade" else None
    path = None if payload is None else save_payload(payload, folder)
    config = EmulatorConfig(refractory_time=point.refractory_time)
    with get_backend(options.backend, chip=options.chip, config=config) as backend:
        sweep = sweep_weights(backend, point, payload=path)
        measured = Calibration(
            weight_scale=round(measure_weight_scale(sweep), 3),
            time_offset_cycles=measure_time_offset(sweep),
            operating_point=point,
            chip=_identifier(backend),
            name=name,
        )
    return save(measured, folder, payload)


def _identifier(backend: Backend) -> str:
    if isinstance(backend, GrenadeBackend):
        return backend.chip()
    assert isinstance(backend, EmulatedBackend)
    return backend.calibration().chip


if __name__ == "__main__":
    sys.exit(main())
