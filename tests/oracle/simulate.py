"""Spikes and final state of a network, one event after the other.

Between two events every neuron follows its closed solution, and all neurons are advanced together.
The next event is the next arrival, the next end of a refractory time, or the first crossing before
these. Crossings are found by cutting the interval at the extremum of the voltage (there is at most
one, since V' is a sum of two exponentials) and bracketing the root in a monotone piece.

Events at equal times: arrivals and releases come before crossings, simultaneous crossings are
ordered by population, then by index. A free neuron whose voltage is at or above its threshold
spikes at once. Arrivals and crossings at exactly ``t_max`` still happen.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from oracle.kernel import kernel
from oracle.network import INPUT, NEURON_PARAMETERS, Network, Population, Projection

__all__ = [
    "Arrival",
    "Network",
    "Population",
    "Projection",
    "Release",
    "Spike",
    "SpikeLimitError",
    "Trajectory",
    "simulate",
]

# Intervals are cut at this multiple of the longest time constant: later, exponentials underflow to
# zero and slopes lose their sign.
_LONGEST_INTERVAL = 50.0


class SpikeLimitError(RuntimeError):
    """More spikes than the caller expected."""


class Arrival(NamedTuple):
    """A spike reaches some of its targets (those with the same delay).

    ``emitter`` is the number of the input spike, or that of the neuron's spike in the trajectory.
    ``targets`` are neurons, counted through all populations.
    """

    time: float
    projection: int
    source: int  # row of the weight matrix
    emitter: int
    targets: tuple[int, ...]


class Release(NamedTuple):
    """The end of a refractory time. ``neuron`` counts through all populations."""

    time: float
    neuron: int


class Spike(NamedTuple):
    """A spike. ``at_start``: the neuron was above threshold at time 0, nothing moves this spike."""

    time: float
    neuron: int
    at_start: bool


@dataclass
class Trajectory:
    """What happened.

    Attributes:
        time: Spike times, ascending, of all populations.
        population: The population of each spike.
        index: The neuron of each spike within its population.
        v: The voltage of every neuron at ``t_max``, the populations in order.
        i: The current of every neuron at ``t_max``.
        free_at: The end of the last refractory time of every neuron, ``-inf`` if it never had one.
            The neuron is refractory at the end of the run where this is later than ``t_max``.
        events: All arrivals, releases and spikes in the order in which they took effect.
    """

    time: np.ndarray
    population: np.ndarray
    index: np.ndarray
    v: np.ndarray
    i: np.ndarray
    free_at: np.ndarray
    events: list[Arrival | Release | Spike]

    @property
    def order(self) -> tuple:
        """What happens in which order, without the times.

        Equal for two runs: the spikes come from the same neurons in the same order, and every
        neuron sees the same arrivals before each of its own spikes and releases. Then, as a rule,
        the second run is a smooth deformation of the first one. (Arrivals in a row add up, their
        order has no effect, and neither has the order of events at different neurons.)
        """
        seen: list[list] = [[] for _ in self.v]
        for event in self.events:
            if isinstance(event, Arrival):
                for target in event.targets:
                    seen[target].append((event.projection, event.source))
            else:
                seen[event.neuron].append(type(event).__name__)
        spikes = tuple(zip(self.population.tolist(), self.index.tolist(), strict=True))
        return spikes, tuple(_sort_arrivals_in_a_row(labels) for labels in seen)


def _sort_arrivals_in_a_row(labels: list) -> tuple:
    """Arrivals are labelled by tuples, other events by strings."""
    runs = itertools.groupby(labels, key=lambda label: isinstance(label, tuple))
    return tuple(tuple(sorted(run)) if arrivals else tuple(run) for arrivals, run in runs)


def simulate(network: Network, max_spikes: int = 100_000) -> Trajectory:
    """Runs ``network`` from 0 to ``t_max``.

    Raises:
        SpikeLimitError: There are more than ``max_spikes`` spikes.
    """
    run = _Run(network, max_spikes)
    while True:
        if run.handle_due_arrivals_and_releases():
            continue
        if run.handle_neurons_above_threshold():
            continue
        if run.now >= network.t_max:
            return run.trajectory()
        run.go_to_next_event()


class _Run:
    """The state of a simulation: all neurons at the time ``now``, and the arrivals to come."""

    def __init__(self, network: Network, max_spikes: int):
        self.network = network
        self.max_spikes = max_spikes
        self.parameters = {name: network.per_neuron(name) for name in NEURON_PARAMETERS}
        taus = (self.parameters["tau_mem"], self.parameters["tau_syn"])
        self.longest_interval = _LONGEST_INTERVAL * max(tau.max(initial=0.0) for tau in taus)
        self.now = 0.0
        self.v = self.parameters["v0"].copy()
        self.i = self.parameters["i0"].copy()
        self.free_at = np.full(self.v.shape, -np.inf)
        self.refractory = np.zeros(self.v.shape, dtype=bool)
        self.events: list[Arrival | Release | Spike] = []
        self.n_spikes = 0
        self.offsets = network.offsets
        self.population_of = np.repeat(np.arange(len(network.sizes)), network.sizes)
        self.index_of = np.concatenate([np.arange(size) for size in network.sizes])
        self.pending: list[tuple[float, int, Arrival]] = []  # a heap, the number breaks ties
        self.numbers = itertools.count()
        for emitter, (time, idx) in enumerate(
            zip(network.input_time, network.input_idx, strict=True)
        ):
            self._send(float(time), INPUT, int(idx), emitter)

    def handle_due_arrivals_and_releases(self) -> bool:
        """Applies what happens exactly now; says whether there was anything."""
        something = False
        while self.pending and self.pending[0][0] <= self.now:
            self._arrive(heapq.heappop(self.pending)[2])
            something = True
        for neuron in np.flatnonzero(self.refractory & (self.free_at <= self.now)):
            self.refractory[neuron] = False
            self.events.append(Release(self.now, int(neuron)))
            something = True
        return something

    def handle_neurons_above_threshold(self) -> bool:
        """Lets free neurons at or above threshold spike; says whether there were any."""
        above = np.flatnonzero(~self.refractory & (self.v >= self.parameters["v_th"]))
        for neuron in above:
            self._spike(int(neuron), at_start=self.now == 0.0)
        return len(above) > 0

    def go_to_next_event(self):
        """Advances to the next arrival, release or crossing, and applies a crossing."""
        horizon = self._horizon()
        at_horizon = self._flow(horizon - self.now)
        crossing = self.now + self._waiting_times(horizon - self.now, *at_horizon)
        first = float(crossing.min(initial=np.inf))
        if first >= horizon:
            self.v, self.i = at_horizon
            self.now = horizon
            return
        self.v, self.i = self._flow(first - self.now)
        self.now = first
        for neuron in np.flatnonzero(crossing == first):
            self._spike(int(neuron), at_start=False)

    def trajectory(self) -> Trajectory:
        """The result of the finished run."""
        spikes = [event for event in self.events if isinstance(event, Spike)]
        neurons = np.array([spike.neuron for spike in spikes], dtype=np.int64)
        return Trajectory(
            time=np.array([spike.time for spike in spikes], dtype=np.float64),
            population=self.population_of[neurons],
            index=self.index_of[neurons],
            v=self.v,
            i=self.i,
            free_at=self.free_at,
            events=self.events,
        )

    def _horizon(self) -> float:
        """The time of the next event that is known already."""
        times = [self.network.t_max, self.now + self.longest_interval]
        times.append(self.free_at.min(initial=np.inf, where=self.refractory))
        if self.pending:
            times.append(self.pending[0][0])
        return float(min(times))

    def _waiting_times(self, length: float, v_end: np.ndarray, i_end: np.ndarray) -> np.ndarray:
        """The time until each neuron reaches its threshold, ``inf`` if not within ``length``.

        ``v_end`` and ``i_end`` are the state at the end of this interval.
        """
        v_leak = self.parameters["v_leak"]
        turns_down = (self.i > self.v - v_leak) & (i_end < v_end - v_leak)
        ends_above = v_end >= self.parameters["v_th"]
        waiting = np.full(self.v.shape, np.inf)
        for neuron in np.flatnonzero(~self.refractory & (turns_down | ends_above)):
            waiting[neuron] = first_crossing(*self._voltage_and_slope(neuron), length)
        return waiting

    def _voltage_and_slope(self, neuron: int) -> tuple[Callable, Callable]:
        """V - v_th and tau_mem V' of one free neuron as functions of the time from now."""
        tau_mem, tau_syn, v_th, v_leak = (
            float(self.parameters[name][neuron])
            for name in ("tau_mem", "tau_syn", "v_th", "v_leak")
        )
        v, i = float(self.v[neuron]) - v_leak, float(self.i[neuron])

        def voltage(time: float) -> float:
            return v * math.exp(-time / tau_mem) + i * kernel(time, tau_mem, tau_syn)

        def slope(time: float) -> float:
            return i * math.exp(-time / tau_syn) - voltage(time)

        return lambda time: voltage(time) - (v_th - v_leak), slope

    def _flow(self, duration: float) -> tuple[np.ndarray, np.ndarray]:
        """Voltages and currents after ``duration`` without any event."""
        return flow(self.parameters, self.v, self.i, self.refractory, duration)

    def _arrive(self, arrival: Arrival):
        projection = self.network.projections[arrival.projection]
        targets = np.array(arrival.targets)
        columns = targets - self.offsets[projection.dst]
        self.i[targets] += projection.weight[arrival.source, columns]
        self.events.append(arrival)

    def _spike(self, neuron: int, at_start: bool):
        if self.n_spikes == self.max_spikes:
            raise SpikeLimitError(f"more than {self.max_spikes} spikes until t = {self.now}")
        self.events.append(Spike(self.now, neuron, at_start))
        self.v[neuron] = self.parameters["v_reset"][neuron]
        t_ref = self.parameters["t_ref"][neuron]
        if t_ref > 0:
            self.refractory[neuron] = True
            self.free_at[neuron] = self.now + t_ref
        population, index = self.population_of[neuron], self.index_of[neuron]
        self._send(self.now, int(population), int(index), self.n_spikes)
        self.n_spikes += 1

    def _send(self, time: float, src: str | int, source: int, emitter: int):
        """Queues the arrivals of a spike, one for each distinct delay of each projection."""
        for number, projection in enumerate(self.network.projections):
            if projection.src != src:
                continue
            delays = projection.per_synapse(projection.delay)[source]
            for delay in np.unique(delays):
                columns = np.flatnonzero(delays == delay)
                targets = tuple((self.offsets[projection.dst] + columns).tolist())
                arrival = Arrival(time + float(delay), number, source, emitter, targets)
                heapq.heappush(self.pending, (arrival.time, next(self.numbers), arrival))


