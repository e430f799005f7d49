"""Calls with several outputs: what their uses are follows from the gradients at all of the outputs together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Uses

Deltas = Sequence[torch.Tensor | None]  # one for each output; None where no gradient arrived


class PartUse(NamedTuple):
    """A parameter that such a call used: how it was seen, in which part of the call, and what makes its uses."""

    seen: Seen
    part: str
    build: Callable[[Any], Uses]


class Joint(NamedTuple):
    """Such a call: its uses, and what computes that from which they are built.

    Attributes:
        uses: The parameters that it used.
        compute: The gradients at the outputs -> what ``build`` of each use takes.
        type: The type that it computed in.
    """

    uses: list[PartUse]
    compute: Callable[[Deltas], Any]
    type: str


class Gathered:
    """The gradients that have arrived at the outputs of such a call in one pass.

    Args:
        joint: The call.
        outputs: How many outputs it has.
    """

    def __init__(self, joint: Joint, outputs: int) -> None:
        self._joint: Joint | None = joint
        self._deltas: list[Held | None] = [None] * outputs
        self._found: Any = None

    def add(self, output: int, delta: torch.Tensor) -> None:
        """A gradient has arrived at an output."""
        self._deltas[output] = Held(delta)

    def get(self) -> Any:
        """What the uses are built from; computed once, when all gradients have arrived."""
        if self._joint is not None:
            deltas = [None if held is None else held.get() for held in self._deltas]
            with torch._C.DisableTorchFunction():
                self._found = self._joint.compute(deltas)
            self._joint, self._deltas = None, []
        return self._found
