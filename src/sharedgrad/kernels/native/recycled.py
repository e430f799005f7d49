"""Memory for the results of compiled kernels: blocks that come back when the last view of them is gone.

A training step makes the same large arrays again and again. Fresh ones cost a page fault for every 4 KiB, and lie
where the cache does not expect them; these do not. An array is not used again while it, or any view of it,
is alive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np

from sharedgrad.kernels.native import _native
from sharedgrad.parameter import Array

SMALL = 4096  # bytes; NumPy's own arrays are faster to make, and their pages are in use anyway


def empty(shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Array:
    """An array of this shape, C-ordered and aligned to 64 bytes if it is large; what it holds at first is arbitrary.

    Raises:
        MemoryError: There is none.
    """
    size = prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if size < SMALL else np.ndarray(shape, dtype, _native.memory(size))


def maker(shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Callable[[], Array]:
    """:func:`empty` for who makes the same again and again."""
    size = prod(shape) * dtype.itemsize
    return partial(np.empty, shape, dtype) if size < SMALL else partial(_large, shape, dtype, size)


def _large(shape: tuple[int, ...], dtype: np.dtype[np.floating], size: int) -> Array:
    return np.ndarray(shape, dtype, _native.memory(size))


def empty_like(array: Array) -> Array:
    """:func:`empty` in the shape and type of another array."""
    small = array.nbytes < SMALL  # asked first: an optimizer's step makes many of them
    return np.empty(array.shape, array.dtype) if small else empty(array.shape, array.dtype)
