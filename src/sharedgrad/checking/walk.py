"""A network step by step: forward, then from the loss back; each answer is judged given the earlier ones.

The first wrong answer is explained. What comes after it is judged with the person's own number in its place, so a
right step on a wrong number counts as right. Where an earlier number was not written down, mistakes at the steps
before are tried as well, alone and together with one at the answer itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.conventions import conventions
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.exercise import Exercise
from sharedgrad.checking.given import Given
from sharedgrad.checking.innocence import ROUNDING, looks_rounded
from sharedgrad.checking.network import Chain, Stage
from sharedgrad.checking.report import ArrayReport, Explanation, Report, Verdict, joined
from sharedgrad.checking.right import UPDATES, magnitude, right, total
from sharedgrad.checking.rules import outcomes
from sharedgrad.checking.search import Case, one_mistake, rules_for, way
from sharedgrad.parameter import Array

Progress = Callable[[float], None]
MOST_NUMBERS = 400  # on the way to an answer: beyond that, early rounding is not worked out


@dataclass
class _Judged:
    """One answer's stage, name and report."""

    name: str
    stage: Stage
    report: Report


def check_network(exercise: Exercise, seconds: float = 10.0, progress: Progress | None = None) -> Report:
    """The verdict on all answers of a network."""
    report = _walk(exercise, {}, seconds, progress)
    if report.verdict == "right":
        return report
    for changed, title, id in _other_conventions(exercise):
        other = _walk(exercise, changed, 0.0, None, search=False)
        if other.verdict == "right":
            wrong = tuple(a.name for a in report.arrays if a.wrong.any())
            return replace(
                other,
                verdict="right under a convention",
                explanations=(Explanation(id, title, wrong, sort="convention"),),
            )  # fmt: skip
    return report


def _other_conventions(exercise: Exercise) -> Iterator[tuple[dict[str, dict[str, object]], str, str]]:
    chain = Chain(exercise.calculation)
    for name in chain.order:
        for given, where in [(chain.given(name), name), *((g, "loss") for g in chain.losses(name))]:
            for convention in conventions(given):
                options = {k: v for k, v in convention.given.options.items() if given.options.get(k) != v}
                if options:
                    yield {where: options}, f"{where}: {convention.title}", convention.id


def _walk(
    exercise: Exercise,
    changed: dict[str, dict[str, object]],
    seconds: float,
    progress: Progress | None,
    search: bool = True,
) -> Report:
    chain = Chain(exercise.calculation, {}, exercise.options, changed)
    stages = _ordered(chain, {name: chain.stage(name) for name in exercise.answers})
    own: dict[Stage, Array] = {}
    judged: list[_Judged] = []
    bad: list[str] = []
    for name, stage in stages:
        answer = exercise.answers[name]
        candidates = [chain] if not own else [Chain(exercise.calculation, own, exercise.options, changed), chain]
        report = _stage(candidates, stage, name, answer, tuple(bad), search and not bad, seconds, progress)
        judged.append(_Judged(name, stage, report))
        if stage[1] in ("y", "dy") and stage[0] != "loss" and answer.values.size == _values(chain, stage).size:
            own[stage] = answer.values.reshape(_values(chain, stage).shape)
        if report.verdict in ("wrong", "cannot tell"):
            bad.append(name)
    return _together(judged)


def _values(chain: Chain, stage: Stage) -> Array:
    return chain.value(stage[0])


def _ordered(chain: Chain, stages: dict[str, Stage]) -> list[tuple[str, Stage]]:
    """Forward values in order, then from the last node back: the gradient at an output before the parameters'."""
    place = {name: i for i, name in enumerate([*chain.network.inputs, *chain.order, "loss"])}

    def key(item: tuple[str, Stage]) -> tuple[int, int, int]:
        node, target = item[1]
        if target == "y":
            return 0, place[node], 0
        updates = {"dy": 0}.get(target, 2 if target.endswith("_updated") else 1)
        return 1, -place[node], updates

    return sorted(stages.items(), key=key)


