"""What the algebra of uses needs besides the layers' kernels, use by use; norms and inner products in float64."""

from __future__ import annotations

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.reference.convolution import conv_kernel_gradients
from sharedgrad.kernels.reference.windows import patches
from sharedgrad.parameter import Array


def row_sums(index: Array, delta: Array, rows: int) -> Array:
    """total[index[u]] += δ[u] for every use: index (U,), δ (U, D) -> (rows, D)."""
    total = np.zeros((rows, delta.shape[1]), delta.dtype)
    for row, contribution in zip(index, delta, strict=True):
        total[row] += contribution
    return total


def row_dots(a: Array, b: Array) -> Array:
    """Σ_i a[…,i] · b[…,i] in float64; axes of b of length 1 stand for all of a's."""
    a, b = np.broadcast_arrays(a, b)
    total = np.zeros(a.shape[:-1])
    for index in np.ndindex(*a.shape):
        total[index[:-1]] += float(a[index]) * float(b[index])
    return total


def row_products(a: Array, b: Array) -> Array:
    """a · bᵀ in float64: a (…, K, W), b (…, L, W) -> (…, K, L)."""
    total = np.zeros((*a.shape[:-1], b.shape[-2]))
    for *lead, k, j in np.ndindex(*total.shape):
        total[(*lead, k, j)] = row_dots(a[(*lead, k)], b[(*lead, j)])
    return total


def outer_products(delta: Array, p: Array, delta2: Array, p2: Array) -> Array:
    """⟨δ_u ⊗ p_u, δ'_v ⊗ p'_v⟩ in float64, from the outer products themselves.

    δ (K, R, B, O) and p (K, R, B, I), likewise (K, R', …) -> (K, R, R').
    """
    total = np.zeros((*delta.shape[:2], delta2.shape[1]))
    for k, u, v in np.ndindex(*total.shape):
        for b in range(delta.shape[2]):
            one, other = np.outer(delta[k, u, b], p[k, u, b]), np.outer(delta2[k, v, b], p2[k, v, b])
            total[k, u, v] += float(np.sum(one.astype(np.float64) * other))
    return total


def window_squares(x: Array, g: Geometry) -> Array:
    """‖p_u,b‖² (N, *P, groups) of every window, from the windows themselves."""
    windows = patches(x, g)
    return row_dots(windows, windows)


def conv_kernel_squares(dy: Array, x: Array, g: Geometry) -> Array:
    """‖dw[n]‖² (N,) in float64 of each sample's kernel gradient."""
    apart = conv_kernel_gradients(dy, x, g).reshape(len(dy), -1)
    return row_dots(apart, apart)
