import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxsnn.event.activity import silent_neuron_loss
from jaxsnn.event.component import Recording
from jaxsnn.event.leaky_integrate_and_fire import LIF, EventPropLIF
from jaxsnn.event.tasks import _yinyang, digits, yinyang_analytical, yinyang_event_prop
from jaxsnn.event.tasks._config import Config, DigitsConfig, flag
from jaxsnn.event.tasks._health import Health, describe
from jaxsnn.event.tasks._network import LAYERS, TRAINED
from jaxsnn.event.tasks._objective import with_silent_repair

SMALL = ["--hidden=6", "--epochs=2", "--validation-size=1287", "--batch-size=20"]
YINYANG = Config(hidden=6, hidden_spikes=100, output_spikes=200, output_mean=4.0)


def read(folder):
    metrics = json.loads((folder / "metrics.json").read_text())["epochs"]
    for epoch in metrics:
        assert epoch.pop("seconds") >= epoch.pop("compile_seconds") >= 0
    with np.load(folder / "weights.npz") as weights:
        return metrics, dict(weights)


def yinyang_samples(size=12):
    return _yinyang.load(dataclasses.replace(YINYANG, batch_size=1, train_seed=1, train_size=size))[
        0
    ]


# ---- the data ---------------------------------------------------------------------------------


def pixels(spikes):
    """Images, by the definition of the code: spikes of pixels are the earlier the brighter."""
    images = np.zeros((len(spikes.time), 65))
    for row, times, indices in zip(images, *map(np.asarray, spikes), strict=True):
        assert (np.diff(times[indices >= 0]) >= 0).all()
        assert np.isinf(times[indices < 0]).all()
        row[indices[indices >= 0]] = 16 * (1 - times[indices >= 0] / DigitsConfig().t_late)
    return images[:, :64]


def test_every_sample_is_in_one_set_and_every_class_in_all():
    images, labels = load_digits(return_X_y=True)
    train, held_out = digits.load(DigitsConfig(validation_size=270, bias_time=None))
    sets = [train, held_out["test"], held_out["validation"]]
    assert [len(examples.labels) for examples in sets] == [1077, 450, 270]
    found = np.concatenate([pixels(examples.spikes) for examples in sets])
    found_labels = np.concatenate([examples.labels for examples in sets])
    both = [
        np.column_stack(pair)
        for pair in ((images, labels), (found.round().astype(int), found_labels))
    ]
    np.testing.assert_allclose(found, found.round(), atol=1e-4)
    assert sorted(map(tuple, both[0])) == sorted(map(tuple, both[1]))
    for examples in sets:
        assert (np.abs(np.bincount(examples.labels) / len(examples.labels) - 0.1) < 0.01).all()

    train, held_out = digits.load(DigitsConfig())
    assert (len(train.labels), list(held_out)) == (1347, ["test"])
    assert jnp.array_equal(held_out["test"].labels, sets[1].labels)


@pytest.mark.parametrize("bias_time", [0.0, 15e-3, 35e-3])
def test_black_pixels_are_silent_and_the_bias_is_not(bias_time):
    images = np.zeros((2, 64))
    images[1, [3, 5, 60]] = 16, 4, 1
    spikes = digits.encode(DigitsConfig(bias_time=bias_time, t_late=20e-3), images)
    assert spikes.time.shape == (2, 65)
    expected = sorted([(0.0, 3), (15e-3, 5), (18.75e-3, 60), (bias_time, 64)])
    for row, wanted in enumerate(([(bias_time, 64)], expected)):
        count = len(wanted)
        np.testing.assert_allclose(spikes.time[row, :count], [t for t, _ in wanted], rtol=1e-6)
        assert spikes.index[row, :count].tolist() == [channel for _, channel in wanted]
        assert (spikes.index[row, count:] == -1).all()
        assert jnp.isinf(spikes.time[row, count:]).all()


def test_dropout_leaves_out_pixels_and_keeps_the_bias():
    _, held_out = digits.load(DigitsConfig())
    spikes = held_out["test"].spikes
    augment = digits.make_augment(DigitsConfig(dropout=0.3))
    kept = augment(jax.random.key(0), spikes)
    assert jnp.all(jnp.diff(jnp.where(kept.index < 0, 1.0, kept.time)) >= 0)
    assert jnp.array_equal(kept.index < 0, jnp.isinf(kept.time))
    assert jnp.all(jnp.sum(kept.index == 64, 1) == 1)
    before, after = (np.sum((s.index >= 0) & (s.index < 64)) for s in (spikes, kept))
    assert after / before == pytest.approx(0.7, abs=0.02)
    all_times = [
        dict(zip(*map(np.ravel, (s.index[3], s.time[3])), strict=True)) for s in (spikes, kept)
    ]
    assert all_times[1].items() <= all_times[0].items()


