"""What is simulated: populations of LIF neurons, projections between them, input spikes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

INPUT = "input"

NEURON_PARAMETERS = (
    "tau_mem",
    "tau_syn",
    "v_th",
    "v_leak",
    "v_reset",
    "t_ref",
    "v0",
    "i0",
)


@dataclass
class Population:
    """Neurons ``tau_mem V' = -(V - v_leak) + I``, ``tau_syn I' = -I``.

    Every parameter is a scalar, which the neurons share, or an array of length ``size``. A neuron
    with ``v_th = inf`` never spikes. ``v0`` and ``i0`` are the state at time 0.
    """

    size: int
    tau_mem: float | np.ndarray
    tau_syn: float | np.ndarray
    v_th: float | np.ndarray = 1.0
    v_leak: float | np.ndarray = 0.0
    v_reset: float | np.ndarray = 0.0
    t_ref: float | np.ndarray = 0.0
    v0: float | np.ndarray = 0.0
    i0: float | np.ndarray = 0.0

    def __post_init__(self):
        for name in NEURON_PARAMETERS:
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape not in ((), (self.size,)):
                raise ValueError(f"{name} has shape {value.shape}, expected () or ({self.size},)")
            setattr(self, name, value)
        if np.any(self.tau_mem <= 0) or np.any(self.tau_syn <= 0) or np.any(self.t_ref < 0):
            raise ValueError("time constants must be positive and t_ref must not be negative")
        if np.any(self.v_reset >= self.v_th):
            raise ValueError("v_reset must lie below v_th, or the neuron would never stop spiking")


@dataclass
class Projection:
    """A spike of source ``s`` adds ``weight[s, d]`` to the current of ``d`` after a delay.

    ``src`` is ``"input"`` or the number of a population, ``dst`` the number of a population.
    ``delay`` is a scalar, one number per source, or a matrix like ``weight``.
    """

    src: str | int
    dst: int
    weight: np.ndarray
    delay: float | np.ndarray = 0.0

    def __post_init__(self):
        self.weight = np.asarray(self.weight, dtype=np.float64)
        self.delay = np.asarray(self.delay, dtype=np.float64)
        if self.delay.shape not in ((), self.weight.shape[:1], self.weight.shape):
            raise ValueError(f"delay has shape {self.delay.shape}, weight {self.weight.shape}")
        if np.any(self.delay < 0):
            raise ValueError("delays must not be negative")

    def per_synapse(self, values: np.ndarray) -> np.ndarray:
        """Spreads values that are shaped like ``delay`` over all synapses."""
        if values.ndim == 1:  # one per source, not one per target as NumPy would have it
            values = values[:, None]
        return np.broadcast_to(values, self.weight.shape)


@dataclass
class Network:
    """A whole experiment, from time 0 to ``t_max``."""

    populations: list[Population]
    projections: list[Projection]
    t_max: float
    n_in: int = 0
    input_time: np.ndarray = field(default_factory=lambda: np.zeros(0))
    input_idx: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self):
        self.input_time = np.asarray(self.input_time, dtype=np.float64)
        self.input_idx = np.asarray(self.input_idx, dtype=np.int64)
        if self.input_time.shape != self.input_idx.shape or self.input_time.ndim != 1:
            raise ValueError("input_time and input_idx must be lists of the same length")
        if np.any(self.input_time < 0):
            raise ValueError("input spikes must not come before time 0")
        if np.any((self.input_idx < 0) | (self.input_idx >= self.n_in)):
            raise ValueError(f"input_idx must lie in [0, {self.n_in})")
        for number, projection in enumerate(self.projections):
            n_src = self.n_in if projection.src == INPUT else self.sizes[projection.src]
            shape = (n_src, self.sizes[projection.dst])
            if projection.weight.shape != shape:
                raise ValueError(
                    f"projection {number}: weight is {projection.weight.shape}, expected {shape}"
                )

    @property
    def sizes(self) -> list[int]:
        """The number of neurons of each population."""
        return [population.size for population in self.populations]

    @property
    def offsets(self) -> np.ndarray:
        """The first neuron of each population when all neurons are counted through."""
        return np.concatenate(([0], np.cumsum(self.sizes)))[:-1]

    def per_neuron(self, name: str) -> np.ndarray:
        """One parameter of all neurons, counted through."""
        return np.concatenate(
            [np.broadcast_to(getattr(pop, name), (pop.size,)) for pop in self.populations]
        )
