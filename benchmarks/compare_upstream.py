"""Times the Yin-Yang step here and in upstream jaxsnn, in turns, and prints the ratios.

    python benchmarks/compare_upstream.py SCRIPT PYTHON

SCRIPT prints one JSON line with ``forward_ms`` and ``forward_backward_ms`` for the arguments HIDDEN
BATCH DUPLICATION; PYTHON is the interpreter of an environment in which upstream is installed, since
it has this package's import name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time

import jax

from networks import DUPLICATION, yinyang_step

ROUNDS = 3


def milliseconds(function, arguments) -> float:
    """Median of 100 runs of a jitted function."""
    jitted = jax.jit(function)
    jax.block_until_ready(jitted(*arguments))
    runs = []
    for _ in range(100):
        start = time.perf_counter()
        jax.block_until_ready(jitted(*arguments))
        runs.append((time.perf_counter() - start) * 1e3)
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", help="script that times upstream's step")
    parser.add_argument("python", help="interpreter of an environment with upstream")
    arguments = parser.parse_args()
    print("| hidden | | here, ms | upstream, ms | ratio |\n|---|---|---|---|---|")
    for hidden in (100, 400):
        step = yinyang_step(hidden, 64)
        here = {"forward": [], "forward_backward": []}
        there = {"forward": [], "forward_backward": []}
        for _ in range(ROUNDS):
            here["forward"].append(milliseconds(step.loss, step.arguments))
            both = jax.value_and_grad(step.loss)
            here["forward_backward"].append(milliseconds(both, step.arguments))
            command = [arguments.python, arguments.script, str(hidden), "64", str(DUPLICATION)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peer = json.loads(line.strip().splitlines()[-1])
            for kind, times in there.items():
                times.append(peer[f"{kind}_ms"])
        for kind, times in here.items():
            a, b = statistics.median(times), statistics.median(there[kind])
            print(f"| {hidden} | {kind} | {a:.2f} | {b:.1f} | {b / a:.0f} |", flush=True)


if __name__ == "__main__":
    main()
