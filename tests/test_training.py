import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.base.types import Spikes
from jaxsnn.dataset import yinyang
from jaxsnn.event import (
    LIF,
    EventPropLIF,
    Examples,
    Layer,
    adam,
    evaluation,
    fit,
    latency_encode,
    serial,
    ttfs_cross_entropy,
)
from jaxsnn.event.tasks._objective import without_silent_labels
from jaxsnn.event.training import batches_per_epoch, first_spike_objective

T_MAX = 60e-3


def loss(times, labels):
    return ttfs_cross_entropy(times, labels, tau0=1e-3, t_max=T_MAX)


def examples(size=40, seed=1):
    samples, labels = yinyang(seed, size)
    dtype = jnp.result_type(float)
    spikes = latency_encode(samples.astype(dtype), t_late=30e-3, bias_time=0.0)
    return Examples(spikes, jnp.asarray(labels, jnp.int32))


def network(factory=EventPropLIF, hidden_spikes=40):
    return serial(
        factory(8, n_spikes=hidden_spikes, t_max=T_MAX, mean=2.0, std=0.8, name="hidden"),
        factory(3, n_spikes=60, t_max=T_MAX, mean=4.0, std=0.5, name="output"),
    )


def run(net, seed=0, train=None, loss=loss, epochs=3, optimizer=None, **options):
    weights_key, order_key = jax.random.split(jax.random.key(seed))
    _, weights = net.init(weights_key, 5)
    arguments = {"batch_size": 8, "epochs": epochs, "key": order_key, **options}
    train = examples() if train is None else train
    optimizer = adam(1e-2, decay=0.9, steps_per_epoch=5) if optimizer is None else optimizer
    return list(fit(net, first_spike_objective(loss, 3), optimizer, weights, train, **arguments))


def curve(epochs):
    return [epoch.train.loss for epoch in epochs]


def test_both_gradients_give_the_same_loss_curve(x64):  # noqa: ARG001
    by_adjoint = run(network(EventPropLIF), epochs=4)
    by_events = run(network(LIF), epochs=4)
    np.testing.assert_allclose(curve(by_adjoint), curve(by_events), rtol=1e-8)
    for one, other in zip(by_adjoint[-1].weights, by_events[-1].weights, strict=True):
        assert one.dtype == jnp.float64
        np.testing.assert_allclose(one, other, rtol=1e-7)
    assert by_adjoint[-1].train.spikes == by_events[-1].train.spikes


def test_training_lowers_the_loss():
    epochs = run(network(), epochs=20, optimizer=adam(3e-2))
    assert curve(epochs)[-1] < 0.7 * curve(epochs)[0]
    assert epochs[-1].train.accuracy > 0.7


def test_same_seed_same_result():
    first, second, other = run(network()), run(network()), run(network(), seed=1)
    assert curve(first) == curve(second)
    assert all(map(np.array_equal, first[-1].weights, second[-1].weights))
    assert curve(first) != curve(other)


def test_metrics_are_those_of_an_independent_count():
    net, held_out = network(), examples(seed=2)
    epoch = run(net, epochs=1, held_out={"test": held_out})[0]
    recorded = net.apply(epoch.weights, held_out.spikes)
    first = np.full((len(held_out.labels), 3), np.inf)
    for row, (times, indices) in enumerate(zip(*map(np.asarray, recorded[-1]), strict=True)):
        for time, index in zip(times, indices, strict=True):
            if index >= 0:
                first[row, index] = min(first[row, index], time)
    correct = (first.argmin(1) == np.asarray(held_out.labels)) & np.isfinite(first.min(1))
    metrics = epoch.held_out["test"]
    assert metrics.accuracy == pytest.approx(correct.mean())
    assert metrics.loss == pytest.approx(float(loss(first.astype("f4"), held_out.labels).mean()))
    expected = [np.isfinite(np.asarray(layer.time)).sum(1).mean() for layer in recorded]
    assert metrics.spikes == pytest.approx(expected)


def test_an_epoch_is_a_sequence_of_updates_on_shuffled_batches():
    optax = pytest.importorskip("optax")
    net, train = network(), examples()
    optimizer = optax.sgd(1e-3)
    epoch = run(net, optimizer=optimizer, epochs=1)[0]

    weights_key, order_key = jax.random.split(jax.random.key(0))
    _, weights = net.init(weights_key, 5)
    evaluate = evaluation(net, first_spike_objective(loss, 3))
    order = jax.random.permutation(jax.random.fold_in(order_key, 1), 40).reshape(5, 8)
    assert sorted(np.ravel(order)) == list(range(40))
    losses = []
    for rows in order:
        batch = jax.tree.map(lambda x, rows=rows: x[rows], train)
        value, gradient = jax.value_and_grad(lambda w, batch=batch: evaluate(w, batch)[0])(weights)
        weights = [w - 1e-3 * g for w, g in zip(weights, gradient, strict=True)]
        losses.append(float(value))
    assert epoch.train.loss == pytest.approx(np.mean(losses), rel=1e-4)
    for one, other in zip(epoch.weights, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)


