"""One training step of a network in time steps, timed: prints a line of JSON.

    python benchmarks/discrete_step.py A|B

A: 5 inputs with one spike each, 120 hidden neurons, 3 outputs, 60 steps of 0.5 ms. B: 700 inputs
that spike in 2 % of the steps, 512 recurrent hidden neurons, 20 outputs, 250 steps of 1 ms. Both:
batch 64, float32, weights for about two spikes per hidden neuron, cross-entropy of the largest
voltage of leaky integrators.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import LIFParameters
from jaxsnn.discrete import (
    LI,
    LIF,
    RecurrentLIF,
    RecurrentWeights,
    max_over_time_decode,
    nll_loss,
    serial,
)

BATCH = 64
TASKS = {
    "A": {"inputs": 5, "hidden": 120, "outputs": 3, "steps": 60, "dt": 0.5e-3},
    "B": {"inputs": 700, "hidden": 512, "outputs": 20, "steps": 250, "dt": 1e-3},
}
PARAMS = LIFParameters(tau_mem=10e-3, tau_syn=5e-3)


def data(task):
    """Spikes and labels."""
    size, rng = TASKS[task], np.random.default_rng(0)
    shape = (BATCH, size["steps"], size["inputs"])
    if task == "A":
        when = rng.integers(0, size["steps"] // 2, (BATCH, size["inputs"]))
        spikes = (np.arange(size["steps"])[:, None] == when[:, None, :]).astype(np.float32)
    else:
        spikes = (rng.random(shape, np.float32) < 0.02).astype(np.float32)
    return jnp.asarray(spikes), jnp.asarray(rng.integers(0, size["outputs"], BATCH))


def network(task):
    """The layers, and a function from the size of the weights to weights."""
    size, rng = TASKS[task], np.random.default_rng(1)
    recurrent = task == "B"
    kind = RecurrentLIF if recurrent else LIF
    layers = serial(
        kind(size["hidden"], dt=size["dt"], params=PARAMS),
        LI(size["outputs"], dt=size["dt"], params=PARAMS),
    )
    active = size["inputs"] * (0.02 if recurrent else 1)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    feed = (0.3 + draw(size["inputs"], size["hidden"])) / np.sqrt(active)
    own = 0.2 * draw(size["hidden"], size["hidden"]) / np.sqrt(size["hidden"])
    read = draw(size["hidden"], size["outputs"]) / np.sqrt(size["hidden"])

    def weights(gain):
        return [RecurrentWeights(gain * feed, gain * own) if recurrent else gain * feed, read]

    return layers.apply, weights


def calibrated(apply, weights, spikes):
    """Weights with which hidden neurons fire two spikes per sample, and how many they do."""
    count = jax.jit(lambda w: apply(w, spikes)[0].sum(1).mean())
    low, high = 1e-2, 1e3
    for _ in range(30):
        gain = (low * high) ** 0.5
        found = float(count(weights(gain)))
        if abs(found - 2) < 0.1:
            break
        low, high = (gain, high) if found < 2 else (low, gain)
    return weights(gain), found


def main() -> None:
    task = sys.argv[1]
    spikes, labels = data(task)
    apply, weights = network(task)
    chosen, fired = calibrated(apply, weights, spikes)

    def loss(weights, spikes, labels):
        return nll_loss(max_over_time_decode(apply(weights, spikes)[-1]), labels).mean()

    result = {"task": task, "spikes": round(fired, 2)}
    for name, function in (("fwd", loss), ("fwd_bwd", jax.value_and_grad(loss))):
        jitted = jax.jit(function)
        start = time.perf_counter()
        jax.block_until_ready(jitted(chosen, spikes, labels))
        result[f"{name}_compile_s"] = round(time.perf_counter() - start, 2)
        runs = []
        for _ in range(200 if task == "A" else 20):
            start = time.perf_counter()
            jax.block_until_ready(jitted(chosen, spikes, labels))
            runs.append(1e3 * (time.perf_counter() - start))
        result[f"{name}_ms"] = round(statistics.median(runs), 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result | {"peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
