"""The numbers of a network as one flat vector, and back.

``wrt`` names the wanted parameters, in the order in which they are laid out: ``weight`` and
``delay`` (of every projection), ``input_time``, and the neuron parameters (of every population).
Each parameter has as many entries as the network gives it: a scalar that many neurons or synapses
share is a single entry, and its derivative is the sum over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from oracle.network import NEURON_PARAMETERS, Network

ALL_PARAMETERS = ("weight", "delay", "input_time", *NEURON_PARAMETERS)


def parameter_arrays(network: Network, name: str) -> list[np.ndarray]:
    """One parameter: an array per projection or per population, or all input times in one array."""
    if name == "input_time":
        return [network.input_time]
    if name in ("weight", "delay"):
        return [getattr(projection, name) for projection in network.projections]
    if name in NEURON_PARAMETERS:
        return [getattr(population, name) for population in network.populations]
    raise ValueError(f"unknown parameter {name!r}, expected one of {ALL_PARAMETERS}")


def parameter_vector(network: Network, wrt: Sequence[str] = ALL_PARAMETERS) -> np.ndarray:
    """The values of all entries of ``wrt``."""
    arrays = [array.ravel() for name in wrt for array in parameter_arrays(network, name)]
    return np.concatenate([np.zeros(0), *arrays])


def split_vector(
    network: Network, wrt: Sequence[str], vector: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Cuts a vector with one number per entry into arrays that are shaped like the parameters."""
    result: dict[str, list[np.ndarray]] = {}
    start = 0
    for name in wrt:
        result[name] = []
        for array in parameter_arrays(network, name):
            result[name].append(vector[start : start + array.size].reshape(array.shape))
            start += array.size
    if start != len(vector):
        raise ValueError(f"the vector has {len(vector)} entries, the network {start}")
    return result


def with_parameter_vector(network: Network, wrt: Sequence[str], vector: np.ndarray) -> Network:
    """A copy of the network with the entries of ``wrt`` replaced by ``vector``."""
    arrays = split_vector(network, wrt, vector)
    of_projections = [name for name in wrt if name in ("weight", "delay")]
    of_populations = [name for name in wrt if name in NEURON_PARAMETERS]
    return replace(
        network,
        projections=[
            replace(projection, **{name: arrays[name][number] for name in of_projections})
            for number, projection in enumerate(network.projections)
        ],
        populations=[
            replace(population, **{name: arrays[name][number] for name in of_populations})
            for number, population in enumerate(network.populations)
        ],
        input_time=arrays["input_time"][0] if "input_time" in wrt else network.input_time,
    )
