"""Padding that is not zeros: reflect, replicate, circular."""

from __future__ import annotations

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def pad(x: Array, g: Geometry, mode: str) -> Array:
    """x (N, C, *S) grown by the geometry's padding; mode: reflect, replicate or circular."""
    return x.reshape(*x.shape[:2], -1)[:, :, g.padding_sources(x.shape[2:], mode)]


def pad_backward(dy: Array, g: Geometry, mode: str, spatial: Index) -> Array:
    """A cell that was copied into the padding gets the gradients of all its copies, added."""
    inside = g.interior(spatial)
    dx = dy[inside].copy().reshape(*dy.shape[:2], -1)
    sources = g.padding_sources(spatial, mode)
    border = np.ones(sources.shape, bool)
    border[inside] = False
    copies = dy[:, :, border]
    for i, source in enumerate(sources[border]):
        dx[:, :, source] += copies[:, :, i]
    return dx.reshape(*dy.shape[:2], *spatial)
