"""Arrays and numbers, from whatever people pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    array = value if type(value) is np.ndarray else _array(value, where, "numbers")
    if array.dtype.kind not in "fiub":
        fix = f"pass one of its arrays: {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
        raise ShapeError(where, f"expected an array of numbers, got {_named(value, array)}", fix)
    copy = empty(array.shape, np.dtype(dtype))
    copy[...] = array
    return copy


def indices(value: Any, where: str) -> Array:
    """A copy of ``value`` as int64; whole numbers of any integer type, as lists or PyTorch tensors too.

    Floats are refused, whole ones too: above 2²⁴ float32 does not hold every whole number.

    Raises:
        ShapeError: It holds something else, numbers too large for int64, or its rows differ in length.
    """
    array = _array(value, where, "whole numbers")
    if array.dtype.kind not in "iu":
        problem = f"is read as indices: expected whole numbers of an integer type, got {_named(value, array)}"
        raise ShapeError(where, problem, "pass integers, e.g. x.astype(int)")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ShapeError(where, f"is read as indices: expected numbers that int64 holds, got {array.max()}")
    return array.astype(np.int64)


def _array(value: Any, where: str, kind: str) -> Array:
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:
        got = "parts of different shapes" if "inhomogeneous" in str(error) else error
        raise ShapeError(where, f"expected an array of {kind}, got {got}") from None


def _named(value: Any, array: Array) -> str:
    """What came, in a person's words: what they passed, or the type of its values."""
    if array.dtype.kind == "U":
        return "text"
    if array.ndim == 0 and array.dtype.kind == "O":
        return "None" if value is None else f"a {type(value).__name__}"
    return f"{array.dtype} values"


def positive(value: Any, where: str) -> float:
    """A positive number, or one line that says what came."""
    if not isinstance(value, Real) or value is True or not float(value) > 0:
        raise ConfigError(where, f"expected a positive number, got {value!r}")
    return float(value)
