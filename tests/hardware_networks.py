"""Networks and runs that tests of emulated chips share."""

import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event import EventPropLIF, Graph, Source
from jaxsnn.event.hardware import EmulatedBackend, EmulatorConfig, NetworkSpec, RunRequest

PARAMS = LIFParameters(tau_mem=12e-6, tau_syn=6e-6, t_ref=2e-6)
RUNTIME = 50e-6


def graph(*, hidden=20, n_inputs=10, n_spikes=400, params=PARAMS, recurrent=False):
    network = Graph()
    network.add("input", Source(n_inputs))
    for name, size in (("hidden", hidden), ("output", 3)):
        network.add(name, EventPropLIF(size, n_spikes=n_spikes, t_max=RUNTIME, params=params))
    network.connect("input", "hidden")
    network.connect("hidden", "output")
    if recurrent:
        network.connect("hidden", "hidden")
    return network


def weights(*, hidden=20, n_inputs=10, recurrent=False, seed=0, strength=1.2):
    rng = np.random.default_rng(seed)
    found = {
        "input->hidden": rng.normal(strength, 0.6, (n_inputs, hidden)),
        "hidden->output": rng.normal(0.3, 0.3, (hidden, 3)),
    }
    if recurrent:
        found["hidden->hidden"] = rng.normal(0, 0.1, (hidden, hidden))
    return found


def inputs(n_samples=4, n_inputs=10, seed=1):
    rng = np.random.default_rng(seed)
    time = np.sort(np.rint(rng.uniform(0, 20e-6, (n_samples, n_inputs)) * 125e6) / 125e6, -1)
    index = np.argsort(rng.random((n_samples, n_inputs)), -1).astype(np.int32)
    return {"input": Spikes(time, index)}


def run(
    config=None,
    *,
    chip=0,
    seed=0,
    spikes=None,
    network=None,
    values=None,
    calibration=None,
    runtime=RUNTIME,
    **asked,
):
    backend = EmulatedBackend(chip, EmulatorConfig.ideal() if config is None else config)
    spec = NetworkSpec.from_graph(graph() if network is None else network)
    compiled = backend.compile(spec, calibration or backend.calibration())
    request = RunRequest(
        inputs=inputs() if spikes is None else spikes,
        weights=weights() if values is None else values,
        runtime=runtime,
        seed=seed,
        **asked,
    )
    return backend.run(compiled, request)


def single(
    config,
    *,
    weight,
    v_th=1.0,
    sample_times=(0.0,),
    n_spikes=10,
    chip=0,
    size=1,
    seed=0,
    runtime=RUNTIME,
    **asked,
):
    """One input to ``size`` neurons that do not hear each other."""
    network = Graph()
    params = LIFParameters(tau_mem=12e-6, tau_syn=6e-6, v_th=v_th, t_ref=30e-6)
    network.add("input", Source(1))
    network.add("hidden", EventPropLIF(size, n_spikes=n_spikes, t_max=runtime, params=params))
    network.connect("input", "hidden")
    time = np.asarray(sample_times, np.float64)[:, None]
    spikes = {"input": Spikes(time, np.zeros(time.shape, np.int32))}
    values = {"input->hidden": np.full((1, size), float(weight))}
    return run(
        config,
        network=network,
        values=values,
        spikes=spikes,
        chip=chip,
        seed=seed,
        runtime=runtime,
        **asked,
    )
