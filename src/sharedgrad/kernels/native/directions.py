"""What a few directions show of the channels of maps, compiled."""

from __future__ import annotations

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.parameter import Array

DIRECTIONS: int = _native.DIRECTIONS


def along_directions(x: Array, directions: Array) -> tuple[Array, Array]:
    """Σ_c x² and Σ_c d · x in one pass: x (N, groups, C, S), d (groups, C, 8) -> (N, groups, S), (N, groups, 8, S)."""
    samples, groups, channels, cells = x.shape
    squares, seen = empty((samples, groups, cells), x.dtype), empty((samples, groups, DIRECTIONS, cells), x.dtype)
    if channels:
        _native.along_directions(squares, seen, contiguous(x), contiguous(directions), samples, groups, channels, cells)
    else:
        squares[...], seen[...] = 0, 0
    return squares, seen


def channel_uses(delta: Array, x: Array | None, coefficients: Array) -> tuple[Array, Array, Array]:
    """Uses t = δ · (a x + b) of channels, or δ alone, in one pass.

    Args:
        delta: (N, C, S), x likewise or None.
        coefficients: a, b and a direction v (3, C).

    Returns:
        Σ_c t² (N, S), Σ_c v · t (N, S), Σ_s t (N, C).
    """
    samples, channels, cells = delta.shape
    squares, products = empty((samples, cells), delta.dtype), empty((samples, cells), delta.dtype)
    totals = empty((samples, channels), delta.dtype)
    x = None if x is None else contiguous(x)
    _native.channel_uses(
        squares,
        products,
        totals,
        contiguous(delta),
        x,
        contiguous(coefficients),
        samples,
        channels,
        cells,
    )
    return squares, products, totals
