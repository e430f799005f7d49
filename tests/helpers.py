"""What several test modules share: how to compare, and how to draw windows that slide."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.geometry import Geometry

Array = np.ndarray[Any, np.dtype[Any]]
TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}


def close(actual: Array, expected: Any, tolerance: float | None = None) -> None:
    """Equal shapes, and differences small beside the largest value: 1e-9 of it in float64, 1e-4 in float32."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    if actual.size:
        worst = np.abs(actual.astype(np.float64) - expected).max()
        scale = max(np.abs(expected).max(), 0.1)
        assert worst <= (tolerance or TOLERANCE[actual.dtype]) * scale, f"{worst} beside values up to {scale}"


def same_bits(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()


def frozen(array: Any, dtype: Any = None) -> Array:
    """A read-only copy: code that writes into what it was given fails."""
    copy = np.array(array, dtype)
    copy.flags.writeable = False
    return copy


def numbers(rng: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    """``count`` whole numbers from low to high, both included."""
    return tuple(int(n) for n in rng.integers(low, high + 1, count))


class Sliding(NamedTuple):
    """A window and maps that it fits into; ``padding`` is the form that a person would write."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    spatial: tuple[int, ...]

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """The padding as (before, after) for each axis, worked out without the code under test."""
        if self.padding == "valid":
            return ((0, 0),) * len(self.kernel)
        if self.padding == "same":
            totals = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
            return tuple((total // 2, total - total // 2) for total in totals)
        each = (self.padding,) * len(self.kernel) if isinstance(self.padding, int) else self.padding
        return tuple((p, p) if isinstance(p, int) else p for p in each)

    def geometry(self, groups: int = 1) -> Geometry:
        return Geometry(self.kernel, self.stride, self.pads, self.dilation, groups)


PADDINGS = ("number", "numbers", "pairs", "same", "valid")


def sliding(rng: np.random.Generator, rank: int, form: str = "pairs", spare: int = 3) -> Sliding:
    """Different sizes, strides, dilations and paddings on every axis; maps up to ``spare`` cells larger than fits.

    Args:
        rng: Where the numbers come from.
        rank: Number of spatial axes.
        form: How the padding is written, one of PADDINGS.
        spare: How many cells more than needed an axis may have.
    """
    kernel, dilation = numbers(rng, 1, 3, rank), numbers(rng, 1, 3, rank)
    stride = (1,) * rank if form == "same" else numbers(rng, 1, 3, rank)
    padding = {
        "number": int(rng.integers(0, 3)),
        "numbers": numbers(rng, 0, 2, rank),
        "pairs": tuple(numbers(rng, 0, 2, 2) for _ in range(rank)),
    }.get(form, form)
    window = Sliding(kernel, stride, padding, dilation, ())
    least = [
        max(d * (k - 1) + 1 - before - after, before + 1, after + 1)  # reflection needs one cell more than it pads
        for k, d, (before, after) in zip(kernel, dilation, window.pads, strict=True)
    ]
    return window._replace(spatial=tuple(n + int(rng.integers(0, spare + 1)) for n in least))


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """What dies meanwhile does so because nothing holds it, not because Python has looked for cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
