"""Exact derivatives, by carrying tangents forward through the events of a trajectory.

A tangent is the derivative of a state at a *fixed* time with respect to every parameter: one row
of numbers per neuron. Between events the rows follow the derivative of the closed solution. At an
event whose own time t depends on the parameters a row makes a jump. If the state x changes from x-
to x+ = g(x-), and its rate from f- to f+, then

    dx+ = g' dx- + dg + (g' f- - f+) dt,

because a later event leaves the state for longer on the old course and for shorter on the new one.
The time of a spike follows from V(t) = v_th: ``dt = (dv_th - dV) / V'``.

Two derivatives are set to zero by convention: those with respect to a refractory time that is zero
(there is no clamp whose end could move), and those of the spike at time 0 of a neuron that starts
at or above its threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from oracle.kernel import kernel, kernel_by_tau
from oracle.network import INPUT, NEURON_PARAMETERS, Network
from oracle.parameters import ALL_PARAMETERS, parameter_vector, split_vector
from oracle.simulate import Arrival, Release, Spike, Trajectory, flow, simulate


class Sensitivity(NamedTuple):
    """Derivatives; the last axis runs over the entries of the parameter vector.

    Attributes:
        time: ``[n_spikes, n_parameters]``, of the spike times in the order of the trajectory.
        v: ``[n_neurons, n_parameters]``, of the voltages at ``t_max``.
        i: ``[n_neurons, n_parameters]``, of the currents at ``t_max``.
    """

    time: np.ndarray
    v: np.ndarray
    i: np.ndarray


def forward_sensitivity(
    network: Network, trajectory: Trajectory, wrt: Sequence[str] = ALL_PARAMETERS
) -> Sensitivity:
    """Derivatives of everything that ``simulate(network)`` computed with respect to ``wrt``."""
    walk = _TangentWalk(network, wrt)
    for event in trajectory.events:
        walk.advance(event.time)
        if isinstance(event, Arrival):
            walk.arrival(event)
        elif isinstance(event, Release):
            walk.release(event)
        else:
            walk.spike(event)
    walk.advance(network.t_max)
    return Sensitivity(np.array(walk.d_spikes).reshape(-1, walk.n_columns), walk.d_v, walk.d_i)


def spike_time_jacobian(
    network: Network, wrt: Sequence[str] = ALL_PARAMETERS
) -> tuple[Trajectory, np.ndarray]:
    """The trajectory, and the derivatives ``[n_spikes, n_parameters]`` of its spike times."""
    trajectory = simulate(network)
    return trajectory, forward_sensitivity(network, trajectory, wrt).time


def loss_gradient(
    network: Network,
    trajectory: Trajectory,
    *,
    dloss_dtime: np.ndarray | None = None,
    dloss_dv_end: np.ndarray | None = None,
    dloss_di_end: np.ndarray | None = None,
    wrt: Sequence[str] = ALL_PARAMETERS,
) -> dict[str, list[np.ndarray]]:
    """The gradient of ``dloss_dtime . t + dloss_dv_end . V(t_max) + dloss_di_end . I(t_max)``.

    Args:
        network: What was simulated.
        trajectory: Its trajectory.
        dloss_dtime: One coefficient per spike, in the order of the trajectory. None: zeros.
        dloss_dv_end: One coefficient per neuron, counted through all populations. None: zeros.
        dloss_di_end: Likewise.
        wrt: The parameters.

    Returns:
        For each name in ``wrt`` a list of arrays like the parameters of the network: one per
        projection, one per population, or one for all input times.
    """
    sensitivity = forward_sensitivity(network, trajectory, wrt)
    gradient = np.zeros(sensitivity.v.shape[1])
    for coefficients, rows in zip(
        (dloss_dtime, dloss_dv_end, dloss_di_end), sensitivity, strict=True
    ):
        if coefficients is not None:
            gradient += np.asarray(coefficients, dtype=np.float64) @ rows
    return split_vector(network, wrt, gradient)


def central_difference(
    fn: Callable[[np.ndarray], tuple[np.ndarray, Hashable]], x: np.ndarray, eps: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of ``fn`` from values at ``x - eps`` and ``x + eps``, one entry at a time.

    Args:
        fn: Returns a value and something that tells its kind, for example the order of the spikes
            (``Trajectory.order``). A derivative means nothing where the kind changes.
        x: A vector.
        eps: The step, for all entries or for each one.

    Returns:
        The derivatives ``[*value.shape, len(x)]``, and for each entry of ``x`` whether the kind is
        the same at both steps and at ``x``. Where it is not, the derivatives are NaN.
    """
    x = np.asarray(x, dtype=np.float64)
    steps = np.broadcast_to(eps, x.shape)
    value, kind = fn(x)
    derivative = np.full((*np.shape(value), len(x)), np.nan)
    unchanged = np.zeros(len(x), dtype=bool)
    for entry, step in enumerate(steps):
        below, above = x.copy(), x.copy()
        below[entry] -= step
        above[entry] += step
        (value_below, kind_below), (value_above, kind_above) = fn(below), fn(above)
        unchanged[entry] = kind_below == kind == kind_above
        if unchanged[entry]:
            # the steps that were really made, after rounding
            difference = np.asarray(value_above) - np.asarray(value_below)
            derivative[..., entry] = difference / (above[entry] - below[entry])
    return derivative, unchanged


