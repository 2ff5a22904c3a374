import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.tasks import yinyang_analytical, yinyang_event_prop
from jaxsnn.event.tasks._config import Config, flag

PROGRAMS = {"yinyang_event_prop": yinyang_event_prop, "yinyang_analytical": yinyang_analytical}
SMALL = [
    *("--hidden=10", "--output-mean=4", "--hidden-spikes=60", "--output-spikes=90"),
    *("--epochs=2", "--batch-size=20"),
    *("--train-size=60", "--validation-size=20", "--test-size=20"),
]


def command(program, *options):
    return [sys.executable, "-m", f"jaxsnn.event.tasks.{program}", *map(str, options)]


def run(program, *options):
    return subprocess.run(
        command(program, *options), capture_output=True, text=True, timeout=120, check=False
    )


def read(folder):
    metrics = json.loads((folder / "metrics.json").read_text())["epochs"]
    for epoch in metrics:
        assert epoch.pop("seconds") >= epoch.pop("compile_seconds") >= 0
    return json.loads((folder / "config.json").read_text()), metrics


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_leaves_its_results(program, tmp_path):
    done = run(program, *SMALL, "--out", tmp_path / "new" / "run", "--seed=3")
    assert done.returncode == 0, done.stderr
    config, metrics = read(tmp_path / "new" / "run")
    assert config["program"] == f"jaxsnn.event.tasks.{program}"
    assert (config["hidden"], config["seed"], config["tau_mem"]) == (10, 3, 0.02)
    assert [epoch["epoch"] for epoch in metrics] == [1, 2]
    for epoch in metrics:
        for part in ("train", "validation", "test"):
            assert 0 <= epoch[part]["accuracy"] <= 1
            assert np.isfinite(epoch[part]["loss"])
            assert set(epoch[part]["spikes_per_sample"]) == {"hidden", "output"}
    with np.load(tmp_path / "new" / "run" / "weights.npz") as weights:
        assert {name: w.shape for name, w in weights.items()} == {
            "hidden": (4, 10),
            "output": (10, 3),
        }
        assert all(np.isfinite(w).all() and w.dtype == np.float32 for w in weights.values())
    names = {path.name for path in (tmp_path / "new" / "run").iterdir()}
    assert names == {"config.json", "metrics.json", "weights.npz"}

    last = metrics[-1]["test"]["accuracy"]
    line = (
        rf"test accuracy {last:.2%} after 2 epochs, training took \d+\.\d s, "
        r"of which compilation \d+\.\d s\n"
    )
    validation = [epoch["validation"]["accuracy"] for epoch in metrics]
    test = [epoch["test"]["accuracy"] for epoch in metrics]
    chosen = validation.index(max(validation))
    line += (
        f"test accuracy {test[chosen]:.2%} after epoch {chosen + 1}, the best on validation "
        f"samples; {max(test):.2%} in the best epoch on test samples\n"
    )
    assert re.fullmatch(line, done.stdout)
    assert "2/2" in done.stderr
    assert "spikes=" in done.stderr


