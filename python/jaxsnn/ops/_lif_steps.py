"""``lif_steps``: a layer of LIF neurons over many time steps, with surrogate gradients.

Two forms of one function: the compiled one for CPUs, and `lif_steps_reference` in JAX alone, which
every other platform runs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Float, Int32, Shaped
from jaxsnn.ops import _checks, _ffi
from jaxsnn.ops._surrogate import SHAPES, Surrogate

#: Whether what arrives in a step is added to the current before or after the state flows.
Jump = Literal["before", "after"]


class StepCoefficients(NamedTuple):
    """How the state changes in a step; each one value, or one per neuron.

    Attributes:
        leak: the part of its distance from the leak potential that a voltage loses.
        drive: what the current adds to the voltage.
        decay: the part of the current that is left.
        v_th: threshold.
        v_leak: leak potential.
        v_reset: reset potential.
    """

    leak: Shaped[Array, ...] | float
    drive: Shaped[Array, ...] | float
    decay: Shaped[Array, ...] | float
    v_th: Shaped[Array, ...] | float
    v_leak: Shaped[Array, ...] | float
    v_reset: Shaped[Array, ...] | float


class StepState(NamedTuple):
    """The state of a layer between two steps.

    Attributes:
        v: ``[*batch, n_neurons]`` voltage, after the reset.
        i: ``[*batch, n_neurons]`` synaptic current.
        spikes: ``[*batch, n_neurons]`` spikes of the last step, which recurrent connections deliver
            in the next.
        hold: ``[*batch, n_neurons]`` int32, for how many more steps the voltage is held; without
            refractory steps it plays no part.
    """

    v: Float[Array, "*batch n_neurons"]
    i: Float[Array, "*batch n_neurons"]
    spikes: Float[Array, "*batch n_neurons"]
    hold: Int32[Array, "*batch n_neurons"]


class StepsResult(NamedTuple):
    """What :func:`lif_steps` returns.

    Attributes:
        spikes: ``[*batch, n_steps, n_neurons]``, 1 where a neuron spikes, else 0.
        voltage: ``[*batch, n_steps, n_neurons]``, compared with the threshold, before the reset.
        state: after the last step.
    """

    spikes: Float[Array, "*batch n_steps n_neurons"]
    voltage: Float[Array, "*batch n_steps n_neurons"]
    state: StepState


def rest(coefficients: StepCoefficients, n_neurons: int, dtype: Any) -> StepState:
    """The state of rest: voltages at the leak potential, no current, nobody held."""
    v_leak = jnp.asarray(coefficients.v_leak, dtype)
    zeros = jnp.zeros(n_neurons, dtype)
    v = jnp.broadcast_to(v_leak, (*v_leak.shape[:-1], n_neurons))
    return StepState(v, zeros, zeros, jnp.zeros(n_neurons, jnp.int32))


def lif_steps(
    coefficients: StepCoefficients,
    weights: Float[Array, "*batch n_inputs n_neurons"],
    state: StepState,
    inputs: Float[Array, "*batch n_steps n_inputs"],
    *,
    surrogate: Surrogate,
    recurrent: Float[Array, "*batch n_neurons n_neurons"] | None = None,
    refractory: int = 0,
    jump: Jump = "after",
    label: str = "jaxsnn.ops.lif_steps",
) -> StepsResult:
    """Runs a layer of current-based LIF neurons over all steps of its input.

    Step k, of neurons with voltage v and current i, where the spikes of this step arrive over
    ``weights`` and those of the step before over ``recurrent``::

        arriving = inputs[k] @ weights + spikes[k - 1] @ recurrent
        i = i + arriving                              (jump="before")
        u = v + leak * (v_leak - v) + drive * i
        i = decay * i
        i = i + arriving                              (jump="after")
        spikes[k] = 1 if u > v_th else 0
        v = v_reset if spikes[k] else u

    For ``refractory`` steps after a spike ``u`` is ``v_reset`` and the neuron does not spike. The
    gradient goes through the reset too. All leading axes are batches and broadcast.

    Args:
        coefficients: of the neurons.
        weights: ``[n_inputs, n_neurons]``, without leading axes where all samples share them.
        state: before the first step.
        inputs: spikes, or any other values.
        surrogate: the derivative of the threshold.
        recurrent: ``[n_neurons, n_neurons]``, source by target; None for no recurrence.
        refractory: number of refractory steps.
        jump: the order within a step.
        label: how errors name the layer.

    Returns:
        Spikes, voltages and the state after the last step.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or an argument is out of range.
    """
    operands = _operands(label, coefficients, weights, state, inputs, recurrent, refractory, jump)
    results = _OP(
        *operands,
        refractory=refractory,
        jump_first=jump == "before",
        shape=SHAPES.index(surrogate.shape),
        slope=float(surrogate.slope),
        scale=float(surrogate.scale),
    )
    return _result(*results.values())


def lif_steps_reference(
    coefficients: StepCoefficients,
    weights: Float[Array, "*batch n_inputs n_neurons"],
    state: StepState,
    inputs: Float[Array, "*batch n_steps n_inputs"],
    *,
    surrogate: Surrogate,
    recurrent: Float[Array, "*batch n_neurons n_neurons"] | None = None,
    refractory: int = 0,
    jump: Jump = "after",
    label: str = "jaxsnn.ops.lif_steps",
) -> StepsResult:
    """The same function in JAX alone, see :func:`lif_steps`."""
    operands = _operands(label, coefficients, weights, state, inputs, recurrent, refractory, jump)
    return _result(*_scan(operands, surrogate, refractory, jump == "before"))


def lif_step(
    coefficients: StepCoefficients,
    state: StepState,
    arriving: Float[Array, "*batch n_neurons"],
    *,
    surrogate: Surrogate,
    refractory: int = 0,
    jump: Jump = "after",
) -> tuple[StepState, Array, Array]:
    """One step of :func:`lif_steps` with what arrives in it; the new state, spikes, voltages."""
    c = coefficients
    current = state.i + arriving if jump == "before" else state.i
    voltage = state.v + (c.leak * (c.v_leak - state.v) + c.drive * current)
    current = c.decay * current
    if jump == "after":
        current = current + arriving
    spikes = surrogate(voltage - c.v_th)
    hold = state.hold
    if refractory:
        held = hold > 0
        voltage = jnp.where(held, c.v_reset, voltage)
        spikes = jnp.where(held, 0, spikes)
        hold = jnp.where(spikes > 0, refractory, jnp.maximum(hold - 1, 0)).astype(jnp.int32)
    v = (1 - spikes) * voltage + spikes * c.v_reset
    return StepState(v, current, spikes, hold), spikes, voltage


def _scan(operands, surrogate: Surrogate, refractory: int, jump_first: bool):
    """Of operands as the custom call has them: spikes, voltages, and v, i and hold at the end."""
    weights, recurrent, inputs, v, i, spikes, hold, *coefficients = operands
    coefficients = StepCoefficients(*coefficients)
    arriving = inputs @ weights
    lead = jnp.broadcast_shapes(
        arriving.shape[:-2], recurrent.shape[:-2], *(x.shape[:-1] for x in (v, i, spikes, hold)),
        *(jnp.shape(x)[:-1] for x in coefficients),
    )  # fmt: skip
    shape = (*lead, weights.shape[-1])
    state = StepState(*(jnp.broadcast_to(x, shape) for x in (v, i, spikes, hold)))
    arriving = jnp.broadcast_to(arriving, (*lead, *arriving.shape[-2:]))

    def step(state: StepState, arriving: Array):
        if recurrent.shape[-2]:
            arriving = arriving + (state.spikes[..., None, :] @ recurrent)[..., 0, :]
        state, spikes, voltage = lif_step(
            coefficients,
            state,
            arriving,
            surrogate=surrogate,
            refractory=refractory,
            jump="before" if jump_first else "after",
        )
        return state, (spikes, voltage)

    state, outputs = jax.lax.scan(step, state, jnp.moveaxis(arriving, -2, 0))
    spikes, voltage = (jnp.moveaxis(x, 0, -2) for x in outputs)
    return spikes, voltage, state.v, state.i, state.hold


def _elsewhere(*operands, refractory, jump_first, shape, slope, scale):
    return _scan(operands, Surrogate(SHAPES[shape], slope, scale), refractory, jump_first)


_NEURON = ("neurons",)
_OP = _ffi.Op(
    "lif_steps",
    (
        _ffi.Field("weights", ("inputs", "neurons"), differentiable=True, reduced=True),
        _ffi.Field("recurrent", ("sources", "neurons"), differentiable=True, reduced=True),
        _ffi.Field("inputs", ("steps", "inputs"), differentiable=True),
        _ffi.Field("v", _NEURON, differentiable=True),
        _ffi.Field("i", _NEURON, differentiable=True),
        _ffi.Field("spikes", _NEURON, differentiable=True),
        _ffi.Field("hold", _NEURON, integer=True),
        *(
            _ffi.Field(name, (f"{name}_values",), differentiable=True)
            for name in StepCoefficients._fields
        ),
    ),
    (
        _ffi.Field("spikes", ("steps", "neurons"), differentiable=True),
        _ffi.Field("voltage", ("steps", "neurons"), differentiable=True),
        _ffi.Field("v", _NEURON, differentiable=True),
        _ffi.Field("i", _NEURON, differentiable=True),
        _ffi.Field("hold", _NEURON, integer=True),
    ),
    ["spikes", "voltage"],
    shared_attributes=["refractory", "jump_first", "shape", "slope", "scale"],
    optional_gradients={"inputs": ("inputs",), "parameters": StepCoefficients._fields},
    elsewhere=_elsewhere,
)


def _result(spikes, voltage, v, i, hold) -> StepsResult:
    return StepsResult(spikes, voltage, StepState(v, i, spikes[..., -1, :], hold))


def _operands(label, coefficients, weights, state, inputs, recurrent, refractory, jump):
    """The operands of the custom call, checked."""
    weights = _checks.real_array(label, "weights", weights)
    dtype = weights.dtype
    inputs = _checks.like(label, "inputs", inputs, dtype)
    if weights.ndim < 2:
        raise ValueError(
            f"{label}: weights has shape {weights.shape}, expected (..., n_inputs, n_neurons)"
        )
    n_inputs, n_neurons = weights.shape[-2:]
    if inputs.ndim < 2 or inputs.shape[-1] != n_inputs or inputs.shape[-2] < 1:
        raise ValueError(
            f"{label}: inputs has shape {inputs.shape}, expected (..., n_steps >= 1, "
            f"n_inputs={n_inputs})"
        )
    if recurrent is None:
        recurrent = jnp.zeros((0, n_neurons), dtype)
    else:
        recurrent = _checks.like(label, "recurrent", recurrent, dtype)
        _checks.core_shape(
            label,
            "recurrent",
            recurrent,
            f"(..., n_neurons={n_neurons}, n_neurons={n_neurons})",
            (n_neurons, n_neurons),
        )
    states = []
    for name in ("v", "i", "spikes"):
        value = _checks.like(label, f"state.{name}", getattr(state, name), dtype)
        _checks.core_shape(
            label, f"state.{name}", value, f"(..., n_neurons={n_neurons})", (n_neurons,)
        )
        states.append(value)
    hold = _checks.integers(label, "state.hold", state.hold)
    _checks.core_shape(label, "state.hold", hold, f"(..., n_neurons={n_neurons})", (n_neurons,))
    if isinstance(refractory, bool) or not isinstance(refractory, int) or refractory < 0:
        raise ValueError(f"{label}: refractory is {refractory!r}, expected an integer >= 0")
    if jump not in ("before", "after"):
        raise ValueError(f"{label}: jump is {jump!r}, expected 'before' or 'after'")
    values = []
    for name, value in zip(StepCoefficients._fields, coefficients, strict=True):
        array = _checks.like(label, f"coefficients.{name}", value, dtype)
        if array.ndim == 0:
            array = array.reshape(1)
        if array.shape[-1] not in (1, n_neurons):
            raise ValueError(
                f"{label}: coefficients.{name} has shape {array.shape}, expected a scalar, "
                f"(..., 1) or (..., n_neurons={n_neurons})"
            )
        values.append(array)
    operands = (weights, recurrent, inputs, *states, hold, *values)
    cores = (2, 2, 2, 1, 1, 1, 1, *(1,) * len(values))
    try:
        jnp.broadcast_shapes(*(x.shape[: x.ndim - n] for x, n in zip(operands, cores, strict=True)))
    except ValueError as error:
        raise ValueError(f"{label}: leading axes do not broadcast: {error}") from None
    return operands
