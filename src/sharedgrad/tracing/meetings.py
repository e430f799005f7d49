"""Tensors made of a parameter alone, and where they meet what comes from the model's inputs.

A class token is copied for each sample and joined with the patches; rows of a table of positions are added to every
sample. Which of the copies is which sample's is not known where they are made, but where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sharedgrad.tracing.lineage import JOINS, TOGETHER, joined_along
from sharedgrad.tracing.place import Place
from sharedgrad.tracing.site import Use
from sharedgrad.tracing.weights import Seen
from sharedgrad.uses import Uses

MAKERS = {"expand", "expand_as", "repeat", "embedding"}
ADDITIONS = {"add", "__radd__", "add_", "__iadd__"}
Rows = Callable[[torch.Tensor, Place | None], Uses]


class Meeting:
    """Where such a tensor meets the inputs' descendants.

    Attributes:
        seen: The parameter that it was made of, where rows of it were looked up.
        rows: What makes the uses of looked-up rows of the gradient at their place, or at a sum that they are part of.
    """

    def __init__(self) -> None:
        self.seen: Seen | None = None
        self.rows: Rows | None = None
        self._places: set[Place | None] = set()  # where the samples stand in the tensor itself
        self._sums = 0

    @property
    def place(self) -> Place | None:
        """Where the samples stand in the tensor, if it met them in one way only."""
        return next(iter(self._places)) if len(self._places) == 1 and not self._sums else None

    @property
    def apart(self) -> bool:
        """Whether it was only added to samples, one row to all: its uses are then told apart at the sums."""
        return self._sums > 0 and not self._places

    @property
    def whole(self) -> bool:
        """Whether its uses are told by the gradient at the tensor itself."""
        return not self.apart

    def used(self, name: str, args: Sequence[Any], kwargs: Any, own: torch.Tensor, others: Any, out: Any) -> Use | None:
        """It is given to an operation.

        Args:
            name: The operation.
            args: Its positional arguments.
            kwargs: Its arguments given by name.
            own: The tensor.
            others: The operation's tensors that come from the inputs, each with the place of its samples.
            out: The first result.

        Returns:
            A use at the operation, if the tensor's rows were added to samples there.
        """
        places = {p._replace(axis=p.axis + own.ndim - t.ndim) if isinstance(p, Place) else None for t, p in others}
        place = places.pop() if len(places) == 1 else None
        place = place if name in TOGETHER | JOINS and place is not None and place.whole else None
        if name in JOINS and (place is None or place.axis == joined_along(name, args, kwargs, own)):
            place = None
        sizes = {t.shape[p.axis] for t, p in others if isinstance(p, Place)}
        if place is not None and place.axis >= 0 and {own.shape[place.axis]} == sizes:
            self._places.add(place)
            return None
        rows, seen = self.rows, self.seen
        added = name in ADDITIONS and not kwargs and len(args) == 2 and out.shape[-1:] == own.shape[-1:]
        if place is None or not added or rows is None or seen is None:
            self._places.add(None)
            return None
        self._sums += 1
        there = place._replace(axis=place.axis + out.ndim - own.ndim)
        return Use(seen, lambda delta: rows(delta, there), lambda: self.apart)
