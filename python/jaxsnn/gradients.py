"""Checks of gradients, for networks and losses of one's own.

`check_gradients` compares with differences; `gradient_identities` tests what the gradient of every
network obeys exactly, whatever its size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, LIFParameters, LIFState, SpikeQueue, Spikes, initial_state
from jaxsnn.ops import event_loop

__all__ = [
    "CheckedParameter",
    "GradientReport",
    "Identities",
    "check_gradients",
    "gradient_identities",
]


@dataclasses.dataclass(frozen=True)
class CheckedParameter:
    """What was found for one array.

    Attributes:
        checked: number of entries and directions that were compared.
        left_out: number of those in which the order of spikes changes, so that there is no
            derivative to compare with.
        error: the worst error beyond the rounding of the differences, relative to the larger of
            both values or, for entries that hardly matter, to a thousandth of the largest entry of
            the gradient.
        where: the entry with that error, or ``"direction"``.
        gradient: its gradient.
        difference: what the differences say.
    """

    checked: int
    left_out: int
    error: float
    where: str
    gradient: float
    difference: float


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """What :func:`check_gradients` found.

    Attributes:
        parameters: by the place of each array among the parameters and inputs.
        changes: for each direction that was left out, the event that changes, or the error where a
            step leaves the range of an argument.
        tolerance: the largest error that is taken for rounding.
    """

    parameters: dict[str, CheckedParameter]
    changes: list[str]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether something was compared and all of it agrees."""
        compared = any(parameter.checked for parameter in self.parameters.values())
        return compared and all(p.error <= self.tolerance for p in self.parameters.values())

    def __str__(self) -> str:
        width = max(map(len, self.parameters), default=0)
        lines = []
        for name, p in self.parameters.items():
            mark = "ok  " if p.error <= self.tolerance else "FAIL"
            found = f"{mark} {name:<{width}}  {p.checked} compared, {p.left_out} left out"
            if p.checked:
                found += (
                    f"; worst error {p.error:.1e} at {p.where}: gradient {p.gradient:.9g}, "
                    f"differences {p.difference:.9g}"
                )
            lines.append(found)
        return "\n".join([*lines, *(f"left out: {change}" for change in self.changes)])


