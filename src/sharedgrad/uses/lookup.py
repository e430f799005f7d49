"""Rows of a table that are read: embeddings.

    g_u = δ_u in row index_u, zeros elsewhere        G[v] = Σ_{u: index_u = v} δ_u
    ‖g_u‖² = ‖δ_u‖²        ⟨g_u, g_w⟩ = [index_u = index_w] δ_u · δ_w        ⟨g_u, v⟩ = δ_u · v[index_u]

Sums are sparse by row: (group, row, sum), as many as different rows are read, never an array (N, V, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import copied, matching, moved, plain
from sharedgrad.uses.base import Axes, By, Uses
from sharedgrad.uses.limits import get_memory_limit
from sharedgrad.uses.terms import Factor, Terms
from sharedgrad.view import View


class Rows(NamedTuple):
    """Sums of lookups, sparse: what the uses of a group add to a row of the table, where they add anything.

    Attributes:
        group: Flat number (M,) of the group, ascending.
        row: The row (M,), ascending within a group.
        values: The sums (M, D).
    """

    group: Array
    row: Array
    values: Array


def refuse_tables(name: str, number: int, shape: tuple[int, ...], itemsize: int) -> None:
    """Sums of lookups are sparse: as whole tables they are handed out only if they fit into the memory limit."""
    size, limit = number * prod(shape) * itemsize, get_memory_limit()
    if size > limit:
        problem = f"{number} whole tables take {size / 2**20:,.0f} MiB, the limit is {limit / 2**20:,.0f} MiB"
        fix = "ask for rows(by), norm or share, or raise it with sg.uses.set_memory_limit(bytes)"
        raise ConfigError(f"uses of {name}", problem, fix)


class Lookup(Uses):
    """Rows of a table that were read: each use adds its upstream gradient to the row that it read.

    Args:
        weight: The table; the call sees (V, D) of it.
        index: Which row each use read (*U), integers from 0 to V − 1.
        delta: Upstream gradients (*U, D).
        axes: Names and lengths of U.
        view: What the call sees of the weight.

    Raises:
        ShapeError: The arrays do not fit, or an index is no row of the table.
    """

    arrays = ("delta", "index")

    def __init__(self, weight: Any, index: Any, delta: Any, axes: Axes, view: View | None = None) -> None:
        super().__init__(weight, axes, view)
        rank = len(self.shape)
        self.index = np.asarray(plain(self._hold(index, rank)), np.int64)
        self.delta = self._hold(delta, rank + 1)
        if len(self.seen) != 2 or self.delta.shape[-1] != self.seen[1]:
            got = f"upstream gradients of length {self.delta.shape[-1]}"
            raise ShapeError(self._name, f"expected a table (V, D), got {text(self.seen)} and {got}")
        if self.index.size and not (self.index.min() >= 0 and self.index.max() < self.seen[0]):
            got = f"{self.index.min()} to {self.index.max()}"
            raise ShapeError(self._name, f"expected rows from 0 to {self.seen[0] - 1}, got {got}")

    def sum(self, by: By = ()) -> Array:
        """Partial sums as whole tables; :meth:`rows` has them sparse.

        Raises:
            ConfigError: There is no such axis, or the tables would take more than the memory limit.
        """
        if names := self.ordered(by):
            refuse_tables(self.weight.name, prod(self.lengths(names)), tuple(self.weight.shape), self.delta.itemsize)
        return super().sum(by)

    def totals(self, names: Sequence[str]) -> Array:
        """The sums as whole tables; a row read several times adds."""
        index, delta = moved(self.index, self.axis_numbers(names), len(self.shape)), self.grouped(self.delta, names)
        table, width = self.seen
        rows = (index + np.arange(len(index))[:, None] * table).reshape(-1)
        total = kernels.of(delta).row_sums(rows, delta.reshape(len(rows), width), len(index) * table)
        return total.reshape(*self.lengths(names), table, width)

    def rows(self, by: By = ()) -> Rows:
        """The sums kept apart by some axes, sparse."""
        names = self.ordered(by)
        group, row, values = self.sparse(names)
        return Rows(group, row, self._give(values))

    def sparse(self, names: Sequence[str]) -> Rows:
        """As :meth:`rows`, of axes in any order."""
        index, delta = moved(self.index, self.axis_numbers(names), len(self.shape)), self.grouped(self.delta, names)
        keys = (index + np.arange(len(index))[:, None] * self.seen[0]).reshape(-1)
        found, place = np.unique(keys, return_inverse=True)
        values = kernels.of(delta).row_sums(place.reshape(-1), delta.reshape(len(keys), self.seen[1]), len(found))
        return Rows(found // self.seen[0], found % self.seen[0], values)

    def squared(self) -> Array:
        """‖δ_u‖² (*U)."""
        return kernels.of(self.delta).row_dots(self.delta, self.delta)

    def projected(self, v: Array) -> Array:
        """δ_u · v[index_u] (*U)."""
        return kernels.of(self.delta).row_dots(self.delta, v[self.index])

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """The row number and the upstream gradient (D,) of one use."""
        index = self._index(use)
        return np.array(self.index[index]), self._give(copied(self.delta[index]))

    def terms_at(self, flat: int) -> Terms:
        """δ_u[d] for every use u that read this row; the others are no uses of it."""
        seen = self.seen_element(flat)
        row, column = (-1, 0) if seen is None else (int(n) for n in np.unravel_index(seen, self.seen))
        uses = np.flatnonzero(self.index == row)
        return self._terms(flat, [Factor("dy", plain(self.delta), uses * self.seen[1] + column)], uses)

    def masked(self, row: int) -> Array:
        """δ_u (*U, D) of the uses that read this row, zero of the others."""
        reads = (self.index == row)[..., None]
        return self.delta * matching(reads, self.delta)
