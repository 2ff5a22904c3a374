"""One description on two engines: graphs of `jaxsnn.event` in time steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters, Spikes
from jaxsnn.discrete import LIF, RecurrentLIF, discretise, spikes_from_steps, steps_from_spikes
from jaxsnn.discrete.convergence import STEPS, measure
from jaxsnn.event import (
    LIF as AnalyticalLIF,  # noqa: N811
)
from jaxsnn.event import (
    Delay,
    EventPropLIF,
    Graph,
    LeakyIntegrator,
    RecurrentEventPropLIF,
    Source,
)

T_MAX, DT = 30e-3, 1e-4
pytestmark = pytest.mark.usefixtures("x64")


def layer(n, **options):
    options = {"n_spikes": 1000, "t_max": T_MAX, "mean": 0.8, "std": 0.8} | options
    return EventPropLIF(n, **options)


def graph_of(nodes, edges):
    graph = Graph()
    graph.add("input", Source(12))
    for name, node in nodes.items():
        graph.add(name, node)
    for edge, options in edges.items():
        graph.connect(*edge.split("->"), **options)
    return graph


def samples(seed=0, n_spikes=24):
    """Input on the grid of both engines."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(1, 200, (6, n_spikes)) * DT, -1)
    index = rng.integers(0, 12, (6, n_spikes))
    return Spikes(jnp.asarray(time), jnp.asarray(index, jnp.int32))


def float64(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64), tree)


def compare(graph, name, *, late, fired):
    """First spikes of both engines, with the same weights: how late those in steps are."""
    network = graph.build()
    parameters = float64(network.init(jax.random.key(0))[1])
    spikes = samples()
    exact = network.apply(parameters, spikes)[name]
    steps = discretise(graph, dt=DT).apply(parameters, spikes)[name]
    found = spikes_from_steps(steps, n_spikes=1000, dt=DT)
    n = steps.shape[-1]
    differences = []
    for b in range(6):
        for neuron in range(n):
            a = np.asarray(exact.time[b])[np.asarray(exact.index[b]) == neuron]
            c = np.asarray(found.time[b])[np.asarray(found.index[b]) == neuron]
            if len(a) and len(c):
                differences.append((c[0] - a[0]) / DT)
    assert len(differences) >= fired
    # Exact within a step: the first spike is seen at the end of the step in which it happens.
    low, high = late
    assert low <= np.min(differences), np.min(differences)
    assert np.mean(np.asarray(differences) <= high) > 0.9


def test_layer():
    graph = graph_of({"hidden": layer(20)}, {"input->hidden": {}})
    compare(graph, "hidden", late=(-1e-6, 1 + 1e-6), fired=60)


@pytest.mark.parametrize(
    "delay",
    [
        1e-3,
        np.round(np.linspace(0, 3e-3, 12) / DT) * DT,
        np.round(np.linspace(0, 3e-3, 240).reshape(12, 20) / DT) * DT,
    ],
    ids=["one", "per source", "per synapse"],
)
def test_fixed_delays(delay):
    graph = graph_of({"hidden": layer(20)}, {"input->hidden": {"delay": delay}})
    compare(graph, "hidden", late=(-1e-6, 1 + 1e-6), fired=60)


def test_refractory_period_and_parameters_per_neuron():
    params = LIFParameters(
        tau_mem=jnp.linspace(10e-3, 20e-3, 20), v_leak=0.1, v_reset=-0.2, t_ref=2e-3
    )
    graph = graph_of({"hidden": layer(20, params=params)}, {"input->hidden": {}})
    compare(graph, "hidden", late=(-1e-6, 1 + 1e-6), fired=60)
    parameters = float64(graph.build().init(jax.random.key(0))[1])
    steps = discretise(graph, dt=DT).apply(parameters, samples())["hidden"]
    gaps = [np.diff(np.nonzero(np.asarray(steps[b, :, n]))[0]) for b in range(6) for n in range(20)]
    assert min(map(np.min, filter(len, gaps))) > 20


