"""Arrays and numbers, from whatever people pass."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError

Array = np.ndarray[Any, np.dtype[Any]]


def numbers(value: Any, dtype: np.dtype[Any] | type, where: str, empty: Callable[..., Array] = np.empty) -> Array:
    """A copy of ``value`` as an array of real numbers, in memory from ``empty``; lists and PyTorch tensors will do.

    Raises:
        ShapeError: It holds something else, or its rows differ in length.
    """
    try:
        array = value if type(value) is np.ndarray else _array(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{array.dtype} values")
        copy = empty(array.shape, np.dtype(dtype))
        copy[...] = array
        return copy
    except (TypeError, ValueError) as error:
        raise ShapeError(where, f"expected an array of numbers, got {error}") from None


def indices(value: Any, where: str) -> Array:
    """A copy of ``value`` as int64; whole numbers of any integer type, as lists or PyTorch tensors too.

    Floats are refused, whole ones too: above 2²⁴ float32 does not hold every whole number.

    Raises:
        ShapeError: It holds something else, numbers too large for int64, or its rows differ in length.
    """
    try:
        array = _array(value)
    except (TypeError, ValueError) as error:
        raise ShapeError(where, f"expected an array of whole numbers, got {error}") from None
    if array.dtype.kind not in "iu":
        problem = f"is read as indices: expected whole numbers of an integer type, got {array.dtype} values"
        raise ShapeError(where, problem, "pass integers, e.g. x.astype(int)")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ShapeError(where, f"is read as indices: expected numbers that int64 holds, got {array.max()}")
    return array.astype(np.int64)


def _array(value: Any) -> Array:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def positive(value: Any, where: str) -> float:
    """A positive number, or one line that says what came."""
    if not isinstance(value, Real) or not float(value) > 0:
        raise ConfigError(where, f"expected a positive number, got {value!r}")
    return float(value)
