"""Which wrong procedures reproduce everything that a person's code returned, on every probe.

A mistake must give the code's own numbers wherever they are wrong, and make no difference wherever they are right. Where
the code does not come back at all it says nothing. Several mistakes may share the work: each explains some probes alone,
and together those that need both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from sharedgrad.checking.code.observe import Outcome
from sharedgrad.checking.right import magnitude, right
from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import LIBRARY, Rule, State, outcomes
from sharedgrad.checking.search import Case, is_right, rules_for, two_mistakes, way
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

_MOST = 3
_VARIANTS = 24


@dataclass(frozen=True)
class Match:
    """Mistakes that explain one array on all probes.

    Attributes:
        target: The array.
        rules: The mistakes.
        notes: Their variants.
        same: Ids of other mistakes with the same numbers on all probes.
        covered: How many wrong probes the first of them explains.
    """

    target: str
    rules: tuple[Rule, ...]
    notes: tuple[str, ...]
    same: tuple[str, ...] = ()
    covered: int = 0

    def explains(self, outcome: Outcome) -> bool:
        """Whether it says what the code does on a further probe; one that does not come back says nothing."""
        if not outcome.ran or self.target not in outcome.answers:
            return True
        return _together(outcome, self.target, self.rules) or (
            self.target not in outcome.wrong and not _all_say_wrong(outcome, self.target, self.rules)
        )

    def refuses(self, outcome: Outcome) -> bool:
        """Whether the mistake, carried out on a probe, ends in an error as the person's code may."""
        return any(_ends_in_error(rule, outcome, self.target) for rule in self.rules)


@dataclass(frozen=True)
class _Partly:
    rule: Rule
    note: str | None  # None: any variant
    covers: frozenset[int]


def matches(found: Sequence[Outcome], target: str, seconds: float) -> list[Match]:
    """What explains one array, the likeliest first; nothing if no known mistake does.

    Args:
        found: What the code made of all probes.
        target: The array.
        seconds: How long pairs of mistakes in one probe are tried where no other way explains it.
    """
    ran = [o for o in found if target in o.answers]
    wrong = sorted((o for o in ran if target in o.wrong), key=lambda o: o.weight)
    fine = [o for o in ran if target not in o.wrong]
    if not wrong:
        return []
    kind = wrong[0].probe.given.kind
    parts = [p for rule in rules_for(kind, target) for p in _parts(rule, target, wrong, fine)]
    whole = [p for p in parts if len(p.covers) == len(wrong)]
    if whole:
        return _grouped(whole, target)
    if cover := _cover(parts, target, wrong):
        return [cover]
    return _pairs(wrong, fine, target, seconds)


def _parts(rule: Rule, target: str, wrong: Sequence[Outcome], fine: Sequence[Outcome]) -> Iterator[_Partly]:
    """The variants of a mistake that explain some probes and contradict none where the code is right."""
    hits: dict[str, set[int]] = {}
    for number, outcome in enumerate(wrong):
        for note, array in _predicted(outcome, target, (rule,)):
            if _is_answer(outcome, target, array):
                hits.setdefault(note, set()).add(number)
    if not hits:
        return
    said = [list(_predicted(o, target, (rule,))) for o in fine]
    kept = []
    for note, numbers in hits.items():
        if all(_is_answer(o, target, a) for o, says in zip(fine, said, strict=True) for n, a in says if n == note):
            kept.append(_Partly(rule, note, frozenset(numbers)))
    yield from sorted(kept, key=lambda p: -len(p.covers))
    union = frozenset().union(*hits.values())
    harmless = all(
        not says or any(_is_answer(o, target, a) for _, a in says) for o, says in zip(fine, said, strict=True)
    )
    if harmless and all(len(union) > len(p.covers) for p in kept):
        yield _Partly(rule, None, union)


def _predicted(outcome: Outcome, target: str, rules: tuple[Rule, ...]) -> Iterator[tuple[str, Array]]:
    try:
        for result in outcomes(way(target), outcome.probe.given, rules, _VARIANTS):
            yield "; ".join(n for n in result.notes if n), result.array
    except (FloatingPointError, AssertionError, TypeError):  # no such thing on this probe
        return


