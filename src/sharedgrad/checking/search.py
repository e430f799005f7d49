"""Which wrong procedures reproduce an answer: one mistake, or two together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

import sharedgrad.checking.mistakes  # noqa: F401 (fills the library)
from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import UPDATES, magnitude, right, total
from sharedgrad.checking.rules import LIBRARY, Outcome, Right, Rule, State, in_order, outcomes
from sharedgrad.parameter import Array

Progress = Callable[[float], None]
_PAIR_VARIANTS = 4
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
    """Pairs that reproduce the answer in all cases, and whether all pairs were tried within the time.

    Common mistakes come first; what the first of a pair makes of the numbers is worked out once.
    """
    rules = rules_for(cases[0].given.kind, target)
    pairs = [(a, b) for a, b in permutations(rules, 2) if a.id != b.id and in_order((a, b)) == [a, b]]
    place = {id(rule): number for number, rule in enumerate(rules)}
    pairs.sort(key=lambda pair: place[id(pair[0])] + place[id(pair[1])])
    case, start = cases[0], State(way(target), cases[0].given)
    scale = _scale(case.given, target)
    firsts: dict[int, list[State]] = {}
    end, found = time.monotonic() + seconds, list[tuple[Fit, Array]]()
    for number, (a, b) in enumerate(pairs):
        if time.monotonic() > end:
            return _grouped(found), False
        if progress and number % 64 == 0:
            progress(number / len(pairs))
        if id(a) not in firsts:
            firsts[id(a)] = list(start.after(a, _PAIR_VARIANTS))
        for state in firsts[id(a)]:
            for second in state.after(b, _PAIR_VARIANTS):
                outcome = second.outcome()
                if outcome is None or not case.answer.fits(outcome.array, scale):
                    continue
                if is_right(case.given, target, outcome.array):
                    continue
                if all(_again(other, target, (a, b), outcome, _PAIR_VARIANTS) for other in cases[1:]):
                    prior = LIBRARY.index(a) + LIBRARY.index(b)
                    found.append((Fit(outcome.ids, outcome.notes, target, prior=prior), outcome.array))
    return _grouped(found), True


def _fits(
    cases: Sequence[Case], target: str, combinations: Sequence[tuple[Rule, ...]], variants: int | None
) -> list[Fit]:
    found = [hit for rules in combinations for hit in _of_rules(cases, target, rules, variants)]
    return _grouped(found)


def _of_rules(
    cases: Sequence[Case], target: str, rules: tuple[Rule, ...], variants: int | None
) -> Iterator[tuple[Fit, Array]]:
    first = cases[0]
    right_way = way(target)
    scale = _scale(first.given, target)
    prior = sum(LIBRARY.index(r) for r in rules)
    for outcome in outcomes(right_way, first.given, rules, variants):
        if not first.answer.fits(outcome.array, scale) or is_right(first.given, target, outcome.array):
            continue
        if all(_again(case, target, rules, outcome, variants) for case in cases[1:]):
            yield Fit(outcome.ids, outcome.notes, target, prior=prior), outcome.array


def _again(case: Case, target: str, rules: tuple[Rule, ...], wanted: Outcome, variants: int | None) -> bool:
    scale = _scale(case.given, target)
    return any(
        case.answer.fits(other.array, scale)
        for other in outcomes(way(target), case.given, rules, variants)
        if other.notes == wanted.notes
    )


def way(target: str) -> Right:
    """The right way to an array; to an update, that of its gradient."""
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


def is_right(given: Given, target: str, array: Array) -> bool:
    """Whether an array is the right one, up to float64's rounding: a mistake that makes no difference here."""
    _, answer, scale = _known(given, target)
    return array.shape == answer.shape and bool((np.abs(array - answer) <= _SAME * scale).all())


def equal(array: Array, other: Array) -> bool:
    """Whether two arrays are the same but for rounding and axes of length 1."""
    if bare(array.shape) != bare(other.shape):
        return False
    largest = np.abs(other).max(initial=0.0)
    return bool((np.abs(array.reshape(other.shape) - other) <= _SAME * largest).all())


def _grouped(found: Sequence[tuple[Fit, Array]]) -> list[Fit]:
    groups: list[tuple[list[Fit], Array]] = []
    for fit, array in sorted(found, key=lambda hit: hit[0].prior):
        for fits, other in groups:
            if equal(array, other):
                fits.append(fit)
                break
        else:
            groups.append(([fit], array))
    merged = []
    for fits, _ in groups:
        others = {frozenset(f.ids): f.ids for f in reversed(fits[1:]) if set(f.ids) != set(fits[0].ids)}
        merged.append(Fit(fits[0].ids, fits[0].notes, fits[0].target, tuple(reversed(others.values())), fits[0].prior))
    return merged
