"""What is asked of a chip and what it answers: networks, runs, backends.

The graph of :mod:`jaxsnn.event.topology` is the only description of a network.
:meth:`NetworkSpec.from_graph` turns it into the populations and projections that every backend
maps to the chip; nothing else knows of sizes, orders or offsets. All is host-side NumPy: times at
this boundary are float seconds, weights are in units of the model, indices are per population.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event.delay import Delay
from jaxsnn.event.hardware.errors import HardwareCapacityError
from jaxsnn.event.topology import Graph, Source, edge_label

__all__ = [
    "Backend",
    "Calibration",
    "Issue",
    "NetworkSpec",
    "OperatingPoint",
    "PopulationSpec",
    "ProjectionSpec",
    "RunRequest",
    "RunResult",
    "SourceSpec",
]


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """Input channels.

    Attributes:
        name: of the node in the graph.
        size: number of channels.
    """

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class PopulationSpec:
    """Spiking neurons.

    Attributes:
        name: of the node in the graph.
        size: number of neurons.
        n_spikes: room for their spikes, per sample.
        t_max: end of the window of the model, s.
        params: of the model, for which the chip is calibrated.
    """

    name: str
    size: int
    n_spikes: int
    t_max: float
    params: LIFParameters


@dataclasses.dataclass(frozen=True)
class ProjectionSpec:
    """All synapses from a source or population to a population.

    Attributes:
        source: name.
        target: name.
    """

    source: str
    target: str

    @property
    def label(self) -> str:
        """The key of its weights ``[n_source, n_target]``, as in the parameters of the graph."""
        return edge_label((self.source, self.target))


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network as populations and projections, in the order of the graph."""

    sources: tuple[SourceSpec, ...]
    populations: tuple[PopulationSpec, ...]
    projections: tuple[ProjectionSpec, ...]

    @staticmethod
    def from_graph(graph: Graph) -> NetworkSpec:
        """The network of a graph.

        Raises:
            HardwareCapacityError: the graph has what no chip has: readouts that do not spike,
                delays, trained neuron parameters, or sources of unknown size.
        """
        problems = []
        sources, populations = [], []
        for name, node in graph.nodes.items():
            if isinstance(node, Source):
                if node.size is None:
                    problems.append(f"source {name!r} has no size, expected Source(size)")
                    continue
                sources.append(SourceSpec(name, node.size))
                continue
            own = node.population
            if own is None or node.readout is not None:
                problems.append(f"population {name!r} is no EventPropLIF, the chip has only these")
                continue
            if own.train:
                problems.append(f"population {name!r} trains {', '.join(own.train)}, expected none")
            populations.append(
                PopulationSpec(name, own.n_neurons, own.n_spikes, own.t_max, own.params)
            )
        projections = []
        for edge, delay in graph.delays.items():
            if isinstance(delay, Delay) or np.any(np.asarray(delay) != 0):
                problems.append(f"projection {edge_label(edge)} has delays, expected none")
            projections.append(ProjectionSpec(*edge))
        if problems:
            raise HardwareCapacityError("; ".join(problems))
        return NetworkSpec(tuple(sources), tuple(populations), tuple(projections))

    def size_of(self, name: str) -> int:
        """Number of channels or neurons of a node."""
        return next(n.size for n in (*self.sources, *self.populations) if n.name == name)

    @property
    def t_max(self) -> float:
        """The longest window of all populations, s."""
        return max(population.t_max for population in self.populations)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Targets of the neuron calibration; the defaults are those of its command line.

    Attributes:
        leak: leak potential, CADC LSB.
        reset: reset potential, CADC LSB.
        threshold: threshold, CADC LSB.
        tau_syn: synaptic time constant, s on the chip.
        tau_mem: membrane time constant, s on the chip.
        refractory_time: s on the chip.
        i_synin_gm: bias of the synaptic input, CapMem LSB.
        synapse_dac_bias: CapMem LSB.
    """

    leak: int = 80
    reset: int = 80
    threshold: int = 150
    tau_syn: float = 6e-6
    tau_mem: float = 6e-6
    refractory_time: float = 2e-6
    i_synin_gm: int = 500
    synapse_dac_bias: int = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a backend must know of a calibrated chip. Persistence is a matter of its own.

    Attributes:
        weight_scale: LSB per unit of model weight; the only place where weights are scaled.
        time_offset_cycles: constant latency of recorded spikes, which backends take off.
        operating_point: targets of the calibration.
        chip: identifier of the chip it belongs to.
        name: of the artefact.
        payload: what the backend loads into the chip, None for the emulator.
    """

    weight_scale: float = 56.0
    time_offset_cycles: int = 0
    operating_point: OperatingPoint = OperatingPoint()
    chip: str = ""
    name: str = ""
    payload: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run of a batch.

    Attributes:
        inputs: per source the spikes ``[n_samples, any]``, s; entries with index -1, times that are
            not finite, negative, or not below ``runtime`` are never sent.
        weights: per projection, under its label, ``[n_source, n_target]`` in model units.
        runtime: s per sample.
        seed: of the trial noise; backends with noise of their own ignore it.
        traces: populations of which the MADC is to record a membrane: per name the neuron.
        cadc: populations of which the CADC is to record all membranes.
    """

    inputs: Mapping[str, Spikes]
    weights: Mapping[str, np.ndarray]
    runtime: float
    seed: int = 0
    traces: Mapping[str, int] = dataclasses.field(default_factory=dict)
    cadc: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came back.

    Attributes:
        spikes: per population ``[n_samples, n_spikes]`` in time order, s; padding is index -1 and
            time ``inf``.
        n_recorded: per population ``[n_samples]``, spikes that the chip recorded.
        n_dropped: per population ``[n_samples]``, of these the ones without room.
        traces: per population recorded by the MADC ``(times [n], volts [n_samples, n])``, in units
            of the distance from leak to threshold, from the leak on.
        cadc: likewise by the CADC ``(times [n], volts [n_samples, n, n_neurons])``.
        meta: backend, chip, versions.
    """

    spikes: Mapping[str, Spikes]
    n_recorded: Mapping[str, np.ndarray]
    n_dropped: Mapping[str, np.ndarray]
    traces: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    cadc: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Issue:
    """Something that does not fit the chip.

    Attributes:
        level: ``"error"``, or ``"warning"`` where it may still work.
        code: of the rule.
        message: what it is, and what it should be.
    """

    level: str
    code: str
    message: str


@runtime_checkable
class Backend(Protocol):
    """A chip, or what stands for one. A context manager; ``open`` and ``close`` are idempotent."""

    def open(self) -> None:
        """Takes hold of the chip."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(self, *_: object) -> None: ...

    def compile(self, spec: NetworkSpec, calibration: Calibration) -> Any:
        """Maps a network to the chip, once; raises HardwareCapacityError where it does not fit."""
        ...

    def run(self, compiled: Any, request: RunRequest) -> RunResult:
        """Runs a batch of what ``compile`` returned."""
        ...
