"""One call of an operation, as the rules for its uses read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sharedgrad.tracing.place import Packed, Place
from sharedgrad.tracing.weights import Seen
from sharedgrad.uses import Uses

Build = Callable[[torch.Tensor], Uses]


class Use(NamedTuple):
    """A parameter that a call used: how it was seen, and what makes its uses of the gradient at the call's output.

    Attributes:
        seen: How it was seen.
        build: What makes its uses.
        valid: Whether it is told here, when the gradient arrives, and not at a later call.
    """

    seen: Seen
    build: Build
    valid: Callable[[], bool] = lambda: True


class UnseenError(Exception):
    """Why the uses of a call cannot be told; the parameters are reported with it."""


@dataclass(frozen=True)
class Site:
    """One call of an operation.

    Attributes:
        name: The operation.
        args: Its positional arguments.
        kwargs: Its arguments given by name.
        outs: What it gave.
        seen: How a tensor shows a parameter; None where it shows none.
        places: Where the samples stand in a tensor; None where that is not known.
        known: Whether a tensor comes from the model's inputs.
        random: State of the generator before the call, where it drew masks inside.
        meeting: Where the output, if it is made of a parameter alone, meets what comes from the inputs.
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outs: Sequence[torch.Tensor]
    seen: Callable[[Any], Seen | None]
    places: Callable[[Any], Place | Packed | None]
    known: Callable[[Any], bool]
    random: torch.Tensor | None = None
    meeting: Any = None

    @property
    def out(self) -> torch.Tensor:
        """What it gave, of an operation with one output."""
        return self.outs[0]

    def place(self, tensor: torch.Tensor) -> Place | None:
        """Where the samples stand in a tensor."""
        place = self.places(tensor)
        return place if isinstance(place, Place) else None

    def packed(self, tensor: torch.Tensor) -> Packed | None:
        """Which samples the rows of a packed sequence are of."""
        place = self.places(tensor)
        return place if isinstance(place, Packed) else None

    def axis(self, tensor: torch.Tensor) -> int | None:
        """Which axis of a tensor is that of the samples alone, in their order; None where none is known to be."""
        place = self.place(tensor)
        return place.axis if place is not None and place.whole else None

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
    """The axes of a call's uses: the numbers of the output's axes, samples first, and their names and lengths.

    Attributes:
        order: The numbers, in the output with the merged axis taken apart.
        axes: Names and lengths.
        apart: A merged axis and what it is taken apart into.
        samples: Where each sample stands, if they were sorted.
    """

    order: tuple[int, ...]
    axes: dict[str, tuple[int, ...]]
    apart: tuple[int, tuple[int, ...]] | None = None
    samples: tuple[int, ...] = ()

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with these axes first, the others after them in their order."""
        if self.apart is not None:
            tensor = torch.unflatten(tensor, *self.apart)
        tensor = tensor.permute((*self.order, *(a for a in range(tensor.ndim) if a not in self.order)))
        return tensor[list(self.samples)] if self.samples else tensor


def lead(shape: Sequence[int], dims: Sequence[int], place: Place | None, rest: str) -> Lead:
    """The use axes of a call.

    Args:
        shape: Shape of the output.
        dims: The numbers of its axes along which the weight is used again and again.
        place: Where the samples stand in it.
        rest: What the other axes are called.

    Where no axis is known to tell samples apart, all of them together are called "row".
    """
    if place is None or place.axis not in dims:
        name = "row" if place is None else rest
        return Lead(tuple(dims), {name: tuple(shape[d] for d in dims)} if dims else {})
    count = place.count(shape)
    factors = [(place.before, False), (count, True), (place.after, False)]
    parts = [(n, mine) for n, mine in factors if mine or n != 1]
    sizes = [(n, False) for n in shape]
    sizes[place.axis : place.axis + 1] = parts
    axis = next(i for i, (_, mine) in enumerate(sizes) if mine)
    added = len(parts) - 1
    wanted = [d + added * (d > place.axis) for d in dims if d != place.axis]
    others = tuple(sorted([*wanted, *(i for i in range(place.axis, place.axis + added + 1) if i != axis)]))
    named = {"sample": (count,)} | ({rest: tuple(sizes[d][0] for d in others)} if others else {})
    apart = (place.axis, tuple(n for n, _ in parts)) if added else None
    samples = tuple(place.order.index(i) for i in range(count)) if place.order else ()
    return Lead((axis, *others), named, apart, samples)
