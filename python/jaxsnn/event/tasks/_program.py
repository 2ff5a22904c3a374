"""The command line around a run: options, progress, files, errors, Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxsnn.base.types import Array
from jaxsnn.event.hardware.errors import HardwareError
from jaxsnn.event.population import Layer
from jaxsnn.event.tasks._config import EventOptions, Options, add_options, flag, read_config
from jaxsnn.event.tasks._health import Health, describe
from jaxsnn.event.tasks._network import Parameters, TaskNetwork
from jaxsnn.event.tasks._objective import with_silent_repair
from jaxsnn.event.tasks._results import Results
from jaxsnn.event.training import (
    Augment,
    Epoch,
    Examples,
    Objective,
    adam,
    batches_per_epoch,
    fit,
    require_optax,
)

_log = logging.getLogger(__name__)

_INTERRUPTED = 130  # what shells report for SIGINT

# The option with the learning rate of each kind of parameters.
_RATES = {
    "weights": "learning_rate",
    "delays": "delay_learning_rate",
    "neurons": "neuron_learning_rate",
}


class Task(NamedTuple):
    """What a program trains, as functions of its options.

    Attributes:
        make_network: the network.
        load: the samples to train on, and held-out sets by name, ``test`` among them.
        make_objective: the objective of the outputs of all layers.
        make_augment: how to change the samples at random in training; None leaves them.
        health: whether the network records what ``--health`` looks at.
    """

    make_network: Callable[[Any], TaskNetwork]
    load: Callable[[Any], tuple[Examples, dict[str, Examples]]]
    make_objective: Callable[[Any], Objective]
    make_augment: Callable[[Any], Augment | None] = lambda _: None
    health: bool = True


def run_program(
    program: str,
    description: str,
    task: Task,
    defaults: Options,
    arguments: Sequence[str] | None,
) -> int:
    """Runs a program.

    Args:
        program: its module, as after ``python -m``.
        description: its help text.
        task: what it trains.
        defaults: of the options.
        arguments: the command line, None for that of the process.

    Returns:
        The exit status: 0, 1 after an error, 2 for wrong options, 130 after Ctrl-C.
    """
    parser = _parser(program, description, defaults, task.health)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format=f"{parser.prog}: %(levelname)s: %(message)s"
    )
    try:
        config = read_config(options, type(defaults))
    except ValueError as error:
        parser.error(str(error))
    try:
        with jax.enable_x64(config.dtype == "float64"):
            return _run(program, config, task, options.out, options.health)
    except (
        ValueError,
        ArithmeticError,
        ImportError,
        OSError,
        HardwareError,
        jax.errors.JaxRuntimeError,
    ) as error:
        _log.debug("what led to the error", exc_info=True)
        print(f"{parser.prog}: error: {_explain(error, config)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted before training", file=sys.stderr)
        return _INTERRUPTED


def _parser(
    program: str, description: str, defaults: Options, health: bool
) -> argparse.ArgumentParser:
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
    parser.set_defaults(health=False)
    if health:
        parser.add_argument(
            "--health",
            action="store_true",
            help="after every epoch, print and save per spiking layer, on the validation set or "
            "else the test set: the smallest slope of the voltage at a spike, grazing spikes, "
            "silent neurons, spikes dropped and created since the epoch before; batches whose "
            "gradient is not finite are left out and counted, instead of ending the run",
        )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="warning",
        help="what to log on stderr; debug adds tracebacks to errors (default: warning)",
    )
    return parser


def _run(program: str, config: Options, task: Task, out: Path | None, with_health: bool) -> int:
    require_optax()
    tqdm, redirect_log = _require_tqdm()
    network = task.make_network(config)
    weights_key, order_key = jax.random.split(jax.random.key(config.seed))
    parameters = network.init(weights_key)
    train, held_out = task.load(config)
    results = Results(out, program, config, network, parameters)
    _log.info("%s", config)

    seconds = compile_seconds = 0.0
    accuracies: dict[str, list[float]] = {name: [] for name in held_out}
    epoch = health = None
    try:
        with (
            _ctrl_c_between_epochs() as check,
            redirect_log(),
            tqdm(total=config.epochs, unit="epoch", file=sys.stderr) as bar,
        ):
            if with_health:
                name = "validation" if "validation" in held_out else "test"
                health = Health(network, name, held_out[name])
                bar.write(f"start, {name}: {describe(health.after(parameters))}")
            epochs = _train(
                config,
                task,
                network,
                parameters,
                train,
                held_out,
                order_key,
                skip_non_finite=with_health,
            )
            for epoch in epochs:
                facts = None
                if health is not None:
                    facts = health.after(epoch.weights)
                    facts["non_finite_gradients"] = epoch.non_finite
                    bar.write(
                        f"epoch {epoch.number}, {facts['samples']}: {describe(facts)}; "
                        f"{epoch.non_finite} batches with a gradient that is not finite"
                    )
                results.add(epoch, facts)
                for name, metrics in epoch.held_out.items():
                    accuracies[name].append(metrics.accuracy)
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
    if "validation" in accuracies:
        print(_best(accuracies["validation"], accuracies["test"]))
    return 0


def _best(validation: Sequence[float], test: Sequence[float]) -> str:
    """What the epoch that validation samples choose has reached."""
    chosen = validation.index(max(validation))
    return (
        f"test accuracy {test[chosen]:.2%} after epoch {chosen + 1}, the best on validation "
        f"samples; {max(test):.2%} in the best epoch on test samples"
    )


def _train(
    config: Options,
    task: Task,
    network: TaskNetwork,
    parameters: Parameters,
    train: Examples,
    held_out: dict[str, Examples],
    key: Array,
    *,
    skip_non_finite: bool,
) -> Iterator[Epoch]:
    """Trains as configured; yields and errors as of `jaxsnn.event.training.fit`."""
    optax = require_optax()
    steps = batches_per_epoch(len(train.labels), config.batch_size)
    optimizer = optax.multi_transform(
        {
            kind: adam(getattr(config, _RATES[kind]), decay=config.lr_decay, steps_per_epoch=steps)
            for kind in parameters
        },
        {kind: kind for kind in parameters},
    )
    apply, objective = network.apply, task.make_objective(config)
    if isinstance(config, EventOptions) and config.silent_repair > 0:
        assert network.record is not None
        apply = functools.partial(network.record, maxima=True)
        objective = with_silent_repair(objective, config.silent_repair)
    return fit(
        Layer(network.init, apply),
        objective,
        optimizer,
        parameters,
        train,
        batch_size=config.batch_size,
        epochs=config.epochs,
        key=key,
        held_out=held_out,
        skip_non_finite=skip_non_finite,
        augment=task.make_augment(config),
    )


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


def _explain(error: Exception, config: Options) -> str:
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
