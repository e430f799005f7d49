"""Single convolutions of many shapes: forward, input gradient and weight gradient, in GFLOP/s."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.options import Options
from benchmarks.tables import Case, Row, Table
from benchmarks.timing import Call, Spread, alternating, ready
from sharedgrad import kernels
from sharedgrad.geometry import Geometry

PASSES = ("forward", "input gradient", "weight gradient")
FORMATS = ("contiguous", "channels_last")


class Shape(NamedTuple):
    """A convolution of square maps with a square kernel, padded by half of it."""

    batch: int
    channels: int
    filters: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        groups = f", {self.groups} groups" if 1 < self.groups < self.channels else ""
        depthwise = ", depthwise" if 1 < self.groups == self.channels else ""
        maps = f"{self.channels}→{self.filters}, {self.kernel}×{self.kernel}{stride} on {self.size}×{self.size}"
        return f"{maps}{groups}{depthwise}, batch {self.batch}"

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(2, self.kernel, self.stride, self.kernel // 2, groups=self.groups)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x (N, C, H, W), w (F, C/groups, K, K) and dy (N, F, H', W')."""
        rng = np.random.default_rng(0)
        after = self.geometry.output((self.size, self.size))
        x = rng.standard_normal((self.batch, self.channels, self.size, self.size), np.float32)
        w = rng.standard_normal((self.filters, self.channels // self.groups, self.kernel, self.kernel), np.float32)
        return x, w, rng.standard_normal((self.batch, self.filters, *after), np.float32)

    @property
    def gflop(self) -> float:
        """Multiplications and additions of one pass, in 10⁹; what falls on the padding does not count."""
        positions = self.geometry.output((self.size,) * 2)[0]
        start = np.arange(positions)[:, None] * self.stride - self.kernel // 2 + np.arange(self.kernel)
        cells = int(np.count_nonzero((start >= 0) & (start < self.size)))
        return 2e-9 * self.batch * self.filters * (self.channels // self.groups) * cells**2


SHAPES = (
    # few channels
    Shape(64, 1, 6, 28, 5),
    Shape(64, 1, 32, 28, 3),
    Shape(64, 3, 64, 32, 1),
    Shape(64, 3, 64, 32, 3),
    Shape(16, 3, 64, 128, 7, 2),
    Shape(64, 6, 16, 14, 5),
    Shape(16, 8, 8, 128, 3),
    Shape(64, 16, 16, 32, 3),
    Shape(64, 16, 32, 32, 3, 2),
    Shape(64, 16, 32, 32, 1, 2),
    # middling
    Shape(64, 32, 64, 14, 3),
    Shape(64, 32, 32, 28, 5),
    Shape(64, 32, 32, 28, 7),
    Shape(8, 32, 32, 128, 3),
    Shape(64, 64, 64, 7, 3),
    Shape(64, 64, 64, 32, 1),
    Shape(64, 64, 64, 32, 3),
    Shape(64, 64, 128, 32, 3, 2),
    # many channels
    Shape(64, 128, 128, 16, 3),
    Shape(64, 128, 128, 28, 1),
    Shape(64, 128, 256, 16, 3, 2),
    Shape(64, 256, 256, 8, 3),
    Shape(64, 256, 256, 7, 7),
    Shape(64, 256, 256, 14, 1),
    # other batch sizes
    Shape(1, 1, 6, 28, 5),
    Shape(1, 16, 16, 32, 3),
    Shape(1, 64, 64, 32, 3),
    Shape(1, 256, 256, 14, 3),
    Shape(4, 64, 64, 32, 3),
    Shape(17, 64, 64, 32, 3),
    Shape(256, 16, 16, 32, 3),
    Shape(256, 64, 64, 14, 3),
    # groups
    Shape(64, 64, 64, 32, 3, 1, 4),
    Shape(64, 64, 64, 32, 3, 1, 64),
    Shape(64, 64, 64, 32, 3, 2, 64),
    Shape(64, 128, 128, 28, 5, 1, 128),
    Shape(64, 256, 256, 7, 3, 1, 256),
)


def section(options: Options) -> list[Table]:
    """One row a shape."""
    note = (
        "GFLOP/s: median (quartiles); a multiplication and an addition are two operations, those on padding do not "
        "count. The share is ours of the machine's peak; PyTorch runs in the better of its two memory formats, "
        "already in it."
    )
    columns = ["convolution"]
    for name in PASSES:
        columns += [name, f"{name}: % of peak", *([f"{name}: PyTorch", f"{name}: ratio"] if options.rivals else [])]
    cases = tuple(Case(str(shape), partial(_row, options, shape)) for shape in SHAPES)
    return [Table("convolutions", "Single convolutions", note, tuple(columns), cases)]


def _row(options: Options, shape: Shape) -> Row:
    ours = _ours(shape)
    makers = {
        (name, layout): partial(_theirs, shape, name, layout)
        for name in PASSES
        for layout in (FORMATS if options.rivals else ())
    }
    theirs, failures = ready(makers)
    spreads = alternating(ours | theirs, options.repeats)
    row: Row = {}
    for name in PASSES:
        row[name] = _rate(shape, spreads[name])
        row[f"{name}: % of peak"] = 100 * row[name].median / machine.peak(options.threads, options.rivals)
        rates = [_rate(shape, spreads[name, layout]) for layout in FORMATS if (name, layout) in spreads]
        if rates:
            row[f"{name}: PyTorch"] = best = max(rates, key=lambda rate: rate.median)
            row[f"{name}: ratio"] = row[name].median / best.median
        elif options.rivals:
            row[f"{name}: PyTorch"] = failures[name, FORMATS[0]]
    return row


def _rate(shape: Shape, milliseconds: Spread) -> Spread:
    return Spread(tuple(shape.gflop / (run / 1e3) for run in milliseconds.runs), milliseconds.others)


def _ours(shape: Shape) -> dict[str, Call]:
    (x, w, dy), g = shape.arrays(), shape.geometry
    ours = kernels.of(x)
    return {
        "forward": lambda: ours.conv(x, w, None, g),
        "input gradient": lambda: ours.conv_input_gradient(dy, w, g, x.shape[2:]),
        "weight gradient": lambda: ours.conv_kernel_gradient(dy, x, g),
    }


def _theirs(shape: Shape, name: str, layout: str) -> Call:
    import torch

    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x, w, dy = (torch.tensor(array).contiguous(memory_format=order) for array in shape.arrays())
    slide = ([shape.stride] * 2, [shape.kernel // 2] * 2, [1, 1])
    if name == "forward":
        return torch.no_grad()(lambda: torch.nn.functional.conv2d(x, w, None, *slide, shape.groups))
    wanted = [name == "input gradient", name == "weight gradient", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, w, None, *slide, False, [0, 0], shape.groups, wanted)
