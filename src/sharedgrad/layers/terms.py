"""Which inputs, outputs and weights of a layer meet in a product: the rows of its tables of terms.

Convolutions, pooling, dense layers and a softmax differ in what they multiply; where a window of theirs meets a cell
of their input is the same question. A dense layer is a convolution of one cell with one position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.uses.limits import get_memory_limit
from sharedgrad.uses.terms import ABSENT, PADDING, Factor, Terms

Cells = Sequence[int] | Array | None  # flat indices of target cells; None: all of them
TERM_BYTES = 64  # what one row of a table takes while it is made, roughly


def factors(named: Mapping[str, tuple[Array, Array]]) -> dict[str, Factor]:
    """Factors from name -> (array, flat index of each term)."""
    return {name: Factor(name, array, index) for name, (array, index) in named.items()}


def chosen_cells(shape: tuple[int, ...], cells: Cells, where: str) -> Array:
    """The target cells that are asked for, each once, in ascending order.

    Raises:
        ShapeError: One of them is no cell of an array of this shape.
        ConfigError: All are asked for, and that is too much for the memory limit.
    """
    size = prod(shape)
    if cells is None:
        _expect_few(size, where)
        return np.arange(size)
    chosen = np.unique(np.asarray(cells))
    if chosen.size and not (chosen.dtype.kind in "iu" and chosen[0] >= 0 and chosen[-1] < size):
        problem = f"expected flat indices from 0 to {size - 1} into an array of shape {text(shape)}"
        raise ShapeError(f"{where}: cells", problem, "np.ravel_multi_index(index, shape) gives them")
    return chosen.astype(np.int64)


def expanded(counts: Array, where: str) -> tuple[Array, Array]:
    """``counts[i]`` rows for each i: which i a row belongs to, and its number among the rows of this i.

    Raises:
        ConfigError: That is too much for the memory limit.
    """
    total = int(counts.sum())
    _expect_few(total, where)
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)


def _expect_few(terms: int, where: str) -> None:
    most = get_memory_limit() // TERM_BYTES
    if terms > most:
        problem = f"a table of {terms:,} terms is too large (at most {most:,})"
        fix = "ask for some cells, cells=[…] (flat indices into the target), or allow more: uses.set_memory_limit"
        raise ConfigError(where, problem, fix)


class Meetings(NamedTuple):
    """Rows in the order (sample, position, filter, channel, kernel offset), as flat indices (M,) each.

    Attributes:
        x: Into the input (N, C, *S); ``PADDING`` where the window reads the padding.
        y: Into the output (N, F, *P).
        w: Into the kernel (F, C/groups, *K).
        position: The window's position.
    """

    x: Array
    y: Array
    w: Array
    position: Array


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over maps x (N, C, *S) that fill maps y (N, F, *P).

    Attributes:
        sources: Flat cell under each kernel offset at each position (P, K), −1 in the padding of zeros.
        shape: (N, C, *S).
        filters: F.
        groups: Channel groups that do not see each other.
        where: Whose windows these are, for messages.
    """

    sources: Array
    shape: tuple[int, ...]
    filters: int
    groups: int
    where: str

    def of_inputs(self, cells: Array) -> Meetings:
        """Every window, filter and offset that reads one of these cells of x."""
        samples, channels, *spatial = self.shape
        n, c, s = np.unravel_index(cells, (samples, channels, prod(spatial)))
        flat = self.sources.reshape(-1)
        by_source = np.argsort(flat, kind="stable")  # pairs (position, offset), those of one source side by side
        first, end = (np.searchsorted(flat[by_source], s, side) for side in ("left", "right"))
        group, per_group = c // (channels // self.groups), self.filters // self.groups
        i, row = expanded((end - first) * per_group, self.where)
        position, offset = np.divmod(by_source[first[i] + row // per_group], self.sources.shape[1])
        f, channel = group[i] * per_group + row % per_group, c[i] % (channels // self.groups)
        return self._meetings(np.ravel_multi_index((n[i], position, f, channel, offset), self._shape))

    def of_outputs(self, cells: Array) -> Meetings:
        """Everything that the windows of these cells of y read, the padding included."""
        n, f, position = np.unravel_index(cells, (self.shape[0], self.filters, len(self.sources)))
        reads = prod(self._shape[3:])
        i, row = expanded(np.full(len(cells), reads), self.where)
        return self._meetings(np.ravel_multi_index((n[i], position[i], f[i]), self._shape[:3]) * reads + row)

    @property
    def _shape(self) -> tuple[int, ...]:
        """(N, P, F, C/groups, K): everything that can meet."""
        positions, offsets = self.sources.shape
        return (self.shape[0], positions, self.filters, self.shape[1] // self.groups, offsets)

    def _meetings(self, rows: Array) -> Meetings:
        n, position, f, c, offset = np.unravel_index(np.sort(rows), self._shape)
        _, positions, filters, group_channels, offsets = self._shape
        source = self.sources[position, offset]
        channel = f // (filters // self.groups) * group_channels + c
        return Meetings(
            np.where(source < 0, PADDING, (n * self.shape[1] + channel) * prod(self.shape[2:]) + source),
            (n * filters + f) * positions + position,
            (f * group_channels + c) * offsets + offset,
            position,
        )


def dense(rows: int, inputs: int, outputs: int, where: str) -> Windows:
    """A matrix (outputs, inputs) that each of some rows is multiplied with."""
    return Windows(np.zeros((1, 1), np.int64), (rows, inputs), outputs, 1, where)


def with_bias(products: Terms, bias: Array | None, cells: Array, index: Array) -> Terms:
    """The products, and after them for each of the cells the bias of the flat ``index``, which stands alone."""
    if bias is None:
        return products
    count, lack = len(products), np.full(len(cells), ABSENT)
    named = {name: (f.array, np.concatenate([f.index, lack])) for name, f in products.factors.items()}
    named["b"] = (bias, np.concatenate([np.full(count, ABSENT), index]))
    return Terms(products.target, products.shape, np.concatenate([products.cell, cells]), factors(named))
