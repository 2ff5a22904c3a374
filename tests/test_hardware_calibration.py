"""Calibrations: their files, what is measured, the program."""

import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from fake_stack import FakeChip, block, install
from fake_stack.common import PORTABLE
from jaxsnn.base.types import LIFParameters
from jaxsnn.event.hardware import (
    Calibration,
    CalibrationError,
    CalibrationMissingError,
    EmulatedBackend,
    EmulatorConfig,
    GrenadeBackend,
    OperatingPoint,
)
from jaxsnn.event.hardware.calib import (
    WAFER_CONFIGS,
    load,
    load_wafer,
    measure_time_offset,
    measure_weight_scale,
    name_of,
    neuron_calib,
    save,
    sweep_weights,
)
from jaxsnn.event.hardware.calib.measure import model_parameters

POINT = OperatingPoint(tau_mem=12e-6, refractory_time=30e-6)
MEASURED = Calibration(
    weight_scale=43.25, time_offset_cycles=20, operating_point=POINT, chip="c", name="n"
)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    assert save(MEASURED, tmp_path / "a") == MEASURED
    assert load(tmp_path / "a") == MEASURED
    with_payload = save(MEASURED, tmp_path / "b", b"chip")
    assert with_payload.payload.read_bytes() == b"chip"
    assert dataclasses.replace(with_payload, payload=None) == MEASURED
    copied = save(with_payload, tmp_path / "c")
    assert copied.payload.parent == tmp_path / "c"
    assert copied.payload.read_bytes() == b"chip"


def test_a_new_calibration_takes_the_place_of_the_old_one(tmp_path):
    save(MEASURED, tmp_path, b"old")
    save(dataclasses.replace(MEASURED, weight_scale=1.0), tmp_path, b"new")
    assert load(tmp_path).weight_scale == 1.0
    assert load(tmp_path).payload.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fails_at", [1, 2])
