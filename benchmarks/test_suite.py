"""Each step forward, forward and backward, and its compilation; beside it the same in JAX alone and
the bound, a plain loop that adds the same rows of weights.
"""

import jax
import pytest

from bound import bound
from suite import PURE_JAX, STEPS

NAMES = pytest.mark.parametrize("name", STEPS)
IN_JAX = pytest.mark.parametrize("name", PURE_JAX)
DIRECTIONS = pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])


@NAMES
@DIRECTIONS
@pytest.mark.benchmark(group="jaxsnn")
def test_step(timed, name, backward):
    step = STEPS[name]()
    timed(jax.jit(jax.value_and_grad(step.loss) if backward else step.loss), *step.arguments)


@IN_JAX
@DIRECTIONS
@pytest.mark.benchmark(group="pure JAX")
def test_pure_jax(timed, name, backward):
    step = PURE_JAX[name]()
    timed(jax.jit(jax.value_and_grad(step.loss) if backward else step.loss), *step.arguments)


@NAMES
@DIRECTIONS
@pytest.mark.benchmark(group="bound")
def test_bound(timed, name, backward):
    timed(bound(STEPS[name]().projections, backward=backward))


@NAMES
@pytest.mark.benchmark(group="compilation")
def test_compilation(benchmark, name):
    step = STEPS[name]()

    def compile_step():
        jax.clear_caches()
        jax.jit(jax.value_and_grad(step.loss)).lower(*step.arguments).compile()

    benchmark.pedantic(compile_step, rounds=3, warmup_rounds=1)
