"""Optimizers' steps: new values and what the next step needs, for all parameters."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array

Arrays = list[Array]


def sgd(
    values: Arrays,
    gradients: Arrays,
    velocities: Arrays,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """Stochastic gradient descent, with momentum where there are velocities."""
    new_values, new_velocities = [], []
    for i, (w, g) in enumerate(zip(values, gradients, strict=True)):
        kind = g.dtype.type
        if weight_decay:
            g = g + kind(weight_decay) * w
        if velocities:
            v = kind(momentum) * velocities[i] + g
            new_velocities.append(v)
            g = g + kind(momentum) * v if nesterov else v
        new_values.append(np.asarray(w - kind(lr) * g))
    return new_values, new_velocities


def adam(
    values: Arrays,
    gradients: Arrays,
    means: Arrays,
    squares: Arrays,
    steps: list[int],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> tuple[Arrays, Arrays, Arrays]:
    """Adam, and with ``decoupled`` weight decay AdamW."""
    new: tuple[Arrays, Arrays, Arrays] = ([], [], [])
    for w, g, mean, square, t in zip(values, gradients, means, squares, steps, strict=True):
        kind = g.dtype.type
        if weight_decay and not decoupled:
            g = g + kind(weight_decay) * w
        m = kind(betas[0]) * mean + kind(1 - betas[0]) * g
        v = kind(betas[1]) * square + kind(1 - betas[1]) * g * g
        size = kind(lr / (1 - betas[0] ** t))
        change = size * m / (np.sqrt(v) / kind((1 - betas[1] ** t) ** 0.5) + kind(eps))
        if weight_decay and decoupled:
            change = change + kind(lr * weight_decay) * w
        for arrays, array in zip(new, (w - change, m, v), strict=True):
            arrays.append(np.asarray(array))
    return new
