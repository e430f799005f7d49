"""A sum as the list of its terms: which numbers are multiplied, and which cell their product is added to.

Whatever backward computes is such a sum, and so is the output of a layer that is linear in its inputs and parameters.
Each cell of the target array is the plain sum of its terms; a term is a coefficient times one number from each factor:

    target[cell] = Σ_{m: cell_m = cell} coefficient_m · Π_factors array[index_m]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.parameter import Array

PADDING = -1  # an index that reads the padding: 0
ABSENT = -2  # a term without this factor: nothing is multiplied


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of every term.

    Attributes:
        name: What it is called in the formula, e.g. "dy", "w" or "x".
        array: The whole array that the numbers are read from.
        index: Flat index (M,) into it for each term; ``PADDING`` reads a 0 around the array, and a term with
            ``ABSENT`` does not have this factor (a bias is added as it is, the other terms are products).
    """

    name: str
    array: Array
    index: Array

    @property
    def values(self) -> Array:
        """The number that each term reads (M,): 0 in the padding, 1 where the factor is absent."""
        values = np.zeros(len(self.index), self.array.dtype)
        inside = self.index >= 0
        values[inside] = self.array.reshape(-1)[self.index[inside]]
        values[self.index == ABSENT] = 1
        return values


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a sum, one row each, in the order of the reference loops (sample, position, filter, channel …).

    Attributes:
        target: What the terms add up to: "dx", "y", "dw", or a weight's name.
        shape: Shape of the target array.
        cell: Flat index (M,) of the target cell that each term is added to.
        factors: What is multiplied, in reading order: name -> factor.
        coefficient: A number (M,) that each product is multiplied with, e.g. 1/4 in average pooling; None: all 1.
        call: Number (M,) of the call that each term belongs to; None where there is one call.
        use: Where each term's use is, axis name -> (M, axes), e.g. {"sample": (M, 1), "position": (M, 2)}; empty
            where the terms are not uses of a weight.
    """

    target: str
    shape: tuple[int, ...]
    cell: Array
    factors: Mapping[str, Factor]
    coefficient: Array | None = None
    call: Array | None = None
    use: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """M, the number of terms."""
        return len(self.cell)

    @property
    def values(self) -> Array:
        """The terms (M,): coefficient times the product of the factors."""
        values = None if self.coefficient is None else self.coefficient
        for factor in self.factors.values():
            values = factor.values if values is None else values * factor.values
        return np.ones(len(self)) if values is None else values

    def total(self) -> Array:
        """The sum of the terms of every cell, an array of :attr:`shape`; added in float64, in their order."""
        values = self.values
        sums = np.bincount(self.cell, values, minlength=prod(self.shape))
        return sums.astype(values.dtype).reshape(self.shape)

    def of(self, *cell: int) -> Terms:
        """The terms of one target cell, by its index, e.g. ``terms.of(0, 2, 5, 5)``.

        Raises:
            ConfigError: The target has no such cell.
        """
        fits = all(isinstance(i, int | np.integer) and 0 <= i < n for i, n in zip(cell, self.shape, strict=False))
        if len(cell) != len(self.shape) or not fits:
            raise ConfigError(f"terms of {self.target}", f"no cell {cell} in an array of shape {text(self.shape)}")
        flat = np.ravel_multi_index(cell, self.shape) if cell else 0
        return self.rows(np.flatnonzero(self.cell == flat))

    def rows(self, chosen: Array) -> Terms:
        """Some of the terms: numbers of rows in the order wanted, or a mask (M,)."""
        return replace(
            self,
            cell=self.cell[chosen],
            factors={n: replace(f, index=f.index[chosen]) for n, f in self.factors.items()},
            coefficient=None if self.coefficient is None else self.coefficient[chosen],
            call=None if self.call is None else self.call[chosen],
            use={axis: index[chosen] for axis, index in self.use.items()},
        )

    def places(self, name: str) -> Array:
        """Where each term reads a factor, or with "target" where it is added: indices (M, axes of that array).

        Rows that read no cell hold ``PADDING`` or ``ABSENT`` in every column.

        Raises:
            ConfigError: There is no factor of this name.
        """
        if name != "target" and name not in self.factors:
            known = ", ".join(["target", *self.factors])
            raise ConfigError(f"terms of {self.target}", f"there is no factor {name!r}", f"choose from {known}")
        shape = self.shape if name == "target" else self.factors[name].array.shape
        flat = self.cell if name == "target" else self.factors[name].index
        inside = np.maximum(flat, 0)
        places = np.stack(np.unravel_index(inside, shape), axis=-1) if shape else np.zeros((len(flat), 0), np.int64)
        return np.where((flat >= 0)[:, None], places, flat[:, None])

    def __repr__(self) -> str:
        product = " · ".join(self.factors)
        return f"Terms({self.target} {text(self.shape)}: {len(self)} terms {product})"
