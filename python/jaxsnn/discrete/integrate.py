"""From neuron parameters to what happens in a time step, and scans over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, LIFParameters
from jaxsnn.ops._checks import is_concrete
from jaxsnn.ops._lif_steps import StepCoefficients

__all__ = ["Method", "euler_integrate", "refractory_steps", "step_coefficients"]

#: Euler's method, or the exact solution for a current that jumps between steps only.
Method = Literal["euler", "exponential"]


def step_coefficients(
    params: LIFParameters, dt: float, method: Method = "euler", *, where: str = "step_coefficients"
) -> StepCoefficients:
    """What a step of length ``dt`` does to neurons with these parameters.

    Euler, as upstream jaxsnn and norse have it::

        v += dt / tau_mem (v_leak - v + i)        i -= dt / tau_syn i

    Exponential, the solution of ``tau_mem v' = v_leak - v + i``, ``tau_syn i' = -i``::

        v = v_leak + (v - v_leak) exp(-dt / tau_mem) + k i        i = i exp(-dt / tau_syn)
        k = tau_syn / (tau_mem - tau_syn) (exp(-dt / tau_mem) - exp(-dt / tau_syn))

    with ``k`` in a form that holds for equal time constants too.

    Args:
        params: of the neurons, s; scalars or arrays per neuron. Differentiable.
        dt: time step, s.
        method: which of the two.
        where: how errors name the caller.

    Returns:
        The coefficients; plain numbers where the parameters are.

    Raises:
        ValueError: the step is not positive, or for Euler's method not below the time constants.
    """
    if method not in ("euler", "exponential"):
        raise ValueError(f"{where}: method is {method!r}, expected 'euler' or 'exponential'")
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"{where}: dt is {dt}, expected a finite time > 0")
    tau_mem, tau_syn = params.tau_mem, params.tau_syn
    for name, tau in (("tau_mem", tau_mem), ("tau_syn", tau_syn)):
        if method == "euler" and is_concrete(tau) and not np.all(np.less(dt, tau)):
            raise ValueError(
                f"{where}: dt is {dt}, expected less than {name}={tau} for Euler's method"
            )
    if method == "euler":
        leak = drive = dt / tau_mem
        decay = 1 - dt / tau_syn
    else:
        xp: Any = np if is_concrete(tau_mem) and is_concrete(tau_syn) else jnp
        leak, decay = -xp.expm1(-dt / tau_mem), xp.exp(-dt / tau_syn)
        x = dt * (tau_mem - tau_syn) / (tau_mem * tau_syn)
        near = xp.abs(x) < 1e-5
        safe = xp.where(near, 1.0, x)
        phi = xp.where(near, 1 - x / 2, -xp.expm1(-safe) / safe)
        drive = dt / tau_mem * xp.exp(-dt / tau_mem) * phi
    values = (leak, drive, decay, params.v_th, params.v_leak, params.v_reset)
    return StepCoefficients(*(_plain(value) for value in values))


def _plain(value: Any) -> Any:
    """Zero-dimensional NumPy values as Python numbers, which take the dtype of their neighbours."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else value


def refractory_steps(params: LIFParameters, dt: float, *, where: str = "refractory_steps") -> int:
    """The refractory period in steps, rounded to the nearest number.

    Raises:
        ValueError: it is not one plain number for all neurons.
    """
    if not is_concrete(params.t_ref) or np.ndim(params.t_ref) != 0:
        raise ValueError(f"{where}: params.t_ref is {params.t_ref}, expected one plain number")
    return round(float(params.t_ref) / dt)


def euler_integrate(
    step: Callable[[Any, Array], tuple[Any, Any]], state: Any, inputs: Any
) -> tuple[Any, Any]:
    """Scans a step function over time.

    Args:
        step: ``step(state, input) -> (state, output)``, e.g. a layer's with its weights bound.
        state: before the first step.
        inputs: arrays ``[*batch, n_steps, n_inputs]``; time is the last axis but one.

    Returns:
        The state after the last step, and the outputs ``[*batch, n_steps, n_outputs]``.
    """
    state, outputs = jax.lax.scan(
        step, state, jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0), inputs)
    )
    return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2), outputs)
