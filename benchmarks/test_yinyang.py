"""The Yin-Yang step: forward, forward and backward, compilation; beside it the same in JAX."""

import jax
import pytest

from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from networks import pure_jax_lif, yinyang_step

LAYERS = {"jaxsnn": EventPropLIF, "pure_jax": pure_jax_lif}
SIZES = pytest.mark.parametrize(("hidden", "batch"), [(100, 64), (400, 64)])
KINDS = pytest.mark.parametrize("kind", LAYERS)


@SIZES
@KINDS
@pytest.mark.benchmark(group="yinyang forward")
def test_forward(timed, kind, hidden, batch):
    step = yinyang_step(hidden, batch, LAYERS[kind])
    timed(step.loss, *step.arguments)


@SIZES
@KINDS
@pytest.mark.benchmark(group="yinyang forward and backward")
def test_forward_backward(timed, kind, hidden, batch):
    step = yinyang_step(hidden, batch, LAYERS[kind])
    timed(jax.value_and_grad(step.loss), *step.arguments)


@KINDS
@pytest.mark.benchmark(group="yinyang compile")
def test_compile(benchmark, kind):
    step = yinyang_step(100, 64, LAYERS[kind])

    def compile_step():
        jax.clear_caches()
        jax.jit(jax.value_and_grad(step.loss)).lower(*step.arguments).compile()

    benchmark.pedantic(compile_step, rounds=3, warmup_rounds=1)
