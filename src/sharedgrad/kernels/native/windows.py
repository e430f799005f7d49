"""How windows slide over maps, in the numbers that operations take."""

from __future__ import annotations

from typing import NamedTuple

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.maps import ALIGNMENT, LARGEST, Map

MOST_CELLS = _native.MOST_CELLS  # of a window along one axis
DEPTHWISE_STRIDE = 2  # at most, along a row, as in depthwise.hpp
DEPTHWISE_COLUMNS = 1 << 15  # cells of a row times columns of the kernel: what these see of those is written down
POINTS = 36  # of a 3×3 kernel, as in winograd.hpp


class Axis(NamedTuple):
    """A window along one axis; padding is what comes before."""

    kernel: int
    stride: int
    pad: int
    dilation: int

    def end(self, outputs: int) -> int:
        """Behind the last input that so many windows read."""
        return (outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.pad

    def fits(self, outputs: int, before: int, size: int, after: int) -> bool:
        """Whether so many windows reach no further than the margins before and after."""
        window = 0 < self.kernel <= MOST_CELLS and 0 < self.stride <= LARGEST and 0 < self.dilation <= LARGEST
        return window and outputs > 0 and 0 <= self.pad <= before and self.end(outputs) <= size + after

    def met(self, size: int) -> tuple[int, int]:
        """The first and the last output that inputs meet: input i meets cell k at (i + pad − k·dilation) / stride."""
        first, last = 0, 0
        for k in range(self.kernel):
            shift = self.pad - k * self.dilation
            i = -shift % self.stride  # the first input that meets this cell
            if i < size:
                first, last = min(first, (i + shift) // self.stride), max(last, (size - 1 + shift) // self.stride)
        return first, last


class Window(NamedTuple):
    """With one spatial axis the height is 1."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Along the height, and along the width."""
        return Axis(*self[0:8:2]), Axis(*self[1:8:2])

    @property
    def cells(self) -> int:
        """Of the kernel."""
        return self.kernel_h * self.kernel_w

    @property
    def makes_points(self) -> bool:
        """Whether its kernel may be kept in the points of minimal filtering."""
        return self == (3, 3, 1, 1, *self[4:6], 1, 1, 1)

    def kernel_size(self, small: Map, big: Map) -> int:
        """Numbers of w (small.channels, big.channels / groups, *K), or −1 where the groups do not fit."""
        if self.groups < 1 or small.channels % self.groups or big.channels % self.groups:
            return -1
        return small.channels * (big.channels // self.groups) * self.cells

    def prepared_size(self, filters: int, channels: int, vector: int) -> int:
        """Numbers that a prepared kernel takes, as ``by_channel_passes.hpp`` counts them."""
        cells = POINTS if self.makes_points else self.cells
        return ALIGNMENT + cells * channels * -(-filters // vector) * vector

    def pointwise(self, small: Map, big: Map) -> bool:
        """Whether it is 1×1 and each of its windows sees one input."""
        down, across = self.axes
        sees = down.fits(small.height, 0, big.height, 0) and across.fits(small.width, 0, big.width, 0)
        return self.groups == self.cells == 1 and sees

    def depthwise(self, small: Map, big: Map) -> bool:
        """Whether it is depthwise and of plain arrays, which have no margins."""
        ends = (axis.end(n) + axis.pad for axis, n in zip(self.axes, small.shape[1:], strict=True))
        one = self.groups == big.channels == small.channels and self.stride_w <= DEPTHWISE_STRIDE
        short = max(small.width, big.width) * self.kernel_w <= DEPTHWISE_COLUMNS
        return big.plain and one and short and all(end <= LARGEST for end in ends)

    def slides(self, small: Map, big: Map, *, margins_made: bool = False, plain: bool = False) -> bool:
        """Whether windows over ``big``, in blocks if it may not be ``plain``, give ``small`` and reach no further than
        its margins, unless these are made."""
        together = small.lanes == big.lanes and small.by_channel == big.by_channel and small.samples == big.samples
        if not together or (big.plain and not plain):
            return False
        top, bottom, left, right = (LARGEST,) * 4 if margins_made else big.margins
        down, across = self.axes
        some = min(self.groups, small.channels, big.channels) > 0
        return (
            some
            and down.fits(small.height, top, big.height, bottom)
            and across.fits(small.width, left, big.width, right)
        )

    def convolves(self, small: Map, big: Map) -> bool:
        """The same for a convolution; 1×1 and depthwise it may be of plain arrays."""
        depthwise = self.depthwise(small, big)
        plain = depthwise or self.pointwise(small, big)
        return self.slides(small, big, margins_made=depthwise, plain=plain)

    def slides_back(self, dx: Map, dy: Map) -> bool:
        """Whether windows over dx have given dy, whose margins are as wide as the way back reads."""
        depthwise = self.depthwise(dy, dx)
        plain = depthwise or self.pointwise(dy, dx)
        if not self.slides(dy, dx, margins_made=True, plain=plain):  # dx itself needs no margins
            return False
        read = (axis.met(n) for axis, n in zip(self.axes, dx.shape[1:], strict=True))
        margins = (dy.margins[:2], dy.margins[2:])
        return depthwise or all(
            -first <= before and last < n + after
            for (first, last), n, (before, after) in zip(read, dy.shape[1:], margins, strict=True)
        )
