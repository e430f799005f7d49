"""Programs of compiled operations: which operation works on which maps, and where the maps lie in memory.

A :class:`Builder` collects operations on :class:`Map` objects; :meth:`Builder.build` lays the maps out and writes the
program in the numbers that ``program.hpp`` reads. Maps are of three kinds: arrays that come from outside, maps that
are *kept* for the way back, and temporary ones, whose memory is used again once no later operation reads them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np

from sharedgrad.geometry import Geometry
from sharedgrad.kernels.native import _native

LARGEST, MOST_CELLS = _native.LARGEST, _native.MOST_CELLS  # of all sizes; of a window's cells along one axis
_CODES = {name: code for code, name in enumerate(_native.operations())}
IDENTITY, RELU, SIGMOID, TANH = map(_native.activations().index, ("identity", "relu", "sigmoid", "tanh"))
PADDINGS = {name: code for code, name in enumerate(_native.paddings())}
_CLEARING = ("pool_2x2_backward",)  # what writes the margins of its maps itself

_POINTS = 36  # of a 3×3 kernel, as in winograd.hpp
_ALIGNMENT = 16  # elements: maps begin on 64 bytes, or 128
_KEPT, _TEMPORARY, _OUTSIDE = 0, 1, 2  # arrays of a run, in this order


@dataclass(eq=False)
class Map:
    """N samples of C channels of H×W cells, `lanes` samples side by side, with margins of zeros around the cells.

    In blocks these fill a vector; a plain array has one.

    Attributes:
        outside: The number of the array that it is, for arrays from outside.
        by_channel: Whether channels lie side by side instead, as few samples have it.
        kept: Whether the way back reads it.
        offset: Where it lies in the kept or the temporary memory, once that is decided.
    """

    samples: int
    lanes: int
    channels: int
    height: int = 1
    width: int = 1
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    outside: int | None = None
    by_channel: bool = False
    kept: bool = False
    offset: int | None = None

    def like(self) -> Map:
        """Another map of this shape, without margins."""
        return Map(self.samples, self.lanes, *self.shape, by_channel=self.by_channel)

    def widen(self, margins: tuple[int, int, int, int]) -> None:
        """Make the margins at least that wide."""
        wider = tuple(max(a, b) for a, b in zip(self.margins, margins, strict=True))
        if wider != self.margins and (self.offset is not None or self.outside is not None):
            raise AssertionError("the margins of a map that has its place cannot grow")
        self.margins = wider  # type: ignore[assignment]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    @property
    def elements(self) -> int:
        """What it takes in memory, with what vectors read beyond its end."""
        top, bottom, left, right = self.margins
        cells = (top + self.height + bottom) * (left + self.width + right)
        if self.lanes > 1:
            cells |= 1  # as Map::channel in layout.hpp
        across, along = (self.channels, self.samples) if self.by_channel else (self.samples, self.channels)
        return -(-across // self.lanes) * along * cells * self.lanes + _ALIGNMENT

    def row(self) -> list[int]:
        """As the compiled side reads it."""
        array = _OUTSIDE + self.outside if self.outside is not None else _KEPT if self.kept else _TEMPORARY
        place = [array, self.offset or 0, self.samples, self.lanes]
        return [*place, self.channels, self.height, self.width, *self.margins, int(self.by_channel)]


class Program:
    """What can be carried out, and copied.

    Args:
        kept: How many numbers the memory has that is kept.
        written: Maps, operations, bytes of a number, and how many arrays come from outside.

    Attributes:
        run: ``run(memory, arrays)``: with memory that is kept, and the list of the arrays from outside; they are
            contiguous and of the program's type.
    """

    def __init__(self, kept: int, *written: Any) -> None:
        self.kept, self._written = kept, written
        self.run = partial(_native.run, _native.program(*written))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickling and copying: what was compiled stays where it is."""
        return Program, (self.kept, *self._written)


Operation = tuple[str, tuple[Map | None, ...], tuple[int, ...]]  # name, maps, numbers


