"""Where the samples stand in a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """The axis that tells samples apart, also where it was merged with others or its samples were sorted.

    Attributes:
        axis: The number of the axis.
        before: How many indices of axes that were merged into it run slower than the samples; 1 if there are none.
        after: The same of those that run faster.
        order: Which sample stands at each place; empty where they stand in the order of the model's inputs.
    """

    axis: int
    before: int = 1
    after: int = 1
    order: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the axis is that of the samples alone, in their own order."""
        return self[1:] == (1, 1, ())

    def count(self, shape: Sequence[int]) -> int:
        """The number of samples in a tensor of this shape."""
        return shape[self.axis] // (self.before * self.after)


class Packed(NamedTuple):
    """Rows of a ``PackedSequence``: step by step, of each step the samples that are that long.

    Attributes:
        order: Which sample stands at each place of a step; empty where they stand in the order of the model's inputs.
    """

    order: tuple[int, ...] = ()
