"""Activations, compiled, and their ways back."""

from __future__ import annotations

from math import prod

from sharedgrad.kernels.native.fallback import compiled_if
from sharedgrad.kernels.native.maps import LARGEST
from sharedgrad.kernels.native.program import RELU, SIGMOID, TANH
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.single import kind_of, operation, run
from sharedgrad.parameter import Array


def _forward(x: Array, activation: int) -> Array:
    y = empty_like(x)
    run(operation(kind_of(x), "activate", ((1, x.size),) * 2, activation), y, x)
    return y


def _backward(dy: Array, y: Array, activation: int) -> Array:
    dx = empty_like(dy)
    run(operation(kind_of(dy), "activate_backward", ((1, dy.size),) * 3, activation), dx, dy, y)
    return dx


_if_there_are_any = compiled_if(
    lambda *arrays: 0 < arrays[0].size <= LARGEST, f"more than {LARGEST:,} numbers, or none"
)


@_if_there_are_any
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _forward(x, RELU)


@_if_there_are_any
def relu_backward(dy: Array, y: Array) -> Array:
    """dx = 0 where the output is 0 (a convention), else dy; NaN lets it pass."""
    return _backward(dy, y, RELU)


@_if_there_are_any
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x)."""
    return _forward(x, SIGMOID)


@_if_there_are_any
def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 − y), with y the sigmoid's output."""
    return _backward(dy, y, SIGMOID)


@_if_there_are_any
def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return _forward(x, TANH)


@_if_there_are_any
def tanh_backward(dy: Array, y: Array) -> Array:
    """dx = dy · (1 − y²), with y the output."""
    return _backward(dy, y, TANH)


_along_the_last = compiled_if(lambda *a: a[-1] % a[0].ndim == a[0].ndim - 1, "another axis than the last")


@_along_the_last
def softmax(x: Array, axis: int) -> Array:
    """e^x / Σ e^x along the axis, shifted by the largest x."""
    y, rows = empty_like(x), (prod(x.shape[:-1]), x.shape[-1])
    run(operation(kind_of(x), "softmax", (rows, rows)), y, x)
    return y


@_along_the_last
def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j y_j): every output depends on every input."""
    dx, rows = empty_like(y), (prod(y.shape[:-1]), y.shape[-1])
    run(operation(kind_of(y), "softmax_backward", (rows, rows, rows)), dx, dy, y)
    return dx
