"""Optimizers' steps: new values and what the next step needs, for all parameters."""

from __future__ import annotations

import math

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
    """g ← gradient + weight_decay · w,  v ← momentum · v + g,  w ← w − lr · v  (Nesterov: w − lr · (g + momentum · v)).

    ``velocities`` is empty where there is no momentum: then v is g, and none come back.
    """
    new_values, new_velocities = [np.empty_like(w) for w in values], [np.empty_like(v) for v in velocities]
    for i, w in enumerate(values):
        for index in np.ndindex(*w.shape):
            g = float(gradients[i][index]) + weight_decay * float(w[index])
            change = g
            if velocities:
                new_velocities[i][index] = v = momentum * float(velocities[i][index]) + g
                change = g + momentum * v if nesterov else v
            new_values[i][index] = float(w[index]) - lr * change
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
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  w ← w − lr · m̂ / (√v̂ + ε), as ``optimizers.Adam`` says.

    ``steps`` counts each parameter's own steps, this one included.
    """
    new = tuple([np.empty_like(a) for a in arrays] for arrays in (values, means, squares))
    for i, w in enumerate(values):
        for index in np.ndindex(*w.shape):
            g = float(gradients[i][index]) + (0 if decoupled else weight_decay * float(w[index]))
            m = betas[0] * float(means[i][index]) + (1 - betas[0]) * g
            v = betas[1] * float(squares[i][index]) + (1 - betas[1]) * g * g
            step = m / (1 - betas[0] ** steps[i]) / (math.sqrt(v / (1 - betas[1] ** steps[i])) + eps)
            shrink = weight_decay * float(w[index]) if decoupled else 0
            new[0][i][index], new[1][i][index], new[2][i][index] = float(w[index]) - lr * (step + shrink), m, v
    return new[0], new[1], new[2]
