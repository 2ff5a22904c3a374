"""What layers are made of: populations of neurons, and parameters that are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Float, LIFParameters, Spikes, initial_state
from jaxsnn.ops import FAILURES, LoopResult, Status, event_loop
from jaxsnn.ops._checks import check_count, check_parameters, check_t_max

__all__ = ["Layer", "Parametrisation", "Population", "Train", "normal_weights"]

Weights = Float[Array, "*batch n_inputs n_neurons"]
Numbers = dict[str, Array]

#: From the initial value of a parameter and the number that is trained to the value.
Parametrisation = Callable[[Any, Array], Array]
#: Which parameters are trained: their names, or names with a parametrisation of one's own.
Train = Sequence[str] | Mapping[str, Parametrisation]


def _scaled(initial: Any, number: Array) -> Array:
    return initial * jnp.exp(number)


def _above(voltage: Any, distance: Array) -> Array:
    """``voltage + distance``, never rounded down to the voltage; with the gradient of the sum."""
    total = voltage + distance
    fixed = jax.lax.stop_gradient(jnp.asarray(voltage, total.dtype))
    least = jnp.nextafter(fixed, jnp.asarray(jnp.inf, total.dtype))
    return total + jnp.maximum(least - jax.lax.stop_gradient(total), 0)


def trained_parameters(params: LIFParameters, train: Train, numbers: Numbers) -> LIFParameters:
    """The parameters that trained numbers stand for.

    All numbers are without unit and 0 at the start. Time constants and the refractory period are
    their initial value times ``exp(number)``. With ``gap = v_th - v_reset`` at the start, the
    reset is ``v_th - gap * exp(-number)``, the threshold the reset plus ``gap * exp(number)`` and
    the leak its initial value plus ``gap * number``. All thus stay in their range whatever the
    optimizer does.

    Args:
        params: initial values.
        train: what is trained.
        numbers: per parameter, of the shape of its initial value.

    Returns:
        The parameters, those that are not trained as they were.
    """
    own = dict(train) if isinstance(train, Mapping) else {}
    gap = jnp.subtract(params.v_th, params.v_reset)
    gap = jnp.where(jnp.isfinite(gap), gap, 1.0)  # neurons without a threshold
    rules: dict[str, Parametrisation] = {
        "tau_mem": _scaled,
        "tau_syn": _scaled,
        "t_ref": _scaled,
        "v_leak": lambda initial, x: initial + gap * x,
        "v_reset": lambda _, x: -_above(jnp.negative(params.v_th), gap * jnp.exp(-x)),
    } | own
    values = {
        name: rules[name](getattr(params, name), numbers[name]) for name in train if name in rules
    }
    if "v_th" in train and "v_th" not in own:
        reset = values.get("v_reset", params.v_reset)
        values["v_th"] = _above(reset, gap * jnp.exp(numbers["v_th"]))
    return dataclasses.replace(params, **values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population:
    """Neurons whose gradient is computed by EventProp: what a layer knows of them.

    Attributes:
        n_neurons: how many.
        n_spikes: room for their spikes, per sample.
        t_max: how long to simulate.
        params: neuron parameters, scalar or per neuron.
        truncate: whether to keep the earliest spikes where there are more than ``n_spikes``.
        name: how errors name them, if they have a name of their own.
        kind: how errors name them else.
        train: which parameters are trained.
    """

    n_neurons: int
    n_spikes: int
    t_max: float
    params: LIFParameters
    truncate: bool = False
    name: str | None = None
    kind: str
    train: Train = ()

    def __post_init__(self) -> None:
        check_count(self.label, "n_neurons", self.n_neurons)
        check_count(self.label, "n_spikes", self.n_spikes)
        check_t_max(self.label, self.t_max)
        check_parameters(self.label, self.params)
        known = [field.name for field in dataclasses.fields(LIFParameters)]
        for name in self.train:
            if name not in known:
                raise ValueError(
                    f"{self.label}: train has {name!r}, expected names among {', '.join(known)}"
                )

    @property
    def label(self) -> str:
        """How errors name them."""
        return self.name or self.kind

    def named(self, name: str) -> Population:
        """The same neurons, with this name if they have none."""
        return dataclasses.replace(self, name=self.name or name)

    @property
    def raise_on(self) -> frozenset[Status]:
        """For which ends of a run to raise."""
        return FAILURES if self.truncate else FAILURES | {Status.EVENT_CAPACITY}

    def initial_numbers(self) -> Numbers:
        """The numbers to start with, see `trained_parameters`."""
        return {name: jnp.zeros(jnp.shape(getattr(self.params, name))) for name in self.train}

    def parameters(self, numbers: Numbers) -> LIFParameters:
        """The parameters, where ``numbers`` are those that are trained."""
        if not self.train:
            return self.params
        return trained_parameters(self.params, self.train, numbers)

    def run(self, weights: Weights, spikes: Spikes, numbers: Numbers, **network: Any) -> LoopResult:
        """Runs from rest; ``network`` are further arguments of :func:`jaxsnn.ops.event_loop`."""
        params = self.parameters(numbers)
        return event_loop(
            params,
            weights,
            initial_state(params, self.n_neurons, weights.dtype),
            spikes,
            t_max=self.t_max,
            max_events=self.n_spikes,
            raise_on=self.raise_on,
            label=self.label,
            **network,
        )


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as a pair of pure functions; unpacks as ``init, apply``.

    Attributes:
        init: ``init(key, n_inputs) -> (n_outputs, weights)``.
        apply: ``apply(weights, spikes) -> spikes``.
        n_outputs: number of neurons, None where the layer consists of several.
        population: the neurons, for layers that can have delays and take part in cycles.
        draw: ``draw(key, n_inputs) -> weights``, without anything else that is trained.
        readout: what to read from neurons that never spike, see
            :func:`jaxsnn.event.LeakyIntegrator`.
    """

    init: Callable
    apply: Callable
    n_outputs: int | None = None
    population: Population | None = None
    draw: Callable | None = None
    readout: Any = None

    def __iter__(self) -> Iterator[Callable]:
        return iter((self.init, self.apply))


