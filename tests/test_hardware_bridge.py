"""The bridge to the vendor's packages, over a strict stand-in of them."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from fake_stack import BLOCKED, FakeChip, block, install
from fake_stack.transcripts import (
    GOLDEN,
    POINT,
    RUNTIME,
    TRACES,
    VERSIONS,
    calibration,
    graph,
    request,
    transcript,
)
from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event import EventPropLIF, Graph, Source
from jaxsnn.event.hardware import (
    CalibrationError,
    CalibrationMissingError,
    EmulatedBackend,
    EmulatorConfig,
    GrenadeBackend,
    HardwareAPIError,
    HardwareCapacityError,
    HardwareConnectionError,
    HardwareError,
    HardwareUnavailableError,
    NetworkSpec,
    RoutingError,
    RunRequest,
    RunTooLongError,
    get_backend,
)
from jaxsnn.event.hardware.calib import save
from jaxsnn.event.hardware.grenade import g2
from jaxsnn.event.tasks.hardware import yinyang


def compiled(backend, folder, network=None, **changes):
    spec = NetworkSpec.from_graph(graph() if network is None else network)
    return backend.compile(spec, calibration(folder, **changes))


@pytest.mark.parametrize("kind", TRACES)
@pytest.mark.parametrize("version", VERSIONS)
def test_calls_are_the_documented_ones(monkeypatch, tmp_path, version, kind):
    expected = json.loads((GOLDEN / f"{version}-{kind}.json").read_text())
    assert transcript(monkeypatch, version, TRACES[kind], tmp_path) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("version", VERSIONS)
def test_equals_the_emulated_chip(monkeypatch, tmp_path, version, dtype):
    config = EmulatorConfig(p_loss_record=0.05)
    install(monkeypatch, version, FakeChip(config=config, seed=3, dtype=dtype))
    spec = NetworkSpec.from_graph(graph(room=(20, 3)))
    trial = int(np.random.SeedSequence([0, 0]).generate_state(1)[0])
    asked = request(seed=2, dtype=dtype)
    emulated = EmulatedBackend(3, config)
    expected = emulated.run(
        emulated.compile(spec, calibration(tmp_path)),
        RunRequest(inputs=asked.inputs, weights=asked.weights, runtime=RUNTIME, seed=trial),
    )
    with GrenadeBackend() as backend:
        found = backend.run(backend.compile(spec, calibration(tmp_path)), asked)
    assert found.meta["backend"] == "grenade"
    for name in ("hidden", "output"):
        np.testing.assert_array_equal(found.spikes[name].time, expected.spikes[name].time)
        np.testing.assert_array_equal(found.spikes[name].index, expected.spikes[name].index)
        assert found.spikes[name].time.dtype == dtype
        np.testing.assert_array_equal(found.n_recorded[name], expected.n_recorded[name])
        np.testing.assert_array_equal(found.n_dropped[name], expected.n_dropped[name])
    assert expected.n_dropped["hidden"].sum() > 0
    assert np.isfinite(expected.spikes["output"].time).any()


@pytest.mark.parametrize("version", ["2024-08", "G3"])
def test_training_is_that_of_the_emulated_chip(monkeypatch, tmp_path, version):
    save(calibration(tmp_path), tmp_path / "calibration")
    config = EmulatorConfig(refractory_time=30e-6)
    chip = FakeChip(names=("input", "hidden", "output"), config=config, seed=1)
    install(monkeypatch, version, chip)
    epochs = []
    for options in (["--backend=grenade"], ["--backend=emulated", "--chip=1"]):
        out = tmp_path / options[0]
        small = ["--epochs=2", "--train-size=128", "--validation-size=64", "--test-size=64"]
        folder = f"--calibration={tmp_path / 'calibration'}"
        assert yinyang.main([*options, *small, folder, f"--out={out}"]) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        with np.load(out / "weights.npz") as saved:
            weights = {name: saved[name] for name in saved.files}
        epochs.append((metrics["epochs"], weights))
    (real, own), (emulated, others) = epochs
    assert chip.runs >= 4
    for a, b in zip(real, emulated, strict=True):
        assert {k: a[k] for k in ("train", "validation")} == {
            k: b[k] for k in ("train", "validation")
        }
    for name, values in own.items():
        np.testing.assert_array_equal(values, others[name])


@pytest.mark.parametrize("version", VERSIONS)
def test_membrane_of_a_recorded_neuron(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip())
    with GrenadeBackend() as backend:
        result = backend.run(
            compiled(backend, tmp_path), request(n_samples=2, traces={"hidden": 7})
        )
    times, volts = result.traces["hidden"]
    assert set(result.traces) == {"hidden"}
    for sample in range(2):
        expected = {t * 8e-9: lsb for t, lsb in FakeChip.membrane(sample, 6250) if lsb}
        there = ~np.isnan(volts[sample])
        np.testing.assert_allclose(times[there], sorted(expected), rtol=1e-12)
        # 190 LSB from leak to threshold, 315 at the leak.
        lsb = np.array([expected[t] for t in sorted(expected)])
        np.testing.assert_allclose(volts[sample, there], (lsb - 315) / 190, rtol=0, atol=1e-9)
    assert np.all(np.diff(times) > 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_neurons_of_several_circuits(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip())
    network = Graph()
    network.add("input", Source(150))
    params = LIFParameters(tau_mem=12e-6, tau_syn=6e-6, t_ref=30e-6)
    network.add("hidden", EventPropLIF(20, n_spikes=40, t_max=24e-6, params=params))
    network.connect("input", "hidden")
    weights = {"input->hidden": np.full((150, 20), 0.5, np.float32)}
    time = np.zeros((1, 150), np.float32)
    spikes = {"input": Spikes(time, np.arange(150, dtype=np.int32)[None])}
    with GrenadeBackend() as backend:
        result = backend.run(
            compiled(backend, tmp_path, network),
            RunRequest(inputs=spikes, weights=weights, runtime=RUNTIME),
        )
    assert result.n_recorded["hidden"] >= 20


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_is_strict(monkeypatch, version):
    install(monkeypatch, version, FakeChip())
    for name in ("hxtorch", "_hxtorch_core", "pygrenade_vx.common", "dlens_vx_v3"):
        with pytest.raises(AttributeError, match="not_listed"):
            _ = sys.modules[name].not_listed
    with pytest.raises(TypeError):
        sys.modules["_hxtorch_core"].extract_n_spikes(1, wrong=2)
    if version == "G3":
        experiment = sys.modules["hxtorch.core.experiment"].BaseExperiment(0)
        with pytest.raises(AttributeError, match="not_listed"):
            experiment.not_listed = 1
    else:
        recorded = sys.modules["pygrenade_vx.network"].MADCRecording.Neuron()
        with pytest.raises(AttributeError, match="not_listed"):
            recorded.coordinate.not_listed = 1


@pytest.mark.parametrize("version", ["2024-08", "2026-06"])
def test_the_stand_in_sees_wrong_units(monkeypatch, tmp_path, version):
    """Microseconds where milliseconds are expected."""
    install(monkeypatch, version, FakeChip())
    monkeypatch.setattr(g2, "_CYCLES_PER_MS", 125)
    with GrenadeBackend() as backend:
        network = compiled(backend, tmp_path)
        with pytest.raises(HardwareError, match="the unit of the times"):
            backend.run(network, request())


def test_missing_packages_are_all_named(monkeypatch):
    block(monkeypatch)
    with pytest.raises(HardwareUnavailableError, match="get_backend") as error:
        GrenadeBackend().open()
    assert error.value.missing == ("hxtorch", "_hxtorch_core", "pygrenade_vx", "dlens_vx_v3")
    install(monkeypatch, "G3", FakeChip())
    monkeypatch.setitem(sys.modules, "_hxtorch_core", None)
    with pytest.raises(HardwareUnavailableError) as error:
        GrenadeBackend().open()
    assert error.value.missing == ("_hxtorch_core",)


@pytest.mark.parametrize(
    ("version", "symbol"),
    [
        ("2024-08", "pygrenade_vx.network.MADCRecording"),
        ("2024-08", "_hxtorch_core.weight_to_connection"),
        ("2026-06", "pygrenade_vx.network.run"),
        ("2026-06", "pygrenade_vx.common.Time"),
        ("G3", "hxtorch.core.modules.projection.Projection"),
        ("G3", "_hxtorch_core.extract_n_spikes"),
    ],
)
def test_an_unknown_interface_is_named(monkeypatch, version, symbol):
    install(monkeypatch, version, FakeChip(), without=[symbol])
    with pytest.raises(HardwareAPIError, match="generation") as error:
        GrenadeBackend().open()
    assert error.value.symbol == symbol


def test_neither_generation(monkeypatch):
    install(monkeypatch, "2026-06", FakeChip(), without=["pygrenade_vx.network.NetworkBuilder"])
    with pytest.raises(HardwareAPIError, match=r"BaseExperiment or .*NetworkBuilder"):
        GrenadeBackend().open()


@pytest.mark.parametrize("version", VERSIONS)
def test_another_signature_is_an_unknown_interface(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip())
    monkeypatch.setattr(sys.modules["_hxtorch_core"], "extract_n_spikes", lambda data: data)
    with GrenadeBackend() as backend:
        network = compiled(backend, tmp_path)
        with pytest.raises(HardwareAPIError, match=r"running the network.*does not match"):
            backend.run(network, request())


@pytest.mark.parametrize("version", VERSIONS)
def test_no_connection(monkeypatch, version):
    install(monkeypatch, version, FakeChip(connected=False))
    backend = GrenadeBackend()
    with pytest.raises(HardwareConnectionError, match="No connection"):
        backend.open()
    backend.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connection_that_is_lost(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip())
    with GrenadeBackend() as backend:
        network = compiled(backend, tmp_path)
        sys.modules["hxtorch"].release_hardware()
        with pytest.raises(HardwareConnectionError, match="Executor not initialized"):
            backend.run(network, request())
        sys.modules["hxtorch"].init_hardware()


def test_use_before_opening(tmp_path):
    with pytest.raises(HardwareConnectionError, match="not open"):
        compiled(GrenadeBackend(), tmp_path)


def test_opening_and_closing_twice(monkeypatch):
    transcript = install(monkeypatch, "G3", FakeChip())
    backend = GrenadeBackend()
    for step in (backend.open, backend.open, backend.close, backend.close):
        step()
    names = [name for name, _ in transcript.calls]
    assert names == ["hxtorch.init_hardware", "hxtorch.release_hardware"]


@pytest.mark.parametrize("version", VERSIONS)
def test_routing_fails(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip(routable=False))
    with (
        GrenadeBackend() as backend,
        pytest.raises(RoutingError, match="UnsuccessfulRouting: no synapse drivers"),
    ):
        # G3 maps with the first run.
        backend.run(compiled(backend, tmp_path), request())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_too_long(monkeypatch, tmp_path, version):
    install(monkeypatch, version, FakeChip())
    with GrenadeBackend() as backend:
        network = compiled(backend, tmp_path)
        for runtime in (35.0, 0.0):
            with pytest.raises(RunTooLongError, match=rf"takes {runtime} s.*34\.36 s"):
                backend.run(network, request(runtime=runtime))


def test_what_does_not_fit(monkeypatch, tmp_path):
    install(monkeypatch, "G3", FakeChip())
    with GrenadeBackend() as backend:
        with pytest.raises(HardwareCapacityError, match="512"):
            compiled(backend, tmp_path, graph(hidden=510))
        network = compiled(backend, tmp_path)
        with pytest.raises(HardwareCapacityError, match="one neuron per run"):
            backend.run(network, request(traces={"hidden": 0, "output": 0}))
        with pytest.raises(ValueError, match="no neuron 100 in population 'hidden'"):
            backend.run(network, request(traces={"hidden": 100}))
        with pytest.raises(HardwareError, match="CADC is asked of hidden, expected none"):
            backend.run(network, request(cadc=("hidden",)))
        few = graph(hidden=2, n_inputs=3)
        small = compiled(backend, tmp_path, few)
        weights = request(hidden=2, n_inputs=3).weights
        many = RunRequest(inputs=request().inputs, weights=weights, runtime=RUNTIME)
        with pytest.raises(ValueError, match="index 24, expected less than 3"):
            backend.run(small, many)


@pytest.mark.parametrize("version", VERSIONS)
def test_calibrations_that_do_not_belong_here(monkeypatch, tmp_path, version, caplog):
    install(monkeypatch, version, FakeChip())
    with GrenadeBackend() as backend:
        with pytest.raises(CalibrationError, match="is of chip 'other', the one connected"):
            compiled(backend, tmp_path, chip="other")
        with caplog.at_level(logging.WARNING):
            compiled(backend, tmp_path, operating_point=POINT.__class__(tau_mem=6e-6))
        assert "tau_mem = 1.2e-05 s, the chip is calibrated for 6e-06 s" in caplog.text
        if version == "G3":  # the stack calibrates
            backend.run(compiled(backend, tmp_path, payload=None), request())
        else:
            with pytest.raises(CalibrationMissingError, match="neuron_calib"):
                compiled(backend, tmp_path, payload=None)


def test_more_spikes_than_the_calibration_allows(monkeypatch, tmp_path):
    install(monkeypatch, "G3", FakeChip(config=EmulatorConfig(refractory_time=1e-6)))
    with GrenadeBackend() as backend:
        slow = POINT.__class__(tau_mem=12e-6, refractory_time=60e-6)
        network = compiled(backend, tmp_path, operating_point=slow)
        asked = request()
        strong = {name: 9 * np.abs(w) for name, w in asked.weights.items()}
        with pytest.raises(HardwareError, match="does not describe this chip"):
            backend.run(network, RunRequest(inputs=asked.inputs, weights=strong, runtime=RUNTIME))


@pytest.mark.parametrize("version", [None, "2026-06"])
def test_backends_by_name(monkeypatch, caplog, version):
    block(monkeypatch)
    if version is not None:
        install(monkeypatch, version, FakeChip())
    assert isinstance(get_backend("grenade"), GrenadeBackend)
    assert get_backend("emulated", chip=5).chip == 5
    assert not caplog.records
    found = get_backend()
    assert isinstance(found, EmulatedBackend if version is None else GrenadeBackend)
    assert len(caplog.records) == (version is None)
    if version is None:
        assert "hxtorch" in caplog.text
    with pytest.raises(ValueError, match="'auto', 'emulated' or 'grenade'"):
        get_backend("brainscales")


def test_auto_does_not_hide_an_unknown_interface(monkeypatch):
    install(monkeypatch, "2026-06", FakeChip(), without=["pygrenade_vx.network.NetworkBuilder"])
    with pytest.raises(HardwareAPIError):
        get_backend("auto")


def test_without_the_packages_everything_imports_and_the_emulator_runs():
    """In a process of its own, where nothing has been imported."""
    code = f"""
