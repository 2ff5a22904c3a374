"""The bridge on a node with a chip: the calls of the golden transcripts, and what comes back.

``pytest -m hardware`` runs it where the vendor's packages and a chip are; the calibration to use is
that of the folder in ``JAXSNN_CALIBRATION``, made by ``neuron_calib``. Elsewhere the same checks
run over the stand-in, which shows that they would fail.
"""

import importlib.util
import json
import os

import numpy as np
import pytest

from fake_stack import FakeChip, install
from fake_stack.spy import names_of, spy
from fake_stack.transcripts import GOLDEN, RUNTIME, TRACES, VERSIONS, calibration, graph, request
from jaxsnn.event.hardware import GrenadeBackend, NetworkSpec
from jaxsnn.event.hardware.calib import load
from jaxsnn.event.hardware.grenade.probe import find, generation


def version_of():
    """The golden transcripts of the interface that is there."""
    if generation() == "G3":
        return "G3"
    return "2026-06" if find("pygrenade_vx.network.run") is not None else "2024-08"


def check(monkeypatch, calibrated, kind, version):
    """Runs the network of the golden transcripts, twice, and compares the calls.

    Returns:
        What came back last.
    """
    calls, seen = spy(monkeypatch)
    assert len(seen) > 4
    with GrenadeBackend() as backend:
        compiled = backend.compile(NetworkSpec.from_graph(graph()), calibrated)
        for seed in range(2):
            asked = request(seed=seed, traces=TRACES[kind])
            result = backend.run(compiled, asked)
    golden = json.loads((GOLDEN / f"{version}-{kind}.json").read_text())
    assert calls == names_of(golden, seen)
    check_times(asked, result)
    return result


def check_times(asked, result):
    """Units: spikes follow their inputs within microseconds, on the grid of the clock."""
    sent = asked.inputs["input"].time
    begin = np.min(np.where(np.isfinite(sent), sent, np.inf), -1)
    assert result.n_recorded["hidden"].sum() > 0
    for name in ("hidden", "output"):
        time, index = result.spikes[name]
        there = index >= 0
        assert np.all(time[there] < RUNTIME)
        cycles = time[there].astype(np.float64) * 125e6
        # Times are float32, whose rounding is 2^-24 of up to 6250 cycles.
        np.testing.assert_allclose(cycles, np.rint(cycles), rtol=0, atol=1e-3)
    first = np.min(
        np.where(result.spikes["hidden"].index >= 0, result.spikes["hidden"].time, 1), -1
    )
    fired = first < 1
    assert np.all(first[fired] > begin[fired] - 1e-6)
    assert np.median(first[fired] - begin[fired]) < 20e-6


@pytest.mark.hardware
@pytest.mark.skipif(
    not os.environ.get("SLURM_HWDB_YAML") and importlib.util.find_spec("hxtorch") is None,
    reason="no chip: SLURM_HWDB_YAML is not set, and hxtorch is not installed",
)
@pytest.mark.parametrize("kind", TRACES)
def test_a_chip(monkeypatch, kind):
    folder = os.environ.get("JAXSNN_CALIBRATION")
    if folder is None:
        pytest.fail(
            "JAXSNN_CALIBRATION is not set, expected the folder of a calibration, as made by "
            "python -m jaxsnn.event.hardware.calib.neuron_calib --tau-mem 12e-6 "
            "--refractory-time 30e-6 --wafer NAME"
        )
    result = check(monkeypatch, load(folder), kind, version_of())
    if kind == "madc":
        times, volts = result.traces["hidden"]
        assert np.all(np.diff(times) > 0)
        assert np.nanmedian(volts) == pytest.approx(0, abs=1)  # leaks and resets


@pytest.mark.parametrize("kind", TRACES)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_checks_hold_for_the_stand_in(monkeypatch, tmp_path, version, kind):
    install(monkeypatch, version, FakeChip())
    expected = "2026-06" if version == "2026-03" else version
    assert version_of() == expected
    check(monkeypatch, calibration(tmp_path), kind, expected)


def test_the_checks_see_other_calls_and_other_units(monkeypatch, tmp_path):
    install(monkeypatch, "2026-06", FakeChip())
    with pytest.raises(AssertionError):
        check(monkeypatch, calibration(tmp_path), "spikes", "2024-08")
    asked = request()
    backend = GrenadeBackend()
    with backend:
        compiled = backend.compile(NetworkSpec.from_graph(graph()), calibration(tmp_path))
        result = backend.run(compiled, asked)
    time, index = result.spikes["hidden"]
    for factor in (1e-3, 1.001):
        result.spikes["hidden"] = type(result.spikes["hidden"])(time * factor, index)
        with pytest.raises(AssertionError):
            check_times(asked, result)