def _is_answer(outcome: Outcome, target: str, array: Array) -> bool:
    scale = magnitude(right(outcome.probe.given, target))
    answer = outcome.answers[target]
    if array.size == 0 or answer.values.size == 0:
        return array.shape == answer.shape
    return answer.fits(array, scale)


def _grouped(whole: Sequence[_Partly], target: str) -> list[Match]:
    """One match: mistakes that agree on every probe cannot be told apart, and the commonest is named."""
    first = min(whole, key=lambda p: (p.note is None, LIBRARY.index(p.rule)))
    same = tuple(dict.fromkeys(p.rule.id for p in whole if p.rule.id != first.rule.id))
    return [Match(target, (first.rule,), (first.note or "",), same, len(first.covers))]


def _cover(parts: Sequence[_Partly], target: str, wrong: Sequence[Outcome]) -> Match | None:
    """A few mistakes that explain all probes: each some, the rest together."""
    chosen: list[_Partly] = []
    left = set(range(len(wrong)))
    pool = sorted(parts, key=lambda p: (-len(p.covers), LIBRARY.index(p.rule)))
    while left and len(chosen) < _MOST:
        known = {p.rule.id for p in chosen}
        best = max((p for p in pool if p.rule.id not in known), key=lambda p: len(p.covers & left), default=None)
        if best is None or not best.covers & left:
            break
        chosen.append(best)
        left -= best.covers
        rules = tuple(p.rule for p in chosen)
        if len(chosen) > 1 and all(_together(wrong[n], target, rules) for n in left):
            left = set()
    chosen.sort(key=lambda p: -len(p.covers))
    rules = tuple(p.rule for p in chosen)
    if left and (more := _one_more(rules, target, [wrong[n] for n in sorted(left)])):
        rules, left = (*rules, more), set()
    notes = tuple(p.note or "" for p in chosen)
    return None if left else Match(target, rules, notes, (), len(chosen[0].covers))


def _one_more(rules: tuple[Rule, ...], target: str, left: Sequence[Outcome]) -> Rule | None:
    """A mistake that never shows alone, because one of the others is made on every probe that it changes."""
    if not rules or len(rules) >= _MOST + 1:
        return None
    for rule in rules_for(left[0].probe.given.kind, target):
        if rule.id not in {r.id for r in rules} and all(_together(o, target, (*rules, rule)) for o in left):
            return rule
    return None


def _together(outcome: Outcome, target: str, rules: tuple[Rule, ...]) -> bool:
    """Whether one of these mistakes, or several of them at once, give this answer."""
    for size in range(1, len(rules) + 1):
        for some in combinations(rules, size):
            for ordered in permutations(some):
                if any(_is_answer(outcome, target, a) for _, a in _predicted(outcome, target, ordered)):
                    return True
    return False


def _all_say_wrong(outcome: Outcome, target: str, rules: tuple[Rule, ...]) -> bool:
    """Whether every variant of one of the mistakes would show on a probe where the code is right."""
    for rule in rules:
        says = [a for _, a in _predicted(outcome, target, (rule,))]
        if says and not any(is_right(outcome.probe.given, target, a) for a in says):
            return True
    return False


def _pairs(wrong: Sequence[Outcome], fine: Sequence[Outcome], target: str, seconds: float) -> list[Match]:
    cases = [Case(o.probe.given, o.answers[target]) for o in wrong if np.isfinite(o.answers[target].values).all()]
    if not cases or seconds <= 0:
        return []
    fits, _ = two_mistakes(cases, target, seconds)
    found = []
    for fit in fits:
        rules = tuple(next(r for r in rules_for(cases[0].given.kind, target) if r.id == i) for i in fit.ids)
        found.append(Match(target, rules, fit.notes, (), len(wrong)))
    return [m for m in found if all(m.explains(o) for o in fine)]


def _ends_in_error(rule: Rule, outcome: Outcome, target: str) -> bool:
    given = outcome.probe.given
    state = State(way(target), given)
    before = {"given": (given,), "terms": (state.sum, given), "result": (state.array, given)}[rule.stage]
    try:
        changed = rule.change(*before)
        if changed is not None and not isinstance(changed, Given | Terms | np.ndarray):
            list(changed)
    except (ValueError, IndexError):
        return True
    return False
