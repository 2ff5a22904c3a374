"""Layers that take dense spikes ``[*batch, n_steps, n_inputs]`` step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Float, LIFParameters
from jaxsnn.discrete.integrate import Method, refractory_steps, step_coefficients
from jaxsnn.discrete.surrogate import Surrogate, superspike
from jaxsnn.event.leaky_integrate_and_fire import RecurrentWeights
from jaxsnn.event.population import Numbers, Train, normal_weights, trained_parameters
from jaxsnn.ops._checks import check_count, check_parameters
from jaxsnn.ops._lif_steps import (
    Jump,
    StepCoefficients,
    StepsResult,
    StepState,
    lif_step,
    lif_steps,
    rest,
)

__all__ = ["LI", "LIF", "Layer", "RecurrentLIF", "serial"]

Steps = Float[Array, "... n_steps n_inputs"]
Outputs = Float[Array, "... n_steps n_outputs"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as pure functions; unpacks as ``init, apply``.

    Attributes:
        init: ``init(key, n_inputs) -> (n_outputs, weights)``.
        apply: ``apply(weights, inputs) -> outputs``, both ``[*batch, n_steps, n]``, from rest.
        run: ``run(weights, inputs, state=None) -> StepsResult``: spikes, voltages and the state
            with which a next call can go on; None for layers in a row.
        step: ``step(weights, state, inputs) -> (state, output)``, a single one, ``inputs [*batch,
            n_inputs]``; for :func:`euler_integrate`. None for layers in a row.
        rest: ``rest(weights) -> state`` of rest; None for layers in a row.
    """

    init: Callable
    apply: Callable
    run: Callable | None = None
    step: Callable | None = None
    rest: Callable | None = None

    def __iter__(self) -> Iterator[Callable]:
        return iter((self.init, self.apply))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Neurons:
    """What the layers have in common."""

    label: str
    n_neurons: int
    dt: float
    params: LIFParameters
    surrogate: Surrogate
    method: Method
    jump: Jump
    train: Train
    mean: float
    std: float
    recurrent: tuple[float, float] | None = None  # mean and standard deviation
    spiking: bool = True

    def __post_init__(self) -> None:
        check_count(self.label, "n_neurons", self.n_neurons)
        check_parameters(self.label, self.params)
        known = ("tau_mem", "tau_syn", "v_leak", *(("v_th", "v_reset") if self.spiking else ()))
        for name in self.train:
            if name not in known:
                raise ValueError(
                    f"{self.label}: train has {name!r}, expected names among {', '.join(known)}"
                )
        step_coefficients(self.params, self.dt, self.method, where=self.label)
        refractory_steps(self.params, self.dt, where=self.label)

    def layer(self) -> Layer:
        return Layer(self._init, self._apply, self._run, self._step, self._rest)

    def _init(self, key: Array, n_inputs: int) -> tuple[int, Any]:
        n = self.n_neurons
        weights: Any = normal_weights(self.label, key, n_inputs, n, self.mean, self.std)
        if self.recurrent is not None:
            own = normal_weights(self.label, jax.random.fold_in(key, 1), n, n, *self.recurrent)
            weights = RecurrentWeights(weights, own)
        if not self.train:
            return n, weights
        numbers = {name: jnp.zeros(jnp.shape(getattr(self.params, name))) for name in self.train}
        return n, {"weights": weights, "params": numbers}

    def _resolve(self, weights: Any) -> tuple[Any, Any, StepCoefficients]:
        """Input weights, recurrent weights or None, and coefficients."""
        numbers: Numbers = {}
        if self.train:
            weights, numbers = weights["weights"], weights["params"]
        params = trained_parameters(self.params, self.train, numbers)
        coefficients = step_coefficients(params, self.dt, self.method, where=self.label)
        if self.recurrent is None:
            return weights, None, coefficients
        return weights.input, weights.recurrent, coefficients

    @property
    def _static(self) -> dict[str, Any]:
        steps = refractory_steps(self.params, self.dt, where=self.label)
        return {"surrogate": self.surrogate, "refractory": steps, "jump": self.jump}

    def _rest(self, weights: Any) -> StepState:
        feed, _, coefficients = self._resolve(weights)
        return rest(coefficients, self.n_neurons, feed.dtype)

    def _run(self, weights: Any, inputs: Steps, state: StepState | None = None) -> StepsResult:
        feed, recurrent, coefficients = self._resolve(weights)
        state = rest(coefficients, self.n_neurons, feed.dtype) if state is None else state
        return lif_steps(
            coefficients,
            feed,
            state,
            inputs,
            recurrent=recurrent,
            label=self.label,
            **self._static,
        )

    def _apply(self, weights: Any, inputs: Steps) -> Outputs:
        result = self._run(weights, inputs)
        return result.spikes if self.spiking else result.voltage

    def _step(self, weights: Any, state: StepState, inputs: Array) -> tuple[StepState, Array]:
        feed, recurrent, coefficients = self._resolve(weights)
        arriving = inputs @ feed
        if recurrent is not None:
            arriving = arriving + state.spikes @ recurrent
        state, spikes, voltage = lif_step(coefficients, state, arriving, **self._static)
        return state, spikes if self.spiking else voltage


_SUPERSPIKE = superspike()


