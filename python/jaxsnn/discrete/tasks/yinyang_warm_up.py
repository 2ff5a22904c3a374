"""Trains on Yin-Yang in time steps first, and fine-tunes with exact gradients.

One network, hidden neurons and a readout by its largest voltages, in two phases that share its
weights: --warm-up epochs in steps of --dt with surrogate gradients, which are shown, then --epochs
epochs event by event with EventProp, which are saved as well. Surrogates also move neurons that do
not spike, which an exact gradient cannot see.

Times are in seconds.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Spikes
from jaxsnn.discrete.decode import max_over_time, spike_count
from jaxsnn.discrete.encode import steps_from_spikes
from jaxsnn.discrete.network import discretise
from jaxsnn.event.encode import latency_encode
from jaxsnn.event.leaky_integrate import LeakyIntegrator, Reading
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.loss import voltage_cross_entropy
from jaxsnn.event.population import Layer
from jaxsnn.event.tasks._config import (
    YinYangOptions,
    _count,
    _option,
    _positive,
    _size,
)
from jaxsnn.event.tasks._network import (
    Parameters,
    TaskNetwork,
    TwoLayers,
    by_name,
    neuron_parameters,
)
from jaxsnn.event.tasks._program import Task, run_program
from jaxsnn.event.tasks._yinyang import N_CLASSES, load_encoded
from jaxsnn.event.topology import Graph
from jaxsnn.event.training import (
    Examples,
    Judgement,
    Objective,
    adam,
    batches_per_epoch,
    fit,
    voltage_objective,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(YinYangOptions):
    """What a run depends on."""

    warm_up: int = _option(20, _size, "epochs in time steps before the exact ones")
    dt: float = _option(5e-4, _positive, "time step of these", "s")
    warm_up_learning_rate: float = _option(1e-2, _positive, "their learning rate")
    scale: float = _option(0.5, _positive, "difference of the readout's voltages that counts")
    hidden_spikes: int = _option(
        1200,
        _count,
        "room for spikes of the whole hidden layer per sample; a sample with more is an error",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_neurons != "none":
            raise ValueError(f"--train-neurons is {self.train_neurons}, expected none")


DEFAULTS = Config(
    hidden=120,
    tau_mem=10e-3,
    tau_syn=5e-3,
    t_max=30e-3,
    t_late=15e-3,
    hidden_mean=0.0,
    hidden_std=1.2,
    output_mean=0.0,
    output_std=0.2,
    epochs=50,
    batch_size=64,
    learning_rate=5e-3,
    lr_decay=0.94,
)


def load(config: Config) -> tuple[Examples, dict[str, Examples]]:
    """The samples to train on, and the held-out sets ``validation`` and ``test``."""
    return load_encoded(
        config, partial(latency_encode, t_late=config.t_late, bias_time=config.bias_time)
    )


def make_network(config: Config) -> TaskNetwork:
    """The network, whose initial weights are those after the epochs in time steps."""
    n_inputs = 4 + (config.bias_time is not None)
    hidden = EventPropLIF(
        config.hidden,
        n_spikes=config.hidden_spikes,
        t_max=config.t_max,
        params=neuron_parameters(config),
        mean=config.hidden_mean,
        std=config.hidden_std,
        name="hidden layer",
    )
    output = LeakyIntegrator(
        N_CLASSES,
        t_max=config.t_max,
        tau_mem=config.tau_mem,
        tau_syn=config.tau_syn,
        mean=config.output_mean,
        std=config.output_std,
        maximum=True,
        name="output layer",
    )
    layers = TwoLayers(n_inputs, hidden, output)

    def init(key: Array) -> Parameters:
        parameters = layers.init(key)
        return _warm_up(config, layers.graph, n_inputs, parameters, jax.random.fold_in(key, 1))

    return TaskNetwork(init, layers.apply, layers.record, layers.arrays, ("hidden",))


def _warm_up(
    config: Config, graph: Graph, n_inputs: int, parameters: Parameters, key: Array
) -> Parameters:
    """The weights after the epochs in time steps."""
    if config.warm_up == 0:
        return parameters
    network = discretise(graph, dt=config.dt)
    n_steps = round(config.t_max / config.dt) + 1

    def apply(parameters: Parameters, inputs: Array) -> list[Array]:
        return list(network.apply(by_name(parameters), inputs).values())

    def judge(outputs: Any, labels: Array) -> Judgement:
        spikes, voltages = outputs
        scores = max_over_time(voltages)
        loss = voltage_cross_entropy(scores, labels, scale=config.scale)
        fired = jnp.mean(jnp.sum(spike_count(spikes), -1))
        return Judgement(loss, jnp.argmax(scores, -1) == labels, fired[None])

    def dense(examples: Examples) -> Examples:
        spikes: Spikes = examples.spikes
        return Examples(
            steps_from_spikes(spikes, n_inputs, n_steps=n_steps, dt=config.dt), examples.labels
        )

    train, held_out = load(config)
    steps = batches_per_epoch(config.train_size, config.batch_size)
    optimizer = adam(config.warm_up_learning_rate, decay=1.0, steps_per_epoch=steps)
    epochs = fit(
        Layer(network.init, apply),
        judge,
        optimizer,
        parameters,
        dense(train),
        batch_size=config.batch_size,
        epochs=config.warm_up,
        key=key,
        held_out={"test": dense(held_out["test"])},
    )
    for epoch in epochs:
        print(
            f"warm-up epoch {epoch.number}: loss {epoch.train.loss:.3f}, test accuracy in steps "
            f"{epoch.held_out['test'].accuracy:.2%}, {epoch.seconds:.1f} s",
            file=sys.stderr,
        )
        parameters = epoch.weights
    return parameters


def make_objective(config: Config) -> Objective:
    """Cross-entropy of the largest voltages."""

    def largest(reading: Reading) -> Array:
        assert reading.maximum is not None  # the network asks for it
        return reading.maximum.v

    return voltage_objective(largest, scale=config.scale)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    name = "jaxsnn.discrete.tasks.yinyang_warm_up"
    task = Task(make_network, load, make_objective)
    return run_program(name, __doc__ or "", task, DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
