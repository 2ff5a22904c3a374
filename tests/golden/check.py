"""Runs jaxsnn on a file of reference cases and reports the worst errors.

``check.py FILE`` takes files in the form of ``nest_spikes.json`` and of ``gradients.json`` in this
folder. Every case runs as one network on the event queue; one without cycles and delays per
synapse runs layer by layer as well. Spike times are compared in units of tau_mem, gradients entry
by entry, relative to the reference. The exit code is 1 where an error is larger than the tolerance,
or where nothing could be checked at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import LIFParameters, Spikes, initial_state
from jaxsnn.ops import event_loop

# Spike times of NEST are confirmed to 2e-12 tau_mem, gradients in float64 by central differences.
TIME_TOLERANCE = 1e-9
GRADIENT_TOLERANCE = 1e-8

NEURON_PARAMETERS = ("tau_mem", "tau_syn", "v_th", "v_leak", "v_reset", "t_ref")
# Room for spikes that the reference does not have, so that they show up instead of not fitting.
SPARE_SPIKES = 8


@dataclass
class Report:
    """The outcome of one case.

    Attributes:
        name: of the case.
        time_error: the worst spike time, in tau_mem; ``inf`` where the spikes are not the same.
            None where the case was not run.
        gradient_errors: per kind of parameter the worst relative error.
    """

    name: str
    time_error: float | None = None
    gradient_errors: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is off. NaN is."""
        times = self.time_error is None or self.time_error <= TIME_TOLERANCE
        return times and all(e <= GRADIENT_TOLERANCE for e in self.gradient_errors.values())

    def __str__(self) -> str:
        parts = []
        if self.time_error is not None:
            parts.append(f"spike times {self.time_error:.1e} tau_mem")
        parts += [f"{name} {error:.1e}" for name, error in self.gradient_errors.items()]
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {'; '.join(parts)}"


def population_order(case: dict) -> list[int] | None:
    """The populations, every one behind those that it hears; None where the graph has a cycle."""
    graph: dict[int, set[int]] = {population: set() for population in range(len(case["n_pop"]))}
    for projection in case["projections"]:
        if projection["src"] != "input":
            graph[projection["dst"]].add(projection["src"])
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        return None


def has_layers(case: dict) -> bool:
    """Whether a case can run layer by layer, on a merged list of delayed spikes."""
    delays = [np.ndim(projection["delay"]) for projection in case["projections"]]
    return population_order(case) is not None and max(delays, default=0) < 2


def arguments(case: dict) -> dict:
    """What is differentiated, with the names of ``gradients.json``."""
    return {
        "weight": [jnp.asarray(projection["weight"]) for projection in case["projections"]],
        "delay": [jnp.asarray(p["delay"], jnp.float64) for p in case["projections"]],
        "input_time": jnp.asarray(case["input"]["time"], jnp.float64),
        "v0": jnp.asarray(case.get("v0", case["v_leak"]), jnp.float64),
        **{name: jnp.asarray(case[name], jnp.float64) for name in NEURON_PARAMETERS},
    }


