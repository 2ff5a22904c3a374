"""The stand-in of the interface with elements of an experiment."""

import numpy as np

from fake_stack.common import (
    CYCLES_PER_US,
    SingleCompartmentNeuron,
    Time,
    calix,
    dlens,
    lists_of,
    namespace,
    read_payload,
    slots,
)
from fake_stack.record import Strict, expect, require


class Fixture:
    """A calibration that is there already."""


def modules(stack):
    """Modules by name."""
    elements = _elements(stack)

    def fixture_calibration_from_file(path):
        read_payload(path)
        return Fixture()

    return {
        "hxtorch": {
            "init_hardware": stack.call("hxtorch.init_hardware", stack.init_hardware),
            "release_hardware": stack.call("hxtorch.release_hardware", stack.release_hardware),
        },
        "hxtorch.core": {},
        "hxtorch.core.experiment": {"BaseExperiment": elements["BaseExperiment"]},
        "hxtorch.core.modules": {},
        "hxtorch.core.modules.population": {
            name: elements[name] for name in ("InputPopulation", "Population")
        },
        "hxtorch.core.modules.projection": {
            name: elements[name] for name in ("Projection", "ProjectionConnection")
        },
        "hxtorch.core.morphology": {"SingleCompartmentNeuron": SingleCompartmentNeuron},
        "hxtorch.core.utils": {},
        "hxtorch.core.utils.calib_helper": {
            "fixture_calibration_from_file": stack.call(
                "hxtorch.core.utils.calib_helper.fixture_calibration_from_file",
                fixture_calibration_from_file,
            )
        },
        "_hxtorch_core": {
            "get_unique_identifier": stack.get_unique_identifier,
            "extract_n_spikes": stack.call("_hxtorch_core.extract_n_spikes", extract_n_spikes),
        },
        "pygrenade_vx": {},
        "pygrenade_vx.common": {"Time": Time},
        "dlens_vx_v3": dlens(stack, lola=namespace()),
        **{name: vars(members) for name, members in calix(stack, typed=True).items()},
    }


def extract_n_spikes(spike_times, n_events, max_spikes):
    expect(spike_times, Spikes, where="extract_n_spikes")
    n = min(expect(n_events, int, where="extract"), expect(max_spikes, int, where="extract"))
    index, microseconds = slots(spike_times.samples, n, CYCLES_PER_US)
    return index, microseconds


class Spikes:
    """Recorded spikes ``[sample][neuron][cycles]``."""

    def __init__(self, samples):
        self.samples = samples


class Observables(Strict):
    spikes: Spikes
    madc: list

    def __init__(self):
        self.spikes = self.madc = None


