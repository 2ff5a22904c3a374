"""Times the step of `discrete_step.py` here and elsewhere, in turns, and prints the ratios.

    python benchmarks/compare_discrete.py A|B PYTHON SCRIPT [PYTHON SCRIPT ...]

Each SCRIPT prints lines of JSON with ``fwd_bwd_ms`` and ``peak_rss_mb`` for the argument A or B;
its PYTHON is the interpreter of an environment with what it needs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 3


def measure(python: str, script: str, task: str) -> tuple[float, float]:
    """Milliseconds of a step, and the peak memory of the process in MB."""
    done = subprocess.run([python, script, task], check=True, capture_output=True, text=True)
    line = json.loads(done.stdout.strip().splitlines()[-1])
    return line["fwd_bwd_ms"], line["peak_rss_mb"]


def main() -> None:
    task, *others = sys.argv[1:]
    here = str(Path(__file__).with_name("discrete_step.py"))
    programs = [(sys.executable, here), *zip(others[::2], others[1::2], strict=True)]
    found = [[measure(*program, task) for program in programs] for _ in range(ROUNDS)]
    print("| | ms | ratio | range of ratios | peak memory, MB |\n|---|---|---|---|---|")
    for at, (_, script) in enumerate(programs):
        times = [run[at][0] for run in found]
        ratios = [run[at][0] / run[0][0] for run in found]
        memory = max(run[at][1] for run in found)
        print(
            f"| {Path(script).stem} | {statistics.median(times):.2f} "
            f"| {statistics.median(ratios):.1f} | {min(ratios):.1f} to {max(ratios):.1f} "
            f"| {memory:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
