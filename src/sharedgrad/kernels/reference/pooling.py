"""Max and average pooling."""

from __future__ import annotations

from math import isnan

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.reference.windows import uses
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def max_pool(x: Array, g: Geometry) -> Array:
    """The largest input under each window, NaN above all; the padding never wins."""
    positions = g.output(x.shape[2:])
    y = np.full((*x.shape[:2], *positions), -np.inf, x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for position, _, source in uses(g, x.shape[2:], positions):
            if x[n, c, *source] > y[n, c, *position] or isnan(x[n, c, *source]):
                y[n, c, *position] = x[n, c, *source]
    return y


def max_pool_backward(dy: Array, x: Array, y: Array, g: Geometry, ties: str) -> Array:
    """The winner gets the upstream gradient; ties: "first" or "last" in row-major order, or "share" equally.

    NaN is the largest and equals NaN, as in ``max_pool``.
    """
    dx = np.zeros(x.shape, dy.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        winners: dict[Index, list[Index]] = {}
        for position, _, source in uses(g, x.shape[2:], y.shape[2:]):
            if x[n, c, *source] == y[n, c, *position] or isnan(x[n, c, *source]):
                winners.setdefault(position, []).append(source)
        for position, sources in winners.items():
            chosen = {"first": sources[:1], "last": sources[-1:], "share": sources}[ties]
            for source in chosen:
                dx[n, c, *source] += dy[n, c, *position] / len(chosen)
    return dx


def _divisors(g: Geometry, spatial: Index, count_padding: bool) -> dict[Index, int]:
    """How many cells each window averages over: all, or only those that lie in the input."""
    positions = g.output(spatial)
    if count_padding:
        return {position: g.cells for position in np.ndindex(*positions)}
    counts = dict.fromkeys(np.ndindex(*positions), 0)
    for position, _, _ in uses(g, spatial, positions):
        counts[position] += 1
    return counts


def avg_pool(x: Array, g: Geometry, count_padding: bool) -> Array:
    """The mean of the inputs under each window."""
    positions = g.output(x.shape[2:])
    counts = _divisors(g, x.shape[2:], count_padding)
    y = np.zeros((*x.shape[:2], *positions), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for position, _, source in uses(g, x.shape[2:], positions):
            y[n, c, *position] += x[n, c, *source] / counts[position]
    return y


def avg_pool_backward(dy: Array, g: Geometry, spatial: Index, count_padding: bool) -> Array:
    """Every cell of a window gets the same part of its upstream gradient; windows that overlap add."""
    counts = _divisors(g, spatial, count_padding)
    dx = np.zeros((*dy.shape[:2], *spatial), dy.dtype)
    for n, c in np.ndindex(*dy.shape[:2]):
        for position, _, source in uses(g, spatial, dy.shape[2:]):
            dx[n, c, *source] += dy[n, c, *position] / counts[position]
    return dx
