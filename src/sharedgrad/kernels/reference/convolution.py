"""Convolution: y[n,f,o] = b[f] + Σ_{c,k} w[f,c,k] · x[n, c, o·stride − padding + k·dilation]."""

from __future__ import annotations

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.reference.windows import channel_pairs, uses
from sharedgrad.parameter import Array

Index = tuple[int, ...]


def conv(x: Array, w: Array, b: Array | None, g: Geometry) -> Array:
    """Convolution (cross-correlation) of x (N, C, *S) with w (F, C/groups, *K)."""
    spatial, positions = x.shape[2:], g.output(x.shape[2:])
    y = np.zeros((len(x), len(w), *positions), x.dtype)
    for n in range(len(x)):
        for position, offset, source in uses(g, spatial, positions):
            for f, c, channel in channel_pairs(g, len(w), w.shape[1]):
                y[n, f, *position] += w[f, c, *offset] * x[n, channel, *source]
    if b is not None:
        for f in range(len(w)):
            y[:, f] += b[f]
    return y


def conv_input_gradient(dy: Array, w: Array, g: Geometry, spatial: Index) -> Array:
    """dx[source] += w · dy[position] for every use: the paths back to one input add."""
    dx = np.zeros((len(dy), w.shape[1] * g.groups, *spatial), dy.dtype)
    for n in range(len(dy)):
        for position, offset, source in uses(g, spatial, dy.shape[2:]):
            for f, c, channel in channel_pairs(g, len(w), w.shape[1]):
                dx[n, channel, *source] += w[f, c, *offset] * dy[n, f, *position]
    return dx


def conv_kernel_gradients(dy: Array, x: Array, g: Geometry) -> Array:
    """dw[n] += dy[position] · x[source] for every use, kept apart by sample: (N, F, C/groups, *K)."""
    filters, group_channels = dy.shape[1], x.shape[1] // g.groups
    dw = np.zeros((len(dy), filters, group_channels, *g.kernel), dy.dtype)
    for n in range(len(dy)):
        for position, offset, source in uses(g, x.shape[2:], dy.shape[2:]):
            for f, c, channel in channel_pairs(g, filters, group_channels):
                dw[n, f, c, *offset] += dy[n, f, *position] * x[n, channel, *source]
    return dw


def conv_kernel_gradient(dy: Array, x: Array, g: Geometry) -> Array:
    """The gradient of the shared kernel: the sum over all its uses, samples and positions."""
    dw = np.zeros((dy.shape[1], x.shape[1] // g.groups, *g.kernel), dy.dtype)
    for sample in conv_kernel_gradients(dy, x, g):
        dw += sample
    return dw