def _stage(
    chains: Sequence[Chain],
    stage: Stage,
    name: str,
    answer: Answer,
    bad: tuple[str, ...],
    search: bool,
    seconds: float,
    progress: Progress | None,
) -> Report:
    """One answer, given the person's own earlier numbers first, then the exact ones."""
    for chain in chains:
        array, size = _right(chain, stage)
        if answer.fits(array, size) and not _strictly_wrong(chain, stage, answer, array, size):
            own = bool(bad) and chain is not chains[-1]
            return Report("right", (), (_beside(name, answer, array, size, own),))
    chain = chains[0]
    array, size = _right(chain, stage)
    shown = _beside(name, answer, array, size, bool(bad))
    if bare(answer.shape) == bare(array.shape) and _early_rounding(chain, stage, answer, array):
        entry = catalogue()["rounding_propagated"]
        alarm = Explanation(entry.id, entry.title, (name,), entry.why, entry.fix, sort="false alarm")
        return Report("not a mistake", (alarm,), (shown,))
    if not search and not bad:
        return Report("wrong", (), (shown,))
    direct = _direct(
        chain,
        stage,
        name,
        _read_as(chain, stage, answer, array, size),
        shown,
        0.0 if _senders(chain, stage) else seconds,
        progress,
    )
    if direct.explanations or direct.verdict == "not a mistake":
        return direct
    found = _before(chain, stage, answer, name, seconds, progress)
    if found:
        return replace(direct, verdict="wrong", explanations=tuple(found), remarks=())
    return direct


def _read_as(chain: Chain, stage: Stage, answer: Answer, array: Array, size: Array) -> Answer:
    return answer.strictly() if answer.fits(array, size) else answer


def _strictly_wrong(chain: Chain, stage: Stage, answer: Answer, array: Array, size: Array) -> bool:
    """Whether a small array fits only as rounded more than the rest, and a mistake gives exactly its numbers."""
    strict = answer.strictly()
    if not strict.strict or strict.fits(array, size):
        return False
    for given, target, base in _givens(chain, stage):
        wanted = strict if base is None else strict.reshaped(*base.shape).minus_from(base)
        if one_mistake([Case(given, wanted)], target):
            return True
    return False


def _senders(chain: Chain, stage: Stage) -> list[str]:
    """Where a mistake may have been made before this stage without being written down."""
    return [n for n in [*chain.order, "loss"] if n != stage[0]]


def _right(chain: Chain, stage: Stage) -> tuple[Array, Array]:
    node, target = stage
    if node == "loss":
        values = [total(right(g, "y")) for n in chain.order for g in chain.losses(n)]
        value = np.array(float(sum(float(v) for v in values)))
        return value, np.abs(value)
    if target == "dy":
        parts = [right(s.given, s.target) for s in chain.senders(node)]
        array = chain.dy(node) if (node, "dy") not in chain.own else _fresh(chain, node)
        size = sum((magnitude(p).reshape(array.shape) for p in parts), np.abs(array))
        return array, size
    given = chain.given(node)
    if target.endswith("_updated"):
        return _updated(given, target)
    result = right(given, target)
    return total(result), magnitude(result)


def _fresh(chain: Chain, node: str) -> Array:
    """The gradient at a node's output from its readers, without the person's own one."""
    own = {stage: array for stage, array in chain.own.items() if stage != (node, "dy")}
    return Chain(chain.calculation, own, chain.options, chain.changed).dy(node)


def _updated(given: Given, target: str) -> tuple[Array, Array]:
    name = target.removesuffix("_updated")
    gradient = right(given, f"d{name}")
    rate = given.options.get("learning_rate", 1.0)
    return given[name] - rate * total(gradient), np.abs(given[name]) + rate * magnitude(gradient)


def _beside(name: str, answer: Answer, array: Array, size: Array, own: bool) -> ArrayReport:
    return ArrayReport(name, answer.values, array, answer.wrong_cells(array, size), (), own)


# ---- explaining one stage


