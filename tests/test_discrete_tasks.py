"""The Yin-Yang program in time steps: the command line and files of the event programs."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxsnn.discrete.tasks import yinyang, yinyang_warm_up

SMALL = [
    *("--hidden=10", "--epochs=2", "--batch-size=20"),
    *("--train-size=60", "--validation-size=20", "--test-size=20"),
]


def read(folder):
    epochs = json.loads((folder / "metrics.json").read_text())["epochs"]
    for epoch in epochs:
        assert epoch.pop("seconds") >= epoch.pop("compile_seconds") >= 0
    return json.loads((folder / "config.json").read_text()), epochs


def test_program_leaves_its_results(tmp_path):
    command = [sys.executable, "-m", "jaxsnn.discrete.tasks.yinyang"]
    done = subprocess.run(
        [*command, *SMALL, "--out", str(tmp_path / "run"), "--seed=3"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config, metrics = read(tmp_path / "run")
    assert config["program"] == "jaxsnn.discrete.tasks.yinyang"
    assert (config["hidden"], config["seed"], config["dt"]) == (10, 3, 5e-4)
    assert [epoch["epoch"] for epoch in metrics] == [1, 2]
    for epoch in metrics:
        for part in ("train", "validation", "test"):
            assert 0 <= epoch[part]["accuracy"] <= 1
            assert np.isfinite(epoch[part]["loss"])
            assert set(epoch[part]["spikes_per_sample"]) == {"hidden"}
    with np.load(tmp_path / "run" / "weights.npz") as weights:
        shapes = {name: w.shape for name, w in weights.items()}
        assert shapes == {"hidden": (5, 10), "output": (10, 3)}
    last = metrics[-1]["test"]["accuracy"]
    assert done.stdout.startswith(f"test accuracy {last:.2%} after 2 epochs, training took ")
    assert "2/2" in done.stderr


def test_same_seed_same_files(tmp_path):
    for folder in "ab":
        options = ["--form=recurrent", "--train-neurons=per-neuron", f"--out={tmp_path / folder}"]
        assert yinyang.main([*SMALL, *options]) == 0
    assert read(tmp_path / "a") == read(tmp_path / "b")
    with np.load(tmp_path / "a/weights.npz") as a, np.load(tmp_path / "b/weights.npz") as b:
        assert {name: x.shape for name, x in a.items()} == {
            "hidden": (5, 10),
            "recurrent": (10, 10),
            "output": (10, 3),
            **{f"hidden_{name}": (10,) for name in ("tau_mem", "tau_syn", "v_th")},
            **{f"output_{name}": (3,) for name in ("tau_mem", "tau_syn")},
        }
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert not np.allclose(a["hidden_tau_mem"], 10e-3)


@pytest.mark.parametrize(
    "options",
    [
        ["--dtype=float64", "--bias-time=none", "--surrogate=gaussian"],
        ["--method=exponential", "--v-th=1", "--spike-cost=0"],
    ],
)
def test_other_options(options):
    assert yinyang.main([*SMALL, "--epochs=1", *options]) == 0


def test_it_learns(tmp_path):
    """Five epochs of a fourth of the samples, from a third of them right to well above."""
    options = ["--epochs=5", "--train-size=1280", "--learning-rate=1e-2", f"--out={tmp_path}"]
    assert yinyang.main(options) == 0
    _, metrics = read(tmp_path)
    assert metrics[-1]["validation"]["accuracy"] > 0.55


@pytest.mark.parametrize("warm_up", [0, 2])
def test_warm_up(warm_up, tmp_path, capsys):
    """Both phases run, and the second goes on where the first ended."""
    options = [f"--warm-up={warm_up}", "--epochs=1", f"--out={tmp_path}"]
    assert yinyang_warm_up.main([*SMALL[:1], *SMALL[2:], *options]) == 0
    _, metrics = read(tmp_path)
    assert set(metrics[0]["test"]["spikes_per_sample"]) == {"hidden"}
    said = re.findall(r"warm-up epoch (\d): loss \S+, test accuracy", capsys.readouterr().err)
    assert said == [str(number) for number in range(1, warm_up + 1)]


def test_warm_up_changes_the_initial_weights():
    config = dataclasses.replace(
        yinyang_warm_up.DEFAULTS, hidden=10, train_size=60, test_size=20, batch_size=20, warm_up=1
    )
    without = dataclasses.replace(config, warm_up=0)
    after, before = (
        yinyang_warm_up.make_network(c).init(jax.random.key(0))["weights"]
        for c in (config, without)
    )
    for a, b in zip(after, before, strict=True):
        assert a.shape == b.shape
        assert not np.allclose(a, b)


@pytest.mark.parametrize("program", [yinyang, yinyang_warm_up])
def test_a_reset_far_below_threshold_lets_neurons_fire_once(program):
    """In steps and event by event."""
    config = dataclasses.replace(
        program.DEFAULTS, hidden=10, hidden_mean=3.0, batch_size=1, train_size=20
    )
    if program is yinyang_warm_up:
        config = dataclasses.replace(config, warm_up=0)
    most = []
    for v_reset in (0.0, -1000.0):
        own = dataclasses.replace(config, v_reset=v_reset)
        network = program.make_network(own)
        spikes = network.apply(network.init(jax.random.key(0)), program.load(own)[0].spikes)[0]
        if program is yinyang:
            counts = np.sum(spikes, axis=1)
        else:
            counts = np.sum(np.asarray(spikes.index)[..., None] == np.arange(10), axis=1)
        most.append(np.max(counts))
    assert most[0] > 1
    assert most[1] == 1


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        yinyang.main(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.partition("\noptions:")[2].split())
    for field in dataclasses.fields(yinyang.Config):
        entry = re.search(rf" --{field.name.replace('_', '-')} \S+ [^(]+\(default: ([^)]+)\)", text)
        assert entry, field.name
        default = str(getattr(yinyang.DEFAULTS, field.name)).lower()
        assert entry[1] == f"{default} {field.metadata['unit']}".strip()
    assert "--out DIR" in text
    assert "--health" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dt=0"], "argument --dt: '0' is not a number > 0"),
        (["--dt=6e-3"], "--dt is 0.006, expected less than --tau-mem and --tau-syn"),
        (["--v-reset=0.7"], "--v-reset is 0.7, expected less than --v-th=0.6"),
        (["--t-late=1"], "--t-late is 1.0, expected at most 0.0295, the last step"),
        (["--surrogate=box"], "argument --surrogate: 'box' is not one of superspike, "),
        (["--batch-size=99"], "--batch-size is 99, expected at most --train-size=60"),
    ],
)
def test_bad_options_are_rejected(options, said, capsys):
    with pytest.raises(SystemExit) as end:
        yinyang.main([*SMALL, *options])
    assert end.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err
