"""Sums of uses, seen through random projections: small enough to be compared with a gradient in passing.

A weight D (F, C, *K) is seen as S = Σ_fc a_f ⊗ b_c D[f, c, :], with WIDTH random directions on each side: independent
standard normal numbers in a (F, WIDTH) and b (C, WIDTH). Of a convolution this is again a weight gradient, that of maps
with WIDTH channels: both maps are read once, and nothing of the size of the weight is made. The filters of a grouped
convolution have a block for each group. An axis of at most WIDTH cells is left as it is.

‖S‖ says how long D is (after Freivalds 1979, "Fast probabilistic algorithms"). It is shortest beside ‖D‖ where D has
rank one: then it is ‖D‖ times the product of two independent chi-distributed numbers of WIDTH degrees of freedom, below
REACH in one case of a million. So ‖D‖ ≤ ‖S‖ / REACH, but for one case in a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional, grad

from sharedgrad.geometry import Geometry
from sharedgrad.uses import Lookup, Outer, Uses, Window
from sharedgrad.uses.arrays import tensor

WIDTH = 8
REACH = 0.619  # P(χ₈ χ'₈ < 0.619) = 1e-6
TABLE = 1 << 18  # random numbers that are kept

_WEIGHT_GRADIENTS: tuple[Any, ...] = (grad.conv1d_weight, grad.conv2d_weight, grad.conv3d_weight)


class Sketch:
    """Random directions for one weight.

    Args:
        shape: The weight's shape.
        seed: Another one for each parameter and pass; PyTorch's and NumPy's global generators are not touched.
        device: Where the gradients are.
        wide: Whether to multiply in float64 what is in another type.
    """

    def __init__(self, shape: Sequence[int], seed: int, device: Any, wide: bool = False) -> None:
        self.shape, self.wide = tuple(shape), wide
        rows, columns = (*shape, 1, 1)[:2]
        both = _normal((rows + columns) * WIDTH, seed, device) if len(shape) > 1 else torch.zeros(0)
        self._a, self._b = both[: rows * WIDTH].view(-1, WIDTH), both[rows * WIDTH :].view(-1, WIDTH)

    def exact(self, groups: int) -> bool:
        """Whether it leaves the weight as it is."""
        return len(self.shape) < 2 or max(self.shape[0] // groups, self.shape[1]) <= WIDTH

    def of(self, whole: torch.Tensor, groups: int) -> torch.Tensor:
        """S (groups, WIDTH or F / groups, WIDTH or C, cells of K) of a tensor of the weight's shape."""
        if len(self.shape) < 2:
            return whole.reshape(1, 1, 1, -1)
        blocks = whole.reshape(groups, self.shape[0] // groups, -1)
        left = self._left(blocks.dtype, groups)
        seen = blocks if left is None else left @ blocks
        seen = seen.reshape(groups, seen.shape[1], self.shape[1], -1)
        right = self._right(seen.dtype)
        return seen if right is None else torch.einsum("gfck,cw->gfwk", seen, right)

    def fits(self, call: Window) -> bool:
        """Whether the call sees the weight as it is, so that its maps can be seen along the directions."""
        return call.view.uncast.identity and call.kernel == self.shape

    def sides(self, call: Window) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """For each map (groups, C, WIDTH), the directions of its channels; None where they stay as they are."""
        groups = call.geometry.groups
        left = self._left(self._a.dtype, groups)
        right = self._right(self._b.dtype)
        return None if left is None else left.mT, None if right is None else right.expand(groups, -1, -1)

    def of_maps(self, small: torch.Tensor, big: torch.Tensor, g: Geometry) -> torch.Tensor:
        """S of a convolution's uses, from the maps as they are seen along the directions."""
        shape = (small.shape[1], big.shape[1] // g.groups, *g.kernel)
        if not small.numel() or not big.numel():
            return small.new_zeros(g.groups, shape[0] // g.groups, shape[1], prod(g.kernel))
        if self.wide:
            small, big = small.double(), big.double()
        if any(n for pair in g.padding for n in pair):
            big = functional.pad(big, [n for pair in reversed(g.padding) for n in pair])
        found = _WEIGHT_GRADIENTS[g.rank - 1](big, shape, small, g.stride, 0, g.dilation, g.groups)
        return found.reshape(g.groups, shape[0] // g.groups, shape[1], -1)

    def of_uses(self, call: Uses) -> torch.Tensor | None:
        """S of the sum of uses of a matrix; None where the call sees the weight in another way."""
        if isinstance(call, Outer) and call.blocks[0] == 1 and call.view.axes == (1, 0):
            call = call.swapped()
        view = call.view.uncast
        ranges = view.parts if not view.identity else (range(n) for n in self.shape)
        parts = tuple(ranges or ())
        if len(self.shape) != 2 or len(parts) != 2 or not all(isinstance(part, range) for part in parts):
            return None
        if isinstance(call, Outer) and call.blocks[0] == 1:
            return self._outer(call, *parts)
        return self._lookup(call) if isinstance(call, Lookup) and view.identity else None

    # ---- kinds of uses

    def _outer(self, call: Outer, rows: range, columns: range) -> torch.Tensor:
        delta, patch = (self._factor(f).reshape(-1, f.shape[-1]) for f in (call.delta, call.patch))
        left = self._side(delta, self._a, self.shape[0], rows)
        right = self._side(patch, self._b, self.shape[1], columns)
        return (left.T @ right)[None, :, :, None]

    def _lookup(self, call: Lookup) -> torch.Tensor:
        delta = self._factor(call.delta).reshape(-1, call.delta.shape[-1])
        rows = self._a if self.shape[0] > WIDTH else torch.eye(self.shape[0], device=self._a.device)
        left = rows.to(delta.dtype)[torch.as_tensor(np.asarray(call.index).reshape(-1), device=delta.device)]
        right = self._side(delta, self._b, self.shape[1], range(self.shape[1]))
        return (left.T @ right)[None, :, :, None]

    def _factor(self, array: Any) -> Any:
        return tensor(array).double() if self.wide else tensor(array)

    # ---- the two sides

    def _left(self, dtype: torch.dtype, groups: int) -> torch.Tensor | None:
        """(groups, WIDTH, F / groups), or None where the rows stay as they are."""
        filters = self.shape[0] // groups
        return self._a.to(dtype).reshape(groups, filters, WIDTH).mT if filters > WIDTH else None

    def _right(self, dtype: torch.dtype) -> torch.Tensor | None:
        """(C, WIDTH), or None where the columns stay as they are."""
        return self._b.to(dtype) if self.shape[1] > WIDTH else None

    @staticmethod
    def _side(factor: torch.Tensor, directions: torch.Tensor, length: int, part: range) -> torch.Tensor:
        """Vectors (U, cells of the part) along the directions; or in their own places, of at most WIDTH cells."""
        chosen = slice(part.start, part.stop, part.step)
        if length > WIDTH:
            return factor @ directions[chosen].to(factor.dtype)
        placed = factor.new_zeros(len(factor), length)
        placed[:, chosen] = factor
        return placed


@lru_cache(4)
def _table(device: Any) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(key=[0, 0x7072_6F62]))
    return torch.from_numpy(rng.standard_normal(TABLE)).to(device)


def _normal(count: int, seed: int, device: Any) -> torch.Tensor:
    """Independent standard normal numbers: from a table, where it is long enough, beginning somewhere in it."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 0x7072_6F62]))
    if 2 * count > TABLE:
        return torch.from_numpy(rng.standard_normal(count)).to(device)
    start = int(rng.integers(TABLE - count))
    return _table(device)[start : start + count]
