"""The interface of 2024 to mid 2026: a builder makes a network, a router places it.

Within the generation the call that runs a network moved from ``_hxtorch_spiking`` to
``pygrenade_vx.network``, hooks and placement to modules of their own, and the data of a run into
snippets; each is found by its presence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.event.hardware.errors import (
    CalibrationMissingError,
    HardwareAPIError,
    HardwareConnectionError,
)
from jaxsnn.event.hardware.grenade.adapter import Adapter, Recorded, Setup, Trains, spike_arrays
from jaxsnn.event.hardware.grenade.probe import find, symbol
from jaxsnn.event.hardware.spec import PopulationSpec
from jaxsnn.event.hardware.validate import circuits_per_neuron

_REQUIRED = (
    "hxtorch.init_hardware",
    "hxtorch.release_hardware",
    "hxtorch.spiking.extract_madc",
    "hxtorch.spiking.morphology.SingleCompartmentNeuron",
    "hxtorch.spiking.utils.calib_helper.chip_from_file",
    "_hxtorch_core.extract_n_spikes",
    "_hxtorch_core.get_unique_identifier",
    "_hxtorch_core.weight_to_connection",
    "pygrenade_vx.common.ExecutionInstanceID",
    "pygrenade_vx.common.Time",
    "pygrenade_vx.network.ExternalSourcePopulation",
    "pygrenade_vx.network.InputGenerator",
    "pygrenade_vx.network.MADCRecording",
    "pygrenade_vx.network.Population",
    "pygrenade_vx.network.Projection",
    "pygrenade_vx.network.Receptor",
    "pygrenade_vx.network.build_network_graph",
    "pygrenade_vx.network.requires_routing",
    "pygrenade_vx.network.routing.PortfolioRouter",
    "pygrenade_vx.network.update_network_graph",
    "dlens_vx_v3.hal.NeuronConfig.ReadoutSource.membrane",
    "dlens_vx_v3.hal.Timer.Value.max",
    "dlens_vx_v3.halco.CompartmentOnLogicalNeuron",
)
_CYCLES_PER_MS = 125_000


def _either(*paths: str) -> Any:
    """The first of several places where something is."""
    for path in paths:
        found = find(path)
        if found is not None:
            return found
    raise HardwareAPIError(" or ".join(paths))


class AdapterG2(Adapter):
    """See `Adapter`."""

    generation = "G2"

    def __init__(self) -> None:
        super().__init__(_REQUIRED)
        self.placement = _either(
            "hxtorch.spiking.neuron_placement.NeuronPlacement",
            "hxtorch.spiking.experiment.NeuronPlacement",
        )
        self.hooks = _either(
            "pygrenade_vx.signal_flow.ExecutionInstanceHooks",
            "pygrenade_vx.execution.ExecutionInstanceHooks",
        )
        self.run_alone = find("_hxtorch_spiking.run") if _spiking_module() else None
        if self.run_alone is None:
            symbol("pygrenade_vx.network.run")

    def build(self, setup: Setup) -> _Program:
        """See `Adapter`."""
        return _Program(self, setup)


def _spiking_module() -> bool:
    try:
        return find("_hxtorch_spiking") is not None
    except ModuleNotFoundError:
        return False


class _Program:
    """A network with its chip configuration and routing."""

    def __init__(self, adapter: AdapterG2, setup: Setup) -> None:
        if setup.payload is None:
            raise CalibrationMissingError(
                "this generation of the stack runs calibrated chips only, but the calibration has "
                "no payload; make one with python -m jaxsnn.event.hardware.calib.neuron_calib"
            )
        self._adapter = adapter
        self._setup = setup
        self._network = symbol("pygrenade_vx.network")
        self._instance = symbol("pygrenade_vx.common.ExecutionInstanceID")()
        self._compartment = symbol("dlens_vx_v3.halco.CompartmentOnLogicalNeuron")()
        self._membrane = symbol("dlens_vx_v3.hal.NeuronConfig.ReadoutSource.membrane")
        self._chip = symbol("hxtorch.spiking.utils.calib_helper.chip_from_file")(str(setup.payload))
        self._places = self._place()
        self._descriptors: dict[str, Any] = {}
        self._graph: Any = None
        spec = setup.spec
        zeros = {
            p.label: np.zeros((spec.size_of(p.source), spec.size_of(p.target)), np.int32)
            for p in spec.projections
        }
        self._route(zeros)  # what cannot be routed is found out now

    def _place(self) -> dict[str, Any]:
        """Neurons get their circuits, and these their configuration."""
        spec = self._setup.spec
        placement, places, first = self._adapter.placement(), {}, 0
        structures = symbol("hxtorch.spiking.morphology.SingleCompartmentNeuron")
        block = self._chip.neuron_block
        for p in spec.populations:
            structure = structures(circuits_per_neuron(spec, p.name))
            ids = np.arange(first, first + p.size)
            first += p.size
            placement.register_id(ids, structure.compartments)
            places[p.name] = placement.id2logicalneuron(ids)
            for neuron, place in enumerate(places[p.name]):
                structure.implement_morphology(place, block)
                structure.set_spike_recording(True, place, block)
                if self._setup.recorded == (p.name, neuron):
                    structure.enable_madc_recording(place, block, self._membrane)
        self._chip.neuron_block = block
        return places

    def _route(self, weights: Mapping[str, np.ndarray]) -> None:
        """Puts weights into the network, and routes it where it has not been."""
        network = self._describe(weights)
        if self._graph is not None and not self._network.requires_routing(network, self._graph):
            self._network.update_network_graph(self._graph, network)
            return
        routing = symbol("pygrenade_vx.network.routing.PortfolioRouter")()(network)
        self._graph = self._network.build_network_graph(network, routing)

    def _describe(self, weights: Mapping[str, np.ndarray]) -> Any:
        spec, builder = self._setup.spec, self._network.NetworkBuilder()
        for source in spec.sources:
            self._descriptors[source.name] = builder.add(self._external(source.size))
        for p in spec.populations:
            self._descriptors[p.name] = builder.add(self._population(p))
        if self._setup.recorded is not None:
            builder.add(self._recording(*self._setup.recorded))
        for p in spec.projections:
            signed = np.ascontiguousarray(weights[p.label].T, np.int32)
            for kind, part in (("excitatory", signed), ("inhibitory", -signed)):
                connections = symbol("_hxtorch_core.weight_to_connection")(np.maximum(part, 0))
                builder.add(
                    self._network.Projection(
                        self._receptor(kind),
                        connections,
                        self._descriptors[p.source],
                        self._descriptors[p.target],
                    )
                )
        return builder.done()

    def _receptor(self, kind: str) -> Any:
        receptor = self._network.Receptor
        return receptor(receptor.ID(), getattr(receptor.Type, kind))

    def _external(self, size: int) -> Any:
        population = self._network.ExternalSourcePopulation
        if hasattr(population, "Neuron"):
            return population([population.Neuron() for _ in range(size)])
        return population(size)

    def _population(self, p: PopulationSpec) -> Any:
        population = self._network.Population
        receptors = {self._receptor("excitatory"), self._receptor("inhibitory")}
        neurons = []
        for place in self._places[p.name]:
            compartment = population.Neuron.Compartment(
                population.Neuron.Compartment.SpikeMaster(0, True),
                [receptors] * len(place.get_atomic_neurons()),
            )
            neurons.append(population.Neuron(place, {self._compartment: compartment}))
        return population(neurons)

    def _recording(self, population: str, neuron: int) -> Any:
        recorded = self._network.MADCRecording.Neuron()
        recorded.coordinate.population = self._descriptors[population]
        recorded.coordinate.neuron_on_population = neuron
        recorded.coordinate.compartment_on_neuron = self._compartment
        recorded.coordinate.atomic_neuron_on_compartment = 0
        recorded.source = self._membrane
        return self._network.MADCRecording([recorded])

    def run(
        self,
        weights: Mapping[str, np.ndarray],
        trains: Mapping[str, Trains],
        cycles: int,
        room: Mapping[str, int],
    ) -> Recorded:
        """See `Program`."""
        self._route(weights)
        inputs = self._inputs(trains, cycles)
        in_snippets = hasattr(inputs, "snippets")
        outputs = self._execute(inputs)
        found = symbol("_hxtorch_core.extract_n_spikes")(
            outputs.snippets[0] if in_snippets else outputs,
            self._graph,
            cycles,
            {self._descriptors[name]: n for name, n in room.items()},
        )
        spikes = {name: spike_arrays(*found[self._descriptors[name]]) for name in room}
        samples = None
        if self._setup.recorded is not None:
            samples = self._samples(outputs, *self._setup.recorded, cycles)
        return Recorded(spikes, samples)

    def _inputs(self, trains: Mapping[str, Trains], cycles: int) -> Any:
        n_samples = len(next(iter(trains.values())))
        generator = self._network.InputGenerator(self._graph, n_samples)
        for name, samples in trains.items():
            in_ms = [[[t / _CYCLES_PER_MS for t in train] for train in s] for s in samples]
            generator.add(in_ms, self._descriptors[name])
        inputs = generator.done()
        timed = inputs.snippets[0] if hasattr(inputs, "snippets") else inputs
        timed.runtime = [{self._instance: cycles}] * n_samples
        time = symbol("pygrenade_vx.common.Time")
        inputs.inter_batch_entry_wait = {self._instance: time(self._setup.wait)}
        return inputs

    def _execute(self, inputs: Any) -> Any:
        on_connection = find("pygrenade_vx.common.ChipOnConnection")
        chip = self._chip if on_connection is None else {on_connection(): self._chip}
        chips, hooks = {self._instance: chip}, {self._instance: self._adapter.hooks()}
        if self._adapter.run_alone is not None:
            return self._adapter.run_alone(chips, self._graph, inputs, hooks)
        executor = symbol("hxtorch._runtime").executor
        if executor is None:
            raise HardwareConnectionError("Executor not initialized: the connection was released")
        return self._network.run(executor, self._graph, chips, inputs, hooks)

    def _samples(
        self, outputs: Any, population: str, neuron: int, cycles: int
    ) -> list[list[tuple[int, int]]]:
        """Time runs along the first axis, samples along the second; 0 is no value."""
        extract = symbol("hxtorch.spiking.extract_madc")
        arguments = (cycles,) if self._adapter.run_alone is not None else ()
        handle = extract(outputs, self._graph, *arguments)[self._descriptors[population]]
        values = np.asarray(handle.data.to_dense().numpy())[:, :, neuron]
        return [
            [(int(t), int(values[t, b])) for t in np.flatnonzero(values[:, b])]
            for b in range(values.shape[1])
        ]