import sys
blocked = {BLOCKED!r}
sys.modules.update(dict.fromkeys(blocked))
import numpy as np
from jaxsnn.event import EventPropLIF, Graph, Source
from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event.hardware import *
import jaxsnn.event.hardware.calib.neuron_calib, jaxsnn.event.hardware.grenade.calix
import jaxsnn.event.tasks.hardware.yinyang, jaxsnn.event.tasks.hardware.yinyang_mock
assert not any(sys.modules[name] for name in blocked)
graph = Graph()
graph.add("input", Source(4))
params = LIFParameters(tau_mem=12e-6, tau_syn=6e-6)
graph.add("neurons", EventPropLIF(3, n_spikes=99, t_max=50e-6, params=params))
graph.connect("input", "neurons")
request = RunRequest(
    inputs={{"input": Spikes(np.zeros((1, 4)), np.arange(4)[None])}},
    weights={{"input->neurons": np.full((4, 3), 1.1)}},
    runtime=50e-6,
)
with get_backend("emulated") as backend:
    compiled = backend.compile(NetworkSpec.from_graph(graph), backend.calibration())
    assert backend.run(compiled, request).n_recorded["neurons"][0] > 0
try:
    GrenadeBackend().open()
except HardwareUnavailableError as error:
    assert error.missing == ("hxtorch", "_hxtorch_core", "pygrenade_vx", "dlens_vx_v3")
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_program_names_what_is_missing(monkeypatch, capsys):
    block(monkeypatch)
    assert yinyang.main(["--epochs=1"]) == 1
    assert "missing packages: hxtorch" in capsys.readouterr().err
    install(monkeypatch, "G3", FakeChip())
    assert yinyang.main(["--epochs=1"]) == 1
    said = capsys.readouterr().err
    assert "--calibration" in said
    assert "neuron_calib --wafer NAME --tau-mem 1.2e-05" in said
