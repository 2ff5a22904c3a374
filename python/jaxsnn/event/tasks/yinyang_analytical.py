"""Trains a two-layer network on Yin-Yang with gradients taken event by event.

The same function and gradients as in yinyang_event_prop, by a scan over single events: slower, so
the defaults are a smaller network and fewer epochs, which reach about 92 % on the test set. The
room for spikes is the length of the scan; more of it takes more time.

Times are in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxsnn.event.leaky_integrate_and_fire import LIF
from jaxsnn.event.tasks._config import Config
from jaxsnn.event.tasks._program import run_program
from jaxsnn.event.tasks._yinyang import yinyang_task

DEFAULTS = Config(
    hidden=50,
    bias_time=None,
    hidden_mean=2.5,
    hidden_std=1.2,
    output_mean=1.2,
    output_std=0.3,
    hidden_spikes=100,
    output_spikes=100,
    epochs=6,
    batch_size=50,
    learning_rate=1e-2,
    lr_decay=0.75,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    name = "jaxsnn.event.tasks.yinyang_analytical"
    return run_program(name, __doc__ or "", yinyang_task(LIF), DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
