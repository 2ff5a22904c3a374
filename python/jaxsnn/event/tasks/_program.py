"""The command line around a Yin-Yang run: options, progress, files, errors, Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsnn.event.population import Layer
from jaxsnn.event.tasks._config import Config, add_options, flag, read_config
from jaxsnn.event.tasks._results import Results
from jaxsnn.event.tasks._yinyang import initialise, make_network, train
from jaxsnn.event.training import Epoch, require_optax

_log = logging.getLogger(__name__)

_INTERRUPTED = 130  # what shells report for SIGINT


def run_program(
    program: str,
    description: str,
    factory: Callable[..., Layer],
    defaults: Config,
    arguments: Sequence[str] | None,
) -> int:
    """Runs a program.

    Args:
        program: its module, as after ``python -m``.
        description: its help text.
        factory: layer factory, see `make_network`.
        defaults: of the options.
        arguments: the command line, None for that of the process.

    Returns:
        The exit status: 0, 1 after an error, 2 for wrong options, 130 after Ctrl-C.
    """
    parser = _parser(program, description, defaults)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format=f"{parser.prog}: %(levelname)s: %(message)s"
    )
    try:
        config = read_config(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        with jax.enable_x64(config.dtype == "float64"):
            return _run(program, config, factory, options.out)
    except (ValueError, ArithmeticError, ImportError, OSError, jax.errors.JaxRuntimeError) as error:
        _log.debug("what led to the error", exc_info=True)
        print(f"{parser.prog}: error: {_explain(error, config)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted before training", file=sys.stderr)
        return _INTERRUPTED


def _parser(program: str, description: str, defaults: Config) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, defaults)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for config.json, metrics.json and weights.npz, brought up to date after "
        "every epoch (default: none, nothing is written)",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="warning",
        help="what to log on stderr; debug adds tracebacks to errors (default: warning)",
    )
    return parser


def _run(program: str, config: Config, factory: Callable[..., Layer], out: Path | None) -> int:
    require_optax()
    tqdm, redirect_log = _require_tqdm()
    network = make_network(config, factory)
    weights, key = initialise(config, network)
    results = Results(out, program, config, weights)
    _log.info("%s", config)

    seconds = compile_seconds = 0.0
    epoch = None
    try:
        with (
            _ctrl_c_between_epochs() as check,
            redirect_log(),
            tqdm(total=config.epochs, unit="epoch", file=sys.stderr) as bar,
        ):
            for epoch in train(config, network, weights, key):
                results.add(epoch)
                seconds += epoch.seconds
                compile_seconds += epoch.compile_seconds
                bar.set_postfix(_postfix(epoch), refresh=False)
                bar.update()
                _log.info("epoch %d: %s", epoch.number, _postfix(epoch))
                check()
    except KeyboardInterrupt:
        where = f"; results so far are in {out}" if out is not None else ""
        print(
            f"interrupted after {results.n_epochs} of {config.epochs} epochs{where}",
            file=sys.stderr,
        )
        return _INTERRUPTED
    assert epoch is not None  # epochs >= 1
    print(
        f"test accuracy {epoch.held_out['test'].accuracy:.2%} after {epoch.number} epochs, "
        f"training took {seconds:.1f} s, of which compilation {compile_seconds:.1f} s"
    )
    return 0


@contextlib.contextmanager
def _ctrl_c_between_epochs() -> Iterator[Callable[[], None]]:
    """Lets Ctrl-C take effect where the given function is called; a second one does so at once.

    Elsewhere it could split the files of an epoch, get lost in a callback, or end the process while
    JAX compiles on a thread of its own, which crashes it.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield lambda: None
        return
    received = []
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous)
        del frame

    def check() -> None:
        if received:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)


def _require_tqdm():
    """The progress bar and the context in which log messages do not tear it."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an optional dependency
        from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            'this program needs tqdm, install it with: pip install "jaxsnn[train]"'
        ) from error
    return tqdm, logging_redirect_tqdm


def _postfix(epoch: Epoch) -> dict[str, str]:
    return {
        "loss": f"{epoch.train.loss:.3f}",
        "test": f"{epoch.held_out['test'].accuracy:.2%}",
        "spikes": "+".join(f"{n:.1f}" for n in epoch.train.spikes),
    }


def _explain(error: Exception, config: Config) -> str:
    """The message of an error, with the option to change where the library cannot know it."""
    message = str(error)
    # The runtime puts a code in front of the library's own words, and advice behind them.
    code, _, rest = message.splitlines()[0].partition(": ")
    if not code.isupper():
        return message
    message = rest
    for name in ("hidden_spikes", "output_spikes"):
        layer = name.replace("_spikes", " layer")
        if layer in message and "room" in message:
            return f"{message}; raise {flag(name)}, now {getattr(config, name)}"
    return message
