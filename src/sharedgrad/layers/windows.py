"""What all layers with a sliding kernel share: channels, geometry and the padding mode."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import PADDING_MODES, Geometry, Ints, Padding, whole
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, Meetings, Windows, chosen_cells, factors, with_bias
from sharedgrad.parameter import Array, Weight
from sharedgrad.uses.terms import Terms


class _Windowed(Layer):
    """A layer that slides a window of weights over maps (C, *S)."""

    rank: ClassVar[int]
    fixed = frozenset(
        {"in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"}
        | {"padding_mode", "init", "geometry"}
    )
    weight: Weight
    bias: Weight | None

    def _set_window(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints,
        padding: Padding,
        dilation: Ints,
        groups: int,
        padding_mode: str,
    ) -> None:
        """Store the arguments and read the geometry from them."""
        kind = type(self).__name__
        self.in_channels = in_channels = whole(in_channels, f"{kind}: in_channels")
        self.out_channels = out_channels = whole(out_channels, f"{kind}: out_channels")
        self.kernel_size = kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.padding_mode = groups, padding_mode
        self.geometry = Geometry.of(self.rank, kernel_size, stride, padding, dilation, groups, kind)
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{kind}: groups",
                f"expected a common divisor of {in_channels} input and {out_channels} output channels, got {groups}",
            )
        if padding_mode not in PADDING_MODES:
            raise ConfigError(
                f"{kind}: padding_mode", f"expected one of {', '.join(PADDING_MODES)}, got {padding_mode!r}"
            )

    @property
    def _fan_in(self) -> int:
        return self.in_channels // self.groups * self.geometry.cells

    @property
    def _fan_out(self) -> int:
        return self.out_channels // self.groups * self.geometry.cells

    def output_shape(self, *shapes: Shape) -> Shape:
        """(out_channels, *positions)."""
        (shape,) = shapes
        axes = "×".join(("length",) if self.rank == 1 else ("height", "width", "depth")[: self.rank])
        fits = len(shape) == self.rank + 1 and shape[0] == self.in_channels
        fix = f"set in_channels={shape[0]}" if len(shape) == self.rank + 1 else ""
        self.expect(fits, f"samples of shape {self.in_channels}×{axes} (in_channels={self.in_channels})", shape, fix)
        self._check_padding(shape[1:])
        return (self.out_channels, *self.geometry.output(shape[1:], self.label))

    def _check_padding(self, spatial: Shape) -> None:
        """Reflection needs more cells than it copies, a circle at least as many."""
        spare = {"reflect": 1, "circular": 0}.get(self.padding_mode)
        if spare is not None:
            for n, pair in zip(spatial, self.geometry.padding, strict=True):
                self.expect(
                    max(pair) <= n - spare,
                    f"maps of at least {max(pair) + spare} cells for {self.padding_mode} padding of {max(pair)}",
                    spatial,
                    "use less padding or padding_mode='zeros'",
                )

    def uses_per_sample(self, *shapes: Shape) -> int:
        """One use for each output position."""
        return prod(self.output_shape(*shapes)[1:])

    def _padded(self, x: Array) -> tuple[Array, Geometry]:
        """The input and geometry after any padding that is not zeros (zeros are read, not stored)."""
        if self.padding_mode == "zeros":
            return x, self.geometry
        return kernels.of(x).pad(x, self.geometry, self.padding_mode), self.geometry.without_padding()

    def _unpadded(self, dx: Array, spatial: Shape) -> Array:
        """Gradients of the copies in the padding, added to the cells that they are copies of."""
        if self.padding_mode == "zeros":
            return dx
        return kernels.of(dx).pad_backward(dx, self.geometry, self.padding_mode, spatial)

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """dy[n,f,o] · w[f,c,k] for every window o and offset k that reads the cell, and every filter f of its group."""
        shape = (len(upstream), self.in_channels, *saved[-1])
        met = self._windows(shape).of_inputs(chosen_cells(shape, cells, self.label))
        named = {"dy": (upstream, met.y), "w": (self.weight.value, self._weights(met))}
        return Terms("dx", shape, met.x, factors(named))

    def output_terms(self, *inputs: Array, cells: Cells = None) -> Terms:
        """w[f,c,k] · x[n,c,s] for everything under the window, padding included, and b[f]."""
        (x,) = inputs
        shape = (len(x), *self.output_shape(x.shape[1:]))
        chosen, bias = chosen_cells(shape, cells, self.label), None if self.bias is None else self.bias.value
        met = self._windows(x.shape).of_outputs(chosen)
        named = {"w": (self.weight.value, self._weights(met)), "x": (x, met.x)}
        return with_bias(Terms("y", shape, met.y, factors(named)), bias, chosen, self._biases(chosen, shape))

    def _windows(self, shape: Shape) -> Windows:
        """Where the window meets an input of this shape (N, C, *S); padding that copies a cell counts as that cell."""
        sources = self.geometry.sources(shape[2:], self.padding_mode)
        return Windows(sources, shape, self.out_channels, self.groups, self.label)

    def _weights(self, met: Meetings) -> Array:
        """Flat index of the weight that each meeting multiplies with: one kernel for all positions."""
        return met.w

    def _biases(self, cells: Array, shape: Shape) -> Array:
        """Flat index of the bias that is added to each output cell: one for all positions."""
        return np.asarray(cells // prod(shape[2:]) % self.out_channels)
