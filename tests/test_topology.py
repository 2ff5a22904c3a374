"""Graphs of populations: how they are built, cut into components and run."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import LIFParameters, Spikes, initial_state
from jaxsnn.event import (
    LIF,
    Delay,
    EventPropLIF,
    Graph,
    LeakyIntegrator,
    RecurrentEventPropLIF,
    Source,
    merge_spikes,
    serial,
    take_spikes,
)
from jaxsnn.event.component import strongly_connected
from jaxsnn.ops import event_loop
from networks import assert_within, same_bits
from oracle.network import INPUT, Network, Population, Projection
from oracle.simulate import simulate

pytestmark = pytest.mark.usefixtures("x64")

T_MAX, ROOM = 2.5, 60
PARAMS = LIFParameters(1.0, 0.5, 1.0, 0.1, -0.2, 0.15)


def population(n, *, kind=EventPropLIF, params=PARAMS, **options):
    return kind(n, **({"n_spikes": ROOM, "t_max": T_MAX} | options), params=params)


def built(nodes, edges):
    """A graph of nodes by name, and of edges with their delays."""
    graph = Graph()
    for name, node in nodes.items():
        graph.add(name, node)
    for edge, delay in edges.items():
        graph.connect(*edge, delay=delay)
    return graph.build()


def two(**options):
    """An input and a population that are connected."""
    graph = Graph()
    graph.add("input", Source(2))
    graph.add("hidden", population(3, **options))
    graph.connect("input", "hidden")
    return graph


class TestErrors:
    def test_rejects_an_unknown_name(self):
        graph = two()
        for edge in (("hidden", "nobody"), ("nobody", "hidden")):
            text = (
                rf"'{edge[0]}' -> '{edge[1]}': there is no node 'nobody'; nodes are: "
                "'input', 'hidden'"
            )
            with pytest.raises(ValueError, match=text):
                graph.connect(*edge)

    def test_rejects_names_in_an_empty_graph(self):
        with pytest.raises(ValueError, match="there is no node 'a'; nodes are: none"):
            Graph().connect("a", "b")

    def test_rejects_a_second_node_of_a_name(self):
        with pytest.raises(ValueError, match="a node 'hidden' exists already"):
            two().add("hidden", Source(1))

    def test_rejects_a_second_projection(self):
        with pytest.raises(ValueError, match="'input' -> 'hidden' exists already"):
            two().connect("input", "hidden", delay=0.1)

    def test_rejects_a_source_as_target(self):
        with pytest.raises(ValueError, match="'hidden' -> 'input': the target is a source"):
            two().connect("hidden", "input")

    @pytest.mark.parametrize("node", [3, None, Source, jnp.zeros(2)])
    def test_rejects_other_nodes(self, node):
        with pytest.raises(TypeError, match=r"node 'x' is \w+, expected Source or Layer"):
            Graph().add("x", node)

    def test_rejects_several_layers_as_a_node(self):
        with pytest.raises(TypeError, match="node 'x' consists of several layers"):
            Graph().add("x", serial(population(2), population(2)))

    @pytest.mark.parametrize("size", [0, -1, 1.5])
    def test_rejects_sizes(self, size):
        with pytest.raises((ValueError, TypeError), match="source 'in': size"):
            Graph().add("in", Source(size))

    def test_rejects_what_is_not_connected(self):
        graph = two()
        graph.add("lonely", population(2))
        with pytest.raises(ValueError, match="population 'lonely' is not connected: it hears"):
            graph.build()
        graph = two()
        graph.add("unheard", Source(2))
        with pytest.raises(ValueError, match="source 'unheard' is not connected: nothing hears"):
            graph.build()
        with pytest.raises(ValueError, match="there is no projection"):
            Graph().build()

    @pytest.mark.parametrize("delay", [-0.1, np.nan, np.array([0.1, -0.1]), np.zeros((2, 3, 1))])
    def test_rejects_delays(self, delay):
        graph = two()
        graph.add("out", population(2))
        with pytest.raises(
            ValueError, match=r"'hidden' -> 'out': delay is (?s:.*), expected times >= 0"
        ):
            graph.connect("hidden", "out", delay=delay)

    @pytest.mark.parametrize("delay", ["1", None, [0.1, 0.2]])
    def test_rejects_types_of_delays(self, delay):
        graph = two()
        graph.add("out", population(2))
        with pytest.raises(TypeError, match=r"'hidden' -> 'out': delay is (str|NoneType|list), "):
            graph.connect("hidden", "out", delay=delay)

    @pytest.mark.parametrize("shape", [(4,), (2,), (2, 3), (3, 3), (3, 1)])
    def test_rejects_shapes_of_delays(self, shape):
        graph = two()
        graph.add("out", population(2))
        graph.connect("hidden", "out", delay=np.full(shape, 0.1))
        with pytest.raises(ValueError, match="'hidden' -> 'out': delay has shape") as error:
            graph.build()
        assert str(shape) in str(error.value)

    @pytest.mark.parametrize("shape", [(2, 4), (3, 3), (3,), (1, 3)])
    def test_rejects_shapes_of_weights(self, shape):
        _, apply, _ = two().build()
        parameters = {"input->hidden": {"weights": jnp.ones(shape)}}
        with pytest.raises(ValueError, match=r"'input' -> 'hidden': weights has shape") as error:
            apply(parameters, inputs_of(1))
        assert "expected (2, 3)" in str(error.value)

    def test_rejects_missing_parameters(self):
        graph = two()
        graph.connect("hidden", "hidden", delay=Delay("axonal", scale=0.1))
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(0))
        del parameters["hidden->hidden"]["delays"]
        with pytest.raises(ValueError, match=r"parameters\['hidden->hidden'\] has no delays"):
            apply(parameters, inputs_of(1))
        del parameters["hidden->hidden"]
        with pytest.raises(ValueError, match="parameters has no entry 'hidden->hidden'"):
            apply(parameters, inputs_of(1))

    def test_rejects_a_cycle_of_another_make(self):
        graph = two()
        graph.add("steps", population(2, kind=LIF))
        graph.connect("hidden", "steps")
        graph.connect("steps", "hidden")
        with pytest.raises(ValueError, match="'steps' is part of a cycle of 'hidden', 'steps', ex"):
            graph.build()
        graph = two()
        graph.add("steps", population(2, kind=LIF))
        graph.connect("hidden", "steps")
        graph.connect("steps", "steps")
        with pytest.raises(ValueError, match="'steps' is part of a cycle of 'steps', expected"):
            graph.build()

    @pytest.mark.parametrize(("field", "value"), [("t_max", 2.0), ("truncate", True)])
    def test_rejects_different_windows_in_a_cycle(self, field, value):
        graph = two()
        graph.add("other", population(2, **{field: value}))
        graph.connect("hidden", "other")
        graph.connect("other", "hidden", delay=0.1)
        text = rf"'other' has {field}={value}, expected .* cycle of 'hidden', 'other'"
        with pytest.raises(ValueError, match=text):
            graph.build()

    def test_rejects_delays_to_another_make(self):
        graph = Graph()
        graph.add("input", Source(2))
        graph.add("steps", population(2, kind=LIF))
        graph.connect("input", "steps", delay=np.full((2, 2), 0.1))
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(0))
        with pytest.raises(ValueError, match="'steps' has delays per source or synapse"):
            apply(parameters, inputs_of(1))

    def test_rejects_inputs(self):
        graph = two()
        graph.add("other", Source(2))
        graph.connect("other", "hidden")
        init, apply, _ = graph.build()
        _, parameters = init(jax.random.key(0))
        with pytest.raises(ValueError, match=r"spikes of one source.*'input', 'other'"):
            apply(parameters, inputs_of(1))
        with pytest.raises(ValueError, match="inputs has 'input', expected 'input', 'other'"):
            apply(parameters, {"input": inputs_of(1)})
        with pytest.raises(ValueError, match="inputs has 'input', 'another', expected"):
            apply(parameters, {"input": inputs_of(1), "another": inputs_of(1)})

    def test_rejects_views_of_another_make(self):
        """Also where the probes are an array, of which nobody can say whether it is true."""
        graph = Graph()
        graph.add("input", Source(2))
        graph.add("steps", population(2, kind=LIF))
        graph.connect("input", "steps")
        init, _, record = graph.build()
        _, parameters = init(jax.random.key(0))
        for views in ({"maxima": True}, {"probes": [0.5]}, {"probes": jnp.asarray([0.5, 1.0])}):
            with pytest.raises(ValueError, match="'steps' is no EventPropLIF, as record expects"):
                record(parameters, inputs_of(1), **views)

    def test_rejects_unknown_sizes(self):
        graph = Graph()
        graph.add("input", Source())
        graph.add("hidden", population(2))
        graph.connect("input", "hidden")
        with pytest.raises((ValueError, TypeError), match="source 'input': n_inputs"):
            graph.build().init(jax.random.key(0))

    @pytest.mark.parametrize("name", [None, "mine"])
    def test_a_full_population_is_named(self, name):
        """By its own name, or by that of its node; alone and in a cycle."""
        spikes = inputs_of(2)
        for cycle in (False, True):
            graph = Graph()
            graph.add("input", Source(2))
            graph.add("calm", population(2))
            graph.add("busy", population(2, n_spikes=2, name=name))
            graph.connect("input", "calm")
            graph.connect("input", "busy")
            graph.connect("calm", "busy")
            if cycle:
                graph.connect("busy", "calm", delay=0.3)
            apply = graph.build().apply
            weights = {"input->calm": 1.0, "input->busy": 9.0, "calm->busy": 0.0, "busy->calm": 0.0}
            parameters = {e: {"weights": jnp.full((2, 2), w)} for e, w in weights.items()}
            with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=name or "busy"):
                jax.block_until_ready(apply(parameters, spikes))

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"kind": "dendritic", "scale": 1.0}, "kind is 'dendritic'"),
            ({"kind": "axonal", "scale": 0.0}, "scale is 0"),
            ({"kind": "axonal", "scale": np.inf}, "scale is inf"),
            ({"kind": "axonal", "scale": 1.0, "std": -1.0}, "std is -1"),
        ],
    )
    def test_rejects_delay_kinds(self, options, text):
        with pytest.raises(ValueError, match=f"Delay: {text}"):
            Delay(**options)


class TestStronglyConnected:
    @staticmethod
    def components(nodes, edges):
        return list(strongly_connected(list(nodes), [tuple(e) for e in edges]))

    def test_a_chain(self):
        assert self.components("abc", ["ab", "bc"]) == [["a"], ["b"], ["c"]]

    def test_nodes_in_any_order(self):
        assert self.components("cba", ["ab", "bc"]) == [["a"], ["b"], ["c"]]

    def test_a_self_connection_is_a_single_node(self):
        assert self.components("ab", ["ab", "bb"]) == [["a"], ["b"]]

    def test_cycles(self):
        found = self.components("abcdef", ["ab", "bc", "cb", "cd", "de", "ef", "fd"])
        assert found == [["a"], ["b", "c"], ["d", "e", "f"]]

    def test_two_cycles_with_a_node_in_common(self):
        assert self.components("abc", ["ab", "ba", "bc", "cb"]) == [["a", "b", "c"]]

    def test_a_bridge_between_cycles_points_one_way(self):
        assert self.components("cdab", ["ab", "ba", "bc", "cd", "dc"]) == [["a", "b"], ["c", "d"]]

    @pytest.mark.parametrize("seed", range(20))
    def test_random_graphs(self, seed):
        """Components are the classes of mutual reachability, sources first."""
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 9))
        there = rng.random((n, n)) < rng.uniform(0.05, 0.4)
        names = [f"n{k}" for k in range(n)]
        edges = [(names[a], names[b]) for a, b in zip(*np.nonzero(there), strict=True)]
        reach = np.linalg.matrix_power(there + np.eye(n), n) > 0
        found = list(strongly_connected(names, edges))
        assert sorted(name for members in found for name in members) == sorted(names)
        place = {name: k for k, members in enumerate(found) for name in members}
        for a in range(n):
            for b in range(n):
                mutual = reach[a, b] and reach[b, a]
                assert (place[names[a]] == place[names[b]]) == mutual
                if reach[a, b]:
                    assert place[names[a]] <= place[names[b]]


def inputs_of(seed, n_channels=2, n_spikes=8):
    rng = np.random.default_rng(seed)
    return Spikes(
        jnp.asarray(np.sort(rng.uniform(0.05, 2.0, n_spikes))),
        jnp.asarray(rng.integers(0, n_channels, n_spikes), jnp.int32),
    )


def random_weights(rng, n_sources, n_targets, mean=1.5):
    return rng.normal(mean, 1.0, (n_sources, n_targets))


def oracle_of(sizes, sources, edges, weights, delays, spikes):
    """The same network for the oracle: all sources are one, with their channels counted through."""
    names = list(sizes)
    starts = np.cumsum([0, *sources.values()])[:-1]
    start = dict(zip(sources, starts, strict=True))
    n_in = sum(sources.values())
    merged = [
        (float(t), int(k) + start[name])
        for name, s in spikes.items()
        for t, k in zip(s.time, s.index, strict=True)
    ]
    merged.sort()
    projections = []
    for edge in edges:
        source, target = edge
        weight, delay = np.asarray(weights[edge]), np.asarray(delays[edge])
        if source in sources:
            rows = slice(start[source], start[source] + sources[source])
            whole = np.zeros((n_in, weight.shape[1]))
            whole[rows] = weight
            if delay.ndim:
                whole_delay = np.zeros((n_in, *delay.shape[1:]))
                whole_delay[rows] = delay
                delay = whole_delay
            projections.append(Projection(INPUT, names.index(target), whole, delay))
        else:
            projections.append(Projection(names.index(source), names.index(target), weight, delay))
    own = {name: float(getattr(PARAMS, name)) for name in PARAMS.__dataclass_fields__}
    return Network(
        [Population(n, **own, v0=own["v_leak"]) for n in sizes.values()],
        projections,
        t_max=T_MAX,
        n_in=n_in,
        input_time=np.array([t for t, _ in merged]),
        input_idx=np.array([k for _, k in merged]),
    )


SHAPES = {
    "skip": {
        "sources": {"input": 2},
        "sizes": {"a": 3, "b": 2},
        "edges": {("input", "a"): 0, ("a", "b"): 0, ("input", "b"): 0},
    },
    "skip with delays": {
        "sources": {"input": 2},
        "sizes": {"a": 3, "b": 2},
        "edges": {("input", "a"): 0, ("a", "b"): 1, ("input", "b"): 2},
    },
    "three into one": {
        "sources": {"input": 2},
        "sizes": {"a": 2, "b": 2, "c": 3},
        "edges": {
            ("input", "a"): 0,
            ("a", "b"): 1,
            ("input", "c"): 0,
            ("a", "c"): 1,
            ("b", "c"): 1,
        },
    },
    "two sources": {
        "sources": {"left": 2, "right": 3},
        "sizes": {"a": 2, "b": 3},
        "edges": {("left", "a"): 0, ("right", "a"): 1, ("a", "b"): 2, ("right", "b"): 0},
    },
    "cycle": {
        "sources": {"left": 2, "right": 3},
        "sizes": {"a": 2, "b": 3},
        "edges": {
            ("left", "a"): 1,
            ("right", "b"): 0,
            ("a", "b"): 2,
            ("b", "a"): 1,
            ("b", "b"): 0,
        },
    },
    "cycle in a chain": {
        "sources": {"input": 2},
        "sizes": {"a": 2, "b": 2, "c": 2, "d": 2},
        "edges": {
            ("input", "a"): 0,
            ("a", "b"): 0,
            ("b", "c"): 1,
            ("c", "b"): 2,
            ("c", "d"): 0,
            ("a", "d"): 1,
        },
    },
}


class TestNetworks:
    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("shape", SHAPES)
    def test_oracle(self, shape, seed):
        """Nothing moves a spike of these draws by more than 1000: 1e-9 of rounding."""
        sources, sizes, kinds = (SHAPES[shape][k] for k in ("sources", "sizes", "edges"))
        rng = np.random.default_rng((seed, 9))
        n = sources | sizes
        weights = {e: random_weights(rng, n[e[0]], n[e[1]]) for e in kinds}
        delays = {
            (a, b): rng.uniform(0.02, 0.4, (n[a], n[b])[:rank]) for (a, b), rank in kinds.items()
        }
        spikes = {
            name: inputs_of(k + 5 * seed, size) for k, (name, size) in enumerate(sources.items())
        }
        trajectory = simulate(oracle_of(sizes, sources, kinds, weights, delays, spikes))
        nodes = {name: Source(size) for name, size in sources.items()}
        nodes |= {name: population(size) for name, size in sizes.items()}
        init, apply, record = built(
            nodes, {e: d if np.ndim(d) else float(d) for e, d in delays.items()}
        )
        parameters = {f"{a}->{b}": {"weights": jnp.asarray(w)} for (a, b), w in weights.items()}
        drawn_sizes, drawn = init(jax.random.key(0))
        assert drawn_sizes == n
        assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, parameters)
        inputs = spikes if len(spikes) > 1 else next(iter(spikes.values()))
        found = jax.jit(apply)(parameters, inputs)
        assert list(found) == list(sizes)
        total = 0
        for number, name in enumerate(sizes):
            mine = trajectory.population == number
            count = int(mine.sum())
            total += count
            assert np.sum(found[name].index >= 0) == count
            np.testing.assert_array_equal(found[name].index[:count], trajectory.index[mine])
            np.testing.assert_allclose(
                found[name].time[:count], trajectory.time[mine], rtol=0, atol=1e-9
            )
        assert total > 8
        recorded = record(parameters, inputs, probes=[T_MAX], maxima=True)
        start = 0
        for name, size in sizes.items():
            own = recorded[name]
            assert own.result.count == np.sum(own.output.index >= 0)
            end = trajectory.v[start : start + size]
            np.testing.assert_allclose(own.result.state.v, end, rtol=0, atol=1e-9)
            np.testing.assert_allclose(own.result.probes.v[0], end, rtol=0, atol=1e-9)
            assert own.result.maximum.v.shape == (size,)
            start += size

    def test_serial_is_the_chain_by_hand(self):
        layers = [population(3), population(4), population(2)]
        init, apply = serial(*layers)
        n_outputs, weights = init(jax.random.key(3), 2)
        assert n_outputs == 2
        names = ["in", "x", "y", "z"]
        graph = built(
            dict(zip(names, [Source(2), *layers], strict=True)),
            dict.fromkeys(itertools.pairwise(names), 0.0),
        )
        parameters = {
            f"{a}->{b}": {"weights": 2 * w}
            for a, b, w in zip(names[:-1], names[1:], weights, strict=True)
        }
        spikes = inputs_of(0)
        found = apply([2 * w for w in weights], spikes)
        expected = graph.apply(parameters, spikes)
        same_bits(found, list(expected.values()))
        by_hand = spikes
        for layer, w, one in zip(layers, weights, found, strict=True):
            by_hand = layer.apply(2 * w, by_hand)
            same_bits(one, by_hand)
        assert np.sum(found[-1].index >= 0) > 0

    def test_init_of_ones_own(self):
        graph = Graph()
        graph.add("input", Source())
        graph.add("hidden", population(3))
        graph.connect("input", "hidden", init=lambda _, n, m: jnp.full((n, m), 7.0))
        sizes, parameters = graph.build().init(jax.random.key(0), 4)
        assert sizes == {"input": 4, "hidden": 3}
        np.testing.assert_array_equal(parameters["input->hidden"]["weights"], np.full((4, 3), 7.0))

    def test_projections_draw_different_weights(self):
        _, parameters = built(
            {"input": Source(3), "a": population(3), "b": population(3)},
            {("input", "a"): 0.0, ("a", "b"): 0.0, ("b", "a"): 0.1},
        ).init(jax.random.key(0))
        drawn = [np.asarray(p["weights"]) for p in parameters.values()]
        assert len({float(w[0, 0]) for w in drawn}) == 3

    def test_batches(self):
        """The native batch and vmap are one sample after the other."""
        kinds = SHAPES["cycle in a chain"]["edges"]
        rng = np.random.default_rng(1)
        nodes = {"input": Source(2)} | {name: population(2) for name in "abcd"}
        delays = {e: rng.uniform(0.02, 0.4, (2, 2)[:rank]) for e, rank in kinds.items()}
        _, apply, _ = built(nodes, {e: d if np.ndim(d) else float(d) for e, d in delays.items()})
        parameters = {
            f"{a}->{b}": {"weights": jnp.asarray(random_weights(rng, 2, 2))} for a, b in kinds
        }
        samples = [inputs_of(k) for k in range(3)]
        batch = jax.tree.map(lambda *x: jnp.stack(x), *samples)
        expected = [apply(parameters, s) for s in samples]
        expected = jax.tree.map(lambda *x: jnp.stack(x), *expected)
        same_bits(apply(parameters, batch), expected)
        same_bits(jax.vmap(lambda s: apply(parameters, s))(batch), expected)

    @pytest.mark.parametrize("kind", ["projection", "axonal", "synaptic"])
    def test_trained_delays_are_fixed_delays_of_their_value(self, kind):
        delay = Delay(kind, scale=0.2, mean=0.5, std=1.0, transform=jax.nn.sigmoid)
        nodes = {"input": Source(2), "a": population(3), "b": population(2)}
        edges = [("input", "a"), ("a", "b"), ("b", "a")]
        init, apply, _ = built(nodes, dict.fromkeys(edges, delay))
        _, parameters = init(jax.random.key(1))
        sizes = {"input": 2, "a": 3, "b": 2}
        fixed = {}
        for a, b in edges:
            own = parameters[f"{a}->{b}"]
            own["weights"] = own["weights"] + 1.0
            shape = {"projection": (), "axonal": (sizes[a],), "synaptic": (sizes[a], sizes[b])}
            assert own["delays"].shape == shape[kind] == delay.shape(sizes[a], sizes[b])
            fixed[a, b] = 0.2 / (1 + np.exp(-np.asarray(own["delays"])))
        _, apply_fixed, _ = built(nodes, {e: np.asarray(d) for e, d in fixed.items()})
        weights = {name: {"weights": own["weights"]} for name, own in parameters.items()}
        found, expected = apply(parameters, inputs_of(0)), apply_fixed(weights, inputs_of(0))
        assert np.sum(found["b"].index >= 0) > 1
        for name in "ab":
            np.testing.assert_array_equal(found[name].index, expected[name].index)
            finite = np.isfinite(found[name].time)
            np.testing.assert_allclose(
                found[name].time[finite], expected[name].time[finite], rtol=0, atol=1e-11
            )
        # every number that can move a spike does, none of them by NaN
        gradient = jax.grad(
            lambda p: sum(
                jnp.sum(jnp.where(jnp.isfinite(s.time), s.time, 0))
                for s in apply(p, inputs_of(0)).values()
            )
        )(parameters)
        for edge in edges:
            own = gradient["->".join(edge)]["delays"]
            assert np.all(np.isfinite(own))
            assert np.any(own != 0)

    def test_default_transform_reaches_all_delays(self):
        delay = Delay("projection", scale=2.0)
        assert float(delay(jnp.asarray(0.0))) == pytest.approx(2 * np.log(2), abs=1e-15)
        assert float(delay(jnp.asarray(50.0))) == pytest.approx(100.0, abs=1e-12)
        assert 0 <= delay(jnp.asarray(-50.0)) < 1e-20

    def test_several_recordings(self):
        """A leaky integrator and a layer of another make next to a population."""
        _, _, record = built(
            {
                "input": Source(2),
                "steps": population(2, kind=LIF),
                "out": LeakyIntegrator(2, t_max=T_MAX, tau_mem=1.0, tau_syn=0.5),
            },
            {("input", "steps"): 0.0, ("steps", "out"): 0.1, ("input", "out"): 0.0},
        )
        edges = ("input->steps", "steps->out", "input->out")
        parameters = {e: {"weights": jnp.full((2, 2), 4.0)} for e in edges}
        found = record(parameters, inputs_of(0))
        assert list(found) == ["steps", "out"]
        assert found["steps"].result is None
        assert np.sum(found["steps"].output.index >= 0) > 0
        np.testing.assert_array_equal(found["out"].output.final, found["out"].result.state.v)


class TestLists:
    @staticmethod
    def draw(rng, n_spikes, n_channels, padding):
        time = np.sort(rng.choice(np.linspace(0, 1, 9), n_spikes))
        index = rng.integers(0, n_channels, n_spikes)
        return Spikes(
            jnp.asarray(np.append(time, [np.inf] * padding)),
            jnp.asarray(np.append(index, [-1] * padding), jnp.int32),
        )

    @pytest.mark.parametrize("seed", range(5))
    def test_merge(self, seed):
        """Against Python's stable sort; many spikes are simultaneous."""
        rng = np.random.default_rng(seed)
        sizes = [3, 1, 4]
        lists = [self.draw(rng, k, n, k % 3) for k, n in zip((5, 0, 7), sizes, strict=True)]
        found = merge_spikes(lists, sizes)
        pairs = [
            (float(t), int(k) + start)
            for s, start in zip(lists, (0, 3, 4), strict=True)
            for t, k in zip(s.time, s.index, strict=True)
            if k >= 0
        ]
        pairs.sort(key=lambda pair: pair[0])
        count = len(pairs)
        assert [float(t) for t in found.time[:count]] == [t for t, _ in pairs]
        assert [int(k) for k in found.index[:count]] == [k for _, k in pairs]
        np.testing.assert_array_equal(found.time[count:], np.inf)
        np.testing.assert_array_equal(found.index[count:], -1)
        assert found.index.dtype == np.int32

    def test_merge_broadcasts(self):
        rng = np.random.default_rng(0)
        one = self.draw(rng, 4, 2, 1)
        batch = jax.tree.map(lambda *x: jnp.stack(x), *(self.draw(rng, 3, 2, 1) for _ in range(3)))
        found = merge_spikes([one, batch], [2, 2])
        for k in range(3):
            expected = merge_spikes([one, jax.tree.map(lambda x, k=k: x[k], batch)], [2, 2])
            same_bits(jax.tree.map(lambda x, k=k: x[k], found), expected)

    def test_merge_under_vmap_and_jit(self):
        rng = np.random.default_rng(5)
        one = self.draw(rng, 4, 2, 1)
        batch = jax.tree.map(lambda *x: jnp.stack(x), *(self.draw(rng, 3, 2, 1) for _ in range(3)))
        merge = lambda a, b: merge_spikes([a, b], [2, 2])  # noqa: E731
        found = jax.jit(jax.vmap(merge, (None, 0)))(one, batch)
        same_bits(found, merge(one, batch))

    def test_merge_of_a_window_that_failed(self):
        failed = Spikes(jnp.full(3, jnp.nan), jnp.full(3, -1, jnp.int32))
        good = self.draw(np.random.default_rng(6), 2, 2, 1)
        found = merge_spikes([good, failed], [2, 2])
        np.testing.assert_array_equal(found.time[:2], good.time[:2])
        assert np.isnan(found.time[2:]).all()
        assert (found.index[2:] == -1).all()

    def test_merge_into_less_room(self):
        lists = [Spikes(jnp.arange(3.0) + at, jnp.zeros(3, jnp.int32)) for at in (0.0, 0.5)]
        found = merge_spikes(lists, [1, 1], n_spikes=4, truncate=True)
        np.testing.assert_array_equal(found.time, [0, 0.5, 1, 1.5])
        np.testing.assert_array_equal(found.index, [0, 1, 0, 1])
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"a and b, .* is 4: it fired 6"):
            jax.block_until_ready(merge_spikes(lists, [1, 1], n_spikes=4, label="a and b"))

    def test_merge_moves_gradients_along(self):
        rng = np.random.default_rng(1)
        lists = [self.draw(rng, 4, 2, 1), self.draw(rng, 3, 2, 0)]
        c = jnp.asarray(rng.normal(size=8))

        def value(times):
            own = [Spikes(t, s.index) for t, s in zip(times, lists, strict=True)]
            time = merge_spikes(own, [2, 2]).time
            return jnp.where(jnp.isfinite(time), time, 0) @ c

        found = jax.grad(value)([s.time for s in lists])
        order = np.argsort(np.concatenate([s.time for s in lists]), kind="stable")
        expected = np.zeros(8)
        expected[order] = c
        expected[np.isinf(np.concatenate([s.time for s in lists]))] = 0
        np.testing.assert_array_equal(np.concatenate(found), expected)

    @pytest.mark.parametrize("room", [1, 3, 10])
    def test_take(self, room):
        rng = np.random.default_rng(2)
        batch = jax.tree.map(lambda *x: jnp.stack(x), *(self.draw(rng, 9, 5, 2) for _ in range(3)))
        found = take_spikes(batch, 1, 4, room)
        assert found.time.shape == found.index.shape == (3, room)
        for k in range(3):
            pairs = [
                (float(t), int(i) - 1)
                for t, i in zip(batch.time[k], batch.index[k], strict=True)
                if 1 <= i < 4
            ][:room]
            count = len(pairs)
            assert [float(t) for t in found.time[k, :count]] == [t for t, _ in pairs]
            assert [int(i) for i in found.index[k, :count]] == [i for _, i in pairs]
            np.testing.assert_array_equal(found.time[k, count:], np.inf)
            np.testing.assert_array_equal(found.index[k, count:], -1)

    def test_taken_apart_and_merged(self):
        rng = np.random.default_rng(3)
        spikes = self.draw(rng, 8, 5, 2)._replace(
            time=jnp.append(jnp.arange(8.0), jnp.full(2, jnp.inf))
        )
        parts = [take_spikes(spikes, 0, 2, 5), take_spikes(spikes, 2, 5, 5)]
        found = merge_spikes(parts, [2, 3])
        same_bits(jax.tree.map(lambda x: x[:10], found), spikes)

    def test_take_moves_gradients_along(self):
        rng = np.random.default_rng(4)
        spikes = self.draw(rng, 8, 5, 0)

        def value(time):
            taken = take_spikes(Spikes(time, spikes.index), 1, 4, 8)
            return jnp.sum(jnp.where(jnp.isfinite(taken.time), taken.time, 0))

        found = jax.grad(value)(spikes.time)
        np.testing.assert_array_equal(found, (spikes.index >= 1) & (spikes.index < 4))


