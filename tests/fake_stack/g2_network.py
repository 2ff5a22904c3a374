"""Networks of the stand-in with a network builder: their parts, routing and inputs."""

import numpy as np

from fake_stack.common import CompartmentOnLogicalNeuron, Key, Membrane, lists_of, namespace
from fake_stack.record import Strict, expect, require

# In which versions of the generation something is where; "2026-03" has snippets.
ALONE = ("2024-08",)
SNIPPETS = ("2026-03",)


class LogicalNeuron(Key):
    """halco.LogicalNeuronOnDLS."""

    def __init__(self, first, size):
        super().__init__(first)
        self._size = size

    def get_atomic_neurons(self):
        return [int(self) + n for n in range(self._size)]


class Connections:
    """Projection.Connections."""

    def __init__(self, weight):
        self.weight = weight  # [post, pre]


def weight_to_connection(weight):
    expect(weight, np.ndarray, where="weight_to_connection")
    if weight.dtype != np.int32 or weight.ndim != 2 or not weight.flags.c_contiguous:
        raise TypeError("weight_to_connection: incompatible function arguments")
    require(weight.min() >= 0, "it takes the absolute value: signs would be lost")
    require(weight.max() <= 63, "a weight above 63")
    return Connections(weight.copy())


class InputData(Strict):
    runtime: list
    inter_batch_entry_wait: dict

    def __init__(self, trains):
        self._trains = trains


class Snippet(Strict):
    runtime: list


class SnippetData(Strict):
    snippets: list
    inter_batch_entry_wait: dict

    def __init__(self, trains):
        self._trains = trains
        self.snippets = [Snippet()]


