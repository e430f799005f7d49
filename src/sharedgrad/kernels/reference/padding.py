"""Padding that is not zeros: reflect, replicate, circular."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def _padding_source(i: int, n: int, mode: str) -> int:
    """The cell of an axis of n cells that index i, possibly outside, reads."""
    if mode == "circular":
        return i % n
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i  # reflect


def _padding_sources(g: Geometry, spatial: Index, mode: str) -> Iterator[tuple[Index, Index]]:
    for target in np.ndindex(*g.padded(spatial)):
        yield (
            target,
            tuple(
                _padding_source(i - before, n, mode)
                for i, n, (before, _) in zip(target, spatial, g.padding, strict=True)
            ),
        )


def pad(x: Array, g: Geometry, mode: str) -> Array:
    """x (N, C, *S) grown by the geometry's padding; mode: reflect, replicate or circular."""
    y = np.zeros((*x.shape[:2], *g.padded(x.shape[2:])), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for target, source in _padding_sources(g, x.shape[2:], mode):
            y[n, c, *target] = x[n, c, *source]
    return y


def pad_backward(dy: Array, g: Geometry, mode: str, spatial: Index) -> Array:
    """A cell that was copied into the padding gets the gradients of all its copies, added."""
    dx = np.zeros((*dy.shape[:2], *spatial), dy.dtype)
    for n, c in np.ndindex(*dy.shape[:2]):
        for target, source in _padding_sources(g, spatial, mode):
            dx[n, c, *source] += dy[n, c, *target]
    return dx
