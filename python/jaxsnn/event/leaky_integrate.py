"""The non-spiking leaky integrator, by which voltages are read out of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxsnn.base.types import Array, Float, LIFParameters, Parameter, Spikes
from jaxsnn.event.population import Layer, Numbers, Population, Train, Weights, population_layer
from jaxsnn.ops import LoopResult, Maximum, Probes

__all__ = ["LeakyIntegrator", "Reading", "Readout"]


class Reading(NamedTuple):
    """What a leaky integrator was asked for; the rest is None.

    Attributes:
        final: ``[*batch, n_neurons]`` voltage at the end.
        probes: voltage and current at given times.
        maximum: largest voltage and when it was reached.
        integral: ``[*batch, n_neurons]``, integral of the voltage over time.
        weighted_integral: ``[*batch, n_neurons]``, integral of ``exp(-t / decay)`` times the
            voltage.
    """

    final: Float[Array, "*batch n_neurons"]
    probes: Probes | None = None
    maximum: Maximum | None = None
    integral: Float[Array, "*batch n_neurons"] | None = None
    weighted_integral: Float[Array, "*batch n_neurons"] | None = None


@dataclasses.dataclass(frozen=True)
class Readout:
    """What to read, see :func:`LeakyIntegrator`."""

    times: tuple[float, ...] | None
    maximum: bool
    integral: bool
    decay: float | None

    @property
    def views(self) -> dict[str, Any]:
        """The arguments of :func:`jaxsnn.ops.event_loop` for it."""
        return {"probes": self.times, "maximum": self.maximum}

    def read(
        self, params: LIFParameters, result: LoopResult, heard: Sequence[Heard], t_max: float
    ) -> Reading:
        """The reading of a run from rest at time 0."""
        integrals = [
            _integral(params, result, heard, t_max, decay) if wanted else None
            for wanted, decay in ((self.integral, None), (self.decay is not None, self.decay))
        ]
        return Reading(result.state.v, result.probes, result.maximum, *integrals)


class Heard(NamedTuple):
    """Spikes over one projection.

    Attributes:
        spikes: as they were emitted.
        weights: of the projection.
        delays: 0 where there are none; one, one per source or one per synapse.
    """

    spikes: Spikes
    weights: Weights
    delays: Any = 0.0


def _integral(
    params: LIFParameters, result: LoopResult, heard: Sequence[Heard], t_max: float, decay
) -> Array:
    """Integral of the voltage, times ``exp(-t / decay)`` if there is a decay.

    The equations of the neuron, integrated by parts, give it by the state at both ends and the
    charge that arrived in between: no sum over time, and exact.
    """
    rate = 0.0 if decay is None else 1.0 / decay
    charge = sum(_charge(h, t_max, rate) for h in heard)
    end = jnp.exp(-rate * t_max)
    tau_mem, tau_syn = params.tau_mem, params.tau_syn
    v_leak = jnp.asarray(params.v_leak)
    current = tau_syn * (charge - end * result.state.i) / (1 + rate * tau_syn)
    rest = v_leak * (t_max if decay is None else (1 - end) * decay)
    return (rest + current - tau_mem * (end * result.state.v - v_leak)) / (1 + rate * tau_mem)


def _charge(heard: Heard, t_max: float, rate: float) -> Array:
    """All weights that arrived, times ``exp(-rate * time)``."""
    spikes, weights, delays = heard
    source = jnp.maximum(spikes.index, 0)
    if jnp.ndim(delays) < 2:
        delay = delays[source] if jnp.ndim(delays) == 1 else delays
        arrival = spikes.time + delay
        arrived = jnp.where(arrival <= t_max, jnp.exp(-rate * jnp.minimum(arrival, t_max)), 0)
        per_source = jnp.zeros((*spikes.time.shape[:-1], weights.shape[-2]), arrived.dtype)
        lead = jnp.indices(spikes.time.shape, sparse=True)[:-1]
        per_source = per_source.at[(*lead, source)].add(arrived)
        return jnp.einsum("...s,...sn->...n", per_source, weights)
    arrival = spikes.time[..., None] + delays[source]
    arrived = jnp.where(arrival <= t_max, jnp.exp(-rate * jnp.minimum(arrival, t_max)), 0)
    return (arrived * weights[source]).sum(-2)


def LeakyIntegrator(
    n_neurons: int,
    *,
    t_max: float,
    tau_mem: Parameter = 20e-3,
    tau_syn: Parameter = 5e-3,
    v_leak: Parameter = 0.0,
    mean: float = 0.0,
    std: float = 1.0,
    times: Sequence[float] | None = None,
    maximum: bool = False,
    integral: bool = False,
    decay: float | None = None,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A layer of leaky integrators: LIF neurons without a threshold.

    Everything that it reads is exact, between events too, and has exact gradients. The maximum
    follows the envelope theorem: moving its place does not change it, unless it sits at an arrival,
    with which it moves.

    Args:
        n_neurons: size of the layer.
        t_max: how long to simulate, same unit as the time constants. Later input is ignored.
        tau_mem: membrane time constant, scalar or per neuron.
        tau_syn: synaptic time constant, scalar or per neuron.
        v_leak: resting potential, at which the neurons start.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        times: at which to read voltage and current, in ascending order.
        maximum: read the largest voltage over time.
        integral: read the integral of the voltage over time.
        decay: read the integral of the voltage times ``exp(-t / decay)``.
        train: parameters to train, as in :func:`EventPropLIF`.
        name: how errors name the layer.

    Returns:
        The layer. ``apply(weights, spikes)`` gives a :class:`Reading`.

    Raises:
        ValueError, TypeError: for arguments out of range.
    """
    params = LIFParameters(
        tau_mem=tau_mem, tau_syn=tau_syn, v_th=float("inf"), v_leak=v_leak, v_reset=0.0
    )
    population = Population(
        n_neurons=n_neurons,
        n_spikes=1,
        t_max=t_max,
        params=params,
        name=name,
        kind="LeakyIntegrator",
        train=train,
    )
    for parameter in train:
        if parameter not in ("tau_mem", "tau_syn", "v_leak"):
            raise ValueError(
                f"{population.label}: train has {parameter!r}, expected tau_mem, tau_syn or v_leak"
            )
    if decay is not None and not 0 < decay < float("inf"):
        raise ValueError(f"{population.label}: decay is {decay}, expected a finite time > 0")
    readout = Readout(None if times is None else tuple(times), maximum, integral, decay)

    def apply(weights: Weights, spikes: Spikes, numbers: Numbers) -> Reading:
        result = population.run(weights, spikes, numbers, **readout.views)
        heard = [Heard(spikes, weights)]
        return readout.read(population.parameters(numbers), result, heard, t_max)

    return population_layer(population, mean, std, apply, readout=readout)
