"""How a call can end, and which of the ends raise."""

from __future__ import annotations

import enum
from collections.abc import Collection

import numpy as np

from jaxsnn import _core
from jaxsnn.base.types import Array, Float, Int32


class Status(enum.IntEnum):
    """How a call ended for one example.

    After every status but the first two the results and gradients of the example are NaN.
    """

    OK = 0
    EVENT_CAPACITY = 1  # the record is full; the state is that after its last spike
    NO_CONVERGENCE = 2  # a threshold crossing could not be solved
    UNSORTED_INPUT = 3  # spike times descend, or lie before the state's time
    NON_FINITE = 4  # NaN or infinity where a number was needed
    INVALID_VALUE = 5  # a value out of its range


#: What operations raise for unless told otherwise: everything that is not a valid end.
FAILURES: frozenset[Status] = frozenset(Status) - {Status.OK, Status.EVENT_CAPACITY}


def status_message(
    status: Int32[Array, ""] | int, detail: Float[Array, 3] | tuple[float, float, float]
) -> str:
    """The sentence behind the status of one example.

    Args:
        status: the status of the example.
        detail: the facts that were returned with it.

    Returns:
        Which argument was wrong, what it was and what it should be; ``"ok"`` if nothing was.
    """
    argument, element, value = (float(x) for x in np.asarray(detail))
    if np.isnan(argument) or np.isnan(element):
        argument, element = 0, 0
    return _core.message(int(status), int(argument), int(element), value)


def raise_mask(raise_on: Collection[Status]) -> int:
    """The statuses as a bit mask for the custom calls."""
    return sum(1 << int(Status(status)) for status in set(raise_on))