def normal_weights(
    name: str, key: Array, n_inputs: int, n_neurons: int, mean: float, std: float
) -> Weights:
    """Draws weights ``[n_inputs, n_neurons]`` from a normal distribution."""
    check_count(name, "n_inputs", n_inputs)
    return mean + std * jax.random.normal(key, (n_inputs, n_neurons))


def population_layer(
    population: Population,
    mean: float,
    std: float,
    apply: Callable[[Weights, Spikes, Numbers], Any],
    *,
    eventprop: bool = True,
    readout: Any = None,
) -> Layer:
    """A layer around one population.

    Args:
        population: its neurons.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        apply: of the layer, with the trained numbers as third argument.
        eventprop: whether `Population.run` does the same.
        readout: as in `Layer`.

    Returns:
        A layer whose weights are an array or, with trained parameters, a dictionary of
        ``"weights"`` and the numbers behind them, ``"params"``.
    """
    n_neurons = population.n_neurons

    def draw(key: Array, n_inputs: int) -> Weights:
        return normal_weights(population.label, key, n_inputs, n_neurons, mean, std)

    def init(key: Array, n_inputs: int) -> tuple[int, Any]:
        weights = draw(key, n_inputs)
        if population.train:
            return n_neurons, {"weights": weights, "params": population.initial_numbers()}
        return n_neurons, weights

    def apply_all(weights: Any, spikes: Spikes) -> Any:
        if population.train:
            return apply(weights["weights"], spikes, weights["params"])
        return apply(weights, spikes, {})

    known = population if eventprop else None
    return Layer(init, apply_all, n_neurons, known, draw, readout)