def network(stack, version):
    class Descriptor(Key):
        @property
        def number(self):
            return int(self)

    class Receptor(Strict):
        class ID(Key):
            pass

        Type = namespace(excitatory="excitatory", inhibitory="inhibitory")

        def __init__(self, identifier, kind):
            expect(identifier, Receptor.ID, where="Receptor")
            require(kind in ("excitatory", "inhibitory"), "Receptor.Type")
            self._kind = kind

        def __eq__(self, other):
            return isinstance(other, Receptor) and self._kind == other._kind

        def __hash__(self):
            return hash(self._kind)

    class Compartment(Strict):
        class SpikeMaster(Strict):
            def __init__(self, neuron_on_compartment, enable_record_spikes):
                expect(neuron_on_compartment, int, where="SpikeMaster")
                require(expect(enable_record_spikes, bool, where="SpikeMaster"), "not recorded")

        def __init__(self, spike_master, receptors):
            expect(spike_master, Compartment.SpikeMaster, where="Compartment")
            self._receptors = expect(receptors, list, where="Compartment")

    class Neuron(Strict):
        def __init__(self, coordinate, compartments):
            self._coordinate = expect(coordinate, LogicalNeuron, where="Population.Neuron")
            ((key, compartment),) = expect(compartments, dict, where="Population.Neuron").items()
            expect(key, CompartmentOnLogicalNeuron, where="Population.Neuron")
            expect(compartment, Compartment, where="Population.Neuron")
            require(
                len(compartment._receptors) == len(coordinate.get_atomic_neurons()),
                "receptors per circuit",
            )
            require(
                all(
                    {r._kind for r in own} == {"excitatory", "inhibitory"}
                    for own in compartment._receptors
                ),
                "receptors of both signs",
            )

    Neuron.Compartment = Compartment

    class Population(Strict):
        def __init__(self, neurons):
            self._neurons = [expect(n, Neuron, where="Population") for n in neurons]

    Population.Neuron = Neuron

    class ExternalSourcePopulation(Strict):
        def __init__(self, neurons):
            if version in ALONE:
                self._size = expect(neurons, int, where="ExternalSourcePopulation")
            else:
                for neuron in expect(neurons, list, where="ExternalSourcePopulation"):
                    expect(neuron, External, where="ExternalSourcePopulation")
                self._size = len(neurons)

    class External(Strict):
        pass

    if version not in ALONE:
        ExternalSourcePopulation.Neuron = External

    class Projection(Strict):
        def __init__(self, receptor, connections, population_pre, population_post):
            self._receptor = expect(receptor, Receptor, where="Projection")
            self._connections = expect(connections, Connections, where="Projection")
            self._pre = expect(population_pre, Descriptor, where="Projection")
            self._post = expect(population_post, Descriptor, where="Projection")

    class Coordinate(Strict):
        population: Descriptor
        neuron_on_population: int
        compartment_on_neuron: CompartmentOnLogicalNeuron
        atomic_neuron_on_compartment: int

    class MADCNeuron(Strict):
        coordinate: Coordinate
        source: Membrane

        def __init__(self):
            self.coordinate = Coordinate()

    class MADCRecording(Strict):
        def __init__(self, neurons):
            (self._neuron,) = expect(neurons, list, where="MADCRecording")
            at = expect(self._neuron, MADCNeuron, where="MADCRecording").coordinate
            expect(at.population, Descriptor, where="MADCRecording")
            expect(at.neuron_on_population, int, where="MADCRecording")
            expect(at.compartment_on_neuron, CompartmentOnLogicalNeuron, where="MADCRecording")
            expect(self._neuron.source, Membrane, where="MADCRecording")
            stack.transcript.add(
                "MADCRecording",
                {"population": int(at.population), "neuron": at.neuron_on_population},
            )

    MADCRecording.Neuron = MADCNeuron

    class Network:
        def __init__(self, items):
            self.number = stack.number("Network")
            self.items = items

        def of(self, kind):
            return [item for item in self.items if isinstance(item, kind)]

        def structure(self):
            """What routing depends on: all but the weights."""
            return [
                (type(i).__name__, i._connections.weight.shape, i._pre, i._post)
                if isinstance(i, Projection)
                else (type(i).__name__, _size(i))
                for i in self.items
            ]

    def _size(item):
        return getattr(item, "_size", len(getattr(item, "_neurons", ())))

    class NetworkBuilder:
        def __init__(self):
            self._items, self._done = [], False

        def add(self, item):
            kinds = (Population, ExternalSourcePopulation, Projection, MADCRecording)
            expect(item, *kinds, where="NetworkBuilder.add")
            require(not self._done, "add after done")
            number = len(self._items)
            stack.transcript.add("NetworkBuilder.add", _described(item, number))
            if isinstance(item, Projection):
                pre, post = (self._items[int(d)] for d in (item._pre, item._post))
                require(
                    item._connections.weight.shape == (_size(post), _size(pre)),
                    f"weights of {item._connections.weight.shape}",
                )
            self._items.append(item)
            return Descriptor(number)

        def done(self):
            self._done = True
            return Network(list(self._items))

    def _described(item, number):
        if isinstance(item, Projection):
            return {
                "item": "Projection",
                "receptor": item._receptor._kind,
                "weight": item._connections.weight,
                "pre": int(item._pre),
                "post": int(item._post),
            }
        return {"item": type(item).__name__, "size": _size(item), "descriptor": number}

    class Graph:
        def __init__(self, network):
            self.network = network

    def requires_routing(network, network_graph):
        expect(network, Network, where="requires_routing")
        return (
            network.structure()
            != expect(network_graph, Graph, where="requires_routing").network.structure()
        )

    def build_network_graph(network, routing_result):
        require(routing_result == ("routing of", network.number), "routing of another network")
        return Graph(network)

    def update_network_graph(network_graph, network):
        require(not requires_routing(network, network_graph), "update needs a routing")
        network_graph.network = network

    class InputGenerator:
        def __init__(self, network_graph, batch_size=1):
            expect(network_graph, Graph, where="InputGenerator")
            self._graph = network_graph
            self._batch = expect(batch_size, int, where="InputGenerator")
            self._trains = {}

        def add(self, times, population):
            stack.call("InputGenerator.add", self._add)(times, population)

        def _add(self, times, population):
            lists_of(times, "InputGenerator.add", float, int)
            item = self._graph.network.items[int(expect(population, Descriptor, where="add"))]
            expect(item, ExternalSourcePopulation, where="InputGenerator.add")
            require(len(times) == self._batch, "samples")
            require(all(len(sample) == item._size for sample in times), "channels")
            self._trains[population] = [
                [[round(t * 125_000) for t in train] for train in sample] for sample in times
            ]

        def done(self):
            return (SnippetData if version in SNIPPETS else InputData)(self._trains)

    class Madc:
        """Membrane in the form of a sparse tensor."""

        def __init__(self, graph, cycles):
            (self._recorded,) = graph.network.of(MADCRecording)
            self.population = self._recorded._neuron.coordinate.population
            self._size = _size(graph.network.items[int(self.population)])
            self._cycles = cycles

        def tensor(self, n_samples):
            dense = np.zeros((self._cycles + 1, n_samples, self._size), np.int16)
            neuron = self._recorded._neuron.coordinate.neuron_on_population
            for sample in range(n_samples):
                for t, value in stack.chip.membrane(sample, self._cycles):
                    dense[t, sample, neuron] = value
            numpy = namespace(numpy=lambda: dense)
            return namespace(data=namespace(to_dense=lambda: numpy))

    members = {
        name: cls
        for name, cls in locals().items()
        if name
        in (
            "NetworkBuilder",
            "Receptor",
            "Population",
            "ExternalSourcePopulation",
            "Projection",
            "MADCRecording",
        )
    }
    members["requires_routing"] = stack.call("requires_routing", requires_routing)
    members["build_network_graph"] = stack.call("build_network_graph", build_network_graph)
    members["update_network_graph"] = stack.call("update_network_graph", update_network_graph)
    members["InputGenerator"] = InputGenerator
    stack.kinds = namespace(
        Graph=Graph,
        Network=Network,
        Population=Population,
        External=ExternalSourcePopulation,
        Projection=Projection,
        Madc=Madc,
        MADCRecording=MADCRecording,
    )
    return members
