"""Trains a two-layer network on Yin-Yang with EventProp gradients.

The defaults train for 30 epochs and reach 98.6 % on the test set, at least 98.4 % on each of six
seeds. The experiment of Wunderlich and Pehle (2021), doi:10.1038/s41598-021-91786-z, who report
98.1 % after 100 epochs, has other initial weights, which are in the units of this library, a bias
spike and smaller steps:

  python -m jaxsnn.event.tasks.yinyang_event_prop --epochs 100 --bias-time 0 --hidden-mean 1.5
    --hidden-std 0.78 --output-mean 0.93 --output-std 0.1 --learning-rate 5e-3 --lr-decay 0.95

docs/recipes.md has more, with trained delays. Times are in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.tasks._config import Config
from jaxsnn.event.tasks._program import run_program
from jaxsnn.event.tasks._yinyang import yinyang_task

DEFAULTS = Config(
    bias_time=None,
    hidden_mean=2.0,
    hidden_std=1.0,
    output_mean=0.5,
    output_std=0.3,
    learning_rate=1e-2,
    lr_decay=0.85,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    name = "jaxsnn.event.tasks.yinyang_event_prop"
    return run_program(name, __doc__ or "", yinyang_task(EventPropLIF), DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
