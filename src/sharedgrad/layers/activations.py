"""Activations. Each backward is written with the output y, which forward has anyway.

sigmoid   y = 1 / (1 + e^−x)        dx = dy · y · (1 − y)
tanh      y = tanh x                dx = dy · (1 − y²)
ReLU      y = max(x, 0)             dx = 0 where y = 0, else dy   (at 0: a convention; NaN stays NaN and lets dy pass)
softmax   y = e^x / Σ e^x           dx = y · (dy − Σ dy · y)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.geometry import whole
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape, _Elementwise
from sharedgrad.layers.terms import Cells, Windows, chosen_cells, factors
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses
from sharedgrad.uses.terms import Terms


class Sigmoid(_Elementwise):
    """The logistic function, element by element."""

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = 1 / (1 + e^−x)."""
        y = kernels.of(inputs[0]).sigmoid(inputs[0])
        return y, y

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dx = dy · y · (1 − y)."""
        return (kernels.of(upstream).sigmoid_backward(upstream, saved),), []


class Tanh(_Elementwise):
    """The hyperbolic tangent, element by element."""

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = tanh x."""
        y = kernels.of(inputs[0]).tanh(inputs[0])
        return y, y

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dx = dy · (1 − y²)."""
        return (kernels.of(upstream).tanh_backward(upstream, saved),), []


class ReLU(_Elementwise):
    """The positive part, element by element."""

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = max(x, 0)."""
        y = kernels.of(inputs[0]).relu(inputs[0])
        return y, y

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dx = 0 where y = 0, else dy."""
        return (kernels.of(upstream).relu_backward(upstream, saved),), []


class Softmax(_Elementwise):
    """Probabilities along one axis.

    For training a classifier leave it out: ``CrossEntropy`` takes the scores before the softmax.

    Args:
        axis: The axis that sums to 1, counted with the sample axis as 0 (1: channels; −1: the last).
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = whole(axis, "Softmax: axis", least=None)

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """y = e^x / Σ e^x."""
        y = kernels.of(inputs[0]).softmax(inputs[0], self.axis)
        return y, y

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dx = y · (dy − Σ dy · y): every output depends on every input of its row."""
        return (kernels.of(upstream).softmax_backward(upstream, saved, self.axis),), []

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy_j · y_j · ([i = j] − y_i) for every output j of the row; the last factor is the coefficient."""
        shape, axis = upstream.shape, self.axis % upstream.ndim
        length, inner = shape[axis], prod(shape[axis + 1 :])
        rows = Windows(np.arange(inner)[:, None], (prod(shape[:axis]), length, inner), length, 1, self.label)
        met = rows.of_inputs(chosen_cells(shape, cells, self.label))
        coefficient = (met.x == met.y) - saved.reshape(-1)[met.x]
        return Terms("dx", shape, met.x, factors({"dy": (upstream, met.y), "y": (saved, met.y)}), coefficient)

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        (shape,) = shapes
        fits = -len(shape) <= self.axis <= len(shape) and self.axis != 0
        self.expect(fits, f"samples with an axis {self.axis} (counting the sample axis as 0)", shape)
        return shape
