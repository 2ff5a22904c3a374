"""Times a training step of upstream jaxsnn's recurrent Yin-Yang example (0.3.0), at its defaults.

    python benchmarks/upstream_recurrent.py [HIDDEN] [BATCH]

Runs in an environment in which upstream is installed, since it has this package's import name.
Prints one JSON line with ``forward_ms`` and ``forward_backward_ms``, medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial

import jax
from jax import random
from jaxsnn.base.dataset import yinyang_dataset
from jaxsnn.event.modules import LIF, Linear, Source
from jaxsnn.event.modules.lif.lif import LIFParameters
from jaxsnn.examples.event.utils import loss_wrapper

from jaxsnn.event.encode import encode, spatio_temporal_encode, target_temporal_encode
from jaxsnn.event.loss import mse_loss
from jaxsnn.event.topology import Topology

TAU_SYN = 5e-3


def milliseconds(function, *arguments) -> float:
    jax.block_until_ready(function(*arguments))
    runs = []
    for _ in range(9):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        runs.append((time.perf_counter() - start) * 1e3)
    return statistics.median(runs)


def main() -> None:
    hidden, batch = (int(x) for x in (sys.argv[1:] + ["100", "64"][len(sys.argv) - 1 :])[:2])
    params = LIFParameters(v_reset=-1000.0, v_th=1.0, tau_syn=TAU_SYN, tau_mem=2 * TAU_SYN)
    inputs = jax.jit(
        jax.vmap(
            partial(
                spatio_temporal_encode, t_late=2 * TAU_SYN, duplication=1, duplicate_neurons=False
            )
        )
    )
    targets = jax.jit(
        jax.vmap(
            partial(
                target_temporal_encode,
                n_classes=3,
                correct_target_time=0.9 * TAU_SYN,
                wrong_target_time=1.1 * TAU_SYN,
            )
        )
    )
    samples = yinyang_dataset(random.PRNGKey(0), batch, mirror=True, bias_spike=0.0)
    data = encode(samples, inputs, targets)
    network = Topology(t_max=4 * TAU_SYN, backprop_method="eventprop")
    network.add(
        {
            "input": Source(5),
            "hidden": LIF(hidden, 50, params),
            "output": LIF(3, 53, params),
            "to_hidden": Linear(mean=3.0, std=1.6, min_delay=0.0),
            "to_output": Linear(mean=0.5, std=0.8, min_delay=0.0),
            "recurrent": Linear(mean=0.0, std=0.1, min_delay=0.0),
        }
    )
    network.connect(
        [
            ("input", "to_hidden"),
            ("to_hidden", "hidden"),
            ("hidden", "to_output"),
            ("to_output", "output"),
            ("hidden", "recurrent"),
            ("recurrent", "hidden"),
        ]
    )
    init, apply = network.done()
    weights = init(random.PRNGKey(1))
    loss = partial(loss_wrapper, apply, mse_loss, params.tau_mem, "output", 3)
    arguments = weights, ({"input": data[0]}, data[1])
    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    result = {
        "forward_ms": milliseconds(jax.jit(loss), *arguments),
        "forward_backward_ms": milliseconds(both, *arguments),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
