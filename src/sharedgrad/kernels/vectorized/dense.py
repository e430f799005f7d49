"""Blocks as matrix products; with one block this is the dense layer."""

from __future__ import annotations

from math import prod

import numpy as np

from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.parameter import Array


@one_blas_thread()
def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    rows = p.reshape(-1, *p.shape[-2:]).swapaxes(0, 1)
    return np.ascontiguousarray((rows @ w.swapaxes(1, 2)).swapaxes(0, 1)).reshape(*p.shape[:-1], w.shape[1])


@one_blas_thread()
def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp = δ · w, block by block."""
    rows = delta.reshape(-1, *delta.shape[-2:]).swapaxes(0, 1)
    return np.ascontiguousarray((rows @ w).swapaxes(0, 1)).reshape(*delta.shape[:-1], w.shape[2])


@one_blas_thread()
def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    kept = delta.shape[:keep]
    left = delta.reshape(prod(kept), -1, *delta.shape[-2:]).transpose(0, 2, 3, 1)
    right = p.reshape(prod(kept), -1, *p.shape[-2:]).transpose(0, 2, 1, 3)
    return (left @ right).reshape(*kept, *delta.shape[-2:], p.shape[-1])