def test_learning_rate_decays_by_epoch():
    optimizer = adam(0.1, decay=0.5, steps_per_epoch=2)
    weight = jnp.zeros(())
    state, steps = optimizer.init(weight), []
    for _ in range(4):
        step, state = optimizer.update(jnp.ones(()), state, weight)
        steps.append(float(step))
    np.testing.assert_allclose(steps, [-0.1, -0.1, -0.05, -0.05], rtol=1e-4)


def test_compilation_is_counted_once():
    epochs = run(network(), held_out={"test": examples(seed=2)})
    assert epochs[0].seconds > epochs[0].compile_seconds > 0
    assert [epoch.compile_seconds for epoch in epochs[1:]] == [0, 0]


def poisoned(value):
    """A loss that is not finite for the label 2."""

    def bad(times, labels):
        return jnp.where(labels == 2, value, loss(times, labels))

    return bad


def poisoned_gradient(times, labels):
    """A loss that is finite, with a gradient that is not for the label 2."""
    return jnp.sqrt(jnp.where(labels == 2, 0 * times[:, 0], 1.0)) + loss(times, labels)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (poisoned(jnp.nan), "the loss is nan"),
        (poisoned(jnp.inf), "the loss is inf"),
        (poisoned_gradient, "the gradient is not finite"),
    ],
)
def test_non_finite_values_stop_training(bad, said):
    wrong = 7
    train = examples()
    train = train._replace(labels=(train.labels % 2).at[wrong].set(2))
    order_key = jax.random.split(jax.random.key(0))[1]
    order = jax.random.permutation(jax.random.fold_in(order_key, 1), 40)
    batch = int(np.argwhere(np.asarray(order) == wrong)[0, 0]) // 8 + 1
    with pytest.raises(FloatingPointError, match=rf"{said} in epoch 1, batch {batch} of 5"):
        run(network(), train=train, loss=bad)


def test_non_finite_gradients_may_be_counted_instead():
    train = examples()
    train = train._replace(labels=(train.labels % 2).at[7].set(2))
    optax = pytest.importorskip("optax")
    epochs = run(
        network(),
        train=train,
        loss=poisoned_gradient,
        optimizer=optax.sgd(1e-3),
        skip_non_finite=True,
    )
    assert [epoch.non_finite for epoch in epochs] == [1, 1, 1]
    assert curve(epochs)[-1] != curve(epochs)[0]
    assert all(np.isfinite(weights).all() for weights in epochs[-1].weights)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1"):
        run(network(), train=train, loss=poisoned(jnp.nan), skip_non_finite=True)


def test_augmented_samples_are_for_training_alone():
    def silence(key, spikes):
        gone = jax.random.bernoulli(key, 1.0, spikes.time.shape)
        return Spikes(jnp.where(gone, jnp.inf, spikes.time), jnp.where(gone, -1, spikes.index))

    held_out = {"test": examples()}
    epoch = run(network(), epochs=1, augment=silence, held_out=held_out)[0]
    assert epoch.train.spikes == (0, 0)
    assert epoch.held_out["test"].spikes[0] > 0


def test_non_finite_held_out_loss_stops_training():
    train = examples()
    train = train._replace(labels=train.labels % 2)
    with pytest.raises(FloatingPointError, match="held-out set 'test' is nan after epoch 1"):
        run(network(), train=train, loss=poisoned(jnp.nan), held_out={"test": examples(seed=2)})


def test_capacity_error_reaches_the_caller():
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"hidden, sample \d+: more .*spikes.* 1\b"
    ):
        run(network(hidden_spikes=1))


@pytest.mark.parametrize("batch_size", [0, 41])
def test_batch_size_out_of_range_is_rejected(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size is {batch_size}, expected 1 to n_samp"):
        batches_per_epoch(40, batch_size)
    with pytest.raises(ValueError, match="batch_size is"):
        run(network(), batch_size=batch_size)


def test_samples_left_over_come_later():
    epochs = run(network(), batch_size=16)  # 2 of 2.5 batches
    assert len(epochs) == 3


def test_network_without_spikes_trains_on():
    silent = Layer(network().init, lambda _, s: [Spikes(s.time + jnp.inf, s.index * 0 - 1)] * 2)
    epoch = run(silent, epochs=1)[0]
    assert epoch.train.accuracy == 0
    assert epoch.train.spikes == (0, 0)
    assert np.isfinite(epoch.train.loss)


def test_silent_labels_have_no_gradient():
    times = jnp.array([[0.01, 0.02, jnp.inf], [0.01, 0.02, jnp.inf], [0.01, T_MAX, 0.03]])
    labels = jnp.array([0, 2, 1])

    def total(times):
        return loss(without_silent_labels(times, labels, T_MAX), labels).sum()

    assert jnp.array_equal(without_silent_labels(times, labels, T_MAX), times)
    moving = jnp.any(jax.grad(total)(times) != 0, axis=1)
    assert moving.tolist() == [True, False, False]


def test_import_needs_no_extra():
    code = (
        "import sys; sys.modules['optax'] = sys.modules['tqdm'] = None\n"
        "import jaxsnn.event, jaxsnn.event.tasks.yinyang_event_prop as program\n"
        "try: jaxsnn.event.adam(0.1)\n"
        "except ImportError as error: print(error)\n"
        "print(program.main(['--epochs', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, status = done.stdout.splitlines()
    assert 'pip install "jaxsnn[train]"' in message
    assert status == "1"
    assert 'pip install "jaxsnn[train]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
