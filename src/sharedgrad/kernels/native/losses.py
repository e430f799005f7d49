"""Cross-entropy behind a softmax, compiled."""

from __future__ import annotations

import numpy as np

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.fallback import compiled_if
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.parameter import Array


@compiled_if(lambda scores, labels, smoothing, count: scores.ndim == 2, "another axis than the last")
def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """−Σ t · log p over scores (N, C) and labels (N,), and p − t; both / count."""
    upstream = empty_like(scores)
    settings = scores.shape[1], smoothing, count
    try:
        total = _native.cross_entropy(upstream, scores, labels, *settings)
    except (TypeError, ValueError):  # another type or memory order: rare, so it is not checked beforehand
        total = _native.cross_entropy(upstream, contiguous(scores), contiguous(labels.astype(np.int64)), *settings)
    return total / count, upstream
