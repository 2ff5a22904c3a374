"""Synthetic data sets for both simulators.

Every generator has the form ``f(seed, size, **options) -> Dataset``, needs NumPy alone, is
deterministic and leaves NumPy's global random state untouched. Samples are values, not spikes:
`jaxsnn.event.encode` turns them into spike times.
"""

from jaxsnn.dataset._constant import constant
from jaxsnn.dataset._plane import circle, linear
from jaxsnn.dataset._types import Dataset
from jaxsnn.dataset._yinyang import yinyang

__all__ = ["Dataset", "circle", "constant", "linear", "yinyang"]
