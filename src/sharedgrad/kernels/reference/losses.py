"""Cross-entropy behind a softmax: −Σ_c t_c · log p_c, t the class, smoothed; upstream p − t."""

from __future__ import annotations

import math

import numpy as np

from sharedgrad.parameter import Array


def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """Σ over scores (N, C, *P) and labels (N, *P), and the gradient with respect to the scores; both / count.

    t is 1 − smoothing + smoothing/C at the class and smoothing/C elsewhere. A class with t = 0 costs nothing, even
    where its score is −∞.

    Raises:
        IndexError: A label is not from 0 to C − 1.
    """
    upstream, rows, classes = np.empty_like(scores), np.moveaxis(scores, 1, -1), scores.shape[1]
    out, losses = np.moveaxis(upstream, 1, -1), []
    for index in np.ndindex(*labels.shape):
        row = [float(score) for score in rows[index]]
        log_sum = max(row) + math.log(math.fsum(math.exp(v - max(row)) for v in row))
        if not 0 <= labels[index] < classes:
            raise IndexError(f"label {labels[index]} of {classes} classes")
        for c, score in enumerate(row):
            t = smoothing / classes + (1 - smoothing if c == labels[index] else 0)
            losses.append(t * (log_sum - score) if t > 0 else 0.0)
            out[index][c] = (math.exp(score - log_sum) - t) / count
    return math.fsum(losses) / count, upstream
