"""The state of health of a network from epoch to epoch: the option ``--health``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from jaxsnn.base.types import Spikes
from jaxsnn.event.activity import Activity, activity, changed_spikes
from jaxsnn.event.tasks._network import Parameters, TaskNetwork
from jaxsnn.event.training import Examples


class Health:
    """Looks at the spiking layers while they see the same samples again and again.

    Args:
        network: what to look at.
        samples: the name of the samples.
        examples: the samples.
    """

    def __init__(self, network: TaskNetwork, samples: str, examples: Examples) -> None:
        self._samples = samples
        self._examples = examples
        self._before: dict[str, Spikes] = {}
        record = network.record
        assert record is not None  # else the program has no such option

        def look(parameters: Parameters, spikes: Spikes, before: dict[str, Spikes]):
            found = {}
            # Readouts come behind the layers that spike.
            recorded = zip(network.spiking, record(parameters, spikes), strict=False)
            for name, (output, params, result) in recorded:
                assert params is not None
                assert result is not None
                n_neurons = result.state.v.shape[-1]
                changes = name in before and changed_spikes(before[name], output, n_neurons)
                found[name] = activity(params, result), changes or None, output
            return found

        self._look = jax.jit(look)

    def after(self, parameters: Parameters) -> dict[str, Any]:
        """What there is to say of these parameters, and of the change since the last ones."""
        found = self._look(parameters, self._examples.spikes, self._before)
        self._before = {name: output for name, (_, _, output) in found.items()}
        layers = {name: _plain(state, changes) for name, (state, changes, _) in found.items()}
        return {"samples": self._samples, "layers": layers}


def _plain(state: Activity, changes: Any) -> dict[str, Any]:
    """For JSON; a slope is None where there was no spike, and so are the first changes."""
    slope = float(state.smallest_slope)
    dropped, created = (None, None) if changes is None else map(int, changes)
    return {
        "smallest_slope": slope if math.isfinite(slope) else None,
        "grazing": int(state.grazing),
        "silent": float(state.silent),
        "dropped": dropped,
        "created": created,
    }


def describe(health: Mapping[str, Any]) -> str:
    """One line for a reader."""
    parts = []
    for name, layer in health["layers"].items():
        slope = layer["smallest_slope"]
        steep = "no spikes" if slope is None else f"slopes >= {slope:.2g} v_th/tau_mem"
        change = "" if layer["dropped"] is None else f", -{layer['dropped']} +{layer['created']}"
        parts.append(
            f"{name}: {steep}, {layer['grazing']} grazing, {layer['silent']:.1%} silent{change}"
        )
    return "; ".join(parts)
