"""Measures how the cost of a layer grows with its neurons, input spikes and batch, and plots it.

python benchmarks/scaling.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from matplotlib.figure import Figure

from networks import wide_step
from tables import milliseconds

PICTURE = Path(__file__).with_name("scaling.png")
BASE = {"n_neurons": 250, "n_spikes": 1000, "batch": 8}
SIZES = {
    "n_neurons": (4, 16, 63, 250, 1000, 4000),
    "n_spikes": (100, 320, 1000, 3200, 10000, 32000, 100000),
    "batch": (1, 4, 16, 63, 250, 1000),
}
TITLES = {"n_neurons": "neurons", "n_spikes": "input spikes per sample", "batch": "samples"}


def measure(axis: str) -> dict[str, list[float]]:
    """Milliseconds forward, and forward and backward, for every size along an axis."""
    times: dict[str, list[float]] = {"forward": [], "forward and backward": []}
    for size in SIZES[axis]:
        step = wide_step(**(BASE | {axis: size}), room=40)
        for kind, function in (
            ("forward", step.loss),
            ("forward and backward", jax.value_and_grad(step.loss)),
        ):
            jitted = jax.jit(function)
            jax.block_until_ready(jitted(*step.arguments))
            times[kind].append(milliseconds(jitted, *step.arguments))
    return times


def main(file: str | Path) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axis, panel in zip(SIZES, figure.subplots(1, 3, sharey=True), strict=True):
        sizes, times = SIZES[axis], measure(axis)
        for kind, line in times.items():
            panel.loglog(sizes, line, "o-", markersize=4, label=kind)
            row = " ".join(f"{size}: {time:.3g}" for size, time in zip(sizes, line, strict=True))
            print(f"{TITLES[axis]}, {kind}, ms: {row}", flush=True)
        last = times["forward and backward"][-1]
        panel.loglog(
            sizes, [last * s / sizes[-1] for s in sizes], ":", color="grey", label="linear"
        )
        panel.set_xlabel(TITLES[axis])
        panel.grid(alpha=0.3)
        others = ", ".join(f"{size} {TITLES[k]}" for k, size in BASE.items() if k != axis)
        panel.set_title(others, fontsize=8)
        if axis == "n_neurons":
            panel.set_ylabel("milliseconds")
            panel.legend(fontsize=8)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else PICTURE)