def _direct(
    chain: Chain,
    stage: Stage,
    name: str,
    answer: Answer,
    shown: ArrayReport,
    seconds: float,
    progress: Progress | None,
) -> Report:
    """Mistakes at the stage itself, by the numbers that it is given."""
    for given, target, base in _givens(chain, stage):
        wanted = answer if base is None else answer.reshaped(*base.shape).minus_from(base)
        report = diagnose([Trial(given, {target: wanted})], False, seconds, progress)
        if report.explanations:
            named = tuple(replace(e, arrays=(name,)) for e in report.explanations)
            inner = report.arrays[0]
            shown = replace(shown, structure=inner.structure, terms=inner.terms)
            return replace(report, explanations=named, arrays=(shown,))
        shown = replace(shown, structure=report.arrays[0].structure, terms=report.arrays[0].terms)
    remark = f"{name}: no known mistake gives these numbers."
    return Report("wrong", (), (shown,), (), (remark,))


def _givens(chain: Chain, stage: Stage) -> Iterator[tuple[Given, str, Array | None]]:
    """The numbers that lead to this stage in one step, the array that they lead to, and the base of an update."""
    node, target = stage
    if node == "loss":
        yield from ((g, "y", None) for n in chain.order for g in chain.losses(n))
    elif target == "dy":
        senders = chain.senders(node)
        if len(senders) == 1 and node not in chain.calculation.upstream:
            yield senders[0].given, senders[0].target, None
        elif len(senders) > 1:
            parts = np.stack([total(right(s.given, s.target)) for s in senders])
            yield Given("branch", {"x": chain.value(node), "dy": parts}), "dx", None
    elif target.endswith("_updated"):
        given = chain.given(node)
        yield given, target, given[target.removesuffix("_updated")]
    else:
        yield chain.given(node), target, None


def _before(
    chain: Chain, stage: Stage, answer: Answer, name: str, seconds: float, progress: Progress | None
) -> list[Explanation]:
    """Mistakes at earlier steps that were not written down, alone or together with one at the stage itself."""
    node, target = stage
    if target == "y" or node == "loss":
        return []
    _, size = _right(chain, stage)
    end = time.monotonic() + seconds
    changes = list(_changes(chain, node))
    found = [
        _explanation((id,), (note,), name, where)
        for where, id, note, difference in changes
        if answer.fits(_after(chain, stage, difference), size)
    ]
    if found or target == "dy":
        return found
    pairs = []
    for number, (where, id, note, difference) in enumerate(changes):
        if time.monotonic() > end:
            break
        if progress:
            progress(number / len(changes))
        given = chain.given(node, chain.dy(node) + difference)
        base = UPDATES.get(target, target)
        for r in rules_for(given.kind, base):
            for outcome in outcomes(way(base), given, (r,), 8):
                array = outcome.array
                if target in UPDATES:
                    array = given[target[0]] - given.options.get("learning_rate", 1.0) * array
                if answer.fits(array, size):
                    pairs.append(_explanation((id, r.id), (note, *outcome.notes), name, where))
    return list({e.id: e for e in pairs}.values())


def _changes(chain: Chain, node: str) -> Iterator[tuple[str, str, str, Array]]:
    """(where, mistake, note, change of the gradient at ``node``'s output) for every mistake at an earlier step."""
    for start in reversed([n for n in [*chain.network.inputs, *chain.order] if n == node or node in chain.below(n)]):
        if (start, "dy") in chain.own:
            continue
        for given, target, _ in _givens(chain, (start, "dy")):
            good = total(right(given, target))
            for r in rules_for(given.kind, target):
                for outcome in outcomes(way(target), given, (r,), 8):
                    if outcome.array.size != good.size:
                        continue
                    difference = (outcome.array.reshape(good.shape) - good).reshape(chain.value(start).shape)
                    if np.abs(difference).max(initial=0.0) > 1e-12:
                        yield start, r.id, outcome.notes[0], chain.carried(start, difference, node)