def test_writing_that_ends_early_leaves_the_old_one(tmp_path, monkeypatch, fails_at):
    old = save(MEASURED, tmp_path, b"old")
    replace, calls = Path.replace, []

    def fail(self, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(dataclasses.replace(MEASURED, weight_scale=1.0), tmp_path, b"new")
    assert load(tmp_path) == old
    assert not list(tmp_path.glob(".*"))


def test_damage_is_found(tmp_path):
    saved = save(MEASURED, tmp_path, b"chip")
    path = tmp_path / "calibration.json"
    text = path.read_text()
    path.write_text(text.replace("43.25", "43.26"))
    with pytest.raises(CalibrationError, match=r"json is damaged: its checksum"):
        load(tmp_path)
    path.write_text(text[:-20])
    with pytest.raises(CalibrationError, match="json is damaged"):
        load(tmp_path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(CalibrationError, match="json is damaged"):
        load(tmp_path)
    path.write_text(text.replace('"schema": 1', '"schema": 7'))
    with pytest.raises(CalibrationError, match="schema 7, expected 1"):
        load(tmp_path)
    path.write_text(text)
    saved.payload.write_bytes(b"chap")
    with pytest.raises(CalibrationError, match=r"pbin is damaged"):
        load(tmp_path)
    saved.payload.unlink()
    with pytest.raises(CalibrationError, match="configuration of the chip, is missing"):
        load(tmp_path)
    with pytest.raises(CalibrationMissingError, match="neuron_calib"):
        load(tmp_path / "nothing")


def test_names_are_those_of_upstream():
    # The files that its releases name.
    assert name_of("W69F0", OperatingPoint()) == (
        "calibration_W69F0_leak80_th150_reset80_taus-6us_taum-6us_trefrac-2.0us"
        "_isyningm-500_sdbias-1000"
    )
    assert WAFER_CONFIGS["W_63_F3_LONG_REFRAC_130_THRESHOLD"].name == (
        "calibration_W63F3_leak80_th130_reset80_taus-6us_taum-12us_trefrac-30.0us"
        "_isyningm-500_sdbias-1000"
    )
    scales = [config.weight_scale for config in WAFER_CONFIGS.values()]
    assert scales == [48, 48, 48, 48, 56, 48, 32, 30]


@pytest.mark.parametrize("name", WAFER_CONFIGS)
def test_a_missing_wafer_names_the_command_that_makes_it(name, tmp_path, monkeypatch, capsys):
    """The command of the message is run, on an emulated chip, and the calibration is there."""
    folder = tmp_path / "a folder"
    with pytest.raises(CalibrationMissingError, match=name) as error:
        load_wafer(name, folder)
    command = str(error.value).splitlines()[-1].strip()
    prefix = "python -m jaxsnn.event.hardware.calib.neuron_calib "
    assert command.startswith(prefix)
    arguments = shlex.split(command.removeprefix(prefix))
    options = neuron_calib.make_parser().parse_args(arguments)
    config = WAFER_CONFIGS[name]
    assert options.wafer == config.wafer
    assert options.calib_dir == folder
    point = {f.name: getattr(options, f.name) for f in dataclasses.fields(OperatingPoint)}
    assert OperatingPoint(**point) == config.point
    monkeypatch.setattr(neuron_calib, "sweep_weights", lambda *_, **__: None)
    monkeypatch.setattr(neuron_calib, "measure_weight_scale", lambda _: 50.0)
    monkeypatch.setattr(neuron_calib, "measure_time_offset", lambda _: 9)
    assert neuron_calib.main([*arguments, "--backend=emulated"]) == 0
    assert load_wafer(name, folder).time_offset_cycles == 9
    assert "weight scale 50.00" in capsys.readouterr().out


def test_unknown_wafer(tmp_path):
    with pytest.raises(ValueError, match="'W_1', expected one of W_69_F0"):
        load_wafer("W_1", tmp_path)


def offset(config):
    """What the emulated chip delays, in cycles: to the neuron and to the recording."""
    return config.record_offset_cycles + config.delay_ext * 125e6


@pytest.mark.parametrize("tau_mem", [6e-6, 12e-6])
@pytest.mark.parametrize(
    "config",
    [
        EmulatorConfig(),
        EmulatorConfig(weight_scale=31.0, record_offset_cycles=10, delay_ext=0.0),
        EmulatorConfig(weight_scale=78.0, record_offset_cycles=0, delay_ext=0.4e-6),
        EmulatorConfig(p_loss_record=0.02, threshold_trial_std=0.03, synapse_gain_std=0.05),
    ],
)
def test_measurements_find_the_known_truth(config, tau_mem):
    point = OperatingPoint(tau_mem=tau_mem, refractory_time=30e-6)
    sweep = sweep_weights(EmulatedBackend(3, config), point, repetitions=2)
    assert measure_weight_scale(sweep) == pytest.approx(config.weight_scale, rel=0.02)
    assert abs(measure_time_offset(sweep) - offset(config)) <= 2


def test_measurements_of_an_ideal_chip_are_exact():
    config = EmulatorConfig.ideal(weight_scale=50.0, record_offset_cycles=33)
    point = OperatingPoint(tau_mem=12e-6, refractory_time=30e-6)
    sweep = sweep_weights(EmulatedBackend(0, config), point, n_neurons=4, repetitions=1)
    # A neuron fires from a total of 4 * 50 LSB on, which is seen in steps of 2 LSB.
    assert sweep.thresholds().tolist() == [199.0] * 4 or sweep.thresholds().tolist() == [201.0] * 4
    assert measure_weight_scale(sweep) == pytest.approx(50, abs=0.25)
    assert measure_time_offset(sweep) == pytest.approx(33, abs=1)


def test_dead_neurons_are_left_out_and_named(caplog):
    config = EmulatorConfig(p_dead=0.05)
    sweep = sweep_weights(EmulatedBackend(0, config), POINT, repetitions=1)
    assert measure_weight_scale(sweep) == pytest.approx(56, rel=0.02)
    assert abs(measure_time_offset(sweep) - offset(config)) <= 2
    n_dead = int(np.isnan(sweep.thresholds()).sum())
    assert 10 < n_dead < 45
    assert f"{n_dead} of 512 neurons never fire" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"p_dead": 1.0}, {"weight_scale": 300.0}, {"weight_scale": 0.3}]
)
def test_what_cannot_be_measured_is_an_error(changes):
    with pytest.raises(CalibrationError, match="out of reach"):
        sweep_weights(EmulatedBackend(0, EmulatorConfig(**changes)), POINT, repetitions=1)


def test_operating_points_that_are_none():
    with pytest.raises(ValueError, match="threshold is 80, expected more than leak=80"):
        model_parameters(OperatingPoint(threshold=80))
    params = model_parameters(OperatingPoint(leak=80, reset=66, threshold=150))
    assert params.v_reset == pytest.approx(-0.2)


OPTIONS = [
    "--backend",
    "--calib-dir",
    "--calib-name",
    "--chip",
    "--help",
    "--i-synin-gm",
    "--leak",
    "--recreate-calib-files",
    "--refractory-time",
    "--reset",
    "--synapse-dac-bias",
    "--tau-mem",
    "--tau-syn",
    "--threshold",
    "--wafer",
]