def expected_spikes(case: dict) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Times, neurons and dloss/dtime of each population."""
    if "gradient" not in case:
        return [
            (np.array(pop["time"]), np.array(pop["idx"], int), np.zeros(len(pop["time"])))
            for pop in case["spikes"]
        ]
    listed = [
        [s for s in case["spikes"] if s["population"] == p] for p in range(len(case["n_pop"]))
    ]
    return [
        (
            np.array([s["time"] for s in spikes], float),
            np.array([s["idx"] for s in spikes], int),
            np.array([s["dloss_dtime"] for s in spikes], float),
        )
        for spikes in listed
    ]


class Run(NamedTuple):
    """Spikes of each population, and voltages and currents of all neurons at the end."""

    spikes: list[Spikes]
    v: jax.Array
    i: jax.Array


def simulate_network(case: dict, values: dict) -> Run:
    """All populations at once, with a delay for every synapse."""
    sizes = case["n_pop"]
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    n_neurons = int(offsets[-1])
    params = LIFParameters(**{name: values[name] for name in NEURON_PARAMETERS})
    weights = {"input": jnp.zeros((case["n_in"], n_neurons)), "own": jnp.zeros((n_neurons,) * 2)}
    delays = {name: jnp.full(w.shape, jnp.inf) for name, w in weights.items()}
    for number, projection in enumerate(case["projections"]):
        matrix, row = "input", 0
        if projection["src"] != "input":
            matrix, row = "own", int(offsets[projection["src"]])
        weight, delay = values["weight"][number], values["delay"][number]
        block = (
            slice(row, row + weight.shape[0]),
            slice(int(offsets[projection["dst"]]), int(offsets[projection["dst"] + 1])),
        )
        delay = delay[:, None] if delay.ndim == 1 else delay
        weights[matrix] = weights[matrix].at[block].set(weight)
        delays[matrix] = delays[matrix].at[block].set(jnp.broadcast_to(delay, weight.shape))
    state = initial_state(params, n_neurons, jnp.float64)
    result = event_loop(
        params,
        weights["input"],
        state._replace(v=jnp.broadcast_to(values["v0"], (n_neurons,))),
        Spikes(values["input_time"], jnp.asarray(case["input"]["idx"], jnp.int32)),
        t_max=case["t_max"],
        max_events=[len(t) + SPARE_SPIKES for t, _, _ in expected_spikes(case)],
        delays=delays["input"],
        recurrent=weights["own"],
        recurrent_delays=delays["own"],
        populations=sizes,
        label=[f"population {population}" for population in range(len(sizes))],
    )
    time, index = result.spikes
    return Run(
        [
            Spikes(time[places], index[places] - int(offset))
            for offset, size in zip(offsets, sizes, strict=False)
            for places in [np.flatnonzero((index >= offset) & (index < offset + size))]
        ],
        result.state.v,
        result.state.i,
    )


def simulate_layers(case: dict, values: dict) -> Run:
    """One population after the other."""
    params = LIFParameters(**{name: values[name] for name in NEURON_PARAMETERS})
    sources = {"input": Spikes(values["input_time"], jnp.asarray(case["input"]["idx"], jnp.int32))}
    results: list = [None] * len(case["n_pop"])
    order = population_order(case)
    assert order is not None
    for population in order:
        size = case["n_pop"][population]
        weights, spikes = incoming(case, values, population, sources)
        state = initial_state(params, size, jnp.float64)
        state = state._replace(v=jnp.broadcast_to(values["v0"], (size,)))
        results[population] = event_loop(
            params,
            weights,
            state,
            spikes,
            t_max=case["t_max"],
            max_events=len(expected_spikes(case)[population][0]) + SPARE_SPIKES,
            label=f"population {population}",
        )
        sources[population] = results[population].spikes
    return Run(
        [result.spikes for result in results],
        jnp.concatenate([result.state.v for result in results]),
        jnp.concatenate([result.state.i for result in results]),
    )


def incoming(case: dict, values: dict, population: int, sources: dict):
    """All that a population hears as one projection: stacked weights, delayed and merged spikes."""
    weights, times, indices = [jnp.zeros((0, case["n_pop"][population]))], [], []
    for number, projection in enumerate(case["projections"]):
        if projection["dst"] != population:
            continue
        spikes, delay = sources[projection["src"]], values["delay"][number]
        delay = delay if delay.ndim == 0 else delay[spikes.index]
        row = sum(len(w) for w in weights)
        times.append(spikes.time + delay)
        indices.append(jnp.where(spikes.index < 0, -1, spikes.index + row))
        weights.append(values["weight"][number])
    if not times:
        return jnp.zeros((1, case["n_pop"][population])), Spikes(jnp.zeros(0), jnp.zeros(0, int))
    time, index = jnp.concatenate(times), jnp.concatenate(indices).astype(jnp.int32)
    order = jnp.argsort(time)
    return jnp.concatenate(weights), Spikes(time[order], index[order])


def match(times: np.ndarray, indices: np.ndarray, spikes: Spikes) -> np.ndarray | None:
    """Where the result has each expected spike: the k-th of a neuron is the k-th of that neuron.

    Spikes of different neurons at one time may thus come in any order. None if counts differ.
    """
    found = np.asarray(spikes.index)[np.isfinite(spikes.time)]
    places = np.full(len(times), -1)
    if sorted(found) != sorted(indices):
        return None
    for neuron in np.unique(found):
        mine = np.flatnonzero(indices == neuron)
        places[mine[np.argsort(times[mine], kind="stable")]] = np.flatnonzero(found == neuron)
    return places


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The worst entry; entries that should be zero count on the scale of the largest one."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        return np.inf
    if not found.size:
        return 0.0
    scale = np.where(expected != 0, np.abs(expected), np.abs(expected).max() or 1.0)
    return float(np.max(np.abs(found - expected) / scale))


def check_case(case: dict) -> list[Report]:
    """Runs one case in every way that it can run in. Needs float64."""
    reports = [check_run(case, simulate_network, "network")]
    if has_layers(case):
        reports.append(check_run(case, simulate_layers, "layers"))
    return reports


def check_run(case: dict, simulate: Callable[[dict, dict], Run], way: str) -> Report:
    """Runs one case in one way."""
    report = Report(f"{case['name']} ({way})")
    values = arguments(case)
    run = simulate(case, values)
    expected = expected_spikes(case)
    places = [match(t, i, spikes) for (t, i, _), spikes in zip(expected, run.spikes, strict=True)]
    if any(p is None for p in places):
        report.time_error = np.inf
        return report
    report.time_error = max(
        float(np.abs(np.asarray(spikes.time)[p] - t).max(initial=0)) / case["tau_mem"]
        for (t, _, _), p, spikes in zip(expected, places, run.spikes, strict=True)
    )
    if "gradient" in case:
        check_gradient(case, simulate, values, places, report)
    return report


def check_gradient(case: dict, simulate: Callable, values: dict, places, report: Report) -> None:
    """Compares the gradient of the loss of a case, and the loss."""

    def loss(values):
        run = simulate(case, values)
        total = run.v @ jnp.asarray(case["dloss_dv_end"])
        total += run.i @ jnp.asarray(case["dloss_di_end"])
        for (_, _, dloss_dtime), place, spikes in zip(
            expected_spikes(case), places, run.spikes, strict=True
        ):
            total += spikes.time[place] @ jnp.asarray(dloss_dtime)
        return total

    value, gradient = jax.value_and_grad(loss)(values)
    report.gradient_errors["loss"] = relative_error(value, case["loss"])
    for name, reference in case["gradient"].items():
        found = gradient[name]
        if name in ("weight", "delay"):
            pairs = list(zip(found, reference, strict=True))
        else:
            pairs = [(found, reference)]
        report.gradient_errors[name] = max(relative_error(f, r) for f, r in pairs)


def check_file(path: str | Path) -> list[Report]:
    """Runs all cases of a file."""
    cases = json.loads(Path(path).read_text())["cases"]
    return [report for case in cases for report in check_case(case)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    with jax.enable_x64(True):
        reports = check_file(parser.parse_args(arguments).file)
    for report in reports:
        print(report)
    checked = [report for report in reports if report.time_error is not None]
    worst_time = max((report.time_error for report in checked), default=np.nan)
    errors = [error for report in checked for error in report.gradient_errors.values()]
    print(f"worst: spike times {worst_time:.1e} tau_mem (tolerance {TIME_TOLERANCE:.0e})", end="")
    if errors:
        print(f", gradients {max(errors):.1e} (tolerance {GRADIENT_TOLERANCE:.0e})", end="")
    print(f"; {len(checked)} of {len(reports)} runs checked")
    return 0 if checked and all(report.ok for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