class _TangentWalk:
    """State and tangents of all neurons at the time ``now``."""

    def __init__(self, network: Network, wrt: Sequence[str]):
        self.network = network
        self.offsets = network.offsets
        self.parameters = {name: network.per_neuron(name) for name in NEURON_PARAMETERS}
        self.n_columns = len(parameter_vector(network, wrt))
        columns = split_vector(network, wrt, np.arange(self.n_columns))
        # for each parameter the columns of its entries, spread over neurons, synapses, input spikes
        self.neuron_columns = {
            name: _spread(columns[name], network.sizes)
            for name in NEURON_PARAMETERS
            if name in columns
        }
        self.weight_columns = columns.get("weight")
        self.delay_columns = None
        if "delay" in columns:
            self.delay_columns = [
                projection.per_synapse(entries)
                for projection, entries in zip(network.projections, columns["delay"], strict=True)
            ]
        self.d_inputs = np.zeros((len(network.input_time), self.n_columns))
        if "input_time" in columns:
            _add_at(self.d_inputs, columns["input_time"][0], 1.0)

        self.now = 0.0
        self.v = self.parameters["v0"].copy()
        self.i = self.parameters["i0"].copy()
        self.refractory = np.zeros(self.v.shape, dtype=bool)
        self.d_v = self._unit_rows("v0")
        self.d_i = self._unit_rows("i0")
        self.d_v_th = self._unit_rows("v_th")
        self.d_v_reset = self._unit_rows("v_reset")
        self.d_t_ref = self._unit_rows("t_ref")
        self.d_spikes: list[np.ndarray] = []
        self.d_free_at: dict[int, np.ndarray] = {}  # neurons that are refractory now

    def advance(self, time: float):
        """Differentiates the flow from ``now`` to ``time``."""
        duration = time - self.now
        self.now = time
        if duration == 0:
            return
        tau_mem, tau_syn = self.parameters["tau_mem"], self.parameters["tau_syn"]
        taus = list(zip(tau_mem, tau_syn, strict=True))
        free = ~self.refractory
        decay_mem = np.where(free, np.exp(-duration / tau_mem), 1.0)
        decay_syn = np.exp(-duration / tau_syn)
        response = np.where(free, [kernel(duration, *pair) for pair in taus], 0.0)

        self.d_v = decay_mem[:, None] * self.d_v + response[:, None] * self.d_i
        self.d_i = decay_syn[:, None] * self.d_i
        self._add_neuron_parameter(self.d_v, "v_leak", 1 - decay_mem)
        if "tau_mem" in self.neuron_columns or "tau_syn" in self.neuron_columns:
            by_mem, by_syn = np.array([kernel_by_tau(duration, *pair) for pair in taus]).T
            above_leak = self.v - self.parameters["v_leak"]
            by_mem = above_leak * decay_mem * duration / tau_mem**2 + self.i * by_mem
            self._add_neuron_parameter(self.d_v, "tau_mem", np.where(free, by_mem, 0.0))
            self._add_neuron_parameter(self.d_v, "tau_syn", np.where(free, self.i * by_syn, 0.0))
            self._add_neuron_parameter(
                self.d_i, "tau_syn", self.i * decay_syn * duration / tau_syn**2
            )
        self.v, self.i = flow(self.parameters, self.v, self.i, self.refractory, duration)

    def arrival(self, event: Arrival):
        """I += w: the rate of I changes by -w / tau_syn, that of V by w / tau_mem."""
        projection = self.network.projections[event.projection]
        neurons = np.array(event.targets)
        synapses = (event.source, neurons - self.offsets[projection.dst])
        weight = projection.weight[synapses]

        emitted = self.d_inputs if projection.src == INPUT else self.d_spikes
        d_time = np.tile(emitted[event.emitter], (len(neurons), 1))
        if self.delay_columns is not None:
            _add_at(d_time, self.delay_columns[event.projection][synapses], 1.0)

        slower = np.where(
            self.refractory[neurons], 0.0, weight / self.parameters["tau_mem"][neurons]
        )
        self.d_v[neurons] -= slower[:, None] * d_time
        d_i = (weight / self.parameters["tau_syn"][neurons])[:, None] * d_time
        if self.weight_columns is not None:
            _add_at(d_i, self.weight_columns[event.projection][synapses], 1.0)
        self.d_i[neurons] += d_i
        self.i[neurons] += weight

    def spike(self, event: Spike):
        """V := v_reset at the time at which V = v_th."""
        neuron = event.neuron
        d_time = np.zeros(self.n_columns)
        if not event.at_start:
            d_time = (self.d_v_th[neuron] - self.d_v[neuron]) / self._rate(neuron)
        self.d_spikes.append(d_time)
        self.v[neuron] = self.parameters["v_reset"][neuron]
        self.d_v[neuron] = self.d_v_reset[neuron]
        if self.parameters["t_ref"][neuron] > 0:
            self.refractory[neuron] = True
            self.d_free_at[neuron] = d_time + self.d_t_ref[neuron]
        else:
            self.d_v[neuron] -= self._rate(neuron) * d_time

    def release(self, event: Release):
        """V starts to move: its rate was zero and is not any more."""
        neuron = event.neuron
        self.refractory[neuron] = False
        self.d_v[neuron] -= self._rate(neuron) * self.d_free_at.pop(neuron)

    def _rate(self, neuron: int) -> float:
        """V' of a free neuron."""
        above_leak = self.v[neuron] - self.parameters["v_leak"][neuron]
        return (self.i[neuron] - above_leak) / self.parameters["tau_mem"][neuron]

    def _unit_rows(self, name: str) -> np.ndarray:
        """A neuron parameter by the parameter vector: a one in each row, or zeros if not asked."""
        rows = np.zeros((len(self.v), self.n_columns))
        self._add_neuron_parameter(rows, name, np.ones(len(self.v)))
        return rows

    def _add_neuron_parameter(self, rows: np.ndarray, name: str, values: np.ndarray):
        """Adds the effect ``values`` of a neuron parameter, if it is one of those asked for."""
        if name in self.neuron_columns:
            _add_at(rows, self.neuron_columns[name], values)


def _spread(columns: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """One column per neuron from one or many columns per population."""
    return np.concatenate(
        [np.broadcast_to(entry, (size,)) for entry, size in zip(columns, sizes, strict=True)]
    )


def _add_at(rows: np.ndarray, columns: np.ndarray, values: np.ndarray | float):
    """Adds one number to each row, at the column that is given for the row."""
    rows[np.arange(len(rows)), columns] += values