def test_options_are_those_of_upstream_and_the_choice_of_a_backend(capsys):
    with pytest.raises(SystemExit) as done:
        neuron_calib.main(["--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert sorted(set(re.findall(r"(?<![\w-])--[a-z-]+", said))) == OPTIONS
    options = neuron_calib.make_parser().parse_args(["--wafer=W1"])
    values = [getattr(options, f.name) for f in dataclasses.fields(OperatingPoint)]
    assert values == [80, 80, 150, 6e-6, 6e-6, 2e-6, 500, 1000]
    for wrong in ([], ["--wafer=W1", "--threshold=80"], ["--wafer=W1", "--threshold=x"]):
        with pytest.raises(SystemExit) as done:
            neuron_calib.main(wrong)
        assert done.value.code == 2


def run(folder, *arguments):
    return neuron_calib.main(["--wafer=W1", f"--calib-dir={folder}", *arguments])


def test_program_measures_an_emulated_chip(tmp_path, capsys):
    slow = ("--backend=emulated", "--tau-mem=12e-6", "--refractory-time=30e-6")
    assert run(tmp_path, *slow, "--chip=4") == 0
    (folder,) = tmp_path.iterdir()
    assert folder.name == name_of("W1", POINT)
    found = load(folder)
    assert found.weight_scale == pytest.approx(56, rel=0.02)
    assert abs(found.time_offset_cycles - 62.5) <= 2
    assert (found.chip, found.name, found.payload) == ("emulated-4", folder.name, None)
    assert found.operating_point == POINT
    assert "written" in capsys.readouterr().out
    # It is not measured again, unless asked for, and not taken for that of another chip.
    before = os.stat(folder / "calibration.json").st_mtime_ns
    assert run(tmp_path, *slow, "--chip=4") == 0
    assert "is there already" in capsys.readouterr().out
    assert os.stat(folder / "calibration.json").st_mtime_ns == before
    assert run(tmp_path, *slow, "--chip=5") == 1
    assert "of chip 'emulated-4'" in capsys.readouterr().err
    assert run(tmp_path, *slow, "--chip=5", "--recreate-calib-files") == 0
    assert load(folder).chip == "emulated-5"
    assert run(tmp_path, *slow[1:]) == 1
    assert "of chip 'emulated-5'" in capsys.readouterr().err


# Targets have plain fields in the first, typed arrays in the others.
@pytest.mark.parametrize("version", ["2024-08", "2026-06", "G3"])
def test_program_calibrates_and_measures_a_chip(tmp_path, capsys, monkeypatch, version):
    params = LIFParameters(tau_mem=12e-6, tau_syn=6e-6, t_ref=30e-6)
    chip = FakeChip(names=("input", "calibrated"), params=params)
    transcript = install(monkeypatch, version, chip)
    arguments = ("--tau-mem=12e-6", "--refractory-time=30e-6", "--calib-name=mine")
    assert run(tmp_path, *arguments) == 0
    found = load(tmp_path / "mine")
    assert found.chip == chip.identifier
    assert found.weight_scale == pytest.approx(56, rel=0.02)
    assert abs(found.time_offset_cycles - 62.5) <= 2
    content = found.payload.read_bytes()
    assert content.startswith(PORTABLE)
    assert b"('threshold', 150)" in content
    assert b"('synapse_dac_bias', 1000)" in content
    names = [name for name, _ in transcript.calls]
    assert names[:3] == ["calix.calibrate", "calix target", "dlens_vx_v3.sta.to_portablebinary"]
    target = transcript.calls[1][1]
    assert target["tau_mem"] == pytest.approx(12e-6)
    assert target["tau_syn"] == pytest.approx(6e-6)
    assert target["refractory_time"] == pytest.approx(30e-6)
    assert [target[name] for name in ("leak", "reset", "i_synin_gm")] == [80, 80, 500]
    assert target["membrane_capacitance"] == 63
    assert names[-1] == "hxtorch.release_hardware"
    n_calls = len(names)
    assert run(tmp_path, *arguments) == 0
    assert "is there already" in capsys.readouterr().out
    assert len(transcript.calls) == n_calls
    with GrenadeBackend() as backend:
        assert backend.chip() == found.chip


def test_a_measurement_that_fails_leaves_no_calibration(tmp_path, capsys, monkeypatch):
    install(monkeypatch, "G3", FakeChip(routable=False, names=("input", "calibrated")))
    assert run(tmp_path, "--calib-name=mine") == 1
    assert "UnsuccessfulRouting" in capsys.readouterr().err
    with pytest.raises(CalibrationMissingError):
        load(tmp_path / "mine")


def test_program_names_what_is_missing(tmp_path, capsys, monkeypatch):
    block(monkeypatch)
    assert run(tmp_path) == 1
    said = capsys.readouterr().err
    assert "missing packages: hxtorch" in said
    assert "calix" in said
    install(monkeypatch, "G3", FakeChip(connected=False))
    assert run(tmp_path) == 1
    assert "No connection" in capsys.readouterr().err
    install(monkeypatch, "G3", FakeChip(), without=["calix.spiking.neuron.NeuronCalibTarget"])
    assert run(tmp_path) == 1
    assert "calix.spiking.neuron.NeuronCalibTarget is missing" in capsys.readouterr().err


def test_targets_of_another_kind_are_named(tmp_path, capsys, monkeypatch):
    class Unknown:
        """Neither plain fields nor typed arrays."""

    install(monkeypatch, "G3", FakeChip())
    monkeypatch.setattr(sys.modules["calix.spiking.neuron"], "NeuronCalibTarget", Unknown)
    assert run(tmp_path) == 1
    assert "NeuronCalibTarget.i_synin_gm is missing" in capsys.readouterr().err


def test_json_is_for_people(tmp_path):
    save(MEASURED, tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())["content"]
    assert content["operating_point"]["tau_mem"] == 12e-6
    assert content["weight_scale"] == 43.25