# ---- the program ------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["first-spike", "maximum"])
def test_program_leaves_its_results(readout, tmp_path, capsys):
    options = [
        *(*SMALL, f"--readout={readout}", "--seed=3", "--health"),
        *("--silent-repair=0.5", "--train-neurons=per-neuron", "--output-mean=2"),
    ]
    assert digits.main([*options, f"--out={tmp_path}"]) == 0
    metrics, weights = read(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["program"] == "jaxsnn.event.tasks.digits"
    assert (config["readout"], config["hidden"], config["seed"]) == (readout, 6, 3)
    spiking = {"hidden", "output"} if readout == "first-spike" else {"hidden"}
    assert [epoch["epoch"] for epoch in metrics] == [1, 2]
    for epoch in metrics:
        for part in ("train", "validation", "test"):
            assert 0 <= epoch[part]["accuracy"] <= 1
            assert np.isfinite(epoch[part]["loss"])
            assert set(epoch[part]["spikes_per_sample"]) == spiking
        assert epoch["health"]["samples"] == "validation"
        assert epoch["health"]["non_finite_gradients"] == 0
        assert set(epoch["health"]["layers"]) == spiking
        assert all(layer["dropped"] is not None for layer in epoch["health"]["layers"].values())
    trained = {"output": TRAINED if readout == "first-spike" else TRAINED[:2], "hidden": TRAINED}
    shapes = {"hidden": (65, 6), "output": (6, 10)}
    shapes |= {
        f"{name}_{constant}": shapes[name][1:] for name in trained for constant in trained[name]
    }
    assert {name: w.shape for name, w in weights.items()} == shapes
    assert not (weights["hidden_tau_mem"] == config["tau_mem"]).any()

    stdout, stderr = capsys.readouterr()
    assert len(re.findall(r"^(?:start|epoch \d), validation: hidden: .* silent", stdout, re.M)) == 3
    assert re.search(r"^test accuracy \d+\.\d\d% after 2 epochs, training took", stdout, re.M)
    assert "2/2" in stderr


def test_same_seed_same_files(tmp_path):
    for folder in "ab":
        assert digits.main([*SMALL, "--epochs=1", f"--out={tmp_path / folder}"]) == 0
    (metrics, weights), (again, same) = (read(tmp_path / folder) for folder in "ab")
    assert metrics == again
    assert list(weights) == ["hidden", "output"]
    assert all(np.array_equal(weights[name], same[name]) for name in weights)


def test_missing_scikit_learn_is_a_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert digits.main([*SMALL, f"--out={tmp_path / 'run'}"]) == 1
    stderr = capsys.readouterr().err
    assert stderr.rstrip().endswith(
        'error: this program needs scikit-learn, install it with: pip install "jaxsnn[digits]"'
    )
    assert "Traceback" not in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        (digits, ["--readout=rate"], "'rate' is not one of first-spike, maximum"),
        (digits, ["--validation-size=5"], "is 5, expected 0 or at least 10, one sample per class"),
        (digits, ["--validation-size=1330", "--batch-size=20"], "at most the 17 samples"),
        (digits, ["--form=recurrent"], "unrecognized arguments: --form=recurrent"),
        (digits, ["--train-neurons=all"], "'all' is not one of none, shared, per-neuron"),
        (digits, ["--silent-repair=-1"], "'-1' is not a number >= 0"),
    ],
)
def test_bad_options_are_rejected(program, options, said, capsys):
    with pytest.raises(SystemExit) as end:
        program.main(options)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        (yinyang_analytical, ["--silent-repair=1"], "is 1.0, expected 0.0 with analytical grad"),
        (yinyang_analytical, ["--train-neurons=shared"], "is shared, expected none with analytic"),
        (yinyang_analytical, ["--delays=axonal"], "is axonal, expected none with analytical"),
        (
            yinyang_event_prop,
            ["--form=recurrent", "--silent-repair=1"],
            "--silent-repair is 1.0, expected 0.0 with --form=recurrent",
        ),
        (
            yinyang_event_prop,
            ["--form=recurrent", "--train-neurons=shared"],
            "--train-neurons is shared, expected none with --form=recurrent",
        ),
    ],
)
def test_options_that_exclude_each_other_are_rejected(program, options, said, capsys):
    assert program.main(options) == 1
    assert said in capsys.readouterr().err


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        digits.main(["--help"])
    text = " ".join(capsys.readouterr().out.partition("\noptions:")[2].split())
    for field in dataclasses.fields(DigitsConfig):
        entry = re.search(rf" {flag(field.name)} \S+ [^(]+\(default: ([^)]+)\)", text)
        assert entry, field.name
        default = str(getattr(digits.DEFAULTS, field.name)).lower()
        assert entry[1] == f"{default} {field.metadata['unit']}".strip()
    assert "--health" in text


