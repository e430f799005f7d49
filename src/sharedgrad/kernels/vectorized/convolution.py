"""Convolution as matrix products over whole patches."""

from __future__ import annotations

from math import prod

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.threads import one_blas_thread, parallel
from sharedgrad.kernels.vectorized.windows import add_columns, as_columns, column_bytes, sample_chunks
from sharedgrad.parameter import Array

Index = tuple[int, ...]


@one_blas_thread()
def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """y = w · columns(x) + b, one matrix product per sample and group."""
    positions = g.output(x.shape[2:])
    y = np.empty((len(x), g.groups, len(w) // g.groups, prod(positions)), x.dtype)
    matrix = w.reshape(g.groups, len(w) // g.groups, -1)
    bias = None if b is None else b.reshape(g.groups, -1, 1)

    def forward(chunk: slice) -> None:
        np.matmul(matrix, as_columns(x[chunk], g), out=y[chunk])
        if bias is not None:
            y[chunk] += bias

    parallel(forward, sample_chunks(len(x), column_bytes(g, x.shape[1], positions, x)))
    return y.reshape(len(x), len(w), *positions)


@one_blas_thread()
def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """d columns = wᵀ · dy, added back to the cells that the columns were read from."""
    positions = dy.shape[2:]
    dx = np.empty((len(dy), w.shape[1] * g.groups, *spatial), dy.dtype)
    transposed = w.reshape(g.groups, len(w) // g.groups, -1).transpose(0, 2, 1)
    delta = dy.reshape(len(dy), g.groups, dy.shape[1] // g.groups, prod(positions))

    def backward(chunk: slice) -> None:
        add_columns(transposed @ delta[chunk], g, dx[chunk], positions)

    parallel(backward, sample_chunks(len(dy), column_bytes(g, dx.shape[1], positions, dy)))
    return dx


@one_blas_thread()
def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw[n] = dy[n] · columns(x[n])ᵀ, kept apart by sample: (N, F, C/groups, *K)."""
    positions, filters = dy.shape[2:], dy.shape[1]
    shape = (filters, x.shape[1] // g.groups, *g.kernel)
    dw = np.empty((len(dy), g.groups, filters // g.groups, prod(shape[1:])), dy.dtype)
    delta = dy.reshape(len(dy), g.groups, filters // g.groups, prod(positions))

    def backward(chunk: slice) -> None:
        np.matmul(delta[chunk], as_columns(x[chunk], g).transpose(0, 1, 3, 2), out=dw[chunk])

    parallel(backward, sample_chunks(len(dy), column_bytes(g, x.shape[1], positions, x)))
    return dw.reshape(len(dy), *shape)


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """The gradient of the shared kernel: the sum over all its uses, chunk by chunk in index order."""
    chunks = sample_chunks(len(dy), column_bytes(g, x.shape[1], dy.shape[2:], x))
    dw = np.zeros((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    for part in parallel(lambda c: conv_kernel_gradients(dy[c], x[c], g).sum(axis=0), chunks):
        dw += part
    return dw
