"""Layers of leaky integrate-and-fire neurons in continuous time, in init/apply style.

``EventPropLIF`` takes a whole trajectory in one call with the EventProp adjoint; ``LIF`` is the
same layer as a scan of single events, differentiated analytically at each crossing. Both give the
same spikes and the same gradients, by two routes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import (
    Array,
    Float,
    LIFParameters,
    LIFState,
    SpikeQueue,
    Spikes,
    initial_state,
)
from jaxsnn.event.delay import Delay
from jaxsnn.event.population import (
    Layer,
    Numbers,
    Population,
    Train,
    Weights,
    normal_weights,
    population_layer,
)
from jaxsnn.event.spikes import merge_spikes
from jaxsnn.ops import EventKind, event_step, observed_loop
from jaxsnn.ops._checks import check_count
from jaxsnn.ops._ffi import vary_alike


def EventPropLIF(
    n_neurons: int,
    *,
    n_spikes: int,
    t_max: float,
    params: LIFParameters | None = None,
    mean: float = 1.0,
    std: float = 1.0,
    truncate: bool = False,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A feed-forward layer whose gradient is computed by EventProp.

    Args:
        n_neurons: size of the layer.
        n_spikes: room for spikes of the whole layer, per sample.
        t_max: how long to simulate, same unit as the time constants. Later input is ignored.
        params: neuron parameters, scalar or per neuron.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        truncate: keep the ``n_spikes`` earliest spikes where there are more, instead of raising.
        train: names of the parameters to train besides the weights, each shared or per neuron as
            ``params`` has it; :func:`jaxsnn.event.population.trained_parameters` says how they are
            kept in their range. A mapping from names to functions of the initial value and the
            trained number does it in another way.
        name: how errors name the layer; the default is its name in a graph, or its kind.

    Returns:
        The layer. ``apply(weights, spikes)`` takes and returns :class:`Spikes` with any leading
        batch axes. With trained parameters ``weights`` is a dictionary of ``"weights"`` and
        ``"params"``.

    Raises:
        ValueError, TypeError: for arguments out of range.
        jax.errors.JaxRuntimeError: from ``apply``, for bad input and for more than ``n_spikes``
            spikes; names the layer, the sample and the count.
    """
    population = Population(
        n_neurons=n_neurons,
        n_spikes=n_spikes,
        t_max=t_max,
        params=LIFParameters() if params is None else params,
        truncate=truncate,
        name=name,
        kind="EventPropLIF",
        train=train,
    )

    def apply(weights: Weights, spikes: Spikes, numbers: Numbers) -> Spikes:
        return population.run(weights, spikes, numbers).spikes

    return population_layer(population, mean, std, apply)


class RecurrentWeights(NamedTuple):
    """Weights, or anything else that has one entry per synapse.

    Attributes:
        input: ``[n_inputs, n_neurons]``.
        recurrent: ``[n_neurons, n_neurons]``, from the first axis to the second.
    """

    input: Weights
    recurrent: Float[Array, "*batch n_neurons n_neurons"]


