"""Trains Yin-Yang with BrainScaleS-2 in the loop.

Needs a chip and the packages of its vendor; says what is missing where there is none.
``--backend emulated`` runs it all the same, on a chip in software. Times are in seconds of the
chip.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxsnn.event.tasks._program import run_program
from jaxsnn.event.tasks.hardware._yinyang import DEFAULTS, TASK


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    name = "jaxsnn.event.tasks.hardware.yinyang"
    return run_program(name, __doc__ or "", TASK, DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
