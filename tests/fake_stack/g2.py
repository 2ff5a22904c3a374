"""The stand-in of the interface with a network builder, as of 2024-08 and of 2026."""

import numpy as np

from fake_stack.common import (
    ChipOnConnection,
    ExecutionInstanceID,
    Membrane,
    SingleCompartmentNeuron,
    Time,
    calix,
    dlens,
    namespace,
    read_payload,
    slots,
)
from fake_stack.g2_network import (
    ALONE,
    SNIPPETS,
    InputData,
    LogicalNeuron,
    SnippetData,
    network,
    weight_to_connection,
)
from fake_stack.record import Strict, expect, require


def modules(stack, version):
    """Modules by name."""
    parts = network(stack, version)
    spiking = {
        "extract_madc": stack.call("hxtorch.spiking.extract_madc", _extract_madc(version)),
    }
    core = {
        "get_unique_identifier": stack.get_unique_identifier,
        "weight_to_connection": stack.call(
            "_hxtorch_core.weight_to_connection", weight_to_connection
        ),
        "extract_n_spikes": stack.call("_hxtorch_core.extract_n_spikes", _extract_n_spikes),
    }
    placement = {"NeuronPlacement": _placement(stack)}
    hooks = {"ExecutionInstanceHooks": Hooks}
    common = {"ExecutionInstanceID": ExecutionInstanceID, "Time": Time}
    found = {
        "hxtorch": {
            "init_hardware": stack.call("hxtorch.init_hardware", stack.init_hardware),
            "release_hardware": stack.call("hxtorch.release_hardware", stack.release_hardware),
        },
        "hxtorch.spiking": spiking,
        "hxtorch.spiking.morphology": {"SingleCompartmentNeuron": _structure(stack)},
        "hxtorch.spiking.utils": {},
        "hxtorch.spiking.utils.calib_helper": {
            "chip_from_file": stack.call(
                "hxtorch.spiking.utils.calib_helper.chip_from_file", Chip.from_file
            )
        },
        "_hxtorch_core": core,
        "pygrenade_vx": {},
        "pygrenade_vx.network": parts,
        "pygrenade_vx.network.routing": {
            "PortfolioRouter": lambda: stack.call("PortfolioRouter()", _router(stack))
        },
        "pygrenade_vx.common": common,
        "dlens_vx_v3": dlens(stack, lola=namespace(Chip=Chip)),
        **{
            name: vars(members)
            for name, members in calix(stack, typed=version == "2026-06").items()
        },
    }
    run = _run(stack, version)
    if version in ALONE:
        found["hxtorch.spiking.experiment"] = placement
        found["pygrenade_vx.signal_flow"] = hooks
        found["_hxtorch_spiking"] = {
            "run": stack.call(
                "_hxtorch_spiking.run",
                run,
            )
        }
        return found
    found["hxtorch.spiking.neuron_placement"] = placement
    found["pygrenade_vx.execution"] = hooks

    class Runtime:
        @property
        def executor(self):
            return stack.executor

    found["hxtorch"]["_runtime"] = Runtime()

    def with_executor(executor, network_graph, chips, inputs, hooks):
        if executor is None:
            raise TypeError("run(): incompatible function arguments")
        require(executor is stack.executor, "the executor of _runtime")
        return run(chips, network_graph, inputs, hooks)

    parts["run"] = stack.call("pygrenade_vx.network.run", with_executor)
    if version in SNIPPETS:
        common["ChipOnConnection"] = ChipOnConnection
    return found


class Hooks(Strict):
    pass


class Block(Strict):
    """lola.NeuronBlock; a copy, as bindings return it, so that it must be put back."""

    def __init__(self, configured=(), recorded=()):
        self._configured, self._recorded = dict(configured), list(recorded)


class Chip(Strict):
    """lola.Chip."""

    neuron_block: Block

    def __init__(self):
        self._block = Block()

    @property
    def neuron_block(self):
        return Block(self._block._configured, self._block._recorded)

    @neuron_block.setter
    def neuron_block(self, block):
        self._block = expect(block, Block, where="Chip.neuron_block")

    @staticmethod
    def from_file(path):
        read_payload(path)
        return Chip()


def _placement(stack):
    class NeuronPlacement:
        def __init__(self):
            self._places, self._used = {}, 0
            self._register = stack.call("NeuronPlacement.register_id", self._register_id)

        def register_id(self, *args, **kwargs):
            self._register(*args, **kwargs)

        def _register_id(self, neuron_id, shape, placement_constraint=None):
            require(shape[0] == "compartments" and placement_constraint is None, "shape")
            for one in expect(neuron_id, np.ndarray, where="register_id").tolist():
                require(one not in self._places, f"neuron {one} is placed twice")
                self._places[one] = LogicalNeuron(self._used, shape[1])
                self._used += shape[1]
            if self._used > 512:
                raise ValueError("LogicalNeuron cannot be placed.")

        def id2logicalneuron(self, neuron_id):
            return [self._places[int(one)] for one in neuron_id]

    return NeuronPlacement


