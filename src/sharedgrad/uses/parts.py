"""Uses of a part of a weight, one element or one index of the first axis; and terms of several calls together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from sharedgrad.parameter import Array
from sharedgrad.uses.base import Uses
from sharedgrad.uses.direct import Direct
from sharedgrad.uses.lookup import Lookup
from sharedgrad.uses.outer import Outer
from sharedgrad.uses.terms import ABSENT, Factor, Terms
from sharedgrad.uses.window import Window
from sharedgrad.view import View


@dataclass(frozen=True, eq=False)
class PartOfWeight:
    """What stands at an index of a weight, as a weight of its own."""

    whole: Any
    index: tuple[int, ...]

    @property
    def name(self) -> str:
        """The weight's name with the index: "conv1.weight[3]"."""
        return f"{self.whole.name}[{', '.join(str(int(i)) for i in self.index)}]"

    @property
    def shape(self) -> tuple[int, ...]:
        """What is left of the shape."""
        return tuple(self.whole.shape)[len(self.index) :]

    @property
    def dtype(self) -> Any:
        """The weight's."""
        return self.whole.dtype

    @property
    def value(self) -> Any:
        """The part of its value."""
        return self.whole.value[self.index]


def element_of(call: Uses, flat: int, weight: PartOfWeight) -> Direct:
    """The uses of one element: δ_u, times the other factor where there is one; zero where a use does not meet it."""
    delta, local = _at(call, flat)
    return _direct(call, weight, delta, local)


def first_axis_of(call: Uses, index: int, weight: PartOfWeight) -> Uses:
    """The uses of one index of the weight's first axis, as the kind that they are if it can say them."""
    cells = prod(weight.shape)
    part: Uses | None = None
    if call.view.uncast.identity:
        if isinstance(call, Window):
            part = call.filter(index)
        elif isinstance(call, Outer) and cells % call.blocks[2] == 0:
            rows = cells // call.blocks[2]
            part = call.rows(index * rows, (index + 1) * rows)
        elif isinstance(call, Direct):
            part = call.at(index)
        elif isinstance(call, Lookup):
            part = _direct(call, weight, call.masked(index))
    if part is None:
        both = [_at(call, index * cells + cell) for cell in range(cells)]
        delta = np.stack([d for d, _ in both], -1).reshape(*call.shape, *weight.shape)
        local = np.stack([x if x is not None else np.ones_like(d) for d, x in both], -1).reshape(delta.shape)
        return _direct(call, weight, delta, local)
    part = copy(part)
    part.weight, part.view = weight, View()
    return part


def _at(call: Uses, flat: int) -> tuple[Array, Array | None]:
    """δ_u and the other factor at one element for every use (*U)."""
    terms = call.terms_at(flat)
    places = tuple(np.concatenate(list(terms.use.values()), -1).T) if call.shape else ()
    found = []
    for factor in terms.factors.values():
        row = np.zeros((*call.shape, 1), factor.array.dtype)
        row[(*places, 0)] = factor.values if places else factor.values.sum()
        found.append(row[..., 0])
    return found[0], found[1] if len(found) > 1 else None


def _direct(call: Uses, weight: PartOfWeight, delta: Any, local: Any = None) -> Direct:
    made = Direct(weight, delta, call.axes, local, View())
    made.node, made.like = call.node, call.like
    return made


def joined(calls: Sequence[Terms]) -> Terms:
    """The terms of all calls, one call after the other. An axis that a call does not have reads −1."""
    if len(calls) == 1:
        return replace(calls[0], call=np.zeros(len(calls[0]), np.int64))
    widths: dict[str, int] = {}
    for terms in calls:
        for axis, places in terms.use.items():
            widths[axis] = max(widths.get(axis, 0), places.shape[1])
    use = {axis: np.concatenate([_places(t, axis, width) for t in calls]) for axis, width in widths.items()}
    call = np.repeat(np.arange(len(calls)), [len(t) for t in calls])
    names = dict.fromkeys(name for terms in calls for name in terms.factors)
    factors = {name: _factor(calls, name) for name in names}
    return replace(calls[0], cell=np.concatenate([t.cell for t in calls]), factors=factors, call=call, use=use)


def _places(terms: Terms, axis: str, width: int) -> Array:
    places = terms.use.get(axis, np.zeros((len(terms), 0), np.int64))
    missing = np.full((len(terms), width - places.shape[1]), -1)
    return np.concatenate([places, missing], axis=1)


def _factor(calls: Sequence[Terms], name: str) -> Factor:
    """One factor of all calls, read from their arrays one after the other; absent where a call does not have it."""
    arrays, index, start = [], [], 0
    for terms in calls:
        factor = terms.factors.get(name)
        if factor is None:
            index.append(np.full(len(terms), ABSENT))
            continue
        arrays.append(factor.array.reshape(-1))
        index.append(np.where(factor.index >= 0, factor.index + start, factor.index))
        start += factor.array.size
    return Factor(name, np.concatenate(arrays), np.concatenate(index))
