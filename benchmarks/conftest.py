import jax
import pytest


@pytest.fixture
def timed(benchmark):
    """Times a jitted function to the end of its computation, compilation apart."""

    def run(function, *arguments):
        jitted = jax.jit(function)
        jax.block_until_ready(jitted(*arguments))
        benchmark.pedantic(
            lambda: jax.block_until_ready(jitted(*arguments)),
            rounds=30,
            iterations=3,
            warmup_rounds=3,
        )

    return run
