"""The dense layer: one weight matrix, used for every sample (and every token of a sequence).

y[…,o] = b[o] + Σ_i w[o,i] · x[…,i]

dw[o,i] = Σ_… dy[…,o] · x[…,i]      db[o] = Σ_… dy[…,o]      dx[…,i] = Σ_o dy[…,o] · w[o,i]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from sharedgrad import kernels
from sharedgrad.geometry import whole
from sharedgrad.layers import initializers
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, Windows, chosen_cells, dense, factors, with_bias
from sharedgrad.parameter import Array, Parameter
from sharedgrad.uses import Direct, Outer, Uses
from sharedgrad.uses.terms import Terms


class Linear(Layer):
    """y = x·wᵀ + b over the last axis: x (N, *T, I) -> y (N, *T, O), with any number of axes between.

    Args:
        in_features: I.
        out_features: O.
        bias: Whether a bias is added.
        init: First weights: "he" or "glorot".
    """

    fixed = frozenset({"in_features", "out_features", "init"})

    def __init__(self, in_features: int, out_features: int, bias: bool = True, init: str = "he") -> None:
        self.in_features = in_features = whole(in_features, "Linear: in_features")
        self.out_features = out_features = whole(out_features, "Linear: out_features")
        self.init = init
        draw = initializers.weights(init, in_features, out_features, "Linear")
        self.weight = Parameter((out_features, in_features), draw, "weight")
        self.bias = Parameter((out_features,), initializers.zeros, "bias") if bias else None

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, *T, I) -> y (N, *T, O)."""
        (x,) = inputs
        rows = self.saved(x)
        y = kernels.of(x).blocks(rows, self.weight.value[None])[..., 0, :]
        if self.bias is not None:
            y += self.bias.value
        return y, rows

    def saved(self, x: Array) -> Array:
        """What backward needs of x (N, *T, I): its vectors, each as one block (N, *T, 1, I)."""
        return x[..., None, :]

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy (N, *T, O) -> dx (N, *T, I), and one use of weight and bias for each sample and token."""
        delta = upstream[..., None, :]
        axes = {"sample": upstream.shape[:1]}
        if upstream.ndim > 2:
            axes["token"] = upstream.shape[1:-1]
        dx = None
        if needs[0]:
            dx = kernels.of(upstream).blocks_input_gradient(delta, self.weight.value[None])[..., 0, :]
        uses: list[Uses] = [Outer(self.weight, delta, saved, axes)]
        if self.bias is not None:
            uses.append(Direct(self.bias, upstream, axes))
        return (dx,), uses

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy[…,o] · w[o,i] for every output o."""
        shape = (*upstream.shape[:-1], self.in_features)
        met = self._products(shape).of_inputs(chosen_cells(shape, cells, self.label))
        return Terms("dx", shape, met.x, factors({"dy": (upstream, met.y), "w": (self.weight.value, met.w)}))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """w[o,i] · x[…,i] for every input i, and b[o]."""
        (x,) = inputs
        shape = (*x.shape[:-1], self.out_features)
        chosen, bias = chosen_cells(shape, cells, self.label), None if self.bias is None else self.bias.value
        met = self._products(x.shape).of_outputs(chosen)
        terms = Terms("y", shape, met.y, factors({"w": (self.weight.value, met.w), "x": (x, met.x)}))
        return with_bias(terms, bias, chosen, chosen % self.out_features)

    def _products(self, shape: Shape) -> Windows:
        return dense(prod(shape[:-1]), self.in_features, self.out_features, self.label)

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape with out_features last."""
        (shape,) = shapes
        fix = f"set in_features={shape[-1]}" if len(shape) == 1 else ""
        if len(shape) > 1 and prod(shape) == self.in_features:
            fix = "put a Flatten before it"
        expected = f"{self.in_features} features (in_features={self.in_features})"
        self.expect(bool(shape) and shape[-1] == self.in_features, expected, shape, fix)
        return (*shape[:-1], self.out_features)

    def uses_per_sample(self, *shapes: Shape) -> int:
        """One use for each token; 1 where the input is a plain vector."""
        return prod(shapes[0][:-1])

    def without_sharing(self, *shapes: Shape) -> int | None:
        """A matrix of its own for every token."""
        tokens = self.uses_per_sample(*shapes)
        bias = 0 if self.bias is None else self.out_features
        return None if tokens == 1 else tokens * (self.in_features * self.out_features + bias)
