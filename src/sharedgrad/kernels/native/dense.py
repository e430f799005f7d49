"""Blocks, compiled: many matrices side by side; with one block this is the dense layer."""

from __future__ import annotations

from math import prod

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.parameter import Array


def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    y = empty((*p.shape[:-1], w.shape[1]), p.dtype)
    _native.blocks(y, contiguous(p), contiguous(w), prod(p.shape[:-2]), *w.shape)
    return y


def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp = δ · w, block by block."""
    dp = empty((*delta.shape[:-1], w.shape[2]), delta.dtype)
    _native.blocks_input_gradient(dp, contiguous(delta), contiguous(w), prod(delta.shape[:-2]), *w.shape)
    return dp


def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    kept, uses = delta.shape[:keep], delta.shape[keep:-2]
    total = empty((*kept, *delta.shape[-2:], p.shape[-1]), delta.dtype)
    _native.outer_sum(total, contiguous(delta), contiguous(p), prod(kept), prod(uses), *total.shape[keep:])
    return total
