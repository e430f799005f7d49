"""Cross-entropy behind a softmax: −Σ_c t_c · log p_c, t the class, smoothed; upstream p − t."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array


def cross_entropy(scores: Array, labels: Array, smoothing: float, count: float) -> tuple[float, Array]:
    """−Σ t · log p over scores (N, C, *P) and labels (N, *P), and p − t; both / count."""
    if labels.size and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        raise IndexError("a label is no class")
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    goal = np.full(scores.shape, smoothing / scores.shape[1], scores.dtype)
    at_class = np.take_along_axis(goal, labels[:, None], 1) + scores.dtype.type(1 - smoothing)
    np.put_along_axis(goal, labels[:, None], at_class, 1)
    # 0 · −∞ is a class that is certainly wrong and not asked for: it costs nothing
    terms = np.multiply(goal, log_p, out=np.zeros_like(goal), where=goal > 0)
    value = -float(np.sum(terms, dtype=np.float64)) / count
    return value, (np.exp(log_p) - goal) / scores.dtype.type(count)
