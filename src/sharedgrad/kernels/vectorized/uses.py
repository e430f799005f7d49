"""What the algebra of uses needs besides the layers' kernels; all norms and inner products are added in float64."""

from __future__ import annotations

from math import prod

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.kernels.vectorized.convolution import conv_kernel_gradients
from sharedgrad.kernels.vectorized.windows import zero_padded
from sharedgrad.parameter import Array

_AT_ONCE = 1 << 20  # numbers that are in float64 at once: they stay in the cache


def row_sums(index: Array, delta: Array, rows: int) -> Array:
    """total[index[u]] += δ[u] for every use: index (U,), δ (U, D) -> (rows, D)."""
    total = np.zeros((rows, delta.shape[1]), delta.dtype)
    if len(index):
        order = np.argsort(index, kind="stable")
        found, starts = np.unique(index[order], return_index=True)
        total[found] = np.add.reduceat(delta[order], starts, axis=0)
    return total


def row_dots(a: Array, b: Array) -> Array:
    """Σ_i a[…,i] · b[…,i] in float64; axes of b of length 1 stand for all of a's."""
    return np.asarray(np.einsum("...i,...i->...", a, b, dtype=np.float64))


@one_blas_thread()
def row_products(a: Array, b: Array) -> Array:
    """a · bᵀ in float64: a (…, K, W), b (…, L, W) -> (…, K, L)."""
    total = np.zeros((*a.shape[:-1], b.shape[-2]))
    step = max(1, _AT_ONCE // max(1, prod(a.shape[:-1]) + prod(b.shape[:-1])))
    for start in range(0, a.shape[-1], step):
        chosen = slice(start, start + step)
        total += a[..., chosen].astype(np.float64) @ b[..., chosen].astype(np.float64).swapaxes(-1, -2)
    return total


def outer_products(delta: Array, p: Array, delta2: Array, p2: Array) -> Array:
    """⟨δ_u ⊗ p_u, δ'_v ⊗ p'_v⟩ = Σ_b (δ_u,b · δ'_v,b)(p_u,b · p'_v,b) in float64, some blocks at a time.

    δ (K, R, B, O) and p (K, R, B, I), likewise (K, R', …) -> (K, R, R').
    """
    groups, count, blocks, _ = delta.shape
    total = np.zeros((groups, count, delta2.shape[1]))
    step = max(1, _AT_ONCE // total.size)
    for start in range(0, blocks, step):
        some = [a[:, :, start : start + step].swapaxes(1, 2) for a in (delta, delta2, p, p2)]
        total += (row_products(*some[:2]) * row_products(*some[2:])).sum(axis=1)
    return total


def along_directions(x: Array, directions: Array) -> tuple[Array, Array]:
    """Σ_c x² and Σ_c d · x: x (N, groups, C, S), d (groups, C, D) -> (N, groups, S), (N, groups, D, S)."""
    return np.einsum("ngcs,ngcs->ngs", x, x), directions.swapaxes(1, 2) @ x


def channel_uses(delta: Array, x: Array | None, coefficients: Array) -> tuple[Array, Array, Array]:
    """Uses t = δ · (a x + b) of channels, or δ alone: Σ_c t² (N, S), Σ_c v · t (N, S), Σ_s t (N, C).

    Args:
        delta: (N, C, S), x likewise or None.
        coefficients: a, b and a direction v (3, C).
    """
    a, b, v = coefficients
    uses = delta if x is None else delta * (x * a[:, None] + b[:, None])
    return np.einsum("ncs,ncs->ns", uses, uses), v @ uses, uses.sum(axis=2)


def window_squares(x: Array, g: Geometry) -> Array:
    """‖p_u,b‖² (N, *P, groups) of every window: squares added over the group's channels, then over a box of cells."""
    grouped = x.reshape(len(x), g.groups, x.shape[1] // g.groups, prod(x.shape[2:]))
    squares = np.einsum("ngcs,ngcs->ngs", grouped, grouped, dtype=np.float64)
    padded = zero_padded(squares.reshape(len(x), g.groups, *x.shape[2:]), g)
    positions = g.output(x.shape[2:])
    total = np.zeros((len(x), g.groups, *positions))
    for offset in np.ndindex(*g.kernel):
        total += padded[g.reach(offset, positions)]
    return np.moveaxis(total, 1, -1)


def conv_kernel_squares(dy: Array, x: Array, g: Geometry) -> Array:
    """‖dw[n]‖² (N,) in float64 of each sample's kernel gradient, a few samples at a time."""
    size = dy.shape[1] * (x.shape[1] // g.groups) * g.cells
    step = max(1, 8 * _AT_ONCE // size)
    squares = np.zeros(len(dy))
    for start in range(0, len(dy), step):
        chosen = slice(start, start + step)
        apart = conv_kernel_gradients(dy[chosen], x[chosen], g).reshape(-1, size)
        squares[chosen] = row_dots(apart, apart)
    return squares