def RecurrentEventPropLIF(
    layers: Sequence[int],
    *,
    n_spikes: int,
    t_max: float,
    params: LIFParameters | None = None,
    mean: Sequence[float] | float = 1.0,
    std: Sequence[float] | float = 1.0,
    delay: Delay | None = None,
    truncate: bool = False,
    name: str | None = None,
) -> Layer:
    """Layers in a row as one population, whose gradient is computed by EventProp.

    The quadrants of one recurrent weight matrix hold the weights from each layer to the next, as
    on neuromorphic hardware. Spikes and gradients are those of :func:`EventPropLIF` layers in a
    row, as which they are simulated; with delays all layers are simulated together, event by event.
    With a single layer the population is recurrent: every neuron hears every other and itself.

    Args:
        layers: number of neurons of each layer.
        n_spikes: room for spikes of all layers together, per sample.
        t_max: how long to simulate, same unit as the time constants. Later input is ignored.
        params: neuron parameters, scalar or per neuron.
        mean: of the initial weights: from the inputs to the first layer, and so on, then of the
            recurrent weights of a single layer; or one for all.
        std: standard deviation of the initial weights, likewise.
        delay: of all connections, trained: a delay for each neuron or for each synapse.
        truncate: keep the ``n_spikes`` earliest spikes where there are more, instead of raising.
        name: how errors name the population; the default is its name in a graph, or its kind.

    Returns:
        The layer. Its weights are :class:`RecurrentWeights`, zero wherever there is no connection;
        these entries have no gradient. With delays they are a dictionary of ``"weights"`` and
        ``"delays"``, the numbers behind them likewise. ``apply(weights, spikes)`` gives the spikes
        of all neurons, the layers counted through.

    Raises:
        ValueError, TypeError: for arguments out of range.
        jax.errors.JaxRuntimeError: from ``apply``, as of :func:`EventPropLIF`.
    """
    label = name or "RecurrentEventPropLIF"
    sizes = [check_count(label, "layers", size) for size in layers]
    if not sizes:
        raise ValueError(f"{label}: layers is empty, expected at least one size")
    n_matrices = max(len(sizes), 2)
    means, stds = (
        _one_per_matrix(label, argument, value, n_matrices)
        for argument, value in (("mean", mean), ("std", std))
    )
    population = Population(
        n_neurons=sum(sizes),
        n_spikes=n_spikes,
        t_max=t_max,
        params=LIFParameters() if params is None else params,
        truncate=truncate,
        name=name,
        kind="RecurrentEventPropLIF",
    )
    n_neurons = population.n_neurons
    spans, blocks, hears_input, exists = _in_a_row(sizes)

    def init(key: Array, n_inputs: int) -> tuple[int, Any]:
        keys = jax.random.split(key, n_matrices)
        shapes = [(n_inputs, sizes[0])] + [(a.stop - a.start, b.stop - b.start) for a, b in blocks]
        draws = [
            normal_weights(label, *drawn)
            for drawn in zip(keys, *zip(*shapes, strict=True), means, stds, strict=True)
        ]
        dtype = draws[0].dtype
        incoming = jnp.zeros((n_inputs, n_neurons), dtype).at[:, spans[0]].set(draws[0])
        recurrent = jnp.zeros((n_neurons, n_neurons), dtype)
        for block, draw in zip(blocks, draws[1:], strict=True):
            recurrent = recurrent.at[block].set(draw)
        weights = RecurrentWeights(incoming, recurrent)
        if delay is None:
            return n_neurons, weights
        input_key, own_key = jax.random.split(jax.random.fold_in(key, 1))
        numbers = RecurrentWeights(
            delay.init(input_key, n_inputs, n_neurons), delay.init(own_key, n_neurons, n_neurons)
        )
        return n_neurons, {"weights": weights, "delays": numbers}

    def apply(weights: Any, spikes: Spikes) -> Spikes:
        delays: dict[str, Any] = {}
        if delay is not None:
            delays = {
                argument: jnp.where(there, values, jnp.inf) if values.ndim == 2 else values
                for argument, there, values in zip(
                    ("delays", "recurrent_delays"),
                    (hears_input, exists),
                    map(delay, weights["delays"]),
                    strict=True,
                )
            }
            weights = weights["weights"]
        elif len(sizes) > 1:
            return _run_in_a_row(population, spans, weights, spikes)
        return population.run(
            jnp.where(hears_input, weights.input, 0),
            spikes,
            {},
            recurrent=jnp.where(exists, weights.recurrent, 0),
            **delays,
        ).spikes

    return Layer(init, apply, n_neurons)


def _run_in_a_row(
    population: Population, spans: Sequence[slice], weights: RecurrentWeights, spikes: Spikes
) -> Spikes:
    """The spikes of a population of layers in a row, each of which has room for all of them.

    If one fills it, up to that time all spikes are known, and later ones will not be kept.
    """
    n_neurons = population.n_neurons
    found, incoming = [], weights.input[..., spans[0]]
    for span, following in itertools.zip_longest(spans, spans[1:]):
        params = jax.tree.map(
            lambda x, span=span: x[..., span] if jnp.shape(x)[-1:] == (n_neurons,) else x,
            population.params,
        )
        layer = dataclasses.replace(population, n_neurons=span.stop - span.start, params=params)
        spikes = layer.run(incoming, spikes, {}).spikes
        found.append(spikes)
        if following is not None:
            incoming = weights.recurrent[..., span, following]
    return merge_spikes(
        found,
        [span.stop - span.start for span in spans],
        n_spikes=population.n_spikes,
        truncate=population.truncate,
        label=population.label,
    )


def _in_a_row(sizes: Sequence[int]):
    """Where layers in a row, or a single recurrent one, are and which connections they have.

    Returns:
        The span of each layer; the blocks of the recurrent matrix; which neurons hear the input;
        and which recurrent connections there are.
    """
    ends = itertools.accumulate(sizes, initial=0)
    spans = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
    blocks = [(spans[0], spans[0])] if len(sizes) == 1 else list(itertools.pairwise(spans))
    n_neurons = sum(sizes)
    hears_input = np.zeros(n_neurons, bool)
    hears_input[spans[0]] = True
    exists = np.zeros((n_neurons, n_neurons), bool)
    for block in blocks:
        exists[block] = True
    return spans, blocks, hears_input, exists


def HardwareLIF(
    n_neurons: int,
    *,
    t_max: float,
    params: LIFParameters | None = None,
    mean: float = 1.0,
    std: float = 1.0,
    min_slope: float = 0.05,
    name: str | None = None,
) -> Layer:
    """A feed-forward layer whose spikes were observed, on a chip for example.

    Args:
        n_neurons: size of the layer.
        t_max: end of the window, same unit as the time constants. Later spikes are left out.
        params: neuron parameters of the model, scalar or per neuron.
        mean: of the initial weights.
        std: standard deviation of the initial weights.
        min_slope: see :func:`jaxsnn.ops.observed_loop`.
        name: how errors name the layer; the default is its kind.

    Returns:
        The layer. ``apply(weights, spikes, observed)`` returns the observed spikes with the
        EventProp gradient of the model around them.

    Raises:
        ValueError, TypeError: for arguments out of range.
    """
    label = name or "HardwareLIF"
    own = EventPropLIF(
        n_neurons, n_spikes=1, t_max=t_max, params=params, mean=mean, std=std, name=label
    )
    params = LIFParameters() if params is None else params

    def apply(weights: Weights, spikes: Spikes, observed: Spikes) -> Spikes:
        return observed_loop(
            params, weights, spikes, observed, t_max=t_max, min_slope=min_slope, label=label
        ).spikes

    return Layer(own.init, apply, n_neurons)


