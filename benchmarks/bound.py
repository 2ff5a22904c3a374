"""The bound of a step: a plain C++ loop that adds the same rows of weights, with the same threads.

Compiled on first use with the compiler that builds the package, for the machine at hand.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("bound.cc")


@functools.cache
def _library() -> ctypes.CDLL:
    target = Path(tempfile.mkdtemp()) / "bound.so"
    options = ["-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-pthread"]
    subprocess.run(
        [os.environ.get("CXX", "c++"), *options, str(SOURCE), "-o", str(target)], check=True
    )
    return ctypes.CDLL(str(target))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def bound(
    projections: Sequence[tuple[np.ndarray, np.ndarray]], *, backward: bool
) -> Callable[[], None]:
    """All rows that arrive in a step.

    Args:
        projections: pairs of weights ``[n_rows, n]`` in float32 and the rows that arrive
            ``[n_batch, n_spikes]``, -1 for none.
        backward: with the rows of gradients.

    Returns:
        A function without arguments that does it, with one thread per processor.
    """
    library, threads = _library(), ctypes.c_int64(len(os.sched_getaffinity(0)))

    def prepare(weights: np.ndarray, index: np.ndarray) -> Callable[[], None]:
        weights = np.ascontiguousarray(weights, np.float32)
        index = np.ascontiguousarray(index, np.int32)
        currents = np.zeros((len(index), weights.shape[1]), np.float32)
        gradients = np.zeros_like(weights)
        sizes = [ctypes.c_int64(n) for n in (*index.shape, weights.shape[1])]
        n_rows = ctypes.c_int64(len(weights))
        w, k, c, g = map(_pointer, (weights, index, currents, gradients))

        def add() -> None:
            library.AddRows(w, k, *sizes, c, threads)
            if backward:
                library.AddGradients(c, k, *sizes, n_rows, g, threads)

        add.arrays = (weights, index, currents, gradients)  # alive as long as it is
        return add

    parts = [prepare(*projection) for projection in projections]

    def run() -> None:
        for part in parts:
            part()

    return run
