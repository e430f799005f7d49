"""Locally connected layers: the unshared twins of convolutions. Every position has a kernel of its own.

    y[n,f,o] = b[f,o] + Σ_{c,k} w[o,f,c,k] · x[n, c, o·stride − padding + k·dilation]

The weight carries the position o, so one sample uses it once and no sum over positions appears:

    dw[o,f,c,k] = Σ_n dy[n,f,o] · x[n, c, o·stride − padding + k·dilation]
    db[f,o]     = Σ_n dy[n,f,o]

Make all kernels equal and the forward pass is a convolution's; add dw over o and it is the convolution's dw.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.geometry import Ints, Padding, per_axis
from sharedgrad.layers import initializers
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.layers.terms import Meetings
from sharedgrad.layers.windows import _Windowed
from sharedgrad.parameter import Array, Parameter
from sharedgrad.uses import Direct, Outer, Uses


class _LocallyConnected(_Windowed):
    """A window that slides like a convolution's, with other weights at every position."""

    fixed = _Windowed.fixed | {"input_size"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Ints,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        init: str = "he",
    ) -> None:
        self._set_window(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        kind = type(self).__name__
        self.input_size, self.init = input_size, init
        self._spatial = per_axis(self.rank, input_size, f"{kind}: input_size", least=1)
        self._positions = self.geometry.output(self._spatial, kind)
        draw = initializers.weights(init, self._fan_in, self._fan_out, kind)
        kernel = (out_channels, in_channels // groups, *self.geometry.kernel)
        self.weight = Parameter((*self._positions, *kernel), draw, "weight")
        self.bias = Parameter((out_channels, *self._positions), initializers.zeros, "bias") if bias else None

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, C, *S) -> y (N, F, *P): every patch times its own position's weights."""
        (x,) = inputs
        padded, geometry = self._padded(x)
        k = kernels.of(x)
        patches = k.patches(padded, geometry)
        blocks = patches.reshape(len(x), -1, patches.shape[-1])  # one for each position and group
        y = k.blocks(blocks, self._matrices())
        y = y.reshape(len(x), *self._positions, self.out_channels)
        y = np.ascontiguousarray(np.moveaxis(y, -1, 1))
        if self.bias is not None:
            y = y + self.bias.value
        return y, (blocks, geometry, padded.shape[2:], x.shape[2:])

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy (N, F, *P) -> dx (N, C, *S), and one use of each position's weights for each sample."""
        blocks, geometry, padded, spatial = saved
        delta = np.moveaxis(upstream, 1, -1).reshape(*blocks.shape[:2], -1)
        axes = {"sample": upstream.shape[:1]}
        dx = None
        if needs[0]:
            k = kernels.of(upstream)
            dp = k.blocks_input_gradient(delta, self._matrices())
            dp = dp.reshape(len(dp), *self._positions, self.groups, -1)
            dx = self._unpadded(k.patches_backward(dp, geometry, padded), spatial)
        uses: list[Uses] = [Outer(self.weight, delta, blocks, axes)]
        if self.bias is not None:
            uses.append(Direct(self.bias, upstream, axes))
        return (dx,), uses

    def _matrices(self) -> Array:
        """The weights as one matrix (F/groups, C/groups · cells) for each position and group."""
        blocks = prod(self._positions) * self.groups
        return self.weight.value.reshape(blocks, self.out_channels // self.groups, -1)

    def _weights(self, met: Meetings) -> Array:
        """Every position has its own kernel."""
        return met.position * prod(self.weight.shape[self.rank :]) + met.w

    def _biases(self, cells: Array, shape: Shape) -> Array:
        """And its own bias."""
        return cells % prod(shape[1:])

    def output_shape(self, *shapes: Shape) -> Shape:
        """(out_channels, *positions)."""
        (shape,) = shapes
        output = super().output_shape(shape)
        self.expect(shape[1:] == self._spatial, f"maps of input_size={self.input_size}", shape[1:])
        return output

    def uses_per_sample(self, *shapes: Shape) -> int:
        """Every weight belongs to one position."""
        return 1


class LocallyConnected1d(_LocallyConnected):
    """The unshared twin of Conv1d: x (N, C, L) -> y (N, F, L'), weight (L', F, C/groups, K), bias (F, L').

    Args:
        in_channels: C.
        out_channels: F.
        input_size: Spatial shape of the input, which fixes the number of positions; the other arguments are
            those of the convolution.
    """

    rank = 1


class LocallyConnected2d(_LocallyConnected):
    """The unshared twin of Conv2d: x (N, C, H, W), weight (H', W', F, C/groups, KH, KW), bias (F, H', W')."""

    rank = 2
