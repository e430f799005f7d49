"""What the uses of one weight, or of one filter of it, come to over many batches."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.parameter import Array
from sharedgrad.uses import SharedWeight, Uses

KEPT = 4  # samples of each sign whose places are kept
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


class Pushing(NamedTuple):
    """A sample that pushes hard one way.

    Attributes:
        sample: Its number.
        share: Its share in the gradient.
        places: The share of each of its positions or steps; None where the weight has none.
    """

    sample: int
    share: float
    places: Array | None


class Tally:
    """The uses of a weight in all batches so far; shares are of the whole gradient, which is known beforehand.

    Args:
        name: The weight's name.
        gradient: G, what ``tape.backward`` gave for all batches, in float64.
        dtype: The type that the network computes in.
        keep: How many samples of each sign to keep the places of.

    Attributes:
        count: The number of uses.
        length: Σ‖g_u‖.
        squares: Σ‖g_u‖².
        axis: The axis that tells the uses of one sample apart, e.g. "position"; None if there is none.
        places: The share of each index of that axis over all samples; None if there is none.
        calls: Node -> the share of its call.
    """

    def __init__(self, name: str, gradient: Array, dtype: np.dtype[Any], keep: int = KEPT) -> None:
        self.name, self.gradient, self._dtype, self._keep = name, gradient, dtype, keep
        self.square = float(np.vdot(gradient, gradient))
        self.count, self.length, self.squares = 0, 0.0, 0.0
        self.axis: str | None = None
        self.places: Array | None = None
        self.calls: dict[str, float] = {}
        self._sum = np.zeros_like(gradient)
        self._shares: list[Array] = []
        self._hardest: dict[int, list[Pushing]] = {1: [], -1: []}

    def add(self, weight: SharedWeight, start: int) -> None:
        """Add the uses in one batch, whose first sample has the number ``start``."""
        if not self.count:
            self.axis = next((name for name in weight.axes if name != "sample"), None)
        by_place: Any = None
        shares: Any = 0.0
        for call in weight.calls:
            squares, products = np.asarray(call.squares()), np.asarray(call.projection(self._direction(call)))
            products = products / self.square if self.square else np.full_like(products, nan)
            self.count += call.count
            self.length += float(np.sqrt(squares).sum())
            self.squares += float(squares.sum())
            self.calls[call.node] = self.calls.get(call.node, 0.0) + float(products.sum())
            if "sample" in call.axes:
                shares = shares + _kept(call, products, ["sample"])
                if self.axis is not None:
                    part = _kept(call, products, ["sample", self.axis])
                    by_place = part if by_place is None else by_place + part
        self._sum += weight.gradient
        if isinstance(shares, np.ndarray):
            self._shares.append(shares)
            self._remember(shares, by_place, start)
        if by_place is not None:
            added = by_place.sum(axis=0)
            self.places = added if self.places is None else self.places + added

    def _direction(self, call: Uses) -> Array:
        return self.gradient.astype(call.factor.dtype, copy=False)

    def _remember(self, shares: Array, places: Array | None, start: int) -> None:
        """Keep the places of the samples that push hardest each way."""
        for sign, before in self._hardest.items():
            best = np.argsort(-sign * shares, kind="stable")[: self._keep]
            new = [
                Pushing(start + int(i), float(shares[i]), None if places is None else places[i].copy()) for i in best
            ]
            both = sorted([*before, *(p for p in new if sign * p.share > 0)], key=lambda p: -sign * p.share)
            self._hardest[sign] = both[: self._keep]

    @property
    def shares(self) -> Array:
        """The share of every sample (N,); empty where the uses tell no samples apart."""
        return np.concatenate(self._shares) if self._shares else np.zeros(0)

    def hardest(self, sign: int) -> list[Pushing]:
        """The samples that push hardest with the gradient (1) or against it (−1); none where shares are undefined."""
        return [] if self.zero_up_to_rounding else self._hardest[sign]

    @property
    def zero_up_to_rounding(self) -> bool:
        """Whether ‖G‖ ≤ 16·eps·Σ‖g_u‖: the uses cancel, and what is left is rounding."""
        return sqrt(self.square) <= 16 * float(np.finfo(self._dtype).eps) * self.length

    @property
    def coherence(self) -> float:
        """‖G‖² / Σ‖g_u‖² over all single uses; NaN where it is undefined."""
        return nan if self.zero_up_to_rounding else self.square / self.squares

    @property
    def cancellation(self) -> float:
        """1 − ‖G‖ / Σ‖g_u‖ over all single uses; NaN where all are zero."""
        return 1 - sqrt(self.square) / self.length if self.length else nan

    @property
    def random(self) -> float:
        """The cancellation of as many random directions of one length: 1 − 1/√count."""
        return 1 - 1 / sqrt(max(self.count, 1))

    @property
    def residual(self) -> float:
        """‖Σ g_u − G‖ / Σ‖g_u‖."""
        return float(np.linalg.norm(self._sum - self.gradient)) / self.length if self.length else 0.0

    @property
    def adds_up(self) -> bool:
        """Whether the sum of the uses is the gradient that ``tape.backward`` gave."""
        return self.residual <= TOLERANCE[self._dtype]


def _kept(call: Uses, products: Array, names: Sequence[str]) -> Array:
    """Products added over all axes but these, "sample" first."""
    kept = call.ordered(names)
    found = call.grouped(products, kept).sum(axis=1).reshape(call.lengths(kept))
    before = call.lengths(kept[: kept.index("sample")])
    return np.moveaxis(found, len(before), 0)