@dataclass(eq=False)
class Builder:
    """Collects operations.

    Args:
        samples: N of all maps.
        dtype: float32 or float64.
    """

    samples: int
    dtype: np.dtype[Any]
    operations: list[Operation] = field(default_factory=list)
    outside: int = 0

    @property
    def lanes(self) -> int:
        """How many numbers a vector holds."""
        return int(_native.lanes(self.dtype.itemsize))

    @property
    def by_channel(self) -> bool:
        """Whether maps lie by channel: where samples would leave half of a vector empty."""
        return 2 * self.samples <= self.lanes

    def another(self) -> Builder:
        """One for another program on maps in the same order."""
        return Builder(self.samples, self.dtype)

    def array(self, channels: int, height: int = 1, width: int = 1, samples: int = 1) -> Map:
        """A plain array from outside: the next in the order in which ``run`` gets them."""
        self.outside += 1
        return Map(samples, 1, channels, height, width, outside=self.outside - 1)

    def map(self, channels: int, height: int, width: int) -> Map:
        """A map in blocks."""
        return Map(self.samples, self.lanes, channels, height, width, by_channel=self.by_channel)

    def vector(self, channels: int) -> Map:
        """Plain vectors (N, channels)."""
        return Map(self.samples, 1, channels)

    def emit(self, name: str, maps: tuple[Map | None, ...], *numbers: int) -> None:
        """Append an operation."""
        self.operations.append((name, maps, numbers))

    def build(self) -> Program:
        """Decide where all maps lie, and write the program."""
        self._clear_margins()
        used = list(dict.fromkeys(m for _, maps, _ in self.operations for m in maps if m is not None))
        kept = self._place_kept(used)
        self._place_temporary(used)
        number = {m: i for i, m in enumerate(used)} | {None: -1}
        code = [n for name, maps, nums in self.operations for n in (_CODES[name], *(number[m] for m in maps), *nums)]
        rows = [n for m in used for n in m.row()]
        return Program(kept, np.array(rows, np.int64), np.array(code, np.int64), self.dtype.itemsize, self.outside)

    def _clear_margins(self) -> None:
        """Temporary memory has been used before: make margins zero before the map is first written."""
        seen: set[Map] = set()
        operations: list[Operation] = []
        for operation in self.operations:
            for m in filter(None, operation[1]):
                first = m not in seen and m.outside is None and not m.kept
                if first and any(m.margins) and operation[0] not in _CLEARING:
                    operations.append(("clear_margins", (m,), ()))
                seen.add(m)
            operations.append(operation)
        self.operations = operations

    def _place_kept(self, used: list[Map]) -> int:
        """One after the other, for the whole life of a tape. Zero at first, so that margins are."""
        end = 0
        for m in used:
            if m.kept and m.outside is None and m.offset is None:
                m.offset, end = end, end + _aligned(m.elements)
        return end

    def _place_temporary(self, used: list[Map]) -> None:
        """Each at the lowest place that no map with an overlapping life holds."""
        first: dict[Map, int] = {}
        last: dict[Map, int] = {}
        for i, (_, maps, _) in enumerate(self.operations):
            for m in maps:
                if m is not None and m.outside is None and not m.kept:
                    first.setdefault(m, i)
                    last[m] = i
        placed: list[Map] = []
        for m in sorted(first, key=lambda m: -m.elements):
            others = sorted(
                (o.offset or 0, (o.offset or 0) + _aligned(o.elements))
                for o in placed
                if first[o] <= last[m] and first[m] <= last[o]
            )
            at = 0
            for begin, end in others:
                if at + _aligned(m.elements) <= begin:
                    break
                at = max(at, end)
            m.offset = at
            placed.append(m)


def _aligned(elements: int) -> int:
    return -(-elements // _ALIGNMENT) * _ALIGNMENT


def bits(value: float) -> int:
    """A real number among whole ones: its bits."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


# ---- geometry as the compiled side takes it: two spatial axes


def served(g: Geometry, x: tuple[int, ...]) -> bool:
    """Whether the compiled code slides this window over maps of shape x (N, C, *S); it counts in 32 bits."""
    padded = g.padded(x[2:])
    small = prod(padded) <= LARGEST and max(*x, *g.stride, *g.dilation) <= LARGEST
    return g.rank <= 2 and max(g.kernel) <= MOST_CELLS and min(x) > 0 and small and min(g.output(x[2:])) > 0


def axes(g: Geometry) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding before and dilation along (height, width); a signal has height 1."""
    missing = 2 - g.rank
    one, zero = (1,) * missing, (0,) * missing
    before = (*zero, *(pair[0] for pair in g.padding))
    return (*one, *g.kernel), (*one, *g.stride), before, (*one, *g.dilation)


def window(g: Geometry) -> tuple[int, ...]:
    """The numbers of a window."""
    return (*(n for pair in axes(g) for n in pair), g.groups)


def prepared_size(builder: Builder, kernel: tuple[int, ...], g: Geometry) -> int:
    """Numbers that a prepared kernel (F, C, *K) takes, as ``by_channel_passes.hpp`` counts them."""
    size, stride, _, dilation = axes(g)
    cells = _POINTS if (*size, *stride, *dilation) == (3, 3, 1, 1, 1, 1) else prod(size)
    return _ALIGNMENT + cells * kernel[1] * -(-kernel[0] // builder.lanes) * builder.lanes


def spatial(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of (*S)."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def input_margins(g: Geometry, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
    """How far windows that give y reach beyond x: top, bottom, left, right."""
    margins: tuple[int, ...] = ()
    for size, out, kernel, stride, pad, dilation in zip(x, y, *axes(g), strict=True):
        margins += (pad, max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - pad - size))
    return margins  # type: ignore[return-value]


def upstream_margins(g: Geometry, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
    """How far beyond dy the input gradient reads: input i meets cell k at output (i + pad − k·dilation) / stride."""
    margins: tuple[int, ...] = ()
    for size, out, kernel, stride, pad, dilation in zip(x, y, *axes(g), strict=True):
        before = after = 0
        for k in range(kernel):
            first = -(-(pad - k * dilation) // stride)  # of inputs 0 and later that meet this cell
            last = (size - 1 + pad - k * dilation) // stride
            before, after = max(before, -first), max(after, last - (out - 1))
        margins += (before, after)
    return margins  # type: ignore[return-value]
