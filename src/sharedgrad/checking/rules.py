"""Wrong procedures: how a person gets a wrong array, as a few lines that change the right way.

A rule changes one of three things: what is *given* (another stride, another upstream), the *terms* (read elsewhere,
add to another cell, drop some) or the *result* (divide, turn, transpose). So rules compose: the given things first, then
the terms, then the result. A rule may have variants ("the last position", "filter 0"), each with a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.errors import SharedgradError
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

Stage = Literal["given", "terms", "result"]
Change = Callable[..., Any]
_ORDER: dict[Stage, int] = {"given": 0, "terms": 1, "result": 2}


@dataclass(frozen=True)
class Rule:
    """One way to get some arrays of some kinds of layers wrong.

    Attributes:
        id: Which mistake it is; its words stand in the catalogue.
        targets: The arrays it changes, e.g. ("dw",).
        kinds: The kinds of layers; None: all.
        stage: What ``change`` takes and returns: (Given) -> Given, (Terms, Given) -> Terms, (Array, Given) -> Array;
            or pairs (note, changed) where there are variants; or None where it makes no difference here.
        change: The few lines.
    """

    id: str
    targets: tuple[str, ...]
    kinds: tuple[str, ...] | None
    stage: Stage
    change: Change

    def fits(self, kind: str, target: str) -> bool:
        """Whether it says anything about this array of this kind of layer."""
        return target in self.targets and (self.kinds is None or kind in self.kinds)

    def variants(self, *before: Any) -> Iterator[tuple[str, Any]]:
        """(note, changed) for every variant; nothing where the change does not apply."""
        try:
            with np.errstate(all="ignore"):
                changed = self.change(*before)
                if changed is None:
                    return
                if isinstance(changed, Given | Terms | np.ndarray):
                    yield "", changed
                    return
                yield from changed
        except (SharedgradError, ValueError, IndexError, KeyError):  # no room for it here, or its factor is gone
            return


LIBRARY: list[Rule] = []


def rule(id: str, targets: str, kinds: str = "", stage: Stage = "terms") -> Callable[[Change], Change]:
    """Put a function into the library; several names are separated by spaces."""

    def register(change: Change) -> Change:
        LIBRARY.append(Rule(id, tuple(targets.split()), tuple(kinds.split()) or None, stage, change))
        return change

    return register


Right = Callable[[Given], "Terms | Array"]


@dataclass(frozen=True)
class Outcome:
    """What comes out of some wrong procedures: the mistakes' ids, notes on variants, the array."""

    ids: tuple[str, ...]
    notes: tuple[str, ...]
    array: Array


def outcomes(right: Right, given: Given, rules: Sequence[Rule], variants: int | None = None) -> Iterator[Outcome]:
    """Every result of applying these rules together to one array.

    Args:
        right: The right way to that array.
        given: The numbers.
        rules: One or more; each changes its own stage, of one stage in the order given.
        variants: Try at most so many variants of each rule.
    """
    ordered = sorted(rules, key=lambda r: _ORDER[r.stage])
    yield from _apply(right, given, given, ordered, (), (), variants)


def _apply(
    right: Right,
    state: Any,
    given: Given,
    rest: list[Rule],
    ids: tuple[str, ...],
    notes: tuple[str, ...],
    most: int | None,
) -> Iterator[Outcome]:
    stage: Stage = rest[0].stage if rest else "result"
    if isinstance(state, Given) and stage != "given":
        given = state
        try:
            state = right(given)
        except (SharedgradError, ValueError, IndexError):  # the changed numbers do not fit together
            return
    if isinstance(state, Terms) and stage == "result":
        state = state.total()
    if not rest:
        yield Outcome(ids, notes, state)
        return
    if stage == "terms" and not isinstance(state, Terms):
        return
    before = (state,) if stage == "given" else (state, given)
    found: Iterable[tuple[str, Any]] = rest[0].variants(*before)
    for note, changed in islice(found, most):
        yield from _apply(right, changed, given, rest[1:], (*ids, rest[0].id), (*notes, note), most)
