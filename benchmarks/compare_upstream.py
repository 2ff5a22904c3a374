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

import jax

from networks import DUPLICATION, yinyang_step
from tables import milliseconds

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", help="script that times upstream's step")
    parser.add_argument("python", help="interpreter of an environment with upstream")
    arguments = parser.parse_args()
    print("| hidden | | here, ms | upstream, ms | ratio |\n|---|---|---|---|---|")
    for hidden in (100, 400):
        step = yinyang_step(hidden, 64)
        steps = {
            "forward": jax.jit(step.loss),
            "forward_backward": jax.jit(jax.value_and_grad(step.loss)),
        }
        for jitted in steps.values():
            jax.block_until_ready(jitted(*step.arguments))
        here = {"forward": [], "forward_backward": []}
        there = {"forward": [], "forward_backward": []}
        for _ in range(ROUNDS):
            for kind, jitted in steps.items():
                here[kind].append(milliseconds(jitted, *step.arguments))
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