def flow(
    parameters: dict[str, np.ndarray],
    v: np.ndarray,
    i: np.ndarray,
    refractory: np.ndarray,
    duration: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The exact state after ``duration``; refractory neurons keep their voltage."""
    tau_mem, tau_syn, v_leak = (parameters[name] for name in ("tau_mem", "tau_syn", "v_leak"))
    response = np.array([kernel(duration, *taus) for taus in zip(tau_mem, tau_syn, strict=True)])
    v_free = v_leak + (v - v_leak) * np.exp(-duration / tau_mem) + i * response
    return np.where(refractory, v, v_free), i * np.exp(-duration / tau_syn)


def first_crossing(
    excess: Callable[[float], float], slope: Callable[[float], float], length: float
) -> float:
    """The first time in ``(0, length]`` at which ``excess`` becomes positive, ``inf`` if none.

    ``slope`` has the sign of the derivative of ``excess``, which changes at most once.
    """
    ends = [0.0, length]
    if slope(0.0) > 0 > slope(length):
        ends.insert(1, _root(slope, 0.0, length))
    for left, right in itertools.pairwise(ends):
        if excess(left) < 0 <= excess(right):
            return _root(excess, left, right)
    return np.inf


def _root(function: Callable[[float], float], left: float, right: float) -> float:
    # the tolerances are the smallest ones that are accepted: converge to the last digits
    return brentq(function, left, right, xtol=1e-300, rtol=4 * np.finfo(float).eps)
