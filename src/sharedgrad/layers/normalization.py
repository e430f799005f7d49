"""Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167), channel by channel.

    x̂ = (x − mean) / √(variance + ε)        y = weight · x̂ + bias

In training mode mean and (biased) variance are those of the batch, over samples and positions, so every sample
touches every other one's gradient:

    dx = weight / √(variance + ε) · (dy − mean(dy) − x̂ · mean(dy · x̂))
    dweight = Σ_{n,s} dy · x̂        dbias = Σ_{n,s} dy

In evaluation mode they are the running statistics, constants: dx = weight / √(variance + ε) · dy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import whole
from sharedgrad.layers import initializers
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, chosen_cells, expanded, factors
from sharedgrad.parameter import Array, Buffer, Parameter
from sharedgrad.uses import Direct, Uses
from sharedgrad.uses.terms import Terms


class BatchNorm2d(Layer):
    """x (N, C, H, W) -> y of the same shape; weight and bias (C,).

    Args:
        num_features: C.
        eps: ε.
        momentum: Weight of the newest batch in the running statistics: r ← (1 − momentum) · r + momentum · batch,
            where the batch's variance is the unbiased one, as in PyTorch.
    """

    mixes_samples = True
    fixed = frozenset({"num_features"})

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        num_features = whole(num_features, "BatchNorm2d: num_features")
        if not eps > 0 or not 0 <= momentum <= 1:
            raise ConfigError("BatchNorm2d", f"expected eps > 0 and momentum from 0 to 1, got {eps} and {momentum}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter((num_features,), initializers.ones, "weight")
        self.bias = Parameter((num_features,), initializers.zeros, "bias")
        self.running_mean = Buffer(np.zeros(num_features), "running_mean")
        self.running_var = Buffer(np.ones(num_features), "running_var")
        self.num_batches_tracked = Buffer(np.zeros((), np.int64), "num_batches_tracked")

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """Normalize with the batch's statistics (training) or the running ones (evaluation)."""
        (x,) = inputs
        k = kernels.of(x)
        if context.training:
            mean, variance = k.batch_statistics(x)
            self.track(mean, variance, x.size // self.num_features, context)
        else:
            mean, variance = (context.read(b).astype(x.dtype) for b in (self.running_mean, self.running_var))
        normal, *_ = saved = self.saved(x, mean, variance, context.training)
        return k.scale_shift(normal, self.weight.value, self.bias.value), saved

    def saved(self, x: Array, mean: Array, variance: Array, training: bool) -> tuple[Array, Array, bool]:
        """What backward needs of x (N, C, H, W): x̂, 1 / √(variance + ε) (C,), and whose statistics they are."""
        inverse_std = 1 / np.sqrt(variance + x.dtype.type(self.eps))
        return kernels.of(x).normalize(x, mean, inverse_std), inverse_std, training

    def track(self, mean: Array, variance: Array, count: int, context: Context) -> None:
        """Let the running statistics follow those of a batch of `count` values per channel."""
        self.expect(count > 1, "more than one value per channel in training mode", (count,), "use a larger batch")
        new = {self.running_mean: mean, self.running_var: variance * (count / (count - 1))}
        for buffer, batch in new.items():
            context.update(buffer, (1 - self.momentum) * context.read(buffer) + self.momentum * batch)
        context.update(self.num_batches_tracked, context.read(self.num_batches_tracked) + 1)

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy -> dx, and one use of weight and bias for each sample and position."""
        normal, inverse_std, training = saved
        k = kernels.of(upstream)
        dx = None
        if needs[0]:
            factor = self.weight.value * inverse_std
            if training:
                dx = k.normalize_backward(upstream, normal, factor)
            else:
                dx = k.scale_shift(upstream, factor, np.zeros_like(factor))
        axes = {"sample": upstream.shape[:1], "position": upstream.shape[2:]}
        return (dx,), [
            Direct(self.weight, np.moveaxis(upstream, 1, -1), axes, local=np.moveaxis(normal, 1, -1)),
            Direct(self.bias, np.moveaxis(upstream, 1, -1), axes),
        ]

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy_j · weight / √(variance + ε); in training mode for every output j of the channel, times a coefficient.

        The coefficient is ∂x̂_j/∂x_i · √(variance + ε) = [i = j] − 1/M − x̂_i · x̂_j / M with M values a channel.
        """
        normal, inverse_std, training = saved
        shape, positions = upstream.shape, prod(upstream.shape[2:])
        cell = output = chosen_cells(shape, cells, self.label)
        coefficient = None
        if training:
            cell, output = self._pairs(cell, shape)
            x, count = normal.reshape(-1), upstream.dtype.type(len(upstream) * positions)
            coefficient = (cell == output) - (1 + x[cell] * x[output]) / count
        channel = output // positions % self.num_features
        named = {"dy": (upstream, output), "weight": (self.weight.value, channel), "1/std": (inverse_std, channel)}
        return Terms("dx", shape, cell, factors(named), coefficient)

    def _pairs(self, cells: Array, shape: Shape) -> tuple[Array, Array]:
        """Each cell with every output of its channel, in the order of the outputs."""
        positions = prod(shape[2:])
        i, j = expanded(np.full(len(cells), shape[0] * positions), self.label)
        n, s = np.divmod(j, positions)
        output = (n * self.num_features + cells[i] // positions % self.num_features) * positions + s
        order = np.lexsort((cells[i], output))
        return cells[i][order], output[order]

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        (shape,) = shapes
        expected = f"maps of shape {self.num_features}×height×width (num_features={self.num_features})"
        fix = f"set num_features={shape[0]}" if len(shape) == 3 else ""
        self.expect(len(shape) == 3 and shape[0] == self.num_features, expected, shape, fix)
        return shape

    def uses_per_sample(self, *shapes: Shape) -> int:
        """One use for each position."""
        return prod(shapes[0][1:])
