"""The steps that are timed, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxsnn import LIFParameters
from networks import (
    PARAMS,
    Step,
    pure_jax_lif,
    recurrent_step,
    recurrent_yinyang_step,
    wide_step,
    yinyang_step,
)

# No closed form for crossings.
GENERAL = LIFParameters(tau_mem=3 * PARAMS.tau_syn, tau_syn=PARAMS.tau_syn, v_reset=-1000.0)
GENERAL_WIDE = LIFParameters(tau_mem=20e-3, tau_syn=7e-3)

STEPS: dict[str, Callable[[], Step]] = {
    "yinyang-100": partial(yinyang_step, 100, 64),
    "yinyang-400": partial(yinyang_step, 400, 64),
    "yinyang-latency": partial(yinyang_step, 100, 1, duplication=1),
    "yinyang-throughput": partial(yinyang_step, 100, 4096, duplication=1),
    "yinyang-general": partial(yinyang_step, 100, 64, params=GENERAL),
    "yinyang-per-neuron": partial(yinyang_step, 100, 64, heterogeneous=True),
    "yinyang-recurrent": partial(recurrent_yinyang_step, 100, 64),
    "wide": partial(wide_step, 32),
    "wide-general": partial(wide_step, 32, params=GENERAL_WIDE),
    "wide-per-neuron": partial(wide_step, 32, heterogeneous=True),
    "recurrent": partial(recurrent_step, 32),
}

# The same layers in JAX alone, where that takes less than seconds.
PURE_JAX: dict[str, Callable[[], Step]] = {
    "yinyang-100": partial(yinyang_step, 100, 64, pure_jax_lif),
    "yinyang-400": partial(yinyang_step, 400, 64, pure_jax_lif),
    "yinyang-latency": partial(yinyang_step, 100, 1, pure_jax_lif, duplication=1),
}
