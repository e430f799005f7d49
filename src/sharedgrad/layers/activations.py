"""Activations. Each backward is written with the output y, which forward has anyway.

sigmoid   y = 1 / (1 + e^−x)        dx = dy · y · (1 − y)
tanh      y = tanh x                dx = dy · (1 − y²)
ReLU      y = max(x, 0)             dx = dy where y > 0, else 0   (at 0: 0, a convention)
softmax   y = e^x / Σ e^x           dx = y · (dy − Σ dy · y)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharedgrad import kernels
from sharedgrad.geometry import whole
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape, _Elementwise
from sharedgrad.parameter import Array
from sharedgrad.uses import Uses


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
        """dx = dy where y > 0, else 0."""
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

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        (shape,) = shapes
        fits = -len(shape) <= self.axis <= len(shape) and self.axis != 0
        self.expect(fits, f"samples with an axis {self.axis} (counting the sample axis as 0)", shape)
        return shape
