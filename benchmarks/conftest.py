import jax
import pytest


@pytest.fixture
def timed(benchmark):
    """Times a function to the end of its computation, compilation apart."""

    def run(function, *arguments):
        benchmark.pedantic(
            lambda: jax.block_until_ready(function(*arguments)), rounds=30, warmup_rounds=3
        )

    return run
