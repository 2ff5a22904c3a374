"""Prints the tables of README.md: each step, its bound and the ratio, in turns.

python benchmarks/tables.py [NAME ...]
"""

from __future__ import annotations

import statistics
import sys
import time

import jax

from bound import bound
from suite import PURE_JAX, STEPS

ROUNDS = 5


def milliseconds(function, *arguments) -> float:
    """Median of the runs of half a second, at least three."""
    runs: list[float] = []
    end = time.perf_counter() + 0.5
    while len(runs) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        runs.append((time.perf_counter() - start) * 1e3)
    return statistics.median(runs)


def compilation(step) -> float:
    """Seconds to trace and compile the gradient of a step."""
    start = time.perf_counter()
    jax.jit(jax.value_and_grad(step.loss)).lower(*step.arguments).compile()
    return time.perf_counter() - start


def main() -> None:
    names = sys.argv[1:] or list(STEPS)
    print("| step | | here, ms | bound, ms | ratio | in JAX alone, ms | ratio | compilation, s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        step = STEPS[name]()
        compiled = f"{compilation(step):.2f}"
        plain = PURE_JAX[name]() if name in PURE_JAX else None
        for backward in (False, True):

            def jitted(step, backward=backward):
                return jax.jit(jax.value_and_grad(step.loss) if backward else step.loss)

            here, least = jitted(step), bound(step.projections, backward=backward)
            turns: dict[str, list[float]] = {"here": [], "bound": [], "plain": []}
            jax.block_until_ready(here(*step.arguments))
            if plain is not None:
                in_jax_alone = jitted(plain)
                jax.block_until_ready(in_jax_alone(*plain.arguments))
            for _ in range(ROUNDS):
                turns["here"].append(milliseconds(here, *step.arguments))
                turns["bound"].append(milliseconds(least))
                if plain is not None:
                    turns["plain"].append(milliseconds(in_jax_alone, *plain.arguments))
            a, b = (statistics.median(turns[kind]) for kind in ("here", "bound"))
            c = statistics.median(turns["plain"]) if plain is not None else None
            in_jax = "| | |" if c is None else f"| {c:.2f} | {c / a:.0f} |"
            kind = "forward and backward" if backward else "forward"
            row = f"| {name} | {kind} | {a:.3f} | {b:.4f} | {a / b:.1f} {in_jax}"
            print(f"{row} {compiled if backward else ''} |", flush=True)


if __name__ == "__main__":
    main()
