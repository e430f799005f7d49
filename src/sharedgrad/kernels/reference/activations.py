"""Activations, and their ways back."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sharedgrad.parameter import Array


def _each(function: Callable[..., float], *arrays: Array) -> Array:
    result = np.empty(arrays[0].shape, arrays[0].dtype)
    for index in np.ndindex(*result.shape):
        result[index] = function(*(float(a[index]) for a in arrays))
    return result


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written so that e never overflows."""
    return _each(lambda v: 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)), x)


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 − y), with y the sigmoid's output."""
    return _each(lambda up, s: up * s * (1 - s), dy, y)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return _each(math.tanh, x)


def tanh_backward(dy: Array, y: Array) -> Array:
    """dx = dy · (1 − y²), with y the output."""
    return _each(lambda up, t: up * (1 - t * t), dy, y)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _each(lambda v: v if v > 0 or math.isnan(v) else 0.0, x)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = 0 where the output is 0 (a convention), else dy; NaN lets it pass, as in PyTorch."""
    return _each(lambda up, v: 0.0 if v <= 0 else up, dy, y)


def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    y = np.empty_like(x)
    rows, out = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    for index in np.ndindex(*rows.shape[:-1]):
        powers = [math.exp(v - max(rows[index])) for v in rows[index]]
        out[index] = [power / math.fsum(powers) for power in powers]
    return y


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    dx = np.empty_like(dy)
    ups, outs, grads = (np.moveaxis(a, axis, -1) for a in (dy, y, dx))
    for index in np.ndindex(*ups.shape[:-1]):
        inner = math.fsum(u * s for u, s in zip(ups[index], outs[index], strict=True))
        grads[index] = [s * (u - inner) for u, s in zip(ups[index], outs[index], strict=True)]
    return dx
