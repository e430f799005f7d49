"""Convolution: one kernel, used at every position.

    y[n,f,o] = b[f] + Σ_{c,k} w[f,c,k] · x[n, c, o·stride − padding + k·dilation]

("Convolution" is cross-correlation, as everywhere in the field.) In group g of ``groups`` the filters see only
that group's channels. Read the same products from the other side, and every backward line follows:

    dw[f,c,k]  = Σ_{n,o} dy[n,f,o] · x[n, c, o·stride − padding + k·dilation]     the sum over the kernel's uses
    db[f]      = Σ_{n,o} dy[n,f,o]
    dx[n,c,i]  = Σ_{f,o,k: o·stride − padding + k·dilation = i} dy[n,f,o] · w[f,c,k]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.geometry import Geometry, Ints, Padding
from sharedgrad.layers import initializers
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Shape
from sharedgrad.layers.windows import _Windowed
from sharedgrad.parameter import Array, Parameter
from sharedgrad.uses import Direct, Uses, Window


class _Conv(_Windowed):
    """Convolution over any number of spatial axes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
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
        self.init = init
        draw = initializers.weights(init, self._fan_in, self._fan_out, type(self).__name__)
        self.weight = Parameter((out_channels, in_channels // groups, *self.geometry.kernel), draw, "weight")
        self.bias = Parameter((out_channels,), initializers.zeros, "bias") if bias else None

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, C, *S) -> y (N, F, *P)."""
        (x,) = inputs
        padded, geometry, _ = saved = self.saved(x)
        bias = None if self.bias is None else self.bias.value
        return kernels.of(x).conv(padded, self.weight.value, bias, geometry), saved

    def saved(self, x: Array) -> tuple[Array, Geometry, Shape]:
        """What backward needs of x (N, C, *S): x as padded, the geometry over that, and S."""
        return *self._padded(x), x.shape[2:]

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy (N, F, *P) -> dx (N, C, *S), and one use of kernel and bias for each sample and position."""
        padded, geometry, spatial = saved
        dx = None
        if needs[0]:
            k = kernels.of(upstream)
            dx = k.conv_input_gradient(upstream, self.weight.value, geometry, padded.shape[2:])
            dx = self._unpadded(dx, spatial)
        uses: list[Uses] = [Window(self.weight, upstream, padded, geometry)]
        if self.bias is not None:
            axes = {"sample": upstream.shape[:1], "position": upstream.shape[2:]}
            uses.append(Direct(self.bias, np.moveaxis(upstream, 1, -1), axes))
        return (dx,), uses

    def without_sharing(self, *shapes: Shape) -> int | None:
        """A kernel (and bias) of its own for every position: the locally connected twin."""
        own = prod(self.weight.shape) + (0 if self.bias is None else self.out_channels)
        return self.uses_per_sample(*shapes) * own


class Conv1d(_Conv):
    """Convolution over signals: x (N, C, L) -> y (N, F, L').

    Args:
        in_channels: C.
        out_channels: F, the number of filters.
        kernel_size: Cells of the kernel, a number or one per axis.
        stride: Distance between positions.
        padding: A number, one per axis, a (before, after) pair per axis, "same" or "valid".
        dilation: Distance between kernel cells.
        groups: Channel groups that do not see each other; groups = C is a depthwise convolution.
        bias: Whether a bias is added; ``bias`` may also be assigned a Parameter to tie it.
        padding_mode: What the padding reads: "zeros", "reflect", "replicate" or "circular".
        init: First weights: "he" or "glorot".

    Raises:
        ConfigError: An argument makes no sense.
    """

    rank = 1


class Conv2d(_Conv):
    """Convolution over images: x (N, C, H, W) -> y (N, F, H', W'). Arguments as for :class:`Conv1d`."""

    rank = 2