def HardwareRecurrentLIF(
    layers: Sequence[int],
    *,
    t_max: float,
    params: LIFParameters | None = None,
    mean: Sequence[float] | float = 1.0,
    std: Sequence[float] | float = 1.0,
    min_slope: float = 0.05,
    name: str | None = None,
) -> Layer:
    """Layers in a row as one population, or a recurrent one, whose spikes were observed.

    Arguments as of :func:`RecurrentEventPropLIF` and :func:`HardwareLIF`, of which
    ``apply(weights, spikes, observed)`` is a mixture: the weights are :class:`RecurrentWeights`.
    """
    label = name or "HardwareRecurrentLIF"
    own = RecurrentEventPropLIF(
        layers, n_spikes=1, t_max=t_max, params=params, mean=mean, std=std, name=label
    )
    params = LIFParameters() if params is None else params
    _, _, hears_input, exists = _in_a_row(layers)

    def apply(weights: RecurrentWeights, spikes: Spikes, observed: Spikes) -> Spikes:
        return observed_loop(
            params,
            jnp.where(hears_input, weights.input, 0),
            spikes,
            observed,
            t_max=t_max,
            recurrent=jnp.where(exists, weights.recurrent, 0),
            min_slope=min_slope,
            label=label,
        ).spikes

    return Layer(own.init, apply, own.n_outputs)


def _one_per_matrix(label: str, argument: str, value: Sequence[float] | float, n: int):
    values = [value] * n if isinstance(value, int | float) else list(value)
    if len(values) != n:
        raise ValueError(
            f"{label}: {argument} has {len(values)} entries, expected a number or {n} of them"
        )
    return values


def LIF(
    n_neurons: int,
    *,
    n_spikes: int,
    t_max: float,
    params: LIFParameters | None = None,
    mean: float = 1.0,
    std: float = 1.0,
    truncate: bool = False,
    train: Train = (),
    name: str | None = None,
) -> Layer:
    """A feed-forward layer differentiated analytically, event by event.

    A scan of :func:`jaxsnn.ops.event_step`: find the next crossing, integrate to it, apply the
    discontinuity. The same function as :func:`EventPropLIF`, slower, and with a state per event
    kept for the gradient. Arguments and errors as there.
    """
    population = Population(
        n_neurons=n_neurons,
        n_spikes=n_spikes,
        t_max=t_max,
        params=LIFParameters() if params is None else params,
        truncate=truncate,
        name=name,
        kind="LIF",
        train=train,
    )

    def apply(weights: Weights, spikes: Spikes, numbers: Numbers) -> Spikes:
        params = population.parameters(numbers)
        start = initial_state(params, n_neurons, weights.dtype)
        # One cheap pass without gradient says how many spikes there are, or that they do not fit.
        count = population.run(*jax.lax.stop_gradient((weights, spikes, numbers))).count
        n_steps = spikes.time.shape[-1] + n_spikes
        batch = jnp.broadcast_shapes(weights.shape[:-2], spikes.time.shape[:-1], count.shape)
        carry = [
            *(
                jnp.broadcast_to(x, batch + x.shape[x.ndim - rank :])
                for x, rank in zip(start, (1, 1, 1, 0), strict=True)
            ),
            jnp.zeros(batch, jnp.int32),
        ]
        # A carry has one type throughout, also in what it varies over inside shard_map.
        *state, head = vary_alike([*carry, weights, *spikes])[: len(carry)]
        carry = LIFState(*state), head

        def step(carry, _):
            state, head = carry
            queue = SpikeQueue(spikes.time, spikes.index, head)
            result = event_step(params, weights, state, queue, t_max=t_max, label=population.label)
            return (result.state, result.queue.head), result.event

        _, events = jax.lax.scan(step, carry, None, length=n_steps)
        return _own_spikes(events, count, n_spikes)

    return population_layer(population, mean, std, apply, eventprop=False)


def _own_spikes(events, count: Array, n_spikes: int) -> Spikes:
    """The first ``n_spikes`` own spikes among events whose time axis comes first."""
    time, index, kind = (jnp.moveaxis(x, 0, -1) for x in events)
    order = jnp.argsort(kind != EventKind.SPIKE, axis=-1, stable=True)[..., :n_spikes]
    own = jnp.take_along_axis(kind, order, axis=-1) == EventKind.SPIKE
    own &= jnp.arange(n_spikes) < count[..., None]
    return Spikes(
        jnp.where(own, jnp.take_along_axis(time, order, axis=-1), jnp.inf),
        jnp.where(own, jnp.take_along_axis(index, order, axis=-1), -1),
    )