@pytest.mark.parametrize("delay", [0.0, 1e-3])
def test_cycles(delay):
    """Two populations that hear each other, and one of them itself."""
    inhibit = {"init": lambda key, n, m: -0.3 + 0.2 * jax.random.normal(key, (n, m))}
    graph = graph_of(
        {"a": layer(12), "b": layer(8)},
        {
            "input->a": {},
            "a->b": {"delay": delay},
            "b->a": {"delay": delay + 5e-4, **inhibit},
            "a->a": {"delay": delay, **inhibit},
        },
    )
    for name in ("a", "b"):
        # An immediate spike reaches others a step later, and its effects add up.
        compare(graph, name, late=(-30, 5 if delay else 10), fired=20)


def test_sum_over_synapses_is_that_of_the_oracle():
    """Cycles with delays, step by step in NumPy."""
    rng = np.random.default_rng(1)
    delays = {"input->a": rng.integers(0, 4, 12), "a->a": rng.integers(0, 5, (9, 9))}
    graph = graph_of(
        {"a": layer(9, mean=1.0)},
        {edge: {"delay": steps * DT} for edge, steps in delays.items()},
    )
    parameters = float64(graph.build().init(jax.random.key(1))[1])
    inputs = (rng.random((301, 12)) < 0.01) * 1.0
    found = discretise(graph, dt=DT, method="euler").apply(parameters, jnp.asarray(inputs))["a"]
    feed, own = (np.asarray(parameters[edge]["weights"]) for edge in delays)
    v, i, spikes = np.zeros(9), np.zeros(9), np.zeros((301, 9))
    for k in range(301):
        v = v + DT / 20e-3 * (i - v)
        i = i * (1 - DT / 5e-3)
        spikes[k] = v > 1
        v = np.where(v > 1, 0, v)
        for source, delay in enumerate(delays["input->a"]):
            if k >= delay:
                i = i + inputs[k - delay, source] * feed[source]
        for source, target in np.ndindex(9, 9):
            delay = max(1, delays["a->a"][source, target])
            if k >= delay:
                i[target] += spikes[k - delay, source] * own[source, target]
    assert spikes.sum() > 20
    np.testing.assert_array_equal(found, spikes)


def test_readout_and_skip_connection():
    """Voltages at the steps are those of the exact engine wherever the input is the same."""
    readout = LeakyIntegrator(3, t_max=T_MAX, times=tuple(np.minimum(np.arange(301) * DT, T_MAX)))
    graph = graph_of({"readout": readout}, {"input->readout": {"delay": 1e-3}})
    network = graph.build()
    parameters = float64(network.init(jax.random.key(0))[1])
    exact = network.apply(parameters, samples())["readout"].probes.v
    found = discretise(graph, dt=DT).apply(parameters, samples())["readout"]
    np.testing.assert_allclose(found, exact, atol=1e-12)
    skip = graph_of(
        {"hidden": layer(20), "readout": LeakyIntegrator(3, t_max=T_MAX)},
        {"input->hidden": {}, "hidden->readout": {}, "input->readout": {}},
    )
    parameters = float64(skip.build().init(jax.random.key(0))[1])
    outputs = discretise(skip, dt=DT).apply(parameters, samples())
    assert list(outputs) == ["hidden", "readout"]
    assert outputs["readout"].shape == (6, 301, 3)


