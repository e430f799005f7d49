"""Max and average pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.vectorized.windows import zero_padded
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window; the padding never wins."""
    padded, positions = zero_padded(x, g, -np.inf), g.output(x.shape[2:])
    first, *others = (padded[g.reach(offset, positions)] for offset in np.ndindex(*g.kernel))
    y = first.copy()
    for cell in others:
        np.maximum(y, cell, out=y)
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """The winner gets the upstream gradient; ties: "first" or "last" in row-major order, or "share" equally.

    NaN is the largest and equals NaN, as in ``max_pool``; the padding never wins, not even against −∞.
    """
    padded, positions = zero_padded(x, g, -np.inf), y.shape[2:]
    inside = zero_padded(np.ones((1, 1, *x.shape[2:]), bool), g)
    dx, nothing = np.zeros(padded.shape, dy.dtype), dy.dtype.type(0)
    reaches = [g.reach(offset, positions) for offset in np.ndindex(*g.kernel)]

    def largest(reach: Any) -> Array:
        cell = padded[reach]
        return ((cell == y) | np.isnan(cell)) & inside[reach]

    if ties == "share":
        part = dy / sum(largest(reach).astype(dy.dtype) for reach in reaches)
        for reach in reaches:
            dx[reach] += np.where(largest(reach), part, nothing)
    else:
        free = np.ones(y.shape, bool)  # windows that have no winner yet
        for reach in reaches if ties == "first" else reversed(reaches):
            won = free & largest(reach)
            dx[reach] += np.where(won, dy, nothing)
            free ^= won
    return np.ascontiguousarray(dx[g.interior(x.shape[2:])])


def _divisors(g: Geometry, spatial: Index, count_padding: bool, dtype: np.dtype[np.floating]) -> Array:
    positions = g.output(spatial)
    if count_padding:
        return np.full(positions, g.cells, dtype)
    inside = zero_padded(np.ones((1, 1, *spatial), dtype), g)
    return _columns_sum(inside, g, positions)[0, 0]


def _columns_sum(padded: Array, g: Geometry, positions: Index) -> Array:
    y = np.zeros((*padded.shape[:2], *positions), padded.dtype)
    for offset in np.ndindex(*g.kernel):
        y += padded[g.reach(offset, positions)]
    return y


def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of the inputs under each window."""
    total = _columns_sum(zero_padded(x, g), g, g.output(x.shape[2:]))
    total /= _divisors(g, x.shape[2:], count_padding, x.dtype)
    return total


def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """Every cell of a window gets the same part of its upstream gradient; windows that overlap add."""
    part = dy / _divisors(g, spatial, count_padding, dy.dtype)
    dx = np.zeros((*dy.shape[:2], *g.padded(spatial)), dy.dtype)
    for offset in np.ndindex(*g.kernel):
        dx[g.reach(offset, dy.shape[2:])] += part
    return np.ascontiguousarray(dx[g.interior(spatial)])