class TestRecurrentLayer:
    SIZES = (4, 3)

    def both(self, **options):
        shared = {"t_max": T_MAX, "params": PARAMS}
        layered = serial(*(EventPropLIF(n, n_spikes=ROOM, **shared) for n in self.SIZES))
        merged = RecurrentEventPropLIF(self.SIZES, n_spikes=2 * ROOM, **shared, **options)
        _, weights = merged.init(jax.random.key(2), 2)
        parts = [weights.input[:, :4], weights.recurrent[:4, 4:]]
        return layered, merged, weights, parts

    @staticmethod
    def times(spikes, n=20):
        return jnp.where(jnp.isfinite(spikes.time), spikes.time, 0)[..., :n]

    @staticmethod
    def all_together(weights, spikes, room=2 * ROOM):
        """The whole population event by event, with its recurrent matrix."""
        return event_loop(
            PARAMS,
            weights.input,
            initial_state(PARAMS, 7, weights.input.dtype),
            spikes,
            t_max=T_MAX,
            max_events=room,
            recurrent=weights.recurrent,
        ).spikes

    def losses(self, layered, merged, spikes):
        c = jnp.asarray(np.random.default_rng(0).normal(size=20))

        def loss_of_layers(weights):
            return jnp.sum(jnp.sin(2 * self.times(layered.apply(weights, spikes)[-1])) @ c)

        def loss_of_population(weights):
            out = take_spikes(merged.apply(weights, spikes), 4, 7, ROOM)
            return jnp.sum(jnp.sin(2 * self.times(out)) @ c)

        return loss_of_layers, loss_of_population

    @pytest.fixture
    def spikes(self):
        return jax.tree.map(lambda *x: jnp.stack(x), *(inputs_of(k, n_spikes=14) for k in range(4)))

    def test_where_it_has_weights(self):
        _, merged, weights, _ = self.both()
        assert merged.n_outputs == 7
        there = np.zeros((7, 7), bool)
        there[:4, 4:] = True
        np.testing.assert_array_equal(np.asarray(weights.recurrent) != 0, there)
        np.testing.assert_array_equal(
            np.asarray(weights.input) != 0, [[True] * 4 + [False] * 3] * 2
        )

    def test_equals_layers(self, spikes):
        layered, merged, weights, parts = self.both(mean=[3.0, 2.0], std=[1.0, 0.5])
        found = merged.apply(weights, spikes)
        expected = layered.apply(parts, spikes)
        for (begin, end), one in zip(((0, 4), (4, 7)), expected, strict=True):
            own = take_spikes(found, begin, end, ROOM)
            assert np.sum(own.index >= 0) > 10
            same_bits(own, one)
        loss_of_layers, loss_of_population = self.losses(layered, merged, spikes)
        one = jax.grad(loss_of_layers)(parts)
        other = jax.grad(loss_of_population)(weights)
        assert np.abs(one[0]).max() > 1e-3
        np.testing.assert_array_equal(other.input[:, :4], one[0])
        np.testing.assert_array_equal(other.recurrent[:4, 4:], one[1])
        # what does not exist has no gradient
        assert np.all(other.input[:, 4:] == 0)
        assert np.all(other.recurrent[4:] == 0)
        assert np.all(other.recurrent[:, :4] == 0)

    def test_equals_the_sweep_of_networks(self, spikes):
        """Layers in a row against all of them together, by another sweep: values and gradients."""
        _, merged, weights, _ = self.both(mean=[3.0, 2.0], std=[1.0, 0.5])
        found, expected = merged.apply(weights, spikes), self.all_together(weights, spikes)
        np.testing.assert_array_equal(found.index, expected.index)
        finite = np.isfinite(found.time)
        assert finite.sum() > 4 * 20
        np.testing.assert_allclose(found.time[finite], expected.time[finite], rtol=0, atol=1e-10)
        c = jnp.asarray(np.random.default_rng(0).normal(size=20))
        one, other = (
            jax.grad(lambda w, run=run: jnp.sum(jnp.sin(2 * self.times(run(w, spikes))) @ c))(
                weights
            )
            for run in (merged.apply, self.all_together)
        )
        assert np.abs(one.recurrent).max() > 1e-3
        assert_within(other.input[:, :4], one.input[:, :4], 1e-10)
        assert_within(other.recurrent[:4, 4:], one.recurrent[:4, 4:], 1e-10)

    def test_parameters_of_every_form(self, spikes):
        """One per neuron is cut to the layers, one for all stays, in whichever shape."""
        per_neuron = jnp.linspace(0.9, 1.2, 7)
        values = {
            "numbers": PARAMS,
            "ones": jax.tree.map(lambda x: jnp.asarray([x]), PARAMS),
            "cut": replace(PARAMS, v_th=per_neuron),
        }
        shared = {"t_max": T_MAX, "n_spikes": 2 * ROOM, "mean": [3.0, 2.0]}
        found = {}
        for name, params in values.items():
            init, apply = RecurrentEventPropLIF(self.SIZES, params=params, **shared)
            found[name] = apply(init(jax.random.key(2), 2)[1], spikes)
        same_bits(found["ones"], found["numbers"])
        _, weights = init(jax.random.key(2), 2)
        expected = event_loop(
            values["cut"],
            weights.input,
            initial_state(PARAMS, 7, weights.input.dtype),
            spikes,
            t_max=T_MAX,
            max_events=2 * ROOM,
            recurrent=weights.recurrent,
        ).spikes
        np.testing.assert_array_equal(found["cut"].index, expected.index)
        np.testing.assert_allclose(found["cut"].time, expected.time, rtol=0, atol=1e-10)

    def test_more_spikes_than_room(self, spikes):
        """They raise with their number, or the earliest are kept."""
        _, merged, weights, _ = self.both(mean=[3.0, 2.0], std=[1.0, 0.5])
        n = int(np.sum(merged.apply(weights, spikes).index[0] >= 0))
        shared = {"t_max": T_MAX, "params": PARAMS, "name": "both layers"}
        one = jax.tree.map(lambda x: x[:1], spikes)
        full = RecurrentEventPropLIF(self.SIZES, n_spikes=n - 1, **shared)
        text = f"both layers, sample 0: more spikes .* which is {n - 1}: it fired {n}"
        with pytest.raises(jax.errors.JaxRuntimeError, match=text):
            jax.block_until_ready(full.apply(weights, one))
        for room in (n - 1, 5, 1):
            few = RecurrentEventPropLIF(self.SIZES, n_spikes=room, truncate=True, **shared)
            found, expected = few.apply(weights, one), self.all_together(weights, one, room)
            np.testing.assert_array_equal(found.index, expected.index)
            np.testing.assert_allclose(found.time, expected.time, rtol=0, atol=1e-10)

    def test_trains_alike(self, spikes):
        """30 updates of Adam, bit for bit."""
        layered, merged, weights, parts = self.both(mean=[3.0, 2.0], std=[1.0, 0.5])
        optimizer = optax.adam(1e-3)

        def train(loss, parameters):
            def step(carry, _):
                parameters, state = carry
                gradient = jax.grad(loss)(parameters)
                updates, state = optimizer.update(gradient, state)
                return (optax.apply_updates(parameters, updates), state), None

            carry = parameters, optimizer.init(parameters)
            return jax.jit(lambda c: jax.lax.scan(step, c, None, length=30)[0][0])(carry)

        loss_of_layers, loss_of_population = self.losses(layered, merged, spikes)
        one, other = train(loss_of_layers, parts), train(loss_of_population, weights)
        assert np.abs(one[0] - parts[0]).max() > 5e-3
        np.testing.assert_array_equal(other.input[:, :4], one[0])
        np.testing.assert_array_equal(other.recurrent[:4, 4:], one[1])

    def test_a_single_layer_hears_itself(self):
        net = RecurrentEventPropLIF([3], n_spikes=ROOM, t_max=T_MAX, params=PARAMS, mean=[3.0, 0.5])
        _, weights = net.init(jax.random.key(0), 2)
        assert np.all(weights.recurrent != 0)
        graph = built(
            {"input": Source(2), "a": population(3)}, {("input", "a"): 0.0, ("a", "a"): 0.0}
        )
        parameters = {
            "input->a": {"weights": weights.input},
            "a->a": {"weights": weights.recurrent},
        }
        found, expected = net.apply(weights, inputs_of(0)), graph.apply(parameters, inputs_of(0))
        assert np.sum(found.index >= 0) > 3
        same_bits(found, expected["a"])

    @pytest.mark.parametrize("kind", ["axonal", "synaptic"])
    def test_delays(self, kind):
        """Of the layers and of a graph with the same delays; what does not exist has none."""
        delay = Delay(kind, scale=0.3, std=0.5)
        merged = RecurrentEventPropLIF(
            self.SIZES, n_spikes=2 * ROOM, t_max=T_MAX, params=PARAMS, mean=[3.0, 2.0], delay=delay
        )
        _, drawn = merged.init(jax.random.key(2), 2)
        assert set(drawn) == {"weights", "delays"}
        weights, numbers = drawn["weights"], drawn["delays"]
        blocks = (numbers.input, numbers.recurrent[:4])
        if kind == "synaptic":
            blocks = numbers.input[:, :4], numbers.recurrent[:4, 4:]
        fixed = [0.3 * np.log1p(np.exp(np.asarray(x))) for x in blocks]
        _, apply, _ = built(
            {"input": Source(2), "a": population(4), "b": population(3)},
            {("input", "a"): fixed[0], ("a", "b"): fixed[1]},
        )
        parameters = {
            "input->a": {"weights": weights.input[:, :4]},
            "a->b": {"weights": weights.recurrent[:4, 4:]},
        }
        spikes = inputs_of(0, n_spikes=14)
        expected = apply(parameters, spikes)
        found = merged.apply(drawn, spikes)
        for name, begin, end in (("a", 0, 4), ("b", 4, 7)):
            own = take_spikes(found, begin, end, ROOM)
            np.testing.assert_array_equal(own.index, expected[name].index)
            finite = np.isfinite(own.time)
            assert finite.sum() > 0
            np.testing.assert_allclose(
                own.time[finite], expected[name].time[finite], rtol=0, atol=1e-10
            )

    def test_rejects(self):
        options = {"n_spikes": 4, "t_max": 1.0, "name": "net"}
        with pytest.raises(ValueError, match="net: layers is empty"):
            RecurrentEventPropLIF([], **options)
        with pytest.raises(ValueError, match="net: mean has 3 entries, expected a number or 2"):
            RecurrentEventPropLIF([2, 3], mean=[1.0, 2.0, 3.0], **options)


