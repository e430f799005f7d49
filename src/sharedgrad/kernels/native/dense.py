"""Blocks, compiled: many matrices side by side; with one block this is the dense layer."""

from __future__ import annotations

from math import prod

from sharedgrad.kernels.native.recycled import empty
from sharedgrad.kernels.native.single import kind_of, operation, run
from sharedgrad.parameter import Array


def blocks(p: Array, w: Array) -> Array:
    """Each block's own matrix times each use's vector: p (*U, B, I), w (B, O, I) -> (*U, B, O)."""
    uses, (count, outputs, inputs) = prod(p.shape[:-2]), w.shape
    y = empty((*p.shape[:-1], outputs), p.dtype)
    shapes = (uses, count, 1, outputs), (uses, count, 1, inputs), (count, outputs, 1, inputs)
    run(operation(kind_of(p), "blocks", shapes), y, p, w)
    return y


def blocks_input_gradient(delta: Array, w: Array) -> Array:
    """dp = δ · w, block by block."""
    uses, (count, outputs, inputs) = prod(delta.shape[:-2]), w.shape
    dp = empty((*delta.shape[:-1], inputs), delta.dtype)
    shapes = (uses, count, 1, inputs), (uses, count, 1, outputs), (count, outputs, 1, inputs)
    run(operation(kind_of(delta), "blocks_input_gradient", shapes), dp, delta, w)
    return dp


def outer_sum(delta: Array, p: Array, keep: int = 0) -> Array:
    """Σ_u δ[u,b,o] · p[u,b,i] over all but the first ``keep`` use axes: (*kept, B, O, I)."""
    shape, inputs = delta.shape, p.shape[-1]
    kept, (count, outputs) = shape[:keep], shape[-2:]
    total = empty((*kept, count, outputs, inputs), delta.dtype)
    each = prod(kept), prod(shape[keep:-2]), count
    shapes = (each[0], count, outputs, inputs), (*each, outputs), (*each, inputs)
    run(operation(kind_of(delta), "outer_sum", shapes), total, delta, p)
    return total