def _structure(stack):
    class Structure(SingleCompartmentNeuron):
        def implement_morphology(self, coord, neuron_block):
            stack.call("SingleCompartmentNeuron.implement_morphology", self._implement)(
                coord, neuron_block
            )

        def _implement(self, coord, neuron_block):
            expect(coord, LogicalNeuron, where="implement_morphology")
            expect(neuron_block, Block, where="implement_morphology")._configured[coord] = False

        def set_spike_recording(self, enable, coord, neuron_block):
            stack.call("SingleCompartmentNeuron.set_spike_recording", self._record)(
                enable, coord, neuron_block
            )

        def _record(self, enable, coord, neuron_block):
            require(coord in neuron_block._configured, "recording before the morphology")
            neuron_block._configured[coord] = expect(enable, bool, where="set_spike_recording")

        def enable_madc_recording(self, coord, neuron_block, readout_source):
            stack.call("SingleCompartmentNeuron.enable_madc_recording", self._madc)(
                coord, neuron_block, readout_source
            )

        def _madc(self, coord, neuron_block, readout_source):
            expect(readout_source, Membrane, where="enable_madc_recording")
            require(coord in neuron_block._configured, "recording before the morphology")
            neuron_block._recorded.append(coord)

    return Structure


def _router(stack):
    def route(network):
        expect(network, stack.kinds.Network, where="PortfolioRouter")
        stack.route()
        return ("routing of", network.number)

    return route


class Outputs:
    def __init__(self, spikes, graph, cycles, n_samples, stack):
        self.spikes, self.graph, self.cycles = spikes, graph, cycles
        self.n_samples, self.stack = n_samples, stack


def _run(stack, version):
    def run(chips, network_graph, inputs, hooks):
        stack.need_executor()
        expect(network_graph, stack.kinds.Graph, where="run")
        expect(inputs, SnippetData if version in SNIPPETS else InputData, where="run")
        ((instance, chip),) = expect(chips, dict, where="run").items()
        expect(instance, ExecutionInstanceID, where="run")
        if version in SNIPPETS:
            ((on_connection, chip),) = expect(chip, dict, where="run").items()
            expect(on_connection, ChipOnConnection, where="run")
        expect(chip, Chip, where="run")
        ((_, hook),) = expect(hooks, dict, where="run").items()
        expect(hook, Hooks, where="run")
        cycles, n_samples = _runtime(inputs, version)
        described = network_graph.network
        neurons = [n for p in described.of(stack.kinds.Population) for n in p._neurons]
        require(
            all(chip.neuron_block._configured.get(n._coordinate) for n in neurons),
            "a neuron is not configured to be recorded",
        )
        _check_recording(stack, chip, described)
        spikes = _emulate(stack, described, inputs, cycles, n_samples)
        found = Outputs(spikes, network_graph, cycles, n_samples, stack)
        return namespace(snippets=[found], _outputs=found) if version in SNIPPETS else found

    return run


def _runtime(inputs, version):
    timed = inputs.snippets[0] if version in SNIPPETS else inputs
    cycles = {c for entry in timed.runtime for c in entry.values()}
    require(len(cycles) == 1, "run times")
    for entry in timed.runtime:
        expect(next(iter(entry)), ExecutionInstanceID, where="runtime")
        expect(next(iter(entry.values())), int, where="runtime")
    ((_, wait),) = inputs.inter_batch_entry_wait.items()
    expect(wait, Time, where="inter_batch_entry_wait")
    return cycles.pop(), len(timed.runtime)


def _check_recording(stack, chip, network):
    recorded = network.of(stack.kinds.MADCRecording)
    places = chip.neuron_block._recorded
    require(len(places) == len(recorded), "MADC of network and chip")
    for item, place in zip(recorded, places, strict=True):
        at = item._neuron.coordinate
        population = network.items[int(at.population)]
        require(population._neurons[at.neuron_on_population]._coordinate == place, "MADC neuron")


def _emulate(stack, network, inputs, cycles, n_samples):
    kinds, nodes = stack.kinds, {}
    for descriptor, item in enumerate(network.items):
        if isinstance(item, kinds.External | kinds.Population):
            nodes[descriptor] = len(nodes)
    sources = network.of(kinds.External)
    populations = network.of(kinds.Population)
    projections = {}
    for item in network.of(kinds.Projection):
        key = (nodes[int(item._pre)], nodes[int(item._post)])
        sign = 1 if item._receptor._kind == "excitatory" else -1
        projections[key] = projections.get(key, 0) + sign * item._connections.weight.T
    trains = list(inputs._trains.values())
    require(len(trains) == len(sources), "every source has inputs")
    last = max((t for own in trains for s in own for c in s for t in c), default=0)
    require(last < cycles, f"an input at {last} of {cycles} cycles; the unit of the times?")
    require(all(len(own) == n_samples for own in trains), "samples")
    found = stack.chip.run(
        [s._size for s in sources],
        [len(p._neurons) for p in populations],
        projections,
        trains,
        cycles,
    )
    places = [d for d, item in enumerate(network.items) if isinstance(item, kinds.Population)]
    return dict(zip(places, found, strict=True))


def _extract_n_spikes(data, network_graph, runtime, n_spikes):
    expect(data, Outputs, where="extract_n_spikes")
    require(data.graph is network_graph, "the graph of the run")
    require(runtime == data.cycles, "the run time of the run")
    return {d: slots(data.spikes[int(d)], n) for d, n in n_spikes.items()}


def _extract_madc(version):
    def with_runtime(outputs, network_graph, runtime):
        require(outputs.graph is network_graph, "the graph of the run")
        require(runtime == outputs.cycles, "the run time of the run")
        madc = outputs.stack.kinds.Madc(network_graph, runtime)
        return {madc.population: madc.tensor(outputs.n_samples)}

    def without(outputs, network_graph):
        outputs = getattr(outputs, "_outputs", outputs)
        return with_runtime(outputs, network_graph, outputs.cycles)

    return with_runtime if version in ALONE else without