def test_a_population_keeps_its_parameters():
    """Populations of a cycle differ in every parameter: nothing gets mixed up."""
    rng = np.random.default_rng(3)
    own = {
        "a": replace(PARAMS, tau_mem=1.3, v_th=0.9, t_ref=0.0),
        "b": replace(PARAMS, tau_syn=jnp.asarray([0.3, 0.7, 1.0]), v_reset=-0.4),
    }
    sizes = {"a": 2, "b": 3}
    graph = built(
        {"input": Source(2)} | {k: population(n, params=own[k]) for k, n in sizes.items()},
        {("input", "a"): 0.0, ("a", "b"): 0.1, ("b", "a"): 0.2},
    )
    weights = [rng.normal(2.0, 1.0, s) for s in ((2, 2), (2, 3), (3, 2))]
    spikes = inputs_of(0)
    network = Network(
        [
            Population(n, **{f: np.asarray(getattr(own[k], f)) for f in vars(own[k])}, v0=0.1)
            for k, n in sizes.items()
        ],
        [
            Projection(INPUT, 0, weights[0]),
            Projection(0, 1, weights[1], 0.1),
            Projection(1, 0, weights[2], 0.2),
        ],
        t_max=T_MAX,
        n_in=2,
        input_time=np.asarray(spikes.time),
        input_idx=np.asarray(spikes.index),
    )
    trajectory = simulate(network)
    edges = ("input->a", "a->b", "b->a")
    found = graph.apply(
        {e: {"weights": jnp.asarray(w)} for e, w in zip(edges, weights, strict=True)}, spikes
    )
    for number, name in enumerate(sizes):
        mine = trajectory.population == number
        assert mine.sum() > 2
        np.testing.assert_array_equal(found[name].index[: mine.sum()], trajectory.index[mine])
        np.testing.assert_allclose(found[name].time[: mine.sum()], trajectory.time[mine], atol=1e-9)
