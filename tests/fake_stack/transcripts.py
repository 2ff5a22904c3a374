"""The golden transcripts: what the bridge calls, in which order and with what.

``python -m fake_stack.transcripts``, in this folder's parent, writes them anew; what changed in
them is then to be held against the vendor's interface.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from fake_stack.chip import FakeChip
from fake_stack.common import PORTABLE
from fake_stack.install import install
from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event import EventPropLIF, Graph, Source
from jaxsnn.event.hardware import (
    Calibration,
    GrenadeBackend,
    NetworkSpec,
    OperatingPoint,
    RunRequest,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
VERSIONS = ("2024-08", "2026-03", "2026-06", "G3")
TRACES = {"spikes": {}, "madc": {"hidden": 7}}
POINT = OperatingPoint(tau_mem=12e-6, refractory_time=30e-6)
PARAMS = LIFParameters(tau_mem=12e-6, tau_syn=6e-6, t_ref=30e-6)
RUNTIME = 50e-6


def graph(*, hidden=100, n_inputs=25, room=(100, 3)):
    network = Graph()
    network.add("input", Source(n_inputs))
    for name, size, n_spikes in (("hidden", hidden, room[0]), ("output", 3, room[1])):
        network.add(name, EventPropLIF(size, n_spikes=n_spikes, t_max=24e-6, params=PARAMS))
    network.connect("input", "hidden")
    network.connect("hidden", "output")
    return network


def request(*, n_samples=4, seed=0, dtype=np.float32, hidden=100, n_inputs=25, **options):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 12e-6, (n_samples, n_inputs)).astype(dtype), -1)
    index = np.argsort(rng.random((n_samples, n_inputs)), -1).astype(np.int32)
    time[0, -1], index[1, -1] = np.inf, -1  # no spikes
    weights = {
        "input->hidden": rng.normal(0.6, 0.32, (n_inputs, hidden)).astype(dtype),
        "hidden->output": rng.normal(0.5, 0.8, (hidden, 3)).astype(dtype),
    }
    options = {"runtime": RUNTIME} | options
    return RunRequest(inputs={"input": Spikes(time, index)}, weights=weights, **options)


def calibration(folder, **changes):
    """As if it had been made with the stand-in."""
    path = Path(folder) / "chip.pbin"
    path.write_bytes(PORTABLE)
    values = {
        "weight_scale": 56.0,
        "time_offset_cycles": 50,
        "operating_point": POINT,
        "chip": FakeChip().identifier,
        "name": "stand-in",
        "payload": path,
    }
    return Calibration(**(values | changes))


def transcript(monkeypatch, version, traces, folder):
    """What two runs of 25-100-3 neurons call."""
    recorded = install(monkeypatch, version, FakeChip())
    with GrenadeBackend() as backend:
        compiled = backend.compile(NetworkSpec.from_graph(graph()), calibration(folder))
        for seed in range(2):
            backend.run(compiled, request(seed=seed, traces=traces))
    return json.loads(json.dumps(recorded.collapsed()).replace(str(folder), "FOLDER"))


def main():
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    for version in VERSIONS:
        for kind, traces in TRACES.items():
            with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
                calls = transcript(patch, version, traces, folder)
            lines = ",\n".join(" " + json.dumps(call) for call in calls)
            (GOLDEN / f"{version}-{kind}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
