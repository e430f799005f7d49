"""Which wrong procedures reproduce an answer: one mistake, or two together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import sharedgrad.checking.mistakes  # noqa: F401 (fills the library)
from sharedgrad.checking.answers import Answer
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import UPDATES, magnitude, right, total
from sharedgrad.checking.rules import LIBRARY, Outcome, Right, Rule, outcomes
from sharedgrad.parameter import Array

Progress = Callable[[float], None]
_PAIR_VARIANTS = 8
_SAME = 1e-9


@dataclass(frozen=True)
class Case:
    """One set of numbers with one person's answer to one array of it."""

    given: Given
    answer: Answer


@dataclass(frozen=True)
class Fit:
    """Mistakes that together reproduce one array in every case.

    Attributes:
        ids: One or two mistakes.
        notes: Their variants in words; empty where there is one only.
        target: The array.
        same: Other mistakes with the same numbers here: nobody can tell them apart by this answer.
        prior: Place in the library: smaller is more common.
    """

    ids: tuple[str, ...]
    notes: tuple[str, ...]
    target: str
    same: tuple[tuple[str, ...], ...] = ()
    prior: int = 0

    @property
    def group(self) -> tuple[tuple[str, ...], ...]:
        """All mistakes with these numbers, the named one first."""
        return (self.ids, *self.same)


def rules_for(kind: str, target: str) -> list[Rule]:
    """The rules that say something about this array; an update has those of its gradient besides its own."""
    base = UPDATES.get(target)
    found = [r for r in LIBRARY if r.fits(kind, target) or (base is not None and r.fits(kind, base))]
    return sorted(found, key=lambda r: target not in r.targets)


def one_mistake(cases: Sequence[Case], target: str) -> list[Fit]:
    """Every mistake that reproduces the answer in all cases, those with the same numbers grouped."""
    return _fits(cases, target, [(r,) for r in rules_for(cases[0].given.kind, target)], None)


def two_mistakes(
    cases: Sequence[Case], target: str, seconds: float, progress: Progress | None = None
) -> tuple[list[Fit], bool]:
    """Pairs that reproduce the answer in all cases, and whether all pairs were tried within the time."""
    rules = rules_for(cases[0].given.kind, target)
    pairs = [(a, b) for i, a in enumerate(rules) for j, b in enumerate(rules) if a.id != b.id and _orders(a, b, i, j)]
    end, found = time.monotonic() + seconds, []
    for number, pair in enumerate(pairs):
        if time.monotonic() > end:
            return _grouped(found), False
        if progress and number % 64 == 0:
            progress(number / len(pairs))
        found += [(fit, array) for fit, array in _of_rules(cases, target, pair, _PAIR_VARIANTS)]
    return _grouped(found), True


def _orders(a: Rule, b: Rule, i: int, j: int) -> bool:
    """Both orders where both change the same thing; one where the stages order them."""
    return i < j if a.stage != b.stage else True


def _fits(
    cases: Sequence[Case], target: str, combinations: Sequence[tuple[Rule, ...]], variants: int | None
) -> list[Fit]:
    found = [hit for rules in combinations for hit in _of_rules(cases, target, rules, variants)]
    return _grouped(found)


def _of_rules(
    cases: Sequence[Case], target: str, rules: tuple[Rule, ...], variants: int | None
) -> Iterator[tuple[Fit, Array]]:
    first = cases[0]
    way = _way(target)
    scale = _scale(first.given, target)
    prior = sum(LIBRARY.index(r) for r in rules)
    for outcome in outcomes(way, first.given, rules, variants):
        if not first.answer.fits(outcome.array, scale) or _is_right(first.given, target, outcome.array):
            continue
        if all(_again(case, target, rules, outcome, variants) for case in cases[1:]):
            yield Fit(outcome.ids, outcome.notes, target, prior=prior), outcome.array


def _again(case: Case, target: str, rules: tuple[Rule, ...], wanted: Outcome, variants: int | None) -> bool:
    scale = _scale(case.given, target)
    return any(
        case.answer.fits(other.array, scale)
        for other in outcomes(_way(target), case.given, rules, variants)
        if other.notes == wanted.notes
    )


def _way(target: str) -> Right:
    base = UPDATES.get(target, target)
    return lambda given: right(given, base)


_SCALES: dict[tuple[int, str], tuple[Given, Array, Array]] = {}


def _known(given: Given, target: str) -> tuple[Given, Array, Array]:
    key = (id(given), target)
    if key not in _SCALES or _SCALES[key][0] is not given:
        if len(_SCALES) > 64:
            _SCALES.clear()
        result = right(given, target)
        _SCALES[key] = (given, total(result), magnitude(result))
    return _SCALES[key]


def _scale(given: Given, target: str) -> Array:
    return _known(given, target)[2]


def _is_right(given: Given, target: str, array: Array) -> bool:
    _, answer, scale = _known(given, target)
    return array.shape == answer.shape and bool((np.abs(array - answer) <= _SAME * scale).all())


def _grouped(found: Sequence[tuple[Fit, Array]]) -> list[Fit]:
    groups: list[tuple[list[Fit], Array]] = []
    for fit, array in sorted(found, key=lambda hit: hit[0].prior):
        for fits, other in groups:
            if array.shape == other.shape and np.allclose(array, other, rtol=_SAME, atol=_SAME * np.abs(other).max(initial=0.0)):
                fits.append(fit)
                break
        else:
            groups.append(([fit], array))
    merged = []
    for fits, _ in groups:
        others = dict.fromkeys(f.ids for f in fits[1:] if f.ids != fits[0].ids)
        merged.append(Fit(fits[0].ids, fits[0].notes, fits[0].target, tuple(others), fits[0].prior))
    return merged