def _after(chain: Chain, stage: Stage, difference: Array) -> Array:
    node, target = stage
    if target == "dy":
        return _right(chain, stage)[0] + difference
    given = chain.given(node, chain.dy(node) + difference)
    return _updated(given, target)[0] if target.endswith("_updated") else total(right(given, target))


def _explanation(ids: tuple[str, ...], notes: tuple[str, ...], name: str, where: str) -> Explanation:
    entries = [catalogue()[i] for i in ids]
    words = [f"at {where}", *(n for n in notes if n)]
    return Explanation(
        " + ".join(ids), "; and ".join(e.title for e in entries), (name,),
        " ".join(e.why for e in entries), " ".join(e.fix for e in entries), "; ".join(words),
    )  # fmt: skip


# ---- early rounding along the chain, by interval arithmetic


def _early_rounding(chain: Chain, stage: Stage, answer: Answer, array: Array) -> bool:
    """Whether the answer lies within what rounding or cutting every gradient on the way allows.

    Going back is linear, so a change of each number on the way by at most one unit of its last digit moves the result
    by at most Σ |∂result/∂number| units: that sum is the bound.
    """
    if answer.computed or not answer.most_decimals or stage[0] == "loss" or stage[1].endswith("_updated"):
        return False
    if not looks_rounded(answer, array):
        return False
    reach = _reach(chain, stage, array)
    off = np.abs(answer.values.reshape(array.shape) - array)
    limit = ROUNDING * np.abs(array).max(initial=0.0)
    for decimals in range(min(answer.most_decimals, 8), 1, -1):
        bound = reach * 10.0**-decimals + 10.0**-answer.most_decimals
        if bound.max(initial=0.0) > limit:
            return False
        if (off <= bound).all():
            return True
    return False


def _reach(chain: Chain, stage: Stage, array: Array) -> Array:
    """For each number of a stage: by how many units it moves, if every gradient before it is off by one unit."""
    node, target = stage
    reach = np.zeros(array.shape)
    starts = [n for n in chain.order if (n == node and target != "dy") or node in chain.below(n)]
    starts = [n for n in starts if (n, "dy") not in chain.own]
    if sum(chain.value(n).size for n in starts) > MOST_NUMBERS:
        return np.full(array.shape, np.inf)
    for start in starts:
        for change in np.eye(chain.value(start).size).reshape(-1, *chain.value(start).shape):
            carried = change if start == node else chain.carried(start, change, node)
            reach += np.abs(_after(chain, stage, carried) - array)
    return reach


def _together(judged: Sequence[_Judged]) -> Report:
    """One report of all stages: the verdict, the first wrong one's explanation, what follows from it."""
    arrays = tuple(j.report.arrays[0] for j in judged)
    wrong = [j for j in judged if j.report.verdict == "wrong"]
    unsure = [j for j in judged if j.report.verdict == "cannot tell"]
    alarms = [j for j in judged if j.report.verdict == "not a mistake"]
    verdict: Verdict = "wrong" if wrong else "cannot tell" if unsure else "not a mistake" if alarms else "right"
    explained = wrong or unsure or alarms
    remarks = [r for j in explained for r in j.report.remarks]
    if wrong:
        first = wrong[0]
        remarks.insert(0, f"{first.name} is the first wrong number on the way.")
        given = [j.name for j in judged if j.report.arrays[0].given_earlier and j.report.verdict == "right"]
        if given:
            remarks.append(f"{joined(given)}: right for your {first.name}.")
    explanations = _merged([e for j in explained for e in j.report.explanations])
    readings = tuple(e for j in unsure for e in j.report.readings)
    return Report(verdict, explanations, arrays, readings, tuple(dict.fromkeys(remarks)))


def _merged(explanations: Sequence[Explanation]) -> tuple[Explanation, ...]:
    merged: dict[tuple[str, str], Explanation] = {}
    for e in explanations:
        key = (e.id, e.notes)
        old = merged.get(key)
        merged[key] = e if old is None else replace(old, arrays=tuple(dict.fromkeys((*old.arrays, *e.arrays))))
    return tuple(merged.values())
