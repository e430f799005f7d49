"""Maps: the arrays that operations work on, and how they lie in memory (``layout.hpp``)."""

from __future__ import annotations

from dataclasses import dataclass

from sharedgrad.kernels.native import _native

LARGEST = _native.LARGEST  # of all sizes
ALIGNMENT = 16  # elements: maps begin on 64 bytes, or 128
KEPT, TEMPORARY, OUTSIDE = 0, 1, 2  # arrays of a run: two that hold many maps, then one for each map from outside

_MOST_ELEMENTS = 10**15  # of an array: far more than there is


@dataclass(eq=False)
class Map:
    """N samples of C channels of H×W cells, `lanes` samples side by side, with margins of zeros around the cells.

    In blocks they fill a vector; a plain array has one lane and no margins.

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
    def bare(self) -> bool:
        """Whether it has no margins."""
        return self.margins == (0, 0, 0, 0)

    @property
    def plain(self) -> bool:
        """Whether it is a plain array (N, C, H, W)."""
        return self.lanes == 1 and self.bare and not self.by_channel

    @property
    def padded_samples(self) -> int:
        """Samples with those that fill up the last lanes."""
        return -(-self.samples // self.lanes) * self.lanes

    @property
    def size(self) -> int:
        """From its first number to its last."""
        top, bottom, left, right = self.margins
        cells = (top + self.height + bottom) * (left + self.width + right)
        if self.lanes > 1:
            cells |= 1  # as Map::channel in layout.hpp
        across, along = (self.channels, self.samples) if self.by_channel else (self.samples, self.channels)
        return -(-across // self.lanes) * along * cells * self.lanes

    @property
    def array(self) -> int:
        """The number of the array in which it lies."""
        return OUTSIDE + self.outside if self.outside is not None else KEPT if self.kept else TEMPORARY

    @property
    def end(self) -> int:
        """How far it reaches into its array."""
        return (self.offset or 0) + self.size

    def check(self, vector: int) -> None:
        """AssertionError if it is no map for vectors of so many numbers."""
        if self.lanes != vector and not self.plain:
            raise AssertionError(f"{self}: neither blocks for vectors of {vector} numbers nor a plain array")
        sizes = (self.offset or 0, self.samples, *self.shape, *self.margins)
        if min(sizes) < 0 or max(sizes[1:]) > LARGEST or self.end > _MOST_ELEMENTS:
            raise AssertionError(f"{self}: a size is out of range")
        if self.by_channel and self.samples * (self.channels + self.lanes) > LARGEST:
            raise AssertionError(f"{self}: too many samples to lie by channel")

    def row(self) -> list[int]:
        """As the compiled side reads it."""
        place = [self.array, self.offset or 0, self.samples, self.lanes]
        return [*place, *self.shape, *self.margins, int(self.by_channel)]
