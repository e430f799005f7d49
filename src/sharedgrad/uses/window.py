"""Windows: the kernel of a convolution, one use for each sample and position.

    convolution              δ_u a pixel of dy (the small map), p_u a window of x (the big map)
    transposed convolution   δ_u a window of dy (the big map), p_u a pixel of x (the small map)

    g_u = small_u ⊗ window_u, the channels of a grouped convolution in B = groups blocks
    ‖g_u‖² = Σ_b ‖small_u,b‖² ‖window_u,b‖²      ⟨g_u, v⟩ = small_u · conv(big, v)_u

‖window_u,b‖² is the sum of squares over the block's channels, and then over a box of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from math import prod
from typing import Any, Literal

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import Geometry, text
from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import alike, boxes, channels_last, copied, framed, plain, real, spread, zeros
from sharedgrad.uses.base import Uses
from sharedgrad.uses.limits import get_memory_limit
from sharedgrad.uses.outer import Outer
from sharedgrad.uses.terms import PADDING, Factor, Terms
from sharedgrad.view import View


class Window(Uses):
    """A kernel that slides: one use for each sample and position of the small map.

    Args:
        weight: The kernel; the call sees (F, C/groups, *K).
        small: The small map (N, F, *P): the upstream gradient; of a transposed convolution the input.
        big: The big map (N, C, *S): the input, with any padding other than zeros already applied; of a transposed
            convolution the upstream gradient.
        geometry: How the window slides over ``big``.
        upstream: Which of the two maps is the upstream gradient; "big" in a transposed convolution.
        view: What the call sees of the weight.
    """

    arrays = ("small", "big")

    def __init__(
        self,
        weight: Any,
        small: Any,
        big: Any,
        geometry: Geometry,
        upstream: Literal["small", "big"] = "small",
        view: View | None = None,
    ) -> None:
        super().__init__(weight, {"sample": (len(small),), "position": tuple(small.shape[2:])}, view)
        if upstream not in ("small", "big"):
            raise ConfigError(self._name, f"expected upstream='small' or 'big', got {upstream!r}")
        rank, samples = geometry.rank + 2, self.shape[:1]
        self.small, self.big = alike(self._hold(small, rank, samples), self._hold(big, rank, samples))
        self.geometry, self.upstream = geometry, upstream
        channels = self.big.shape[1]
        fits = channels % geometry.groups == 0 and self.small.shape[1] % geometry.groups == 0
        fits = fits and geometry.output(self.big.shape[2:], self._name) == self.shape[1:]
        if not fits or prod(self.kernel) != prod(self.seen):
            got = f"{text(self.small.shape)} and {text(self.big.shape)}"
            raise ShapeError(self._name, f"expected maps that fit a kernel of {text(self.seen)}, got {got}")

    @property
    def kernel(self) -> tuple[int, ...]:
        """(F, C/groups, *K), the shape that the kernel slides in."""
        return self.small.shape[1], self.big.shape[1] // self.geometry.groups, *self.geometry.kernel

    def totals(self, names: Sequence[str]) -> Array:
        """Partial sums; all together, or by sample alone, they need no window unfolded into memory at once."""
        k = kernels.of(self.small)
        if not names:
            return k.conv_kernel_gradient(self.small, self.big, self.geometry).reshape(self.seen)
        if tuple(names) == ("sample",):
            apart = k.conv_kernel_gradients(self.small, self.big, self.geometry)
            return apart.reshape(len(apart), *self.seen)
        found = zeros((*self.lengths(names), *self.seen), real(self.small))
        for box in boxes(self.lengths(names), self._groups_at_once(names)):
            found[box] = self.in_box(names, box).unfolded().totals(names)
        return found

    def _groups_at_once(self, names: Sequence[str]) -> int:
        """For how many groups of uses the windows, written out, fit into the memory limit."""
        each = prod(self.kernel[1:]) * self.geometry.groups * real(self.small).itemsize
        return get_memory_limit() // (each * max(1, self.count // max(1, prod(self.lengths(names)))))

    def unfolded(self) -> Outer:
        """The same uses with the windows written out: small (N, *P, B, F/B) and windows (N, *P, B, C/B · cells)."""
        window = kernels.of(self.big).patches(self.big, self.geometry)
        groups = self.geometry.groups
        small = channels_last(self.small).reshape(*self.shape, groups, self.kernel[0] // groups)
        return Outer(self.weight, small, window, self.axes, self.view)

    def squared(self) -> Array:
        """Σ_b ‖small_u,b‖² ‖window_u,b‖² (N, *P); no window is unfolded."""
        k, groups = kernels.of(self.small), self.geometry.groups
        small = channels_last(self.small).reshape(*self.shape, groups, self.kernel[0] // groups)
        windows = k.window_squares(self.big, self.geometry)  # (N, *P, groups)
        return (k.row_dots(small, small) * windows).sum(axis=-1)

    def projected(self, v: Array) -> Array:
        """small_u · conv(big, v)_u (N, *P): one forward convolution."""
        k = kernels.of(self.small)
        y = k.conv(self.big, v.reshape(self.kernel), None, self.geometry)
        return k.row_dots(channels_last(y), channels_last(self.small))

    def taken(self, slices: Sequence[slice]) -> Window:
        """The uses in a part of every use axis; of the big map what their windows reach."""
        samples, *positions = slices
        part, ranges = copy(self), [range(n)[s] for n, s in zip(self.shape[1:], positions, strict=True)]
        part.axes = self.fewer(slices)
        part.small, part.big = self.small[(samples, slice(None), *positions)], self.big[samples]
        if tuple(len(r) for r in ranges) != self.shape[1:]:
            part.big, part.geometry = self._cropped(part.big, ranges)
        return part

    def _cropped(self, big: Array, ranges: Sequence[range]) -> tuple[Array, Geometry]:
        """What the windows at some positions reach, padded with zeros; and the window that slides over it."""
        g, cells, frame = self.geometry, [], []
        for n, r, k, s, d, (before, _) in zip(
            big.shape[2:], ranges, g.kernel, g.stride, g.dilation, g.padding, strict=True
        ):
            first, last = r[0] * s - before, r[-1] * s - before + d * (k - 1) + 1
            low, high = min(max(first, 0), n), max(min(last, n), 0)
            cells.append(slice(low, max(low, high)))
            frame.append((low - first, last - max(low, high)))
        steps = tuple(r.step * s for r, s in zip(ranges, g.stride, strict=True))
        return framed(big[(slice(None), slice(None), *cells)], frame), replace(g.without_padding(), stride=steps)

    def scaled(self, weights: Array, axis: int) -> Window:
        """The weights go into the small map."""
        part = copy(self)
        part.small = self.small * spread(weights, 0 if axis == 0 else axis + 1, self.small)
        return part

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """δ_u and p_u of one use, a row for each group: (groups, F/groups) the pixel, (groups, C/groups · cells) the
        window; the pixel is δ_u in a convolution, the window in a transposed one."""
        one = self.taken([slice(i, i + 1) for i in self._index(use)]).unfolded()
        pixel, window = (array.reshape(array.shape[-2:]) for array in (one.delta, one.patch))
        both = (pixel, window) if self.upstream == "small" else (window, pixel)
        return tuple(self._give(copied(array)) for array in both)

    def terms_at(self, flat: int) -> Terms:
        """small[n,f,o] · big[n, c, o·stride − padding + k·dilation] for every sample n and position o."""
        seen = self.seen_element(flat)
        pixel, cell = (np.arange(0), np.arange(0)) if seen is None else self._met(seen)
        names = ("dy", "x") if self.upstream == "small" else ("x", "dy")
        both = [Factor(names[0], plain(self.small), pixel), Factor(names[1], plain(self.big), cell)]
        return self._terms(flat, both if self.upstream == "small" else both[::-1], None if len(pixel) else pixel)

    def _met(self, seen: int) -> tuple[Array, Array]:
        """Flat numbers of the pixels of the small map and the cells of the big one that an element multiplies."""
        f, c, *offset = (int(n) for n in np.unravel_index(seen, self.kernel))
        channel = f // (self.kernel[0] // self.geometry.groups) * self.kernel[1] + c
        places: list[Any] = list(np.indices(self.shape).reshape(len(self.shape), -1))
        n, *position = places
        cells = self.geometry.source(position, offset)
        inside = np.all([(i >= 0) & (i < size) for i, size in zip(cells, self.big.shape[2:], strict=True)], axis=0)
        held = [np.where(inside, i, 0) for i in cells]
        pixel = np.ravel_multi_index((n, np.full_like(n, f), *position), self.small.shape)
        cell = np.ravel_multi_index((n, np.full_like(n, channel), *held), self.big.shape)
        return pixel, np.where(inside, cell, PADDING)

    def filter(self, f: int) -> Window:
        """The uses of one filter (one index of the kernel's first axis)."""
        part, groups = copy(self), self.geometry.groups
        first = f // (self.kernel[0] // groups) * self.kernel[1]
        part.small, part.big = self.small[:, f : f + 1], self.big[:, first : first + self.kernel[1]]
        part.geometry = replace(self.geometry, groups=1)
        return part
