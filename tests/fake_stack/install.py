"""Puts the stand-in, or nothing, where the vendor's packages would be."""

import sys
import types

from fake_stack import g2, g3
from fake_stack.common import Stack
from fake_stack.record import Transcript

BLOCKED = (
    "hxtorch",
    "_hxtorch_core",
    "_hxtorch_spiking",
    "pygrenade_vx",
    "dlens_vx_v3",
    "pyhalco_hicann_dls_vx_v3",
    "calix",
    "quantities",
)


def block(monkeypatch):
    """No package of the vendor can be imported."""
    for name in list(sys.modules):
        if name.partition(".")[0] in BLOCKED:
            monkeypatch.delitem(sys.modules, name)
    for name in BLOCKED:
        monkeypatch.setitem(sys.modules, name, None)


def install(monkeypatch, version, chip, without=()):
    """The stand-in of a version: ``"2024-08"``, ``"2026-03"``, ``"2026-06"``, or ``"G3"``.

    Args:
        monkeypatch: of pytest.
        version: of the interface.
        chip: behind it.
        without: dotted paths of what is not there.

    Returns:
        The transcript.
    """
    block(monkeypatch)
    transcript = Transcript()
    stack = Stack(chip, transcript)
    found = g3.modules(stack) if version == "G3" else g2.modules(stack, version)
    for path in without:
        found.pop(path, None)
        module, _, name = path.rpartition(".")
        if module in found:
            found[module].pop(name, None)
    made = {}
    for name, members in found.items():
        made[name] = types.ModuleType(name)
        made[name].__path__ = []  # modules may lie below
        vars(made[name]).update(members)
        monkeypatch.setitem(sys.modules, name, made[name])
    for name, module in made.items():
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, module)
    return transcript
