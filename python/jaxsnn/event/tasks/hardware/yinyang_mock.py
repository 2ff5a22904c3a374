"""Trains Yin-Yang with a software stand-in of BrainScaleS-2 in the loop.

By default the stand-in is the ideal model with the chip's clock, range and resolution of weights,
which are options, as is noise of the spike times. ``--backend emulated`` is a chip with
imperfections, another one for every ``--chip``; ``--backend grenade`` is a real chip. Times are in
seconds of the chip.
"""

from __future__ import annotations

import dataclasses
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
    defaults = dataclasses.replace(DEFAULTS, backend="mock")
    name = "jaxsnn.event.tasks.hardware.yinyang_mock"
    return run_program(name, __doc__ or "", TASK, defaults, arguments)


if __name__ == "__main__":
    sys.exit(main())
