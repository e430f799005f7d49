"""One call of an operation, as the rules for its uses read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sharedgrad.tracing.weights import Seen
from sharedgrad.uses import Uses

Build = Callable[[torch.Tensor], Uses]


class Use(NamedTuple):
    """A parameter that a call used: how it was seen, and what makes its uses of the gradient at the call's output."""

    seen: Seen
    build: Build


@dataclass(frozen=True)
class Site:
    """One call of an operation.

    Attributes:
        name: The operation.
        args: Its positional arguments.
        kwargs: Its arguments given by name.
        out: What it gave.
        seen: How a tensor shows a parameter; None where it shows none.
        axis: Which axis of a tensor tells the samples apart; None where that is not known.
        known: Whether a tensor comes from the model's inputs.
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    out: torch.Tensor
    seen: Callable[[Any], Seen | None]
    axis: Callable[[torch.Tensor], int | None]
    known: Callable[[Any], bool]

    def bound(self, names: str, **defaults: Any) -> list[Any]:
        """The arguments with these names, in this order; what is not given has its default, else None."""
        order = names.split()
        given = dict(zip(order, self.args, strict=False)) | dict(self.kwargs)
        return [given.get(name, defaults.get(name)) for name in order]

    def uses(self, *pairs: tuple[Any, Callable[[Seen], Build]]) -> list[Use]:
        """A use for each of these arguments that shows a parameter."""
        found = ((self.seen(tensor), build) for tensor, build in pairs)
        return [Use(seen, build(seen)) for seen, build in found if seen is not None]


class Lead(NamedTuple):
    """The axes of a call's uses: the numbers of the output's axes, samples first, and their names and lengths."""

    order: tuple[int, ...]
    axes: dict[str, tuple[int, ...]]

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with these axes first, the others after them in their order."""
        return tensor.permute(*self.order, *(a for a in range(tensor.ndim) if a not in self.order))


def lead(shape: Sequence[int], dims: Sequence[int], axis: int | None, rest: str) -> Lead:
    """The use axes of a call.

    Args:
        shape: Shape of the output.
        dims: The numbers of its axes along which the weight is used again and again.
        axis: Which of them tells samples apart.
        rest: What the others are called.

    Where no axis is known to tell samples apart, all of them together are called "row".
    """
    if axis is None or axis not in dims:
        name = "row" if axis is None else rest
        return Lead(tuple(dims), {name: tuple(shape[d] for d in dims)} if dims else {})
    others = tuple(d for d in dims if d != axis)
    named = {"sample": (shape[axis],)} | ({rest: tuple(shape[d] for d in others)} if others else {})
    return Lead((axis, *others), named)
