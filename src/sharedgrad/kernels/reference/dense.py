"""Blocks: y[u,b,o] = Σ_i w[b,o,i] · p[u,b,i]; with one block this is the dense layer."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array


def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    y = np.zeros((*p.shape[:-1], w.shape[1]), p.dtype)
    for u in np.ndindex(*p.shape[:-2]):
        for b, o, i in np.ndindex(*w.shape):
            y[*u, b, o] += w[b, o, i] * p[*u, b, i]
    return y


def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp[u,b,i] = Σ_o w[b,o,i] · δ[u,b,o]."""
    dp = np.zeros((*delta.shape[:-1], w.shape[2]), delta.dtype)
    for u in np.ndindex(*delta.shape[:-2]):
        for b, o, i in np.ndindex(*w.shape):
            dp[*u, b, i] += w[b, o, i] * delta[*u, b, o]
    return dp


def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    total = np.zeros((*delta.shape[:keep], *delta.shape[-2:], p.shape[-1]), delta.dtype)
    for u in np.ndindex(*delta.shape[:-2]):
        for b, o, i in np.ndindex(*total.shape[keep:]):
            total[*u[:keep], b, o, i] += delta[*u, b, o] * p[*u, b, i]
    return total
