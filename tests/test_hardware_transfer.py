"""Weights belong to the chip that they were trained on, until they are trained on another one."""

import json

import pytest

from jaxsnn.event.tasks.hardware import transfer, yinyang_mock

SMALL = ["--train-size=1920", "--validation-size=300", "--test-size=3000", "--lr-decay=0.9"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on chip 0."""
    folder = tmp_path_factory.mktemp("run")
    options = ["--backend=emulated", "--chip=0", "--epochs=12", *SMALL]
    assert yinyang_mock.main([*options, f"--out={folder}"]) == 0
    return folder


def test_weights_lose_elsewhere_and_recover_in_the_loop(run, tmp_path, capsys):
    figure = tmp_path / "transfer.png"
    options = ["--other=1", "--epochs=5", f"--out={tmp_path}", f"--plot={figure}"]
    assert transfer.main([str(run), *options]) == 0
    found = json.loads((tmp_path / "transfer.json").read_text())
    accuracy = found["accuracy"]
    # Evaluating 3,000 samples scatters by 0.7 points.
    assert accuracy["trained_on"] > 0.75
    assert accuracy["other"] < accuracy["trained_on"] - 0.03
    assert accuracy["other_after"] > accuracy["other"] + 0.03
    assert accuracy["other_after"] > accuracy["trained_on"] - 0.03
    assert len(found["epochs"]["before"]) == 12
    assert found["epochs"]["after"][-1] == accuracy["other_after"]
    # The same chip, with other trial noise.
    assert accuracy["trained_on"] == pytest.approx(found["epochs"]["before"][-1], abs=0.03)
    said = capsys.readouterr().out
    assert f"{accuracy['other']:.2%}  chip 1\n" in said
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_what_is_no_such_run_is_an_error(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"backend": "mock"}')
    assert transfer.main([str(tmp_path), f"--out={tmp_path}"]) == 1
    assert "is no run of yinyang_mock with --backend emulated" in capsys.readouterr().err
    assert transfer.main([str(tmp_path / "nothing"), f"--out={tmp_path}"]) == 1
    assert "config.json" in capsys.readouterr().err
