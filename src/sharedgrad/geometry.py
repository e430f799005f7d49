"""The only shape arithmetic: which inputs the window at an output position covers.

Everything is written for any number of spatial axes d: 1-D, 2-D and 3-D differ in the length of a tuple.
The formula is that of the field (e.g. Dumoulin & Visin 2016, "A guide to convolution arithmetic"):
output position o and kernel offset k meet at input index  o·stride − padding_before + k·dilation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Any, Literal

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError

Array = np.ndarray[Any, np.dtype[np.int64]]
Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_LIMIT = 2**31  # beyond any array; what is below, compiled code and NumPy's strides can count


@dataclass(frozen=True)
class Geometry:
    """How a window slides: one entry per spatial axis; padding as (before, after)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @classmethod
    def of(
        cls,
        rank: int,
        kernel: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        where: str = "geometry",
    ) -> Geometry:
        """Read the forms that people write.

        Args:
            rank: Number of spatial axes.
            kernel: Its size, one number for all axes or one per axis; stride and dilation likewise.
            padding: One number, one per axis, a (before, after) pair per axis, ``"valid"`` (none) or ``"same"``
                (output as large as the input; needs stride 1; an odd total puts the extra cell after).
            dilation: Distance between kernel cells.
            groups: Number of channel groups that do not see each other.
            where: Who asks, for the error message.

        Raises:
            ConfigError: An argument is of none of these forms.
        """
        sizes = per_axis(rank, kernel, f"{where}: kernel_size", least=1)
        strides = per_axis(rank, stride, f"{where}: stride", least=1)
        dilations = per_axis(rank, dilation, f"{where}: dilation", least=1)
        groups = whole(groups, f"{where}: groups")
        extents = [d * (k - 1) for k, d in zip(sizes, dilations, strict=True)]
        named = padding if isinstance(padding, str) else None
        if named == "same" and any(s != 1 for s in strides):
            raise ConfigError(
                f"{where}: padding",
                f"'same' needs stride 1, got stride {stride}",
                "give the padding as numbers",
            )
        pads = (
            tuple((extent // 2, extent - extent // 2) for extent in extents)
            if named == "same"
            else _pairs(rank, 0 if named == "valid" else padding, f"{where}: padding")
        )
        largest = max(*sizes, *strides, *dilations, *(n for pair in pads for n in pair))
        if largest >= _LIMIT:
            raise ConfigError(where, f"expected numbers below 2³¹, got {largest}")
        return cls(sizes, strides, pads, dilations, groups)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def cells(self) -> int:
        """Number of kernel offsets, e.g. 9 for 3×3."""
        return prod(self.kernel)

    def without_padding(self) -> Geometry:
        """The same window sliding over an input that is padded already."""
        return Geometry(self.kernel, self.stride, ((0, 0),) * self.rank, self.dilation, self.groups)

    def padded(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """The input's spatial shape after padding."""
        return tuple(n + before + after for n, (before, after) in zip(spatial, self.padding, strict=True))

    def output(self, spatial: Sequence[int], where: str = "geometry") -> tuple[int, ...]:
        """The number of positions along each axis: ⌊(padded − dilation·(kernel − 1) − 1) / stride⌋ + 1."""
        padded = self.padded(spatial)
        for size, k, d in zip(padded, self.kernel, self.dilation, strict=True):
            if size < d * (k - 1) + 1:
                raise ShapeError(
                    where,
                    f"a window of {text(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))} "
                    f"does not fit into the padded input of {text(padded)}",
                    "use a smaller kernel or dilation, more padding, or larger images",
                )
        return tuple(
            (size - d * (k - 1) - 1) // s + 1
            for size, k, d, s in zip(padded, self.kernel, self.dilation, self.stride, strict=True)
        )

    def source(self, position: Sequence[int], offset: Sequence[int]) -> tuple[int, ...]:
        """The index in the unpadded input under kernel ``offset`` at output ``position`` (may lie outside)."""
        return tuple(
            o * s - before + k * d
            for o, k, s, d, (before, _) in zip(position, offset, self.stride, self.dilation, self.padding, strict=True)
        )

    def padding_sources(self, spatial: Sequence[int], mode: str = "zeros") -> Array:
        """For every cell of the padded map the flat index of the input cell that it holds; −1 where it holds a zero."""
        cells = np.arange(prod(spatial)).reshape(spatial)
        if mode == "zeros":
            return np.pad(cells, self.padding, constant_values=-1)
        numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
        return np.pad(cells, self.padding, numpy_mode)  # type: ignore[call-overload]

    def sources(self, spatial: Sequence[int], mode: str = "zeros") -> Array:
        """The input cells under the windows: flat indices (positions, kernel offsets), both in row-major order.

        What the padding reads is −1 for zeros, and in the other modes the cell that it is a copy of.
        """
        extents = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        windows = np.lib.stride_tricks.sliding_window_view(self.padding_sources(spatial, mode), extents)
        steps = tuple(slice(None, None, step) for step in (*self.stride, *self.dilation))
        return windows[steps].reshape(-1, self.cells)

    def reach(self, offset: Sequence[int], positions: Sequence[int]) -> tuple[Any, ...]:
        """Index (…, *slices) of the *padded* input's cells that kernel ``offset`` meets over all ``positions``."""
        slices = (
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, s, n in zip(offset, self.dilation, self.stride, positions, strict=True)
        )
        return (..., *slices)

    def interior(self, spatial: Sequence[int]) -> tuple[Any, ...]:
        """Index (…, *slices) of the unpadded input within the padded one."""
        slices = (slice(before, before + n) for n, (before, _) in zip(spatial, self.padding, strict=True))
        return (..., *slices)


def text(shape: Iterable[int]) -> str:
    """A shape as people write it: 3×32×32."""
    return "×".join(str(n) for n in shape)


def whole(value: Any, where: str, least: int | None = 1) -> int:
    """The whole number that an argument must be; NumPy's will do, True will not."""
    if not _is_whole(value) or (least is not None and value < least):
        limit = "" if least is None else f" of at least {least}"
        raise ConfigError(where, f"expected a whole number{limit}, got {value!r}")
    return int(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def per_axis(rank: int, value: Any, where: str, least: int) -> tuple[int, ...]:
    """One whole number for each axis, from one number or one per axis."""
    values = (value,) * rank if _is_whole(value) else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) != rank or not all(_is_whole(v) and v >= least for v in values):
        raise ConfigError(where, f"expected a whole number of at least {least}, or {rank} of them, got {value!r}")
    return tuple(int(v) for v in values)


def _pairs(rank: int, padding: Any, where: str) -> tuple[tuple[int, int], ...]:
    values = (padding,) * rank if _is_whole(padding) else padding
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == rank:
        pairs = tuple((v, v) if _is_whole(v) else tuple(v) if isinstance(v, Sequence) else () for v in values)
        if all(len(pair) == 2 and all(_is_whole(n) and n >= 0 for n in pair) for pair in pairs):
            return pairs
    raise ConfigError(
        where,
        f"expected a number, {rank} numbers, {rank} pairs (before, after), 'same' or 'valid', got {padding!r}",
    )