def check_gradients(
    apply: Callable[[Any, Any], Any],
    parameters: Any,
    inputs: Any,
    loss: Callable[[Any], Array],
    *,
    n_entries: int = 8,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> GradientReport:
    """Compares the gradient of a loss with central differences, in double precision.

    Of every array among the parameters, and of the times of input spikes, some entries are compared
    and one direction that moves all of them. Where a step changes the order of spikes, the loss has
    a kink or a jump: such directions are left out, and the report names the event.

    Args:
        apply: ``apply(parameters, inputs)``, e.g. of a layer or a graph. All integers that it
            returns, such as the indices of spikes, tell the order of events.
        parameters: any pytree of arrays.
        inputs: any pytree, such as :class:`Spikes`.
        loss: ``loss(apply(parameters, inputs))``, a number.
        n_entries: how many entries of each array to compare.
        step: of the differences, relative to the largest entry of an array. Differences with this
            and half of this step are extrapolated to none.
        tolerance: the largest error that is taken for rounding.
        seed: for the choice of entries and directions.

    Returns:
        A report; ``print`` shows it, ``ok`` sums it up.
    """
    with jax.enable_x64(True):
        arguments = jax.tree.map(_double, {"parameters": parameters, "inputs": inputs})

        def value(arguments: Any) -> tuple[Array, list[Array]]:
            output = apply(arguments["parameters"], arguments["inputs"])
            order = [leaf for leaf in jax.tree.leaves(output) if _is_integer(leaf)]
            return loss(output), order

        gradient = jax.grad(value, has_aux=True, allow_int=True)
        gradients, order = jax.jit(gradient)(arguments)
        evaluate = jax.jit(value)
        leaves, structure = jax.tree.flatten_with_path(arguments)
        rng = np.random.default_rng(seed)
        found: dict[str, CheckedParameter] = {}
        changes: list[str] = []
        for place, ((path, leaf), slope) in enumerate(
            zip(leaves, jax.tree.leaves(gradients), strict=True)
        ):
            if _is_integer(leaf):
                continue
            values = np.asarray(leaf)

            def moved(direction: np.ndarray, place: int = place) -> tuple[float, list[Array]]:
                changed = [leaf for _, leaf in leaves]
                changed[place] = changed[place] + direction
                result, events = evaluate(jax.tree.unflatten(structure, changed))
                return float(result), events

            name = jax.tree_util.keystr(path)
            found[name] = _check_array(
                name, values, np.asarray(slope), moved, order, rng, n_entries, step, changes
            )
    return GradientReport(found, changes, tolerance)


def _double(leaf: Any) -> Array:
    array = np.asarray(leaf)
    return jnp.asarray(array, jnp.float64 if np.issubdtype(array.dtype, np.floating) else None)


def _is_integer(leaf: Any) -> bool:
    return not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def _check_array(
    name: str,
    values: np.ndarray,
    slope: np.ndarray,
    moved: Callable[[np.ndarray], tuple[float, list[Array]]],
    order: list[Array],
    rng: np.random.Generator,
    n_entries: int,
    step: float,
    changes: list[str],
) -> CheckedParameter:
    """Some entries of one array, and a direction."""
    finite = np.flatnonzero(np.isfinite(values.ravel()))
    checked = left_out = 0
    worst = CheckedParameter(0, 0, 0.0, "", 0.0, 0.0)
    scale = float(np.abs(values.ravel()[finite]).max(initial=0)) or 1.0
    floor = 1e-3 * float(np.abs(slope.ravel()[finite]).max(initial=0))
    for where, direction in _directions(values.shape, finite, rng, n_entries):
        expected = float(np.sum(np.where(direction != 0, slope * direction, 0)))
        difference, noise, change = _difference(moved, direction, step * scale, order)
        if change is not None:
            left_out += 1
            changes.append(f"{name}{where}: {change}")
            continue
        checked += 1
        size = max(abs(expected), abs(difference), floor * float(np.linalg.norm(direction)))
        error = max(abs(expected - difference) - noise, 0) / size if size != 0 else 0.0
        error = float("inf") if np.isnan(error) else error
        if error > worst.error:
            worst = CheckedParameter(0, 0, error, where, expected, difference)
    return dataclasses.replace(worst, checked=checked, left_out=left_out)


def _directions(shape: tuple[int, ...], finite: np.ndarray, rng: np.random.Generator, n: int):
    """Unit vectors of some entries, and a random direction of length 1."""
    size = int(np.prod(shape))
    for entry in rng.permutation(finite)[:n]:
        unit = np.zeros(size)
        unit[entry] = 1
        index = ", ".join(str(int(k)) for k in np.unravel_index(entry, shape))
        yield f"[{index}]", unit.reshape(shape)
    if len(finite) > 1:
        direction = np.zeros(size)
        direction[finite] = rng.normal(size=len(finite))
        yield "direction", (direction / np.linalg.norm(direction)).reshape(shape)


def _difference(moved, direction: np.ndarray, step: float, order: list[Array]):
    """The derivative along a direction, its rounding, and the event that keeps it from existing."""
    slopes, largest = [], 0.0
    for h in (step, step / 2):
        ends = []
        for sign in (1, -1):
            try:
                value, events = moved(sign * h * direction)
            except (ValueError, jax.errors.JaxRuntimeError) as error:  # it left its range
                return 0.0, 0.0, str(error).splitlines()[0]
            change = _first_change(order, events)
            if change is not None:
                return 0.0, 0.0, change
            ends.append(value)
        slopes.append((ends[0] - ends[1]) / (2 * h))
        largest = max(largest, *map(abs, ends))
    noise = 4 * np.finfo(np.float64).eps * largest / step
    return (4 * slopes[1] - slopes[0]) / 3, noise, None


def _first_change(before: list[Array], after: list[Array]) -> str | None:
    for old, new in zip(before, after, strict=True):
        differs = np.argwhere(np.asarray(old) != np.asarray(new))
        if len(differs) == 0:
            continue
        *sample, event = differs[0]
        of_sample = f"sample {', '.join(map(str, sample))}, " if sample else ""
        was, now = (int(np.asarray(x)[tuple(differs[0])]) for x in (old, new))
        return f"{of_sample}event {event} is {_event(now)} instead of {_event(was)}"
    return None


def _event(index: int) -> str:
    return "missing" if index < 0 else f"a spike of neuron {index}"


class Identities(NamedTuple):
    """What is left of three sums that are zero for exact gradients, relative to their terms.

    Attributes:
        voltage_scaling: weights, thresholds, resets, leaks and the initial state times their
            gradients: no spike moves when all voltages grow in proportion.
        time_scaling: time constants, delays, refractory periods and input times times their
            gradients, less spike times times the loss gradients: all spikes move in proportion.
        time_translation: the gradients of all times at which something enters, less those of the
            spike times.
    """

    voltage_scaling: Array
    time_scaling: Array
    time_translation: Array


def gradient_identities(
    loss: Callable[[Array], Array],
    params: LIFParameters,
    weights: Array,
    inputs: Spikes | SpikeQueue,
    *,
    state: LIFState | None = None,
    t_max: float | Array,
    max_events: int,
    **network: Any,
) -> Identities:
    """Tests the gradient of a run of :func:`jaxsnn.ops.event_loop` at the cost of the gradient.

    The gradient of any loss of spike times obeys three sums exactly, by the symmetries of the
    equations. What is left of them shows a wrong or badly rounded gradient of networks of any size,
    where differences are out of reach. Works under ``jit``.

    Args:
        loss: of the spike times ``[max_events]``, in which ``inf`` is padding.
        params: as of `event_loop`, without batch axes, and so are the others.
        weights: of the inputs.
        inputs: input spikes.
        state: where to start, at rest if it is None.
        t_max: the horizon.
        max_events: room for spikes.
        **network: further arguments of `event_loop`: delays, recurrent weights.

    Returns:
        The three residuals.
    """
    weights = jnp.asarray(weights)
    n_neurons, dtype = weights.shape[-1], weights.dtype
    state = initial_state(params, n_neurons, dtype) if state is None else state
    arguments = {
        "params": jax.tree.map(lambda x: jnp.asarray(x, dtype), params),
        "weights": weights,
        "state": state,
        "inputs": inputs.time,
        "network": {
            name: jnp.asarray(network.pop(name), dtype)
            for name in ("recurrent", "delays", "recurrent_delays")
            if network.get(name) is not None
        },
    }

    def times(arguments: Any) -> Array:
        return event_loop(
            arguments["params"],
            arguments["weights"],
            arguments["state"],
            inputs._replace(time=arguments["inputs"]),
            t_max=t_max,
            max_events=max_events,
            **arguments["network"],
            **network,
        ).spikes.time

    spikes, backward = jax.vjp(times, arguments)
    of_spikes = jax.grad(loss)(spikes)
    (gradient,) = backward(of_spikes)

    def scaled(*names: str) -> list[Array]:
        return [_product(_at(arguments, name), _at(gradient, name)) for name in names]

    network_names = [f"network.{name}" for name in arguments["network"] if name != "recurrent"]
    recurrent = ["network.recurrent"] if "recurrent" in arguments["network"] else []
    voltages = ("params.v_th", "params.v_leak", "params.v_reset", "state.v", "state.i")
    durations = ("params.tau_mem", "params.tau_syn", "params.t_ref")
    moments = ("inputs", "state.time", "state.release")
    entered = [_moved(_at(arguments, m), _at(gradient, m)) for m in moments]
    return Identities(
        _residual(scaled("weights", *recurrent, *voltages), []),
        _residual(scaled(*durations, *moments, *network_names), [_product(spikes, of_spikes)]),
        _residual(entered, [_moved(spikes, of_spikes)]),
    )


def _at(tree: Any, name: str) -> Array:
    for part in name.split("."):
        tree = tree[part] if isinstance(tree, dict) else getattr(tree, part)
    return tree


def _product(values: Array, gradient: Array) -> Array:
    """Entry by entry; what is infinite, like padding, has no part in it."""
    return jnp.ravel(jnp.where(jnp.isfinite(values), values * gradient, 0))


def _moved(times: Array, gradient: Array) -> Array:
    """What moving all times together does; infinite ones stay."""
    return jnp.ravel(jnp.where(jnp.isfinite(times), gradient, 0))


def _residual(left: list[Array], right: list[Array]) -> Array:
    terms = jnp.concatenate([*left, *(-x for x in right)])
    return jnp.abs(jnp.sum(terms)) / jnp.maximum(
        jnp.sum(jnp.abs(terms)), jnp.finfo(terms.dtype).tiny
    )
