"""How time steps converge to the exact simulation as they shrink, as a table and a plot.

One network, a hidden layer and a readout, runs event by event and in time steps of many lengths,
with the same weights and input. Compared are the times of the hidden layer's spikes, the loss and
its gradient. A spike of step k means that its neuron has crossed the threshold in the interval
before, half a step earlier on average, and the reset is as late. The n-th spike of a neuron is late
by its own rounding and that of the resets before, and counts at (k - n / 2) dt. Times are in
seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes
from jaxsnn.discrete.decode import max_over_time
from jaxsnn.discrete.integrate import Method
from jaxsnn.discrete.network import discretise
from jaxsnn.event.leaky_integrate import LeakyIntegrator
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.loss import voltage_cross_entropy
from jaxsnn.event.topology import Graph, Source

STEPS = (1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5)
Run = tuple[Method, float]  #: a method and the length of its step, s
METHODS: tuple[Method, ...] = ("euler", "exponential")
T_MAX = 40e-3
N_INPUTS, N_HIDDEN, N_OUTPUTS, N_SAMPLES = 20, 50, 3, 16
SCALE = 0.2


class Errors(NamedTuple):
    """Distances from the exact simulation, at one length of the step.

    Attributes:
        first: mean absolute error of first spikes, s.
        spikes: mean absolute error of all spikes of the neurons that fire as often as they should
            in all simulations, s.
        uncorrected: the same where resets count as if they were in time: spikes at (k - 1/2) dt.
        same: fraction of neurons that fire as often as they should, over all samples.
        loss: mean absolute error of the samples' losses, relative to the mean loss.
        output_gradient: relative error of the gradient of the readout's weights.
        hidden_gradient: ``1 - cos`` of the angle between the gradients of the hidden layer's
            weights. The surrogate's length means nothing, it grows as ``1 / dt``.
    """

    first: float
    spikes: float
    uncorrected: float
    same: float
    loss: float
    output_gradient: float
    hidden_gradient: float


def measure(seed: int = 0, steps: Sequence[float] = STEPS) -> dict[Method, list[Errors]]:
    """The errors of both methods for every step.

    Args:
        seed: of the weights, of the input and of the labels.
        steps: lengths of the step, s; each divides 1 ms, in whose multiples the input arrives.

    Returns:
        For every method, the errors in the order of ``steps``.
    """
    with jax.enable_x64(True):
        graph = _graph()
        network = graph.build()
        parameters = network.init(jax.random.key(seed))[1]
        parameters = jax.tree.map(lambda x: x.astype(jnp.float64), parameters)
        spikes, labels = _samples(seed)

        def exact(parameters: Any) -> tuple[Array, tuple[Array, Spikes]]:
            outputs = network.apply(parameters, spikes)
            scores = outputs["readout"].maximum.v
            losses = voltage_cross_entropy(scores, labels, scale=SCALE)
            return losses.mean(), (losses, outputs["hidden"])

        (_, (losses, hidden)), gradient = jax.value_and_grad(exact, has_aux=True)(parameters)
        expected = _by_neuron(np.asarray(hidden.time), np.asarray(hidden.index))
        fired_in: dict[Run, list[np.ndarray]] = {}
        others: dict[Run, tuple[float, float, float]] = {}
        for method in METHODS:
            for dt in steps:
                apply = discretise(graph, dt=dt, method=method).apply

                def stepped(parameters: Any, apply=apply) -> tuple[Array, tuple[Array, Array]]:
                    outputs = apply(parameters, spikes)
                    scores = max_over_time(outputs["readout"])
                    losses = voltage_cross_entropy(scores, labels, scale=SCALE)
                    return losses.mean(), (losses, outputs["hidden"])

                both = jax.jit(jax.value_and_grad(stepped, has_aux=True))
                (_, (own, fired)), own_gradient = both(parameters)
                fired_in[method, dt] = _steps_by_neuron(np.asarray(fired))
                others[method, dt] = (
                    float(jnp.mean(abs(own - losses)) / jnp.mean(losses)),
                    *_gradient_errors(gradient, own_gradient),
                )
        errors = _time_errors(expected, fired_in)
        return {
            method: [Errors(*errors[method, dt], *others[method, dt]) for dt in steps]
            for method in METHODS
        }


def _graph() -> Graph:
    graph = Graph()
    graph.add("input", Source(N_INPUTS))
    graph.add("hidden", EventPropLIF(N_HIDDEN, n_spikes=2000, t_max=T_MAX, mean=0.6, std=0.8))
    graph.add("readout", LeakyIntegrator(N_OUTPUTS, t_max=T_MAX, std=0.2, maximum=True))
    graph.connect("input", "hidden")
    graph.connect("hidden", "readout")
    return graph


def _samples(seed: int) -> tuple[Spikes, Array]:
    rng = np.random.default_rng(seed)
    n_spikes = 2 * N_INPUTS
    time = np.sort(rng.integers(1, 25, (N_SAMPLES, n_spikes)) * 1e-3, axis=-1)
    index = rng.integers(0, N_INPUTS, (N_SAMPLES, n_spikes))
    labels = rng.integers(0, N_OUTPUTS, N_SAMPLES)
    return Spikes(jnp.asarray(time), jnp.asarray(index, jnp.int32)), jnp.asarray(labels, jnp.int32)


def _by_neuron(time: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    return [time[b, index[b] == n] for b in range(N_SAMPLES) for n in range(N_HIDDEN)]


def _steps_by_neuron(fired: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(fired[b, :, n]) for b in range(N_SAMPLES) for n in range(N_HIDDEN)]


def _time_errors(
    expected: list[np.ndarray], found: Mapping[Run, list[np.ndarray]]
) -> dict[Run, tuple[float, float, float, float]]:
    """The first four of :class:`Errors` of every run, from the steps in which neurons fired."""
    counts = np.array([len(times) for times in expected])
    same = {run: np.array([len(k) for k in steps]) == counts for run, steps in found.items()}
    always = np.flatnonzero(np.logical_and.reduce(list(same.values())) & (counts > 0))
    times = np.concatenate([expected[at] for at in always])
    number = np.concatenate([1 + np.arange(counts[at]) for at in always])
    errors = {}
    for run, steps in found.items():
        dt = run[1]
        first = [
            abs((k[0] - 0.5) * dt - t[0])
            for t, k in zip(expected, steps, strict=True)
            if len(t) and len(k)
        ]
        step = np.concatenate([steps[at] for at in always])
        errors[run] = (
            float(np.mean(first)),
            float(np.mean(abs((step - number / 2) * dt - times))),
            float(np.mean(abs((step - 0.5) * dt - times))),
            float(np.mean(same[run])),
        )
    return errors


def _gradient_errors(exact: Any, found: Any) -> tuple[float, float]:
    edges = ("hidden->readout", "input->hidden")
    (a, c), (b, d) = (
        [np.asarray(tree[edge]["weights"]).ravel() for edge in edges] for tree in (exact, found)
    )
    cosine = c @ d / (np.linalg.norm(c) * np.linalg.norm(d))
    return float(np.linalg.norm(b - a) / np.linalg.norm(a)), float(1 - cosine)


def _plot(found: dict[Method, list[Errors]], path: Path) -> None:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(
            'the plot needs matplotlib, install it with: pip install "jaxsnn[plot]"'
        ) from error
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    times, losses, gradients = figure.subplots(1, 3)
    for (method, errors), colour in zip(found.items(), ("C0", "C1"), strict=True):
        for axes, name, label, line in (
            (times, "first", "first spikes", "-"),
            (times, "spikes", "all spikes", "--"),
            (losses, "loss", "loss", "-"),
            (gradients, "output_gradient", "readout, relative error", "-"),
            (gradients, "hidden_gradient", "hidden layer, 1 - cos", "--"),
        ):
            values = [getattr(own, name) for own in errors]
            style = {"color": colour, "marker": "o", "markersize": 3, "linestyle": line}
            axes.loglog(STEPS, values, label=f"{method}, {label}", **style)
    times.loglog(STEPS, STEPS, ":", color="grey", label="dt")
    times.set(title="spike times", ylabel="mean error, s")
    losses.set(title="loss", ylabel="relative error")
    gradients.set(title="gradient", ylim=(None, 5))  # room for the legend
    for axes in (times, losses, gradients):
        axes.set_xlabel("time step, s")
        axes.legend(fontsize="x-small", handlelength=3, loc="upper left")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxsnn.discrete.convergence", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and samples (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to draw the plot, e.g. a PNG (default: none)",
    )
    options = parser.parse_args(arguments)
    found = measure(options.seed)
    print(f"{'method':12} {'dt':>8} " + " ".join(f"{name:>15}" for name in Errors._fields))
    for method, errors in found.items():
        for dt, own in zip(STEPS, errors, strict=True):
            print(f"{method:12} {dt:8.0e} " + " ".join(f"{value:15.3g}" for value in own))
    if options.out is not None:
        try:
            _plot(found, options.out)
        except (ImportError, OSError, ValueError) as error:
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