def _elements(stack):
    from typing import NamedTuple

    class BaseExperiment:
        """Keeps elements in the order in which they were made."""

        def __init__(self, inter_batch_entry_wait, calibration=None):
            expect(inter_batch_entry_wait, int, where="BaseExperiment")
            if calibration is not None:
                expect(calibration, Fixture, where="BaseExperiment")
            stack.transcript.add(
                "BaseExperiment",
                {"wait": inter_batch_entry_wait, "calibration": calibration},
            )
            self.batch_size = None
            self._elements = []
            self._built = False

        def run(self, runtime):
            stack.call("BaseExperiment.run", self._run)(runtime)

        def _run(self, runtime):
            require(self.batch_size is not None, "batch_size is not set")
            cycles = int(expect(runtime, float, where="run") * CYCLES_PER_US * 1e6)
            if not self._built:
                stack.route()
                self._built = True
            stack.need_executor()
            sources, populations, projections = (
                [e for e in self._elements if isinstance(e, kind)]
                for kind in (InputPopulation, Population, Projection)
            )
            require(all(e.changed_input_data for e in sources + projections), "stale inputs")
            order = {e: n for n, e in enumerate(sources + populations)}
            weights = {
                (order[p.source_population()], order[p.target_population()]): p.read()
                for p in projections
            }
            trains = [s.read(self.batch_size, cycles) for s in sources]
            found = stack.chip.run(
                [s.size for s in sources], [p.size for p in populations], weights, trains, cycles
            )
            for p, samples in zip(populations, found, strict=True):
                p.hw_observables.spikes = Spikes(samples)
                if p.recorded is not None:
                    p.hw_observables.madc = [
                        [[(Time(t), value) for t, value in stack.chip.membrane(b, cycles)]]
                        for b in range(self.batch_size)
                    ]
            for element in self._elements:
                element.changed_input_data = False

        def __setattr__(self, name, value):
            if not name.startswith("_") and name != "batch_size":
                raise AttributeError(f"BaseExperiment has no {name}", name=name, obj=self)
            super().__setattr__(name, value)

    class Element:
        changed_input_data = False

        def __init__(self, experiment):
            expect(experiment, BaseExperiment, where=type(self).__name__)
            require(not experiment._built, "an element after the first run")
            experiment._elements.append(self)

    class InputPopulation(Element):
        def __init__(self, size, experiment, chip_coordinate=None, enable_spike_loopback=False):
            super().__init__(experiment)
            require(chip_coordinate is None and not enable_spike_loopback, "InputPopulation")
            self.size = expect(size, int, where="InputPopulation")
            stack.transcript.add("InputPopulation", {"size": size})

        def read(self, batch_size, cycles):
            times = lists_of(self.get_spike_times(), "get_spike_times", Time)
            require(len(times) == batch_size, "samples of the input")
            require(all(len(sample) == self.size for sample in times), "channels of the input")
            trains = [[[int(t) for t in train] for train in sample] for sample in times]
            last = max((t for s in trains for c in s for t in c), default=0)
            require(last < cycles, f"an input at {last} of {cycles} cycles; the unit of times?")
            stack.transcript.add("InputPopulation.get_spike_times", {"cycles": trains})
            return trains

    class Population(Element):
        def __init__(
            self,
            size,
            experiment,
            leak=80,
            reset=80,
            threshold=125,
            tau_mem=10e-6,
            tau_syn=10e-6,
            i_synin_gm=500,
            membrane_capacitance=63,
            refractory_time=1e-6,
            synapse_dac_bias=600,
            enable_spike_recording=True,
            enable_cadc_recording=True,
            enable_madc_recording=False,
            record_neuron_id=None,
            neuron_structure=None,
            exponential=True,
            subthreshold_adaptation=True,
            spike_triggered_adaptation=True,
        ):
            super().__init__(experiment)
            for value in (leak, reset, threshold, i_synin_gm, synapse_dac_bias):
                expect(value, int, where="Population")
            for value in (tau_mem, tau_syn, refractory_time):
                require(0.3e-6 <= expect(value, float, where="Population") <= 60e-6, "seconds")
            require(membrane_capacitance == 63, "membrane_capacitance")
            require(
                not (exponential or subthreshold_adaptation or spike_triggered_adaptation),
                "no LIF: exponential and adaptation terms are on unless switched off",
            )
            require(enable_spike_recording and not enable_cadc_recording, "recording")
            require(enable_madc_recording == (record_neuron_id is not None), "MADC")
            if neuron_structure is not None:
                expect(neuron_structure, SingleCompartmentNeuron, where="Population")
            self.size = expect(size, int, where="Population")
            self.recorded = record_neuron_id
            self.hw_observables = Observables()
            stack.transcript.add(
                "Population",
                {
                    "size": size,
                    "leak": leak,
                    "reset": reset,
                    "threshold": threshold,
                    "tau_mem": tau_mem,
                    "tau_syn": tau_syn,
                    "i_synin_gm": i_synin_gm,
                    "refractory_time": refractory_time,
                    "synapse_dac_bias": synapse_dac_bias,
                    "record_neuron_id": record_neuron_id,
                },
            )

    class ProjectionConnection(NamedTuple):
        idx_pre: int
        idx_post: int
        weight: float

    class Projection(Element):
        def __init__(
            self,
            in_features,
            out_features,
            experiment,
            chip_coordinate=None,
            plasticity_rule=None,
            receptor=None,
        ):
            super().__init__(experiment)
            require(chip_coordinate is plasticity_rule is receptor is None, "Projection")
            self.in_features = expect(in_features, int, where="Projection")
            self.out_features = expect(out_features, int, where="Projection")
            stack.transcript.add("Projection", {"in": in_features, "out": out_features})

        def read(self):
            ends = (self.source_population().size, self.target_population().size)
            require(ends == (self.in_features, self.out_features), "ends of a projection")
            weights = np.zeros(ends, np.int32)
            connections = expect(self.get_connections(), list, where="get_connections")
            for connection in connections:
                pre, post, weight = expect(connection, ProjectionConnection, where="connection")
                require(-63 <= expect(weight, int, where="weight") <= 63, f"weight {weight}")
                weights[pre, post] = weight
            require(len(connections) == weights.size, "connections")
            stack.transcript.add("Projection.get_connections", {"weight": weights})
            return weights

    return {
        cls.__name__: cls
        for cls in (BaseExperiment, InputPopulation, Population, ProjectionConnection, Projection)
    }