def test_weights_of_layers_fit_both_engines():
    """Those of a discrete layer run in the event layer of the same kind."""
    params = LIFParameters(tau_mem=10e-3, v_th=0.8)
    steps = LIF(20, dt=DT, params=params, method="exponential", mean=0.8, std=0.8, train=("v_th",))
    exact = EventPropLIF(20, n_spikes=1000, t_max=T_MAX, params=params, train=("v_th",))
    _, weights = steps.init(jax.random.key(0), 12)
    assert jax.tree.structure(weights) == jax.tree.structure(exact.init(jax.random.key(0), 12)[1])
    weights = float64(weights)
    dense = steps_from_spikes(samples(), 12, n_steps=301, dt=DT)
    counts = [
        float(steps.apply(weights, dense).sum()),
        float(jnp.sum(exact.apply(weights, samples()).index >= 0)),
    ]
    assert counts[1] > 100
    assert abs(counts[0] - counts[1]) <= 0.05 * counts[1]
    recurrent = RecurrentLIF(20, dt=DT).init(jax.random.key(0), 12)[1]
    both = RecurrentEventPropLIF((20,), n_spikes=1000, t_max=T_MAX)
    assert jax.tree.structure(recurrent) == jax.tree.structure(both.init(jax.random.key(0), 12)[1])


def test_trained_delays():
    """Rounded; refused where they are traced."""
    delay = Delay("synaptic", scale=2e-3)
    graph = graph_of({"hidden": layer(20)}, {"input->hidden": {"delay": delay}})
    parameters = float64(graph.build().init(jax.random.key(0))[1])
    network = discretise(graph, dt=DT)
    values = np.asarray(delay(parameters["input->hidden"]["delays"]))
    fixed = graph_of({"hidden": layer(20)}, {"input->hidden": {"delay": values}})
    expected = discretise(fixed, dt=DT).apply(parameters, samples())["hidden"]
    np.testing.assert_array_equal(network.apply(parameters, samples())["hidden"], expected)
    with pytest.raises(ValueError, match="delays are traced"):
        jax.jit(network.apply)(parameters, samples())


def test_convergence():
    """Slope 1 over two decades; the exponential step stays below Euler's."""
    found = measure(0)
    for name in ("first", "spikes"):
        times = {
            method: np.asarray([getattr(e, name) for e in errors])
            for method, errors in found.items()
        }
        for errors in times.values():
            slope = np.polyfit(np.log(STEPS), np.log(errors), 1)[0]
            assert abs(slope - 1) < 0.05, (name, slope)
        assert np.all(times["exponential"] < 0.75 * times["euler"]), name
    for errors in found.values():
        assert errors[-1].same > 0.98
        assert errors[-1].loss < 0.02
        assert errors[-1].output_gradient < 0.02
        assert errors[-1].hidden_gradient < 0.5  # a surrogate, whatever the step


def analytical():
    return AnalyticalLIF(20, n_spikes=30, t_max=T_MAX)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            lambda: discretise(graph_of({"a": analytical()}, {"input->a": {}}), dt=DT),
            "population 'a' is of another make, expected EventPropLIF or LeakyIntegrator",
        ),
        (
            lambda: discretise(
                graph_of({"a": layer(3), "b": layer(3, t_max=1e-2)}, {"input->a": {}, "a->b": {}}),
                dt=DT,
            ),
            r"populations have t_max=\{'a': 0.03, 'b': 0.01\}, expected the same",
        ),
        (
            lambda: discretise(graph_of({"a": layer(3)}, {"input->a": {}}), dt=0.0),
            "'a': dt is 0.0, expected a finite time > 0",
        ),
        (
            lambda: discretise(graph_of({"a": layer(3)}, {"input->a": {}}), dt=DT).apply(
                {}, samples()
            ),
            "parameters has no entry 'input->a'",
        ),
        (
            lambda: discretise(graph_of({"a": layer(3)}, {"input->a": {}}), dt=DT).apply(
                {"input->a": {"weights": jnp.ones((12, 3))}}, jnp.ones((5, 12))
            ),
            r"inputs of 'input' has shape \(5, 12\), expected \(..., n_steps=301, 12\)",
        ),
        (
            lambda: discretise(graph_of({"a": layer(3)}, {"input->a": {}}), dt=DT).apply(
                {}, {"other": samples()}
            ),
            "inputs has 'other', expected 'input'",
        ),
    ],
)
def test_bad_graphs_are_rejected(run, said):
    with pytest.raises(ValueError, match=said):
        run()
