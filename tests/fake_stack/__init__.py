"""A strict, recorded stand-in of the vendor's packages.

Only the calls that the bridge is known to need exist; every other attribute raises, as do wrong
types, units and orders. Calls are recorded, and a run is that of an emulated chip, so that all of
the bridge works without one. It shows that the bridge makes the calls that are documented; it
cannot show that the documentation is right.
"""

from fake_stack.chip import FakeChip
from fake_stack.install import BLOCKED, block, install
from fake_stack.record import Transcript

__all__ = ["BLOCKED", "FakeChip", "Transcript", "block", "install"]
