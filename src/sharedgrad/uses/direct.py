"""Elementwise uses: biases, norm scales, parameters that are added or multiplied.

g_u = δ_u, or δ_u · local_u elementwise        G = Σ_u g_u
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.errors import ShapeError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import alike, copied, plain, real
from sharedgrad.uses.base import Axes, Uses
from sharedgrad.uses.terms import Factor, Terms
from sharedgrad.view import View


class Direct(Uses):
    """Contributions that are the upstream gradient itself, or its product with a local derivative: dy · x̂.

    Args:
        weight: The weight; the call sees shape R.
        delta: The upstream gradient of each use (*U, *R).
        axes: Names and lengths of U.
        local: What the weight's elements were multiplied with (*U, *R); nothing where they were added.
        view: What the call sees of the weight.
    """

    arrays = ("delta", "local")

    def __init__(self, weight: Any, delta: Any, axes: Axes, local: Any = None, view: View | None = None) -> None:
        super().__init__(weight, axes, view)
        rank = len(self.shape) + len(self.seen)
        self.delta, self.local = self._hold(delta, rank), None
        if local is not None:
            self.delta, self.local = alike(self.delta, self._hold(local, rank))
        for factor in (self.delta, *(() if self.local is None else (self.local,))):
            if tuple(factor.shape[len(self.shape) :]) != self.seen:
                got = text(factor.shape[len(self.shape) :])
                raise ShapeError(self._name, f"expected contributions of shape {text(self.seen)}, got {got}")

    @property
    def contributions(self) -> Array:
        """All of them (*U, *R)."""
        delta = real(self.delta)
        return delta if self.local is None else delta * real(self.local)

    def totals(self, names: Sequence[str]) -> Array:
        """Σ_u g_u."""
        apart = self.axis_numbers(names)
        others = tuple(a for a in range(len(self.shape)) if a not in apart)
        total = self.contributions.sum(axis=others) if others else self.contributions
        return np.asarray(total) if isinstance(total, np.generic) else self._in_order(total, apart)

    def _in_order(self, total: Any, apart: Sequence[int]) -> Any:
        """The axes kept apart in the order wanted."""
        order = [sorted(apart).index(axis) for axis in apart]
        if order == sorted(order):
            return total
        full = (*order, *range(len(order), total.ndim))
        return total.permute(full) if hasattr(total, "permute") else total.transpose(full)

    def squared(self) -> Array:
        """‖g_u‖² (*U)."""
        rows = self._rows()
        return kernels.of(rows).row_dots(rows, rows)

    def projected(self, v: Array) -> Array:
        """⟨g_u, v⟩ (*U)."""
        rows = self._rows()
        return kernels.of(rows).row_dots(rows, v.reshape((1,) * len(self.shape) + (-1,)))

    def _rows(self) -> Array:
        return self.contributions.reshape(*self.shape, prod(self.seen))

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """δ_u, and where there is one the local derivative."""
        index = self._index(use)
        both = (self.delta,) if self.local is None else (self.delta, self.local)
        return tuple(self._give(copied(factor[index])) for factor in both)

    def terms_at(self, flat: int) -> Terms:
        """δ_u, times the local derivative where there is one, at one element, for every use u."""
        seen = self.seen_element(flat)
        uses = np.arange(0 if seen is None else self.count)
        index = uses * prod(self.seen) + (seen or 0)
        factors = [Factor("dy", plain(self.delta), index)]
        if self.local is not None:
            factors.append(Factor("x", plain(self.local), index))
        return self._terms(flat, factors, uses)

    def at(self, index: int) -> Direct:
        """The uses of one index of the first axis that the call sees."""
        part, place = copy(self), (slice(None),) * len(self.shape) + (index,)
        part.delta = self.delta[place]
        part.local = None if self.local is None else self.local[place]
        return part
