"""Rules of the code base that a reader relies on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("core", {"core"}),
        ("cpu", {"core", "cpu", "sys"}),
        ("ffi", {"core", "cpu", "ffi", "xla", "nanobind"}),
    ],
)
def test_includes_point_one_way(folder, allowed):
    sources = [p for p in (CSRC / folder).rglob("*") if p.suffix in {".h", ".cc"}]
    assert sources
    for source in sources:
        for name in re.findall(r'#include\s+["<]([^">]+)[">]', source.read_text()):
            assert "/" not in name or name.split("/")[0] in allowed, f"{source}: {name}"


def test_core_allocates_starts_and_throws_nothing():
    forbidden = re.compile(
        r"\b(new|malloc|throw|std::(vector|thread|function|mutex|unique_ptr|string))\b"
    )
    for source in (CSRC / "core").rglob("*.h"):
        code = re.sub(r"//.*", "", source.read_text())
        assert not forbidden.search(code), f"{source}: {forbidden.search(code)}"


def test_numerics_live_in_the_namespace_of_their_instruction_set():
    """Inline functions outside of it would be compiled for several sets under one name."""
    for source in (CSRC / "core").rglob("*.h"):
        if source.name != "types.h":
            opened = set(re.findall(r"^namespace (\S.*) {", source.read_text(), re.MULTILINE))
            assert opened - {"internal"} == {"jaxsnn::inline JAXSNN_ISA"}, source


def test_headers_of_others_come_before_the_instruction_set():
    begin = (CSRC / "cpu" / "isa_begin.h").read_text()
    for source in [*(CSRC / "core").rglob("*.h"), CSRC / "cpu" / "assemble.h"]:
        for name in re.findall(r"#include <([^>]+)>", source.read_text()):
            assert f"#include <{name}>" in begin, f"{source}: {name}"


def test_import_needs_jax_and_numpy_only():
    """The optional packages may be absent, and logging and JAX's configuration are left alone."""
    code = """
import logging, sys
for name in ("optax", "tqdm", "jaxtyping", "beartype", "matplotlib"):
    sys.modules[name] = None
import jax
before = dict(jax.config.values)
import jaxsnn, jaxsnn.event, jaxsnn.dataset, jaxsnn.event.training
import jaxsnn.discrete, jaxsnn.discrete.convergence
assert dict(jax.config.values) == before
assert not logging.getLogger().handlers and not logging.getLogger("jaxsnn").handlers
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
