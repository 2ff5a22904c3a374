"""Trains a two-layer network on Yin-Yang in time steps, with surrogate gradients.

A hidden layer of spiking neurons and a readout of three leaky integrators, of which the one with
the largest voltage at any time names the class. Sizes, time constants, threshold and the cost of
spikes are those of upstream jaxsnn's example; its hidden layer also hears itself, as with
--form=recurrent.

Times are in seconds.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, LIFParameters
from jaxsnn.discrete import surrogate
from jaxsnn.discrete.decode import max_over_time, spike_count
from jaxsnn.discrete.encode import Between, spatio_temporal_encode
from jaxsnn.discrete.layers import LI, LIF, Layer, RecurrentLIF
from jaxsnn.discrete.loss import nll_loss, spike_count_regulariser
from jaxsnn.event.leaky_integrate_and_fire import RecurrentWeights
from jaxsnn.event.population import trained_parameters
from jaxsnn.event.tasks._config import (
    FORMS,
    YinYangOptions,
    _choice,
    _not_negative,
    _option,
    _positive,
)
from jaxsnn.event.tasks._network import Parameters, TaskNetwork, neuron_options
from jaxsnn.event.tasks._program import Task, run_program
from jaxsnn.event.tasks._yinyang import N_CLASSES, load_encoded
from jaxsnn.event.training import Examples, Judgement, Objective

SURROGATES = {
    "superspike": surrogate.superspike,
    "fast_sigmoid": surrogate.fast_sigmoid,
    "sigmoid": surrogate.sigmoid,
    "arctan": surrogate.arctan,
    "triangle": surrogate.triangle,
    "gaussian": surrogate.gaussian,
}
METHODS = ("euler", "exponential")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(YinYangOptions):
    """What a run depends on."""

    dt: float = _option(5e-4, _positive, "time step", "s")
    v_th: float = _option(0.6, _positive, "threshold")
    form: str = _option(
        "layered", _choice(*FORMS), "layered, or recurrent: the hidden layer also hears itself"
    )
    recurrent_std: float = _option(
        0.2, _not_negative, "recurrent: standard deviation of its initial weights, their mean is 0"
    )
    between: str = _option(
        "shared",
        _choice("nearest", "shared"),
        "where an input between two steps counts: in the nearest, or shared between both",
    )
    method: str = _option(
        "euler", _choice(*METHODS), "euler, or exponential: the exact solution within a step"
    )
    surrogate: str = _option(
        "superspike",
        _choice(*SURROGATES),
        f"derivative of the threshold: {', '.join(SURROGATES)}",
    )
    target_spikes: float = _option(
        0.8, _not_negative, "spikes per hidden neuron and sample to aim at"
    )
    spike_cost: float = _option(
        1e-4, _not_negative, "weight of the squared distance of hidden neurons from that"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dt >= min(self.tau_mem, self.tau_syn):
            raise ValueError(f"--dt is {self.dt}, expected less than --tau-mem and --tau-syn")
        if not self.v_reset < self.v_th:
            raise ValueError(f"--v-reset is {self.v_reset}, expected less than --v-th={self.v_th}")
        last = (self.n_steps - 1) * self.dt
        latest = last + self.dt * (0.5 if self.between == "nearest" else 1e-6)
        for name in ("t_late", "bias_time"):
            time = getattr(self, name)
            if time is not None and time > latest:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} is {time}, expected at most {last:g}, the last step")

    @property
    def n_steps(self) -> int:
        """Steps of a sample, at the times 0, dt, ... before t_max."""
        return max(1, round(self.t_max / self.dt))


DEFAULTS = Config(
    hidden=120,
    tau_mem=10e-3,
    tau_syn=5e-3,
    t_max=30e-3,
    t_late=15e-3,
    hidden_mean=0.0,
    hidden_std=0.7,
    output_mean=0.0,
    output_std=0.8,
    epochs=100,
    batch_size=64,
    learning_rate=1e-2,
    lr_decay=0.96,
)


def load(config: Config) -> tuple[Examples, dict[str, Examples]]:
    """The samples to train on, and the held-out sets ``validation`` and ``test``."""
    return load_encoded(
        config,
        partial(
            spatio_temporal_encode,
            n_steps=config.n_steps,
            dt=config.dt,
            t_late=config.t_late,
            bias_time=config.bias_time,
            between=cast(Between, config.between),
        ),
    )


def make_network(config: Config) -> TaskNetwork:
    """A spiking layer and a readout."""
    common: dict[str, Any] = {"dt": config.dt, "method": config.method}
    neurons = neuron_options(config, config.hidden, v_th=config.v_th)
    integrators = neuron_options(config, N_CLASSES, v_th=config.v_th)
    hidden: dict[str, Any] = {
        "surrogate": SURROGATES[config.surrogate](),
        "mean": config.hidden_mean,
        "std": config.hidden_std,
        "name": "hidden layer",
        **neurons,
        **common,
    }
    layers = (
        LIF(config.hidden, **hidden)
        if config.form == "layered"
        else RecurrentLIF(config.hidden, recurrent_std=config.recurrent_std, **hidden),
        LI(
            N_CLASSES,
            params=integrators["params"],
            mean=config.output_mean,
            std=config.output_std,
            train=[name for name in integrators["train"] if name != "v_th"],
            name="output layer",
            **common,
        ),
    )
    return TaskNetwork(
        *_functions(layers, 4 + (config.bias_time is not None)),
        None,
        lambda parameters: _arrays(parameters, (neurons["params"], integrators["params"])),
        ("hidden",),
    )


def _functions(layers: tuple[Layer, Layer], n_inputs: int):
    """``init`` and ``apply`` of :class:`TaskNetwork`: parameters by kind, for both layers."""

    def init(key: Array) -> Parameters:
        parameters: Parameters = {}
        size = n_inputs
        for own, layer in zip(jax.random.split(key, len(layers)), layers, strict=True):
            size, drawn = layer.init(own, size)
            drawn = drawn if isinstance(drawn, dict) else {"weights": drawn}
            for kind, name in (("weights", "weights"), ("neurons", "params")):
                if name in drawn:
                    parameters.setdefault(kind, []).append(drawn[name])
        return parameters

    def apply(parameters: Parameters, inputs: Array) -> list[Array]:
        outputs = []
        for number, layer in enumerate(layers):
            weights = parameters["weights"][number]
            if "neurons" in parameters:
                weights = {"weights": weights, "params": parameters["neurons"][number]}
            inputs = layer.apply(weights, inputs)
            outputs.append(inputs)
        return outputs

    return init, apply


def _arrays(parameters: Parameters, params: tuple[LIFParameters, ...]) -> dict[str, Array]:
    hidden, output = parameters["weights"]
    arrays = {"output": output}
    if isinstance(hidden, RecurrentWeights):
        arrays |= {"hidden": hidden.input, "recurrent": hidden.recurrent}
    else:
        arrays |= {"hidden": hidden}
    numbers = parameters.get("neurons", ())
    for name, own, initial in zip(("hidden", "output"), numbers, params, strict=False):
        values = trained_parameters(initial, tuple(own), own)
        arrays |= {f"{name}_{constant}": getattr(values, constant) for constant in own}
    return arrays


def make_objective(config: Config) -> Objective:
    """Cross-entropy of the largest voltages, and the cost of spikes."""

    def judge(outputs: list[Array], labels: Array) -> Judgement:
        spikes, voltages = outputs
        scores = max_over_time(voltages)
        loss = nll_loss(jax.nn.log_softmax(scores, axis=-1), labels)
        if config.spike_cost > 0:
            loss = loss + spike_count_regulariser(
                spikes, target=config.target_spikes, strength=config.spike_cost
            )
        fired = jnp.mean(jnp.sum(spike_count(spikes), -1))
        return Judgement(loss, jnp.argmax(scores, -1) == labels, fired[None])

    return judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; see ``--help``.

    Args:
        arguments: the command line, None for that of the process.

    Returns:
        The exit status.
    """
    task = Task(make_network, load, make_objective, health=False)
    name = "jaxsnn.discrete.tasks.yinyang"
    return run_program(name, __doc__ or "", task, DEFAULTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