# ---- health -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "config"),
    [
        (LIF, YINYANG),
        (EventPropLIF, dataclasses.replace(YINYANG, form="recurrent", delays="synaptic")),
        (EventPropLIF, dataclasses.replace(YINYANG, form="recurrent", delays="axonal")),
    ],
)
def test_what_is_recorded_is_what_is_trained(factory, config):
    network = _yinyang.make_network(config, factory)
    parameters = network.init(jax.random.key(2))
    spikes = yinyang_samples().spikes
    recorded = network.record(parameters, spikes)
    for layer, (output, _, result) in zip(network.apply(parameters, spikes), recorded, strict=True):
        assert jnp.sum(layer.index >= 0) > 10
        assert jnp.array_equal(layer.index, output.index)
        np.testing.assert_allclose(layer.time, output.time, rtol=1e-5)
        assert result.maximum is None


def counts(spikes, n):
    return np.array([[np.sum(row == i) for i in range(n)] for row in np.asarray(spikes.index)])


def test_health_is_that_of_an_independent_count():
    examples = yinyang_samples()
    network = _yinyang.make_network(YINYANG, EventPropLIF)
    first, second = (network.init(jax.random.key(seed)) for seed in (2, 3))
    health = Health(network, "some", examples)
    start, after = health.after(first), health.after(second)
    assert start["samples"] == "some"
    before, now = (network.apply(p, examples.spikes) for p in (first, second))
    for number, (name, n) in enumerate(zip(LAYERS, (6, 3), strict=True)):
        change = counts(now[number], n) - counts(before[number], n)
        found = after["layers"][name]
        assert start["layers"][name]["dropped"] is None
        assert found["dropped"] == -change[change < 0].sum() > 0
        assert found["created"] == change[change > 0].sum() > 0
        assert found["silent"] == pytest.approx((counts(now[number], n).sum(0) == 0).mean())
        assert found["smallest_slope"] > 0
    assert health.after(second)["layers"]["hidden"]["created"] == 0
    assert "% silent" in describe(after)
    assert "-0 +0" in describe(health.after(second))

    quiet = jax.tree.map(jnp.zeros_like, first)
    found = Health(network, "some", examples).after(quiet)
    assert found["layers"]["hidden"]["smallest_slope"] is None
    assert found["layers"]["hidden"]["silent"] == 1
    assert "hidden: no spikes, 0 grazing, 100.0% silent" in describe(found)


# ---- silent neurons ---------------------------------------------------------------------------


def test_repair_alone_moves_silent_neurons():
    config = dataclasses.replace(YINYANG, hidden_mean=0.3, hidden_std=0.1)
    network = _yinyang.make_network(config, EventPropLIF)
    parameters = network.init(jax.random.key(0))
    spikes, labels = yinyang_samples()
    plain = _yinyang.make_objective(config)
    repaired = with_silent_repair(plain, 0.5)

    @jax.jit
    @jax.value_and_grad
    def without(parameters):
        return plain(network.apply(parameters, spikes), labels).loss.mean()

    @jax.jit
    @jax.value_and_grad
    def with_repair(parameters):
        return repaired(network.record(parameters, spikes, maxima=True), labels).loss.mean()

    hidden = network.record(parameters, spikes, maxima=True)[0]
    assert isinstance(hidden, Recording)
    assert jnp.all(hidden.output.index == -1)
    distance = silent_neuron_loss(hidden.result.maximum.v, 1.0)
    value, gradient = without(parameters)
    assert with_repair(parameters)[0] == pytest.approx(value + 0.5 * distance)
    assert not jnp.any(gradient["weights"][0])
    assert jnp.any(with_repair(parameters)[1]["weights"][0], 0).all()
    for _ in range(40):
        _, step = with_repair(parameters)
        parameters = jax.tree.map(lambda p, g: p - 10 * g, parameters, step)
    assert counts(network.apply(parameters, spikes)[0], 6).sum(0).all()


# ---- trained neurons --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "shape"), [("shared", ()), ("per-neuron", (6,))])
def test_trained_constants_start_at_the_options_and_have_gradients(kind, shape):
    config = dataclasses.replace(YINYANG, train_neurons=kind)
    network, plain = (_yinyang.make_network(c, EventPropLIF) for c in (config, YINYANG))
    parameters = network.init(jax.random.key(0))
    examples = yinyang_samples()
    for one, other in zip(
        network.apply(parameters, examples.spikes),
        plain.apply({"weights": parameters["weights"]}, examples.spikes),
        strict=True,
    ):
        # Per neuron, the solutions are computed in single precision.
        rtol = 2e-6 if kind == "per-neuron" else 0
        np.testing.assert_allclose(one.time, other.time, rtol=rtol)
    saved = network.arrays(parameters)
    for name, value in (("tau_mem", 20e-3), ("tau_syn", 5e-3), ("v_th", 1.0)):
        assert saved[f"hidden_{name}"].shape == shape
        np.testing.assert_allclose(saved[f"hidden_{name}"], value, rtol=1e-6)

    @jax.jit
    @jax.grad
    def gradient(parameters):
        outputs = network.apply(parameters, examples.spikes)
        return _yinyang.make_objective(config)(outputs, examples.labels).loss.mean()

    for numbers in gradient(parameters)["neurons"]:
        assert set(numbers) == set(TRAINED)
        assert all(jnp.any(x) for x in numbers.values())
