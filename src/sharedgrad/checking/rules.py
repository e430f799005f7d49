"""Wrong procedures: how a person gets a wrong array, as a few lines that change the right way.

A rule changes one of three things: what is *given* (another stride, another upstream), the *terms* (read elsewhere,
add to another cell, drop some) or the *result* (divide, turn, transpose). So rules compose: the given things first,
then the terms, then the result. A rule may have variants ("the last position", "filter 0"), each with a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class State:
    """A calculation on its way: what is given, perhaps changed; perhaps the changed terms, perhaps a changed result."""

    right: Right
    given: Given
    changed: Terms | Array | None = None
    ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def sum(self) -> Terms | Array | None:
        """The terms, or the array where there is no table; None if the changed numbers do not fit together."""
        if self.changed is not None:
            return self.changed
        try:
            return self.right(self.given)
        except (SharedgradError, ValueError, IndexError):
            return None

    @cached_property
    def array(self) -> Array | None:
        """The result as it stands."""
        return self.sum.total() if isinstance(self.sum, Terms) else self.sum

    def after(self, rule: Rule, most: int | None = None) -> Iterator[State]:
        """Every variant (at most so many) of one more wrong procedure; its stage must not lie before the last one's."""
        if rule.stage == "given":
            before: tuple[Any, ...] = (self.given,)
        elif rule.stage == "terms":
            before = (self.sum, self.given)
        else:
            before = (self.array, self.given)
        if before[0] is None or (rule.stage == "terms" and not isinstance(before[0], Terms)):
            return
        for note, changed in islice(rule.variants(*before), most):
            given = changed if isinstance(changed, Given) else self.given
            value = None if isinstance(changed, Given) else changed
            yield State(self.right, given, value, (*self.ids, rule.id), (*self.notes, note))

    def outcome(self) -> Outcome | None:
        """The array with the names of what led to it."""
        return None if self.array is None else Outcome(self.ids, self.notes, self.array)


def in_order(rules: Sequence[Rule]) -> list[Rule]:
    """What is given first, then the terms, then the result."""
    return sorted(rules, key=lambda r: _ORDER[r.stage])


def outcomes(right: Right, given: Given, rules: Sequence[Rule], variants: int | None = None) -> Iterator[Outcome]:
    """Every result of applying these rules together to one array.

    Args:
        right: The right way to that array.
        given: The numbers.
        rules: One or more; each changes its own stage, of one stage in the order given.
        variants: Try at most so many variants of each rule.
    """
    states = iter([State(right, given)])
    for rule in in_order(rules):
        states = _all_after(states, rule, variants)
    for state in states:
        if (outcome := state.outcome()) is not None:
            yield outcome


def _all_after(states: Iterator[State], rule: Rule, variants: int | None) -> Iterator[State]:
    for state in states:
        yield from state.after(rule, variants)
