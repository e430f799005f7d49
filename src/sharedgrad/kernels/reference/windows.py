"""What each window reads: the loops that convolution and pooling share, and patches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def uses(g: Geometry, spatial: Index, positions: Index) -> Iterator[tuple[Index, Index, Index]]:
    """(position, kernel offset, input index) for every use whose input index is not in the padding."""
    for position in np.ndindex(*positions):
        for offset in np.ndindex(*g.kernel):
            source = g.source(position, offset)
            if all(0 <= i < n for i, n in zip(source, spatial, strict=True)):
                yield position, offset, source


def channel_pairs(g: Geometry, filters: int, group_channels: int) -> Iterator[tuple[int, int, int]]:
    """(filter, channel within the group, channel of the input) for every pair that a filter connects."""
    for f, c in product(range(filters), range(group_channels)):
        yield f, c, f // (filters // g.groups) * group_channels + c


def patches(x: Array, g: Geometry) -> Array:
    """(N, *P, groups, C/groups · cells): the inputs that each use of the kernel is multiplied with."""
    positions, group_channels = g.output(x.shape[2:]), x.shape[1] // g.groups
    p = np.zeros((len(x), *positions, x.shape[1], *g.kernel), x.dtype)
    for n, channel in product(range(len(x)), range(x.shape[1])):
        for position, offset, source in uses(g, x.shape[2:], positions):
            p[n, *position, channel, *offset] = x[n, channel, *source]
    return p.reshape(len(x), *positions, g.groups, group_channels * g.cells)


def patches_backward(dp: Array, g: Geometry, spatial: Index) -> Array:
    """Add each patch cell's gradient to the input cell that it was read from."""
    positions = dp.shape[1:-2]
    channels = g.groups * (dp.shape[-1] // g.cells)
    dp = dp.reshape(len(dp), *positions, channels, *g.kernel)
    dx = np.zeros((len(dp), channels, *spatial), dp.dtype)
    for n, channel in product(range(len(dp)), range(channels)):
        for position, offset, source in uses(g, spatial, positions):
            dx[n, channel, *source] += dp[n, *position, channel, *offset]
    return dx
