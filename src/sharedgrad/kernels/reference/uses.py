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


def along_directions(x: Array, directions: Array) -> tuple[Array, Array]:
    """Σ_c x² and Σ_c d · x: x (N, groups, C, S), d (groups, C, D) -> (N, groups, S), (N, groups, D, S)."""
    samples, groups, channels, cells = x.shape
    squares = np.zeros((samples, groups, cells), x.dtype)
    seen = np.zeros((samples, groups, directions.shape[2], cells), x.dtype)
    for n, g, c, s in np.ndindex(samples, groups, channels, cells):
        squares[n, g, s] += x[n, g, c, s] ** 2
        seen[n, g, :, s] += directions[g, c] * x[n, g, c, s]
    return squares, seen


def channel_uses(delta: Array, x: Array | None, coefficients: Array) -> tuple[Array, Array, Array]:
    """Uses t = δ · (a x + b) of channels, or δ alone: Σ_c t² (N, S), Σ_c v · t (N, S), Σ_s t (N, C)."""
    samples, channels, cells = delta.shape
    squares, products = np.zeros((samples, cells), delta.dtype), np.zeros((samples, cells), delta.dtype)
    totals = np.zeros((samples, channels), delta.dtype)
    for n, c, s in np.ndindex(samples, channels, cells):
        a, b, v = coefficients[:, c]
        use = delta[n, c, s] if x is None else delta[n, c, s] * (a * x[n, c, s] + b)
        squares[n, s] += use**2
        products[n, s] += v * use
        totals[n, c] += use
    return squares, products, totals
