"""What each window reads: views and columns that convolution and pooling share, and patches.

A convolution is cut into chunks of samples whose patches fit into the cache. The chunks depend on shapes alone
and their results are added in index order, so any number of threads gives the same bits.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Array

Index = tuple[int, ...]

CHUNK_BYTES = 1 << 20  # half of a common second-level cache; the other half is for the result


def sample_chunks(samples: int, bytes_per_sample: int) -> list[slice]:
    """Slices of neighbouring samples that together take about :data:`CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // max(1, bytes_per_sample))
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def column_bytes(g: Geometry, channels: int, positions: Index, x: Array) -> int:
    """What the columns of one sample take."""
    return channels * g.cells * prod(positions) * x.itemsize


def zero_padded(x: Array, g: Geometry, fill: float = 0.0) -> Array:
    """x (N, C, *S) grown by the geometry's padding; x itself where there is none."""
    if not any(map(any, g.padding)):
        return x
    padded = np.full((*x.shape[:2], *g.padded(x.shape[2:])), fill, x.dtype)
    padded[g.interior(x.shape[2:])] = x
    return padded


def window_view(padded: Array, g: Geometry) -> Array:
    """A view (N, C, *K, *P) of what each kernel offset meets at each position."""
    positions = g.without_padding().output(padded.shape[2:])
    steps = padded.strides[2:]
    return as_strided(
        padded,
        (*padded.shape[:2], *g.kernel, *positions),
        (
            *padded.strides[:2],
            *(step * d for step, d in zip(steps, g.dilation, strict=True)),
            *(step * s for step, s in zip(steps, g.stride, strict=True)),
        ),
        writeable=False,
    )


def as_columns(x: Array, g: Geometry) -> Array:
    """Patches as columns: (N, groups, C/groups · cells, positions)."""
    windows = window_view(zero_padded(x, g), g)
    return windows.reshape(len(x), g.groups, x.shape[1] // g.groups * g.cells, prod(windows.shape[2 + g.rank :]))


def add_columns(columns: Array, g: Geometry, dx: Array, positions: Index) -> None:
    """Add columns (N, groups, C/groups · cells, positions) back to the cells of dx that they were read from."""
    spatial = dx.shape[2:]
    padded = np.zeros((*dx.shape[:2], *g.padded(spatial)), dx.dtype)
    cells = columns.reshape(*dx.shape[:2], *g.kernel, *positions)
    for offset in np.ndindex(*g.kernel):
        padded[g.reach(offset, positions)] += cells[(slice(None), slice(None), *offset)]
    dx[...] = padded[g.interior(spatial)]


def patches(x: Array, g: Geometry) -> Array:
    """(N, *P, groups, C/groups · cells): the inputs that each use of the kernel is multiplied with."""
    columns = as_columns(x, g).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(columns).reshape(len(x), *g.output(x.shape[2:]), *columns.shape[2:])


def patches_backward(dp: Array, g: Geometry, spatial: Index) -> Array:
    """Add each patch cell's gradient to the input cell that it was read from."""
    positions, (groups, cells) = dp.shape[1:-2], dp.shape[-2:]
    dx = np.empty((len(dp), groups * cells // g.cells, *spatial), dp.dtype)
    columns = dp.reshape(len(dp), prod(positions), groups, cells).transpose(0, 2, 3, 1)
    add_columns(columns, g, dx, positions)
    return dx