def LIF(
    n_neurons: int,
    *,
    dt: float,
    params: LIFParameters = LIFParameters(),  # noqa: B008 - immutable
    surrogate: Surrogate = _SUPERSPIKE,
    method: Method = "euler",
    jump: Jump = "after",
    mean: float = 0.0,
    std: float = 1.0,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A layer of leaky integrate-and-fire neurons with current-based synapses.

    The order within a step, see :func:`jaxsnn.ops.lif_steps`: with ``jump="after"``, as upstream
    jaxsnn has it, voltage and current flow over the step, the voltage is compared with the
    threshold, a neuron that spikes is reset, and the spikes that arrive are added to the current.
    With ``jump="before"``, as norse has it, they are added first. A neuron spikes where its voltage
    is above the threshold, not where it equals it. Step k stands for the time ``k dt``.

    Args:
        n_neurons: size of the layer.
        dt: time step, s.
        params: of the neurons, scalar or per neuron, times in s. ``t_ref`` is rounded to steps.
        surrogate: the derivative of the threshold.
        method: ``"euler"`` or ``"exponential"``, see :func:`step_coefficients`.
        jump: the order within a step.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        train: parameters to train, names as in :class:`LIFParameters`, or names with a
            parametrisation each; of the shape that they have in ``params``. The weights are then a
            dictionary of ``"weights"`` and the numbers behind them, ``"params"``, as those of
            :func:`jaxsnn.event.EventPropLIF`, and mean the same.
        name: how errors name the layer.

    Returns:
        The layer. Its output is spikes.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    return _Neurons(
        label=name or "LIF",
        n_neurons=n_neurons,
        dt=dt,
        params=params,
        surrogate=surrogate,
        method=method,
        jump=jump,
        train=train,
        mean=mean,
        std=std,
    ).layer()


def RecurrentLIF(
    n_neurons: int,
    *,
    dt: float,
    params: LIFParameters = LIFParameters(),  # noqa: B008 - immutable
    surrogate: Surrogate = _SUPERSPIKE,
    method: Method = "euler",
    jump: Jump = "after",
    mean: float = 0.0,
    std: float = 1.0,
    recurrent_mean: float = 0.0,
    recurrent_std: float = 1.0,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A layer as :func:`LIF` whose neurons also hear each other's spikes of the step before.

    Args:
        n_neurons: size of the layer.
        dt: as in :func:`LIF`, like the other arguments.
        params: of the neurons.
        surrogate: the derivative of the threshold.
        method: of integration.
        jump: the order within a step.
        mean: of the initial input weights.
        std: their standard deviation.
        recurrent_mean: of the initial recurrent weights.
        recurrent_std: their standard deviation.
        train: parameters to train.
        name: how errors name the layer.

    Returns:
        The layer; its weights are a :class:`RecurrentWeights`.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    return _Neurons(
        label=name or "RecurrentLIF",
        n_neurons=n_neurons,
        dt=dt,
        params=params,
        surrogate=surrogate,
        method=method,
        jump=jump,
        train=train,
        mean=mean,
        std=std,
        recurrent=(recurrent_mean, recurrent_std),
    ).layer()


def LI(
    n_neurons: int,
    *,
    dt: float,
    params: LIFParameters = LIFParameters(),  # noqa: B008 - immutable
    method: Method = "euler",
    jump: Jump = "before",
    mean: float = 0.0,
    std: float = 1.0,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A layer of leaky integrators: neurons that never spike, whose voltages are read.

    Args:
        n_neurons: size of the layer.
        dt: time step, s.
        params: ``tau_mem``, ``tau_syn`` and ``v_leak`` are used.
        method: ``"euler"`` or ``"exponential"``, see :func:`step_coefficients`.
        jump: the order within a step; that of upstream jaxsnn adds spikes before the flow.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        train: parameters to train, as in :func:`LIF`.
        name: how errors name the layer.

    Returns:
        The layer. Its output is voltages.

    Raises:
        ValueError, TypeError: an argument is out of range.
    """
    silent = dataclasses.replace(params, v_th=float("inf"), v_reset=0.0, t_ref=0.0)
    return _Neurons(
        label=name or "LI",
        n_neurons=n_neurons,
        dt=dt,
        params=silent,
        surrogate=_SUPERSPIKE,
        method=method,
        jump=jump,
        train=train,
        mean=mean,
        std=std,
        spiking=False,
    ).layer()


def serial(*layers: Layer) -> Layer:
    """Layers in a row, each fed with the output of the one before.

    Args:
        *layers: at least one.

    Returns:
        A layer with ``init(key, n_inputs) -> (n_outputs, [weights, ...])`` and
        ``apply([weights, ...], inputs) -> [outputs, ...]``, those of every layer.

    Raises:
        ValueError: without layers, or from ``apply`` where the weights are not one per layer.
    """
    if not layers:
        raise ValueError("serial: layers is empty, expected at least one layer")

    def init(key: Array, n_inputs: int) -> tuple[int, list[Any]]:
        weights = []
        for own, layer in zip(jax.random.split(key, len(layers)), layers, strict=True):
            n_inputs, drawn = layer.init(own, n_inputs)
            weights.append(drawn)
        return n_inputs, weights

    def apply(weights: list[Any], inputs: Steps) -> list[Outputs]:
        if len(weights) != len(layers):
            raise ValueError(
                f"serial: weights has {len(weights)} entries, expected one for each of the "
                f"{len(layers)} layers"
            )
        outputs = []
        for own, layer in zip(weights, layers, strict=True):
            inputs = layer.apply(own, inputs)
            outputs.append(inputs)
        return outputs

    return Layer(init, apply)
