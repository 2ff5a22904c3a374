"""The interface since mid 2026: populations and projections are elements of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.event.hardware.grenade.adapter import Adapter, Recorded, Setup, Trains, spike_arrays
from jaxsnn.event.hardware.grenade.probe import symbol
from jaxsnn.event.hardware.spec import OperatingPoint, PopulationSpec
from jaxsnn.event.hardware.validate import circuits_per_neuron

_REQUIRED = (
    "hxtorch.init_hardware",
    "hxtorch.release_hardware",
    "hxtorch.core.experiment.BaseExperiment",
    "hxtorch.core.modules.population.InputPopulation",
    "hxtorch.core.modules.population.Population",
    "hxtorch.core.modules.projection.Projection",
    "hxtorch.core.modules.projection.ProjectionConnection",
    "hxtorch.core.utils.calib_helper.fixture_calibration_from_file",
    "_hxtorch_core.extract_n_spikes",
    "_hxtorch_core.get_unique_identifier",
    "pygrenade_vx.common.Time",
    "dlens_vx_v3.hal.Timer.Value.fpga_clock_cycles_per_us",
    "dlens_vx_v3.hal.Timer.Value.max",
)


class AdapterG3(Adapter):
    """See `Adapter`."""

    generation = "G3"

    def __init__(self) -> None:
        super().__init__(_REQUIRED)

    def build(self, setup: Setup) -> _Program:
        """See `Adapter`."""
        return _Program(setup)


def _elements() -> tuple[type, type]:
    """Input and projection as the vendor's abstract classes want them completed."""
    input_base = symbol("hxtorch.core.modules.population.InputPopulation")
    projection_base = symbol("hxtorch.core.modules.projection.Projection")
    connection = symbol("hxtorch.core.modules.projection.ProjectionConnection")
    time = symbol("pygrenade_vx.common.Time")

    class Input(input_base):
        """A source; ``trains`` are its spikes in cycles."""

        trains: Trains = []  # noqa: RUF012, replaced before every run

        def get_spike_times(self) -> Any:
            return [[[time(t) for t in train] for train in s] for s in self.trains]

    class Synapses(projection_base):
        """All synapses between two populations; ``lsb`` are the weights with their sign."""

        def __init__(self, source: Any, target: Any, experiment: Any) -> None:
            super().__init__(source.size, target.size, experiment)
            self._ends = (source, target)
            self.lsb = np.zeros((source.size, target.size), np.int32)

        def source_population(self) -> Any:
            return self._ends[0]

        def target_population(self) -> Any:
            return self._ends[1]

        def get_connections(self) -> Any:
            return [connection(i, j, int(lsb)) for (i, j), lsb in np.ndenumerate(self.lsb)]

    return Input, Synapses


class _Program:
    """An experiment."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        spec, fixed = setup.spec, {}
        if setup.payload is not None:
            load = symbol("hxtorch.core.utils.calib_helper.fixture_calibration_from_file")
            fixed["calibration"] = load(str(setup.payload))
        base = symbol("hxtorch.core.experiment.BaseExperiment")
        self._experiment = base(setup.wait, **fixed)
        make_input, make_synapses = _elements()
        self._sources = {s.name: make_input(s.size, self._experiment) for s in spec.sources}
        self._populations = {p.name: self._population(p) for p in spec.populations}
        nodes = {**self._sources, **self._populations}
        self._synapses = {
            p.label: make_synapses(nodes[p.source], nodes[p.target], self._experiment)
            for p in spec.projections
        }

    def _population(self, p: PopulationSpec) -> Any:
        options: dict[str, Any] = _targets(self._setup.point)
        circuits = circuits_per_neuron(self._setup.spec, p.name)
        if circuits > 1:
            structure = symbol("hxtorch.core.morphology.SingleCompartmentNeuron")
            options["neuron_structure"] = structure(circuits)
        recorded = self._setup.recorded
        if recorded is not None and recorded[0] == p.name:
            options |= {"enable_madc_recording": True, "record_neuron_id": recorded[1]}
        return symbol("hxtorch.core.modules.population.Population")(
            p.size,
            self._experiment,
            enable_spike_recording=True,
            enable_cadc_recording=False,
            # Leaky integrate-and-fire: the other terms are on unless they are switched off.
            exponential=False,
            subthreshold_adaptation=False,
            spike_triggered_adaptation=False,
            **options,
        )

    def run(
        self,
        weights: Mapping[str, np.ndarray],
        trains: Mapping[str, Trains],
        cycles: int,
        room: Mapping[str, int],
    ) -> Recorded:
        """See `Program`."""
        for name, source in self._sources.items():
            source.trains = trains[name]
            source.changed_input_data = True
        for label, synapses in self._synapses.items():
            synapses.lsb = np.asarray(weights[label], np.int32)
            synapses.changed_input_data = True
        self._experiment.batch_size = len(next(iter(trains.values())))
        per_us = int(symbol("dlens_vx_v3.hal.Timer.Value.fpga_clock_cycles_per_us"))
        # It cuts seconds off to whole cycles: half a cycle keeps rounding errors from costing one.
        self._experiment.run((cycles + 0.5) / (per_us * 1e6))
        spikes = {}
        for name, n in room.items():
            observed = self._populations[name].hw_observables.spikes
            index, microseconds = symbol("_hxtorch_core.extract_n_spikes")(observed, n, n)
            spikes[name] = spike_arrays(index, np.asarray(microseconds, np.float64) * per_us)
        return Recorded(spikes, self._samples())

    def _samples(self) -> list[list[tuple[int, int]]] | None:
        """From the samples themselves: ``extract_n_madc`` keeps one per recorded neuron alone."""
        if self._setup.recorded is None:
            return None
        observed = self._populations[self._setup.recorded[0]].hw_observables.madc
        return [[(int(t), int(value)) for t, value in neurons[0]] for neurons in observed]


def _targets(point: OperatingPoint) -> dict[str, Any]:
    return {
        "leak": point.leak,
        "reset": point.reset,
        "threshold": point.threshold,
        "tau_mem": point.tau_mem,
        "tau_syn": point.tau_syn,
        "i_synin_gm": point.i_synin_gm,
        "membrane_capacitance": 63,
        "refractory_time": point.refractory_time,
        "synapse_dac_bias": point.synapse_dac_bias,
    }
