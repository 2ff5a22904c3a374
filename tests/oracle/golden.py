"""The reference files as networks.

``nest_spikes.json`` holds spike trains of NEST, ``gradients.json`` holds gradients; their cases
describe networks in the same way. Both have one set of neuron parameters for all populations.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from oracle.network import Network, Population, Projection

SHARED_PARAMETERS = ("tau_mem", "tau_syn", "v_th", "v_leak", "v_reset", "t_ref")

FOLDER = Path(__file__).resolve().parent.parent / "golden"


def load_cases(name: str) -> list[dict]:
    """All cases of the file ``name`` in ``tests/golden``, as they are written there."""
    return json.loads((FOLDER / name).read_text())["cases"]


def network_of(case: dict) -> Network:
    """The network of a case. Neurons start at ``v0`` if there is one, at ``v_leak`` if not."""
    shared = {name: case[name] for name in SHARED_PARAMETERS}
    shared["v0"] = case.get("v0", case["v_leak"])
    return Network(
        populations=[Population(size, **shared) for size in case["n_pop"]],
        projections=[
            Projection(p["src"], p["dst"], p["weight"], p["delay"]) for p in case["projections"]
        ],
        t_max=case["t_max"],
        n_in=case["n_in"],
        input_time=case["input"]["time"],
        input_idx=case["input"]["idx"],
    )


def spikes_per_population(case: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Spike times and indices of each population of a case of ``nest_spikes.json``."""
    return [(np.array(pop["time"]), np.array(pop["idx"])) for pop in case["spikes"]]


def listed_spikes(case: dict) -> dict[str, np.ndarray]:
    """The columns ``time``, ``population``, ``idx``, ``dloss_dtime`` of ``gradients.json``."""
    return {name: np.array([spike[name] for spike in case["spikes"]]) for name in case["spikes"][0]}


def expected_gradient(case: dict) -> dict[str, list[np.ndarray]]:
    """The gradient of a case by parameter, always as a list of arrays.

    There is one array per projection for ``weight`` and ``delay``. A neuron parameter is shared by
    all populations, its only entry is the sum of their gradients.
    """
    return {
        name: [np.array(entry) for entry in value]
        if name in ("weight", "delay")
        else [np.array(value)]
        for name, value in case["gradient"].items()
    }
