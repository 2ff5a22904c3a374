"""Training with optax: one jitted scan over the batches per epoch.

Needs the extra ``jaxsnn[train]``; importing this module does not. The data are encoded once,
before training, and stay on the device: an epoch draws a random order from its key, gathers its
batches inside the scan and hands back a few numbers per batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Bool, Float, Int, Spikes
from jaxsnn.event.component import Recording
from jaxsnn.event.leaky_integrate import Reading
from jaxsnn.event.loss import first_spike_times, predict, voltage_cross_entropy
from jaxsnn.event.population import Layer

if TYPE_CHECKING:
    import optax

__all__ = [
    "Augment",
    "Epoch",
    "Examples",
    "Judgement",
    "Metrics",
    "Objective",
    "adam",
    "batches_per_epoch",
    "evaluation",
    "first_spike_objective",
    "fit",
    "training_epoch",
    "voltage_objective",
]

_MODULE = "jaxsnn.event.training"

Loss = Callable[[Array, Array], Array]


class Examples(NamedTuple):
    """A set of encoded samples.

    Attributes:
        spikes: input as the network takes it, e.g. :class:`Spikes` ``[n_samples, n_spikes]``.
        labels: ``[n_samples]`` integers, the output neuron of the right class.
    """

    spikes: Any
    labels: Int[Array, " n_samples"]


class Metrics(NamedTuple):
    """Means over the samples of an epoch or of a set.

    Attributes:
        loss: mean loss per sample, without unit.
        accuracy: fraction of samples that are recognised; in training, of each batch before its
            update.
        spikes: spikes per sample, of every layer.
    """

    loss: float
    accuracy: float
    spikes: tuple[float, ...]


class Epoch(NamedTuple):
    """What an epoch leaves behind.

    Attributes:
        number: 1 for the first.
        weights: after the epoch.
        train: metrics of the epoch's batches.
        held_out: metrics of each held-out set after the epoch, under its name.
        seconds: wall time of the epoch and its evaluation, compilation included.
        compile_seconds: how much of this was compilation; 0 after the first epoch.
        non_finite: number of batches that were skipped because their gradient was not finite.
    """

    number: int
    weights: Any
    train: Metrics
    held_out: dict[str, Metrics]
    seconds: float
    compile_seconds: float
    non_finite: int = 0


def require_optax() -> Any:
    """The module ``optax``, or an ``ImportError`` that says how to install it."""
    try:
        import optax  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(
            f'{_MODULE} needs optax, install it with: pip install "jaxsnn[train]"'
        ) from error
    return optax


def batches_per_epoch(n_samples: int, batch_size: int) -> int:
    """Number of full batches.

    Raises:
        ValueError: there is none.
    """
    if not 1 <= batch_size <= n_samples:
        raise ValueError(
            f"{_MODULE}: batch_size is {batch_size}, expected 1 to n_samples={n_samples}"
        )
    return n_samples // batch_size


def adam(
    learning_rate: float, *, decay: float = 1.0, steps_per_epoch: int = 1
) -> optax.GradientTransformation:
    """Adam whose learning rate is multiplied by a factor after every epoch.

    Args:
        learning_rate: of the first epoch, in units of the weights.
        decay: the factor, 1 for a constant rate.
        steps_per_epoch: see `batches_per_epoch`.

    Returns:
        The optimizer.
    """
    optax = require_optax()
    schedule = optax.exponential_decay(learning_rate, steps_per_epoch, decay, staircase=True)
    return optax.adam(schedule)


class Judgement(NamedTuple):
    """What an objective says of a batch.

    Attributes:
        loss: ``[n_samples]``.
        correct: ``[n_samples]``, whether the right class was recognised.
        spikes: ``[n_layers]``, spikes per sample of every layer; None counts what the layers
            recorded.
    """

    loss: Float[Array, " n_samples"]
    correct: Bool[Array, " n_samples"]
    spikes: Float[Array, " n_layers"] | None = None


#: From a key and input spikes ``[n_samples, n_spikes]`` to such as the network is to learn from.
Augment = Callable[[Array, Spikes], Spikes]

#: From what a network recorded, layer by layer, and the labels ``[n_samples]``.
Objective = Callable[[Any, Array], Judgement]


def first_spike_objective(loss: Loss, n_outputs: int) -> Objective:
    """Judges the first spikes of the last layer: the neuron that fires first names the class.

    Args:
        loss: ``loss(times [n_samples, n_outputs], labels [n_samples]) -> [n_samples]``, see
            `jaxsnn.event.loss`.
        n_outputs: number of output neurons, one per class.
    """

    def judge(recorded: Any, labels: Array) -> Judgement:
        times = first_spike_times(recorded[-1], n_outputs)
        return Judgement(loss(times, labels), predict(times) == labels)

    return judge


def voltage_objective(read: Callable[[Reading], Array], *, scale: float | Array = 1.0) -> Objective:
    """Judges what was read from leaky integrators, the last layer: the largest names the class.

    Args:
        read: from a reading to values ``[n_samples, n_outputs]``, e.g. its ``maximum.v``.
        scale: see `jaxsnn.event.loss.voltage_cross_entropy`.
    """

    def judge(recorded: Any, labels: Array) -> Judgement:
        values = read(recorded[-1])
        loss = voltage_cross_entropy(values, labels, scale=scale)
        return Judgement(loss, jnp.argmax(values, -1) == labels)

    return judge


def _spikes_of(layer: Any) -> Spikes | None:
    """The spikes of what a layer recorded, if it spikes at all."""
    if isinstance(layer, Recording):
        layer = layer.output
    return layer if isinstance(layer, Spikes) else None


def evaluation(network: Layer, objective: Objective) -> jax.stages.Wrapped:
    """Makes the function that evaluates a whole set of samples in one call.

    Args:
        network: as of `jaxsnn.event.compose.serial`; ``apply`` gives a sequence with the spikes of
            every layer, a reading or a recording.
        objective: e.g. `first_spike_objective`.

    Returns:
        A jitted ``f(weights, examples) -> (loss, accuracy, spikes [n_layers])``, the fields of
        `Metrics` as arrays. Layers without spikes are left out of the last one.
    """

    def evaluate(weights: Any, examples: Examples) -> tuple[Array, Array, Array]:
        recorded = network.apply(weights, examples.spikes)
        loss, correct, fired = objective(recorded, examples.labels)
        if fired is None:
            layers = [spikes for spikes in map(_spikes_of, recorded) if spikes is not None]
            fired = jnp.stack([jnp.sum(spikes.index >= 0) for spikes in layers])
            fired = fired.astype(loss.dtype) / examples.labels.shape[0]
        return jnp.mean(loss), jnp.mean(correct, dtype=loss.dtype), fired

    return jax.jit(evaluate)


def training_epoch(
    network: Layer,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    augment: Augment | None = None,
) -> jax.stages.Wrapped:
    """Makes the function that trains for one epoch.

    Args:
        network: as in `evaluation`.
        objective: as in `evaluation`; the gradient is that of the mean loss of the batch.
        optimizer: an optax optimizer.
        batch_size: samples per update. What is left over after the last full batch of a random
            order waits for the next epoch's.
        augment: changes the input spikes of every batch at random, e.g. drops some.

    Returns:
        A jitted ``f(weights, optimizer_state, examples, key) -> (weights, optimizer_state,
        batches)``. ``batches`` has the leading axis ``n_batches``: ``loss``, ``accuracy``, ``spikes
        [n_batches, n_layers]`` and ``finite``, whether the gradient was. A batch whose loss or
        gradient is not finite changes nothing.
    """
    optax = require_optax()
    evaluate = evaluation(network, objective)

    def mean_loss(weights: Any, batch: Examples) -> tuple[Array, tuple[Array, Array]]:
        value, accuracy, spikes = evaluate(weights, batch)
        return value, (accuracy, spikes)

    def run(weights: Any, optimizer_state: Any, examples: Examples, key: Array):
        n_samples = examples.labels.shape[0]
        n_batches = batches_per_epoch(n_samples, batch_size)
        order = jax.random.permutation(key, n_samples)[: n_batches * batch_size]

        def update(carry, drawn):
            weights, optimizer_state = carry
            rows, batch_key = drawn
            batch = jax.tree.map(lambda x: x[rows], examples)
            if augment is not None:
                batch = batch._replace(spikes=augment(batch_key, batch.spikes))
            (value, (accuracy, spikes)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
                weights, batch
            )
            step, new_state = optimizer.update(gradient, optimizer_state, weights)
            finite = _all_finite(gradient)
            # Without this, the error would be that of a layer in the next batch.
            carry = _select(
                finite & jnp.isfinite(value),
                (optax.apply_updates(weights, step), new_state),
                carry,
            )
            facts = {"loss": value, "accuracy": accuracy, "spikes": spikes, "finite": finite}
            return carry, facts

        rows = order.reshape(n_batches, batch_size)
        batch_keys = jax.random.split(jax.random.fold_in(key, 0), n_batches)
        (weights, optimizer_state), batches = jax.lax.scan(
            update, (weights, optimizer_state), (rows, batch_keys)
        )
        return weights, optimizer_state, batches

    return jax.jit(run)


def fit(
    network: Layer,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    weights: Any,
    train: Examples,
    *,
    batch_size: int,
    epochs: int,
    key: Array,
    held_out: Mapping[str, Examples] | None = None,
    skip_non_finite: bool = False,
    augment: Augment | None = None,
) -> Iterator[Epoch]:
    """Trains, and yields after every epoch.

    The caller decides what to do between epochs: show, save, or stop. The same key and arguments
    give the same results.

    Args:
        network: as in `evaluation`.
        objective: as in `evaluation`.
        optimizer: an optax optimizer, e.g. `adam`.
        weights: initial weights, as of ``network.init``.
        train: samples to learn from.
        batch_size: samples per update, see `training_epoch`.
        epochs: how often to go through the samples.
        key: for the order of the samples; epoch ``e`` uses ``jax.random.fold_in(key, e)``.
        held_out: sets to evaluate after every epoch, by name.
        skip_non_finite: count the batches whose gradient is not finite, see `Epoch`, instead of
            raising. They change nothing either way.
        augment: as in `training_epoch`. The metrics of training are those of what it gives.

    Yields:
        One `Epoch` after another.

    Raises:
        FloatingPointError: a loss or gradient is not finite; says in which epoch and batch, or
            held-out set. The epochs yielded before are unaffected.
        jax.errors.JaxRuntimeError: from a layer, e.g. for more spikes than it has room for.
    """
    start = time.perf_counter()
    held_out = dict(held_out or {})
    state = optimizer.init(weights)
    run = training_epoch(network, objective, optimizer, batch_size, augment)
    run = run.lower(weights, state, train, key).compile()
    evaluators = _compiled(evaluation(network, objective), weights, held_out)
    compile_seconds = time.perf_counter() - start

    for number in range(1, epochs + 1):
        weights, state, batches = run(weights, state, train, jax.random.fold_in(key, number))
        batches = {name: np.asarray(value) for name, value in batches.items()}
        _check_batches(batches, number, skip_non_finite)
        results = {
            name: _metrics(*evaluators[name](weights, examples))
            for name, examples in held_out.items()
        }
        _check_held_out(results, number)
        yield Epoch(
            number,
            weights,
            _metrics(*(batches[name].mean(0) for name in ("loss", "accuracy", "spikes"))),
            results,
            time.perf_counter() - start,
            compile_seconds,
            int(np.sum(~batches["finite"])),
        )
        start, compile_seconds = time.perf_counter(), 0.0


def _compiled(
    evaluate: jax.stages.Wrapped, weights: Any, held_out: Mapping[str, Examples]
) -> dict[str, Any]:
    """The evaluation, compiled for every held-out set; sets of equal shape share it."""
    by_shape: dict[Any, Any] = {}
    compiled = {}
    for name, examples in held_out.items():
        shape = jax.tree.map(jnp.shape, examples)
        if shape not in by_shape:
            by_shape[shape] = evaluate.lower(weights, examples).compile()
        compiled[name] = by_shape[shape]
    return compiled


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _select(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)


def _metrics(loss: Any, accuracy: Any, spikes: Any) -> Metrics:
    return Metrics(float(loss), float(accuracy), tuple(np.asarray(spikes).tolist()))


def _check_batches(batches: Mapping[str, np.ndarray], epoch: int, skip_non_finite: bool) -> None:
    """Raises for the first batch of an epoch with a loss or gradient that is not finite."""
    wrong = ~(np.isfinite(batches["loss"]) & (batches["finite"] | skip_non_finite))
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    loss = batches["loss"][first]
    what = "the gradient is not finite" if np.isfinite(loss) else f"the loss is {loss}"
    raise FloatingPointError(
        f"{_MODULE}: {what} in epoch {epoch}, batch {first + 1} of {len(wrong)}"
    )


def _check_held_out(results: Mapping[str, Metrics], epoch: int) -> None:
    """Raises for a held-out set whose loss is not finite."""
    for name, metrics in results.items():
        if not math.isfinite(metrics.loss):
            raise FloatingPointError(
                f"{_MODULE}: the loss of held-out set {name!r} is {metrics.loss} "
                f"after epoch {epoch}"
            )
