"""The threshold with a surrogate derivative."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jaxsnn.base.types import Array, Shaped

# In the order of the codes that the compiled kernels know them by.
SHAPES = ("superspike", "sigmoid", "arctan", "triangle", "gaussian")


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A step function whose derivative is replaced by ``scale * shape(slope * x)``.

    Called with the distance ``x`` of voltages from their thresholds it gives 1 where ``x > 0`` and
    0 elsewhere, in the dtype of ``x``. Shapes, of ``y = slope * x``::

        superspike  1 / (1 + |y|)^2
        sigmoid     exp(-|y|) / (1 + exp(-|y|))^2
        arctan      1 / (1 + y^2)
        triangle    max(0, 1 - |y|)
        gaussian    exp(-y^2 / 2)

    `jaxsnn.discrete.surrogate` has those of the literature by name.

    Attributes:
        shape: one of these names.
        slope: > 0, in 1 / voltage.
        scale: > 0, the derivative at the threshold is ``scale * shape(0)``.
    """

    shape: str
    slope: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(
                f"Surrogate: shape is {self.shape!r}, expected one of {', '.join(SHAPES)}"
            )
        for name in ("slope", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Surrogate: {name} is {value}, expected a finite number > 0")

    def __call__(self, x: Shaped[Array, ...]) -> Array:
        """1 where ``x > 0``, else 0."""
        return _step(self, x)

    def derivative(self, x: Shaped[Array, ...]) -> Array:
        """The surrogate of the derivative of the step at ``x``."""
        y = jnp.abs(self.slope * x)
        if self.shape == "superspike":
            shape = 1 / (1 + y) ** 2
        elif self.shape == "sigmoid":
            tail = jnp.exp(-y)
            shape = tail / (1 + tail) ** 2
        elif self.shape == "arctan":
            shape = 1 / (1 + y**2)
        elif self.shape == "triangle":
            shape = jnp.maximum(0, 1 - y)
        else:
            shape = jnp.exp(-(y**2) / 2)
        return self.scale * shape


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _step(surrogate: Surrogate, x: Array) -> Array:
    del surrogate
    return (x > 0).astype(x.dtype)


@_step.defjvp
def _step_jvp(surrogate: Surrogate, primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return _step(surrogate, x), surrogate.derivative(x) * x_dot
