"""Delays that are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax

from jaxsnn.base.types import Array, Float

DelayKind = Literal["projection", "axonal", "synaptic"]
KINDS: tuple[DelayKind, ...] = ("projection", "axonal", "synaptic")


@dataclasses.dataclass(frozen=True)
class Delay:
    """Trainable delays of a projection.

    What is trained are numbers without unit, and ``scale * transform(number)`` is the delay, which
    thus stays in its range whatever the optimizer does. Göltz et al. (DelGrad, Nat Commun 16:8245,
    2025) train the three kinds of delay with the logistic function as transform.

    Attributes:
        kind: ``"projection"``, one for all synapses; ``"axonal"``, one per source neuron; or
            ``"synaptic"``, one per synapse.
        scale: > 0, in the unit of the time constants, e.g. one of them.
        mean: of the initial numbers.
        std: their standard deviation.
        transform: from numbers to values >= 0. The default reaches all delays;
            ``jax.nn.sigmoid`` those up to ``scale``.
    """

    kind: DelayKind
    scale: float
    mean: float = 0.0
    std: float = 0.0
    transform: Callable[[Array], Array] = jax.nn.softplus

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Delay: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"Delay: scale is {self.scale}, expected a finite time > 0")
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"Delay: std is {self.std}, expected a finite number >= 0")

    def shape(self, n_sources: int, n_targets: int) -> tuple[int, ...]:
        """The shape of the delays of a projection: ``()``, ``(n_sources,)`` or both."""
        return (n_sources, n_targets)[: KINDS.index(self.kind)]

    def init(self, key: Array, n_sources: int, n_targets: int) -> Float[Array, ...]:
        """Draws the numbers that are trained from a normal distribution."""
        return self.mean + self.std * jax.random.normal(key, self.shape(n_sources, n_targets))

    def __call__(self, numbers: Float[Array, ...]) -> Float[Array, ...]:
        """The delays >= 0 that the numbers stand for."""
        return self.scale * self.transform(numbers)
