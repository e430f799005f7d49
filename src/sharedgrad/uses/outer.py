"""Outer products: a dense layer's weight, a recurrent one, an unshared kernel.

    g_u = δ_u ⊗ p_u in each of B blocks        G_b = Σ_u δ_u,b ⊗ p_u,b = Δ_bᵀ P_b
    ‖g_u‖² = Σ_b ‖δ_u,b‖² ‖p_u,b‖²              ⟨g_u, v⟩ = Σ_b δ_u,b · v_b p_u,b

The product of the full norms ‖δ_u‖ ‖p_u‖ is wrong as soon as B > 1: blocks do not see each other.
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
from sharedgrad.uses.arrays import alike, copied, plain
from sharedgrad.uses.base import Axes, Uses
from sharedgrad.uses.terms import Factor, Terms
from sharedgrad.view import View


class Outer(Uses):
    """Contributions δ_u ⊗ p_u in B blocks: a dense layer's weight (B = 1), an unshared kernel (B = positions).

    Args:
        weight: The weight; the call sees B·O·I elements of it in this order.
        delta: Upstream gradients (*U, B, O).
        patch: What the weight was multiplied with (*U, B, I).
        axes: Names and lengths of U.
        view: What the call sees of the weight.
    """

    arrays = ("delta", "patch")

    def __init__(self, weight: Any, delta: Any, patch: Any, axes: Axes, view: View | None = None) -> None:
        super().__init__(weight, axes, view)
        rank = len(self.shape) + 2
        self.delta, self.patch = alike(self._hold(delta, rank), self._hold(patch, rank))
        blocks = (self.delta.shape[-2], self.delta.shape[-1], self.patch.shape[-1])
        if prod(blocks) != prod(self.seen) or self.patch.shape[-2] != blocks[0]:
            got = f"factors of {text(self.delta.shape[-2:])} and {text(self.patch.shape[-2:])}"
            raise ShapeError(self._name, f"expected the blocks of a weight of {text(self.seen)}, got {got}")

    @property
    def blocks(self) -> tuple[int, int, int]:
        """B, O and I."""
        return self.delta.shape[-2], self.delta.shape[-1], self.patch.shape[-1]

    def totals(self, names: Sequence[str]) -> Array:
        """Σ_u δ_u ⊗ p_u: one matrix product for each index kept."""
        delta, patch = self.grouped(self.delta, names), self.grouped(self.patch, names)
        return kernels.of(delta).outer_sum(delta, patch, 1).reshape(*self.lengths(names), *self.seen)

    def squared(self) -> Array:
        """Σ_b ‖δ_u,b‖² ‖p_u,b‖² (*U)."""
        k = kernels.of(self.delta)
        return (k.row_dots(self.delta, self.delta) * k.row_dots(self.patch, self.patch)).sum(axis=-1)

    def projected(self, v: Array) -> Array:
        """Σ_b δ_u,b · v_b p_u,b (*U), through the smaller of the two products."""
        k, matrices = kernels.of(self.delta), v.reshape(self.blocks)
        if self.blocks[1] > self.blocks[2]:
            return k.row_dots(k.blocks_input_gradient(self.delta, matrices), self.patch).sum(axis=-1)
        return k.row_dots(k.blocks(self.patch, matrices), self.delta).sum(axis=-1)

    def swapped(self) -> Outer:
        """The same uses of the transposed matrix, with the factors exchanged; there must be one block."""
        part = copy(self)
        part.delta, part.patch = self.patch, self.delta
        part.view = self.view.then(View.transpose(self.seen))
        return part

    def factors(self, **use: int | Sequence[int]) -> tuple[Array, ...]:
        """δ_u (B, O) and p_u (B, I) of one use."""
        index = self._index(use)
        return self._give(copied(self.delta[index])), self._give(copied(self.patch[index]))

    def terms_at(self, flat: int) -> Terms:
        """δ_u[b,o] · p_u[b,i] for every use u."""
        seen = self.seen_element(flat)
        if seen is None:
            return self._terms(flat, self._read(0, 0, 0, 0), np.arange(0))
        b, o, i = (int(n) for n in np.unravel_index(seen, self.blocks))
        return self._terms(flat, self._read(self.count, b, o, i))

    def _read(self, count: int, b: int, o: int, i: int) -> list[Factor]:
        """Elements (b, o) of the first ``count`` uses' deltas and (b, i) of their patches."""
        blocks, outputs, inputs = self.blocks
        uses = np.arange(count)
        return [
            Factor("dy", plain(self.delta), (uses * blocks + b) * outputs + o),
            Factor("x", plain(self.patch), (uses * blocks + b) * inputs + i),
        ]

    def rows(self, start: int, stop: int) -> Outer | None:
        """The part that belongs to rows start … stop of all blocks' rows, if it is made of whole or of one block's."""
        outputs, part = self.blocks[1], copy(self)
        b, end = start // outputs, -(-stop // outputs)
        if end - b == 1:
            part.delta = self.delta[..., b : b + 1, start - b * outputs : stop - b * outputs]
        elif start % outputs == 0 and stop % outputs == 0:
            part.delta = self.delta[..., b:end, :]
        else:
            return None
        part.patch = self.patch[..., b:end, :]
        return part
