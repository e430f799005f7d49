"""Cross-entropy behind a softmax, compiled."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sharedgrad.kernels.native.fallback import compiled_if
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder, Program, doubles
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.single import Kind, builder, contiguous, kind_of, run
from sharedgrad.parameter import Array


def emit_cross_entropy(
    b: Builder, upstream: Map, scores: Map, labels: Map, settings: Map, at: int, finite: bool
) -> None:
    """The loss of scores (N, C) against labels (N,).

    Args:
        b: What to append it to.
        upstream, scores: Plain vectors.
        labels: In int64.
        settings: Numbers in float64.
        at: Where among these smoothing and count are, and behind them a place for the sum of the losses.
        finite: Whether the program ends here if that is not finite.
    """
    b.emit("cross_entropy", (upstream, scores, labels, settings), int(finite), at)


@lru_cache(512)
def _program(kind: Kind, samples: int, classes: int) -> Program:
    b = builder(samples, kind)
    upstream, scores = b.array(classes, samples=samples), b.array(classes, samples=samples)
    labels, settings = (b.array(doubles(n, b.dtype.itemsize)) for n in (samples, 3))
    emit_cross_entropy(b, upstream, scores, labels, settings, 0, False)
    return b.build()


@compiled_if(lambda scores, labels, smoothing, count: scores.ndim == 2, "another axis than the last")
def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """−Σ t · log p over scores (N, C) and labels (N,), and p − t; both / count."""
    upstream, settings, dtype = empty_like(scores), np.array([smoothing, count, 0.0]), scores.dtype
    labels = contiguous(labels.astype(np.int64, copy=False))
    run(_program(kind_of(scores), *scores.shape), upstream, scores, labels.view(dtype), settings.view(dtype))
    return settings.item(2) / count, upstream
