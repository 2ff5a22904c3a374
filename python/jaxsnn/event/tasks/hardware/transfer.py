"""How weights trained on one emulated chip do on another one, and how training there mends them.

Takes the folder of a finished run of yinyang_mock with --backend emulated: evaluates its weights on
the chip that they were trained on, on another one and on the ideal model, and trains them on the
other chip, with the options of that run. Prints the accuracies on the test set, and writes them to
transfer.json in its own folder, where the run on the other chip is as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsnn.event.hardware import HardwareError
from jaxsnn.event.population import Layer
from jaxsnn.event.tasks._config import HardwareConfig, flag
from jaxsnn.event.tasks.hardware import yinyang_mock
from jaxsnn.event.tasks.hardware._yinyang import TASK
from jaxsnn.event.training import evaluation

_PROGRAM = "jaxsnn.event.tasks.hardware.transfer"


def read_run(folder: Path) -> HardwareConfig:
    """The configuration of a finished run on an emulated chip.

    Raises:
        ValueError: it is none.
        OSError: its files are missing.
    """
    saved = json.loads((folder / "config.json").read_text())
    names = [field.name for field in dataclasses.fields(HardwareConfig)]
    if saved.get("backend") != "emulated" or not set(names) <= saved.keys():
        raise ValueError(f"{folder} is no run of yinyang_mock with --backend emulated")
    return HardwareConfig(**{name: saved[name] for name in names})


def evaluate(config: HardwareConfig) -> float:
    """Accuracy on the test set of the weights that a run would start from."""
    with jax.enable_x64(config.dtype == "float64"):
        network = TASK.make_network(config)
        parameters = network.init(jax.random.key(config.seed))
        _, held_out = TASK.load(config)
        of = evaluation(Layer(network.init, network.apply), TASK.make_objective(config))
        return float(of(parameters, held_out["test"])[1])


def transfer(run: Path, other: int, epochs: int, out: Path) -> dict[str, Any]:
    """Evaluates on three chips and trains on one.

    Args:
        run: folder of the finished run.
        other: seed of the other chip.
        epochs: how long to train there.
        out: folder for transfer.json, and for the run on the other chip.

    Returns:
        What is in transfer.json: ``trained_on`` and ``other``, seeds; ``accuracy`` by place; and
        the test accuracy after every epoch of both runs.
    """
    config = dataclasses.replace(read_run(run), start=str(run / "weights.npz"))
    there = dataclasses.replace(config, chip=other, epochs=epochs)
    accuracy = {
        "trained_on": evaluate(config),
        "other": evaluate(there),
        "ideal": evaluate(dataclasses.replace(config, backend="mock")),
    }
    status = yinyang_mock.main([*_arguments(there), f"--out={out / 'other'}"])
    if status != 0:
        raise HardwareError(f"training on chip {other} ended with status {status}")
    curves = {"before": _curve(run), "after": _curve(out / "other")}
    accuracy["other_after"] = curves["after"][-1]
    found = {"trained_on": config.chip, "other": other, "accuracy": accuracy, "epochs": curves}
    (out / "transfer.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def plot(found: dict[str, Any], path: Path) -> None:
    """Draws what `transfer` returned.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(
            'the plot needs matplotlib, install it with: pip install "jaxsnn[plot]"'
        ) from error
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    before, after = ([100 * x for x in found["epochs"][key]] for key in ("before", "after"))
    accuracy = {key: 100 * value for key, value in found["accuracy"].items()}
    n, first, other = len(before), found["trained_on"], found["other"]
    axes.plot(range(1, n + 1), before, label=f"training on chip {first}")
    axes.plot(range(n, n + len(after) + 1), [accuracy["other"], *after], label=f"on chip {other}")
    axes.plot(n, accuracy["ideal"], "k_", markersize=12, label="on the ideal model")
    axes.annotate(
        f"weights of chip {first} on chip {other}: {accuracy['other']:.1f} %",
        (n, accuracy["other"]),
        textcoords="offset points",
        xytext=(-8, 0),
        ha="right",
    )
    axes.set(xlabel="epoch", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower center")
    figure.savefig(path, dpi=150)


def _curve(folder: Path) -> list[float]:
    epochs = json.loads((folder / "metrics.json").read_text())["epochs"]
    return [epoch["test"]["accuracy"] for epoch in epochs]


def _arguments(config: HardwareConfig) -> list[str]:
    values = dataclasses.asdict(config).items()
    return [
        f"{flag(name)}={str(value).lower() if value is None or isinstance(value, bool) else value}"
        for name, value in values
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {_PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the finished run")
    parser.add_argument("--other", type=int, default=1, metavar="SEED", help="chip (default: 1)")
    parser.add_argument(
        "--epochs", type=int, default=10, metavar="X", help="to train there (default: 10)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for results")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="where to draw a plot, e.g. a PNG"
    )
    options = parser.parse_args(arguments)
    try:
        found = transfer(options.run, options.other, options.epochs, options.out)
        places = {
            "trained_on": f"chip {found['trained_on']}, where they were trained",
            "other": f"chip {found['other']}",
            "ideal": "the ideal model",
            "other_after": f"chip {found['other']}, after {options.epochs} more epochs there",
        }
        for key, place in places.items():
            print(f"{found['accuracy'][key]:8.2%}  {place}")
        if options.plot is not None:
            plot(found, options.plot)
    except (HardwareError, ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