def test_same_seed_same_files(tmp_path):
    for folder in "ab":
        assert yinyang_event_prop.main([*SMALL, f"--out={tmp_path / folder}"]) == 0
    assert read(tmp_path / "a") == read(tmp_path / "b")
    with np.load(tmp_path / "a/weights.npz") as a, np.load(tmp_path / "b/weights.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_float64_stays_inside_the_program(tmp_path):
    assert yinyang_event_prop.main([*SMALL, "--dtype=float64", f"--out={tmp_path}"]) == 0
    with np.load(tmp_path / "weights.npz") as weights:
        assert all(w.dtype == np.float64 for w in weights.values())
    assert jnp.zeros(()).dtype == jnp.float32


@pytest.mark.parametrize("loss", ["mse", "target_time"])
def test_other_losses_and_inputs(loss, tmp_path):
    options = [f"--loss={loss}", "--duplication=2", "--bias-time=0", f"--out={tmp_path}"]
    assert yinyang_event_prop.main([*SMALL, *options]) == 0
    with np.load(tmp_path / "weights.npz") as weights:
        assert weights["hidden"].shape == (10, 10)


def interrupt(program, folder, when):
    process = subprocess.Popen(
        command(program, *SMALL, "--epochs=1000000", "--out", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None and not when():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def test_ctrl_c_keeps_what_was_learned(tmp_path):
    def some_epochs_done():
        path = tmp_path / "metrics.json"
        return path.exists() and len(json.loads(path.read_text())["epochs"]) >= 2

    status, stdout, stderr = interrupt("yinyang_event_prop", tmp_path, some_epochs_done)
    assert status == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    _, metrics = read(tmp_path)
    assert len(metrics) >= 2
    message = rf"interrupted after (\d+) of 1000000 epochs; results so far are in {tmp_path}"
    found = re.fullmatch(message, stderr.splitlines()[-1])
    assert found
    assert int(found[1]) == len(metrics)
    with np.load(tmp_path / "weights.npz") as weights:
        assert set(weights) == {"hidden", "output"}
    assert len(list(tmp_path.iterdir())) == 3


def test_ctrl_c_before_the_first_epoch(tmp_path):
    status, _, stderr = interrupt("yinyang_analytical", tmp_path, (tmp_path / "weights.npz").exists)
    assert status == 130
    assert "Traceback" not in stderr
    assert "interrupted" in stderr.splitlines()[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_explains_every_option(program, capsys):
    with pytest.raises(SystemExit) as end:
        PROGRAMS[program].main(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.partition("\noptions:")[2].split())
    defaults = PROGRAMS[program].DEFAULTS
    for field in dataclasses.fields(Config):
        entry = re.search(rf" {flag(field.name)} \S+ [^(]+\(default: ([^)]+)\)", text)
        assert entry, field.name
        default = str(getattr(defaults, field.name)).lower()
        assert entry[1] == f"{default} {field.metadata['unit']}".strip()
    assert "--out DIR" in text
    assert "--log-level" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hidden=0"], "argument --hidden: '0' is not an integer >= 1"),
        (["--tau-mem=-1"], "argument --tau-mem: '-1' is not a number > 0"),
        (["--tau-mem=nan"], "argument --tau-mem: 'nan' is not a number > 0"),
        (["--bias-time=soon"], "argument --bias-time: 'soon' is not a number >= 0"),
        (["--lr-decay=1.5"], "argument --lr-decay: '1.5' is not a number > 0 and <= 1"),
        (["--loss=l1"], "argument --loss: 'l1' is not one of ttfs, mse, target_time"),
        (["--dtype=float16"], "argument --dtype: 'float16' is not one of float32, float64"),
        (["--seed=-1"], "argument --seed: '-1' is not an integer in [0, 2**32)"),
        (["--batch-size=99"], "--batch-size is 99, expected at most --train-size=60"),
        (["--loss=mse", "--t-wrong=1"], "--t-wrong is 1.0, expected less than --t-max=0.06"),
        (["--epoch=3"], "unrecognized arguments: --epoch=3"),
    ],
)
def test_bad_options_are_rejected(options, said, capsys):
    with pytest.raises(SystemExit) as end:
        yinyang_event_prop.main([*SMALL, *options])
    assert end.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(f"error: {said}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hidden-spikes=1"], r"hidden layer, .* room .*; raise --hidden-spikes, now 1"),
        (["--output-spikes=1"], r"output layer, .* room .*; raise --output-spikes, now 1"),
        (["--tau1=1e-4"], r"t_max / tau1 is 600, which overflows .* larger tau1 than 0.0001"),
    ],
)
def test_library_errors_are_messages(options, said, capsys):
    assert yinyang_event_prop.main([*SMALL, *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(rf"error: .*{said}$", captured.err.rstrip())
    assert "Traceback" not in captured.err


def test_results_that_cannot_be_written_are_an_error(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert yinyang_event_prop.main([*SMALL, f"--out={tmp_path / 'file'}"]) == 1
    assert "file" in capsys.readouterr().err
