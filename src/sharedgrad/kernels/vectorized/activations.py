"""Activations, and their ways back."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x) = (1 + tanh(x/2)) / 2, which never overflows."""
    y = np.multiply(x, 0.5)
    np.tanh(y, out=y)
    y += 1
    y *= 0.5
    return y


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 − y), with y the sigmoid's output."""
    dx = 1 - y
    dx *= y
    dx *= dy
    return dx


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(dy: Array, y: Array) -> Array:
    """dx = dy · (1 − y²), with y the output."""
    dx = np.square(y)
    np.subtract(1, dx, out=dx)
    dx *= dy
    return dx


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = 0 where the output is 0 (a convention), else dy; NaN lets it pass, as in PyTorch."""
    return np.where(y <= 0, dy.dtype.type(0), dy)


def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    y = np.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))
