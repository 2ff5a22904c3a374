"""Prints what a second thread brings, and the memory that a step takes.

python benchmarks/resources.py [NAME ...]

Each measurement runs in a process of its own, on the processors that it may use.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import jax

from suite import STEPS
from tables import milliseconds

NAMES = ("yinyang-100", "yinyang-400", "yinyang-throughput", "wide", "recurrent")


def measure(name: str) -> dict[str, float]:
    """Of forward and backward, in this process: milliseconds, and MB beyond the arguments."""
    step = STEPS[name]()
    jitted = jax.jit(jax.value_and_grad(step.loss)).lower(*step.arguments).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jax.block_until_ready(jitted(*step.arguments))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"ms": milliseconds(jitted, *step.arguments), "mb": (after - before) / 1024}


def in_process(name: str, processors: set[int]) -> dict[str, float]:
    result = subprocess.run(
        [sys.executable, __file__, "--measure", name],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return json.loads(result.stdout)


def main() -> None:
    processors = sorted(os.sched_getaffinity(0))
    print("| step | one thread, ms | two threads, ms | ratio | memory, MB |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or NAMES:
        one = in_process(name, set(processors[:1]))
        two = in_process(name, set(processors[:2]))
        ratio = one["ms"] / two["ms"]
        print(f"| {name} | {one['ms']:.2f} | {two['ms']:.2f} | {ratio:.2f} | {two['mb']:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()
