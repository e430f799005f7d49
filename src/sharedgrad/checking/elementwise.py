"""Activations and losses with their slopes, for one call with numbers."""

from __future__ import annotations

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.parameter import Array


def value(kind: str, x: Array) -> Array:
    """f(x) of a sigmoid, tanh or ReLU."""
    if kind == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * x))
    return np.tanh(x) if kind == "tanh" else np.maximum(x, 0)


def slope(kind: str, x: Array, at_zero: float = 0.0) -> Array:
    """f'(x); a ReLU's at 0 is a convention."""
    if kind == "sigmoid":
        y = value(kind, x)
        return y * (1 - y)
    return 1 - np.tanh(x) ** 2 if kind == "tanh" else np.where(x == 0, at_zero, x > 0).astype(float)


def slope_of(g: Given) -> Array:
    """f'(x) of a call; written with the output y where the person's own is given."""
    if "y" in g and g.kind in ("sigmoid", "tanh"):
        y = g["y"]
        return y * (1 - y) if g.kind == "sigmoid" else 1 - y**2
    return slope(g.kind, g["x"], g.options.get("slope_at_zero", 0.0))


def probabilities(g: Given) -> Array:
    """The softmax of x along its axis; the person's own y where it is given."""
    if "y" in g and g.kind == "softmax":
        return g["y"]
    axis = g.options.get("axis", 1 if g.kind == "cross_entropy" else -1)
    e = np.exp(g["x"] - g["x"].max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def one_hot(g: Given) -> Array:
    """The target of a cross-entropy as 0 and 1 in the scores' shape."""
    classes = np.arange(g["x"].shape[1]).reshape(1, -1, *(1,) * (g["x"].ndim - 2))
    return (np.expand_dims(g["target"], 1) == classes).astype(float)


def activation_dx(g: Given) -> Array:
    """dx = dy · f'(x) of sigmoid, tanh, ReLU; of a softmax or log-softmax with its sum over the row."""
    if g.kind == "softmax":
        p, axis = probabilities(g), g.options.get("axis", -1)
        return p * (g["dy"] - (g["dy"] * p).sum(axis=axis, keepdims=True))
    if g.kind == "log_softmax":
        axis = g.options.get("axis", -1)
        return g["dy"] - probabilities(g) * g["dy"].sum(axis=axis, keepdims=True)
    return g["dy"] * slope_of(g)


def activation_y(g: Given) -> Array:
    """y = f(x)."""
    if g.kind in ("softmax", "log_softmax"):
        p = probabilities(g)
        return p if g.kind == "softmax" else np.log(p)
    return value(g.kind, g["x"])
