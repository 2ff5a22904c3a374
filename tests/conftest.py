"""Settings of all tests: annotations are checked; float64 is one fixture away."""

import sys

import jaxtyping
import pytest

# Shapes and dtypes in annotations hold wherever a test goes. jaxsnn.base stays out: the leaves of
# LIFParameters, a pytree, may be placeholders (None, in_axes of vmap) that are no parameters.
# So does jaxsnn.ops._ffi, whose rules are called by JAX with whatever it traces.
CHECKED = [
    f"jaxsnn.{part}"
    for part in ("dataset", "discrete", "event", "ops._neuron", "ops._status", "ops._window")
]
if any(name.startswith("jaxsnn") for name in sys.modules):
    raise ImportError("jaxsnn was imported before its annotations could be checked")
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

# These call functions with types that work, but that the annotations do not name.
ACCEPTED_BEYOND_ANNOTATIONS = (
    "test_interval_ends_are_exact",  # t_late: np.float32
    "test_seed_alone_decides",  # seed: np.uint32
    "test_target_times_of_a_given_type",  # labels: uint8
)


@pytest.fixture(autouse=True)
def _annotations(request):
    """Lets tests of refused arguments, by their name, see the errors of the package itself."""
    name = request.node.name
    if "reject" in name or name.startswith(ACCEPTED_BEYOND_ANNOTATIONS):
        request.getfixturevalue("unchecked")


@pytest.fixture
def unchecked():
    """No checks by annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Float64 by default."""
    import jax

    with jax.enable_x64(True):
        yield
