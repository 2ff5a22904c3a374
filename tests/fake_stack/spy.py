"""Writes down the calls of a stack that is there, a real one or the stand-in, as they are made."""

import functools

from jaxsnn.event.hardware.grenade.probe import find

# Where the calls of the golden transcripts are made, by their names there. Classes are left out:
# they cannot be wrapped without becoming other ones.
PATHS = {
    "hxtorch.init_hardware": ["hxtorch.init_hardware"],
    "hxtorch.release_hardware": ["hxtorch.release_hardware"],
    "hxtorch.spiking.utils.calib_helper.chip_from_file": [
        "hxtorch.spiking.utils.calib_helper.chip_from_file"
    ],
    "hxtorch.spiking.extract_madc": ["hxtorch.spiking.extract_madc"],
    "hxtorch.core.utils.calib_helper.fixture_calibration_from_file": [
        "hxtorch.core.utils.calib_helper.fixture_calibration_from_file"
    ],
    "_hxtorch_core.weight_to_connection": ["_hxtorch_core.weight_to_connection"],
    "_hxtorch_core.extract_n_spikes": ["_hxtorch_core.extract_n_spikes"],
    "_hxtorch_spiking.run": ["_hxtorch_spiking.run"],
    "pygrenade_vx.network.run": ["pygrenade_vx.network.run"],
    "requires_routing": ["pygrenade_vx.network.requires_routing"],
    "build_network_graph": ["pygrenade_vx.network.build_network_graph"],
    "update_network_graph": ["pygrenade_vx.network.update_network_graph"],
    "NetworkBuilder.add": ["pygrenade_vx.network.NetworkBuilder.add"],
    "InputGenerator.add": ["pygrenade_vx.network.InputGenerator.add"],
    "NeuronPlacement.register_id": [
        "hxtorch.spiking.neuron_placement.NeuronPlacement.register_id",
        "hxtorch.spiking.experiment.NeuronPlacement.register_id",
    ],
    "SingleCompartmentNeuron.implement_morphology": [
        "hxtorch.spiking.morphology.SingleCompartmentNeuron.implement_morphology"
    ],
    "SingleCompartmentNeuron.set_spike_recording": [
        "hxtorch.spiking.morphology.SingleCompartmentNeuron.set_spike_recording"
    ],
    "SingleCompartmentNeuron.enable_madc_recording": [
        "hxtorch.spiking.morphology.SingleCompartmentNeuron.enable_madc_recording"
    ],
    "BaseExperiment.run": ["hxtorch.core.experiment.BaseExperiment.run"],
}


def spy(monkeypatch):
    """Wraps what is there of `PATHS`.

    Returns:
        The names of all calls from now on, in order; and the names that are written down.
    """
    calls, seen = [], set()
    for name, paths in PATHS.items():
        for path in paths:
            package = path.partition(".")[0]
            try:
                function = find(path)
            except ModuleNotFoundError as error:
                if error.name != package:
                    raise
                continue
            if function is None:
                continue
            owner, _, attribute = path.rpartition(".")
            monkeypatch.setattr(find(owner), attribute, _noting(calls, name, function))
            seen.add(name)
            break
    return calls, seen


def _noting(calls, name, function):
    @functools.wraps(function, assigned=())
    def call(*args, **kwargs):
        calls.append(name)
        return function(*args, **kwargs)

    return call


def names_of(golden, seen):
    """The names of the calls of a golden transcript that a spy would have written down."""
    found = []
    for entry in golden:
        calls, times = (entry["calls"], entry["times"]) if isinstance(entry, dict) else ([entry], 1)
        found += [name for name, _ in calls] * times
    return [name for name in found if name in seen]
