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
from sharedgrad.kernels.native.maps import ALIGNMENT, LARGEST, OUTSIDE, Map
from sharedgrad.kernels.native.operations import ACTIVATIONS, check
from sharedgrad.kernels.native.windows import MOST_CELLS, Window

_CODES = {name: code for code, name in enumerate(_native.OPERATIONS.split())}
IDENTITY, RELU, SIGMOID, TANH = map(ACTIVATIONS.index, ("identity", "relu", "sigmoid", "tanh"))
PADDINGS = {name: code for code, name in enumerate(_native.PADDINGS.split())}
_CLEARING = ("pool_2x2_backward",)  # what writes the margins of its maps itself


class Program:
    """What can be carried out, and copied.

    Args:
        kept: How many numbers the memory has that is kept.
        vector: How many numbers a vector held when the program was written.
        written: Maps, operations, bytes of a number, and the arrays' sizes, as the compiled side reads them.

    Attributes:
        run: ``run(memory, arrays)``: with memory that is kept, None if there is none, and the list of the arrays from
            outside; they are contiguous and of the program's type. ``run(memory, arrays, written_over)`` lets updates
            write over some of them: over arrays that are held by their owner and these two lists, by nobody else. Where
            somebody does hold one, False comes back and nothing has been updated.
    """

    def __init__(self, kept: int, vector: int, *written: Any) -> None:
        if vector != (own := _native.lanes(written[2])):
            raise AssertionError(f"a program for vectors of {vector} numbers, where they have {own}")
        self.kept, self._written = kept, (vector, *written)
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
        """Decide where all maps lie, see that every operation fits, and write the program."""
        self._clear_margins()
        used = list(dict.fromkeys(m for _, maps, _ in self.operations for m in maps if m is not None))
        kept = self._place_kept(used)
        self._place_temporary(used)
        for name, maps, numbers in self.operations:
            check(name, maps, numbers, self.dtype.itemsize)
        sizes = self._sizes(used)
        number = {m: i for i, m in enumerate(used)} | {None: -1}
        code = [n for name, maps, nums in self.operations for n in (_CODES[name], *(number[m] for m in maps), *nums)]
        rows = [n for m in used for n in m.row()]
        written = _written(rows), _written(code), self.dtype.itemsize, _written(sizes)
        return Program(kept, self.lanes, *written)

    def _sizes(self, used: list[Map]) -> list[int]:
        """How many numbers the maps take of each array, −1 where no map lies; each array from outside is one map."""
        sizes = [-1] * (OUTSIDE + self.outside)
        for m in used:
            m.check(self.lanes)
            if m.array >= len(sizes):
                raise AssertionError(f"{m}: there are {self.outside} arrays from outside")
            end, found = m.end, sizes[m.array]
            if m.outside is not None and found not in (-1, end):
                raise AssertionError(f"{m}: another map of the same array has {found} numbers")
            sizes[m.array] = max(found, end)
        return sizes

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
                m.offset, end = end, end + _aligned(m.size)
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
        for m in sorted(first, key=lambda m: -m.size):
            others = sorted(
                (o.offset or 0, (o.offset or 0) + _aligned(o.size))
                for o in placed
                if first[o] <= last[m] and first[m] <= last[o]
            )
            at = 0
            for begin, end in others:
                if at + _aligned(m.size) <= begin:
                    break
                at = max(at, end)
            m.offset = at
            placed.append(m)


def _written(numbers: list[int]) -> bytes:
    return np.array(numbers, np.int64).tobytes()


def _aligned(numbers: int) -> int:
    return -(-numbers // ALIGNMENT) * ALIGNMENT


def bits(value: float) -> int:
    """A real number among whole ones: its bits."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def doubles(count: int, itemsize: int) -> int:
    """How many of a program's own numbers take the memory of so many in float64, or int64."""
    return count * (8 // itemsize)


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
    """Numbers that a prepared kernel (F, C, *K) takes."""
    return Window(*window(g)).prepared_size(kernel[0], kernel[1], builder.lanes)


def spatial(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of (*S)."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def input_margins(g: Geometry, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
    """How far windows that give y reach beyond x: top, bottom, left, right."""
    margins: tuple[int, ...] = ()
    for size, out, axis in zip(x, y, Window(*window(g)).axes, strict=True):
        margins += (axis.pad, max(0, axis.end(out) - size))
    return margins  # type: ignore[return-value]


def upstream_margins(g: Geometry, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int, int, int]:
    """How far beyond dy the input gradient reads."""
    margins: tuple[int, ...] = ()
    for size, out, axis in zip(x, y, Window(*window(g)).axes, strict=True):
        first, last = axis.met(size)
        margins += (-first, max(0, last - (out - 1)))
    return margins  # type: ignore[return-value]
