"""From what a person's code makes of the probes to a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sharedgrad.checking.code import findings, shrink
from sharedgrad.checking.code.conditions import Condition, mostly, separating
from sharedgrad.checking.code.findings import explanation, in_words
from sharedgrad.checking.code.match import Match, matches
from sharedgrad.checking.code.observe import Outcome
from sharedgrad.checking.code.probes import Probe, Subject
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.report import Explanation, Report, joined

Run = Callable[[Probe], Outcome]
_STATE = ("grad_not_zeroed", "second_call_differs", "wrong_dtype")  # other faults may follow from these


@dataclass(frozen=True)
class Finding:
    """One fault with what it says about further probes.

    Attributes:
        explanation: In words.
        matches: The wrong procedures that it consists of, by array.
        conditions: Where the code fails, if that is what it says; they hold on all numbers tried.
    """

    explanation: Explanation
    matches: tuple[Match, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def holds(self, outcome: Outcome) -> bool:
        """Whether a further probe bears it out."""
        return all(m.explains(outcome) for m in self.matches)


def judge(found: Sequence[Outcome], subject: Subject, run: Run, further: Sequence[Outcome], seconds: float) -> Report:
    """The report on a person's code.

    Args:
        found: What it made of the probes.
        subject: The layer it is compared with.
        run: Runs it once more.
        further: What it made of further probes, which no explanation was looked for on.
        seconds: For pairs of mistakes, where no single one fits.
    """
    faults = list(findings.findings(found, run(_without_upstream(found[0].probe))))
    remarks = [r for r in (findings.lesser_types(found),) if r]
    bad = [o for o in found if o.bad]
    if not bad:
        count = sum(1 for o in (*found, *further) if o.ran)
        return _when_right(found, faults, (*remarks, f"Tried on {count} sets of numbers."))
    if all(o.ran and not o.missing and _finite(o) for o in found) and (report := _by_convention(found)):
        return replace(report, remarks=(*report.remarks, *remarks)) if not faults else replace(
            report, verdict="wrong", explanations=(*faults, *report.explanations), remarks=(*report.remarks, *remarks)
        )  # fmt: skip
    named = _named(found, [*found, *further], 0.0 if any(o.second == "differs" for o in found) else seconds)
    named, dropped = _verified(named, further)
    state = [e for e in faults if e.id in _STATE]
    covered = {t for e in faults if e.id == "shape_broadcasts" for t in e.arrays}
    shown = [f.explanation for f in named if f.explanation.id != "wrong_shape" or set(f.explanation.arrays) - covered]
    explanations = [*state, *shown, *(e for e in faults if e not in state)]
    remarks += _where(found, named, dropped)
    smallest = shrink.smallest(_shown(bad, named), subject, run, _alike(_shown(bad, named), named))
    return _report(smallest, explanations, remarks)


def _without_upstream(probe: Probe) -> Probe:
    return replace(probe, given=probe.given.replaced(dy=np.zeros_like(probe.given["dy"])))


def _finite(outcome: Outcome) -> bool:
    return all(np.isfinite(a.values).all() for a in outcome.answers.values())


def _trial(outcome: Outcome) -> Trial:
    return Trial(outcome.probe.given, outcome.answers)


def _when_right(found: Sequence[Outcome], faults: list[Explanation], remarks: Sequence[str]) -> Report:
    report = diagnose([_trial(o) for o in found[:1]], False, 0.0)
    verdict = "wrong" if faults else "right"
    return replace(report, verdict=verdict, explanations=tuple(faults), remarks=tuple(r for r in remarks if r))


def _by_convention(found: Sequence[Outcome]) -> Report | None:
    """Right under a convention that holds on every probe, or two readings that nobody can tell apart."""
    report = diagnose([_trial(o) for o in found], True, 0.0)
    return report if report.verdict in ("right under a convention", "cannot tell") else None


# ---- naming


def _named(found: Sequence[Outcome], every: Sequence[Outcome], seconds: float) -> list[Finding]:
    """Mistakes that reproduce the numbers; where there are none, the settings at which the code fails.

    Settings must separate all outcomes, also those that mistakes are only tried on afterwards.
    """
    bad = [o for o in found if o.bad]
    if not any(o.ran for o in found):
        return _failures(bad, ())
    where = separating([o for o in every if o.bad], [o for o in every if not o.bad])
    if where and any(c.id == "padding_hard_coded" for c in where) and len({c.id for c in where}) == 1:
        return _at(where, bad)
    targets = list(dict.fromkeys(t for o in bad for t in o.wrong))
    zeros = [t for t in targets if not any(o.answers[t].values.any() for o in found if t in o.answers)]
    per_target = {t: matches(found, t, seconds / len(targets)) for t in targets if t not in zeros}
    named = [*_all_zeros(zeros), *_merged({t: m for t, m in per_target.items() if m})]
    crashes = [o for o in bad if not o.ran and not _borne_out(o, named)]
    left = [t for t, m in per_target.items() if not m]
    if not crashes and not left:
        return named
    known = {i for f in named for i in f.explanation.id.split(" + ")}
    always = mostly([o for o in every if o.bad], [o for o in every if not o.bad]) if not named else ()
    if crashes:
        silent = [o for o in every if not o.ran and not _borne_out(o, named)]
        where = separating(silent, [o for o in every if o.ran]) or always
        named += [f for f in _failures(crashes, where) if f.explanation.id not in known]
    if left:
        known |= {f.explanation.id for f in named}
        named += [f for f in _unexplained(every, left, always) if f.explanation.id not in known]
    return named


def _borne_out(crash: Outcome, named: Sequence[Finding]) -> bool:
    """Whether a mistake that is named anyhow ends in an error here as well."""
    raised = crash.failure is not None and crash.failure["type"] in ("ValueError", "IndexError")
    return raised and any(m.refuses(crash) for f in named for m in f.matches)


def _merged(per_target: dict[str, list[Match]]) -> list[Finding]:
    """One finding for each mistake, with all arrays that it explains."""
    groups: dict[str, list[tuple[Match, int]]] = {}
    shared = [{r.id for r in m.rules} | set(m.same) for ms in per_target.values() for m in ms[:1]]
    for found in per_target.values():
        for match in found[:1]:
            for place, rule in enumerate(match.rules):
                id = rule.id
                if len(match.rules) == 1 and match.same:
                    id = max((id, *match.same), key=lambda i: sum(i in ids for ids in shared))
                groups.setdefault(id, []).append((match, place))
    named = []
    for id, hits in groups.items():
        notes = "; ".join(dict.fromkeys(m.notes[p] for m, p in hits if p < len(m.notes) and m.notes[p]))
        same = [i for m, _ in hits for i in (m.rules[0].id, *m.same) if i != id and len(m.rules) == 1]
        arrays = tuple(dict.fromkeys(m.target for m, _ in hits))
        words = explanation(id, arrays, notes, tuple(dict.fromkeys(same)))
        weight = sum(m.covered for m, place in hits if place == 0)
        named.append((weight, Finding(words, tuple(m for m, _ in hits))))
    named.sort(key=lambda pair: -pair[0])
    return [finding for _, finding in named]


def _all_zeros(targets: list[str]) -> list[Finding]:
    notes = "all zeros, on every set of numbers"
    id = "dx_not_implemented" if targets == ["dx"] else "gradient_missing"
    return [Finding(explanation(id, targets, notes))] if targets else []


def _failures(crashes: Sequence[Outcome], where: tuple[Condition, ...]) -> list[Finding]:
    """Why it does not come back: the settings at which it fails, or the failure itself."""
    if where:
        return _at(where, crashes)
    kinds: dict[str, Outcome] = {}
    for outcome in crashes:
        assert outcome.failure is not None
        kinds.setdefault(findings.FAILURES.get(str(outcome.failure["kind"]), "crashes"), outcome)
    return [Finding(explanation(id, notes=_told(o))) for id, o in kinds.items()]


def _at(where: tuple[Condition, ...], bad: Sequence[Outcome]) -> list[Finding]:
    found = []
    for condition in where:
        here = [o for o in bad if condition.holds(o.probe)]
        failed = next((o for o in here if not o.ran), None)
        id = condition.id
        if id == "square_assumed" and failed is not None and (failed.failure or {}).get("type") == "IndexError":
            id = "wrong_loop_index"  # an index of one axis runs beyond the end of the other
        if id == "crop_minus_zero" and not _leaves_nothing(here):
            id = "padding_expected"
        what = f"it fails where {condition.words}"
        notes = f"{what}: {in_words(failed.failure)}" if failed is not None and failed.failure else what
        arrays = tuple(dict.fromkeys(t for o in here for t in o.wrong))
        found.append(Finding(explanation(id, arrays, notes), (), where))
    return found


def _leaves_nothing(here: Sequence[Outcome]) -> bool:
    """Whether an empty array shows: in the result, or in the message of the failure."""
    empty = any(a.values.size == 0 for o in here for a in o.answers.values())
    return empty or any(o.failure is not None and "0" in str(o.failure["message"]) for o in here)


def _unexplained(
    found: Sequence[Outcome], targets: Sequence[str], always: tuple[Condition, ...]
) -> list[Finding]:
    """What is known of arrays that no known mistake reproduces: where, and whether numbers are missing or shapes off."""
    bad = [o for o in found if any(t in o.wrong for t in targets)]
    fine = [o for o in found if o.ran and o not in bad]
    if where := separating(bad, fine) or always:
        return _at(where, bad)
    if any(not np.isfinite(o.answers[t].values).all() for o in bad for t in targets if t in o.answers):
        return [Finding(explanation("nan_result", targets))]
    shapes = [t for t in targets if all(t in o.shapes for o in bad if t in o.wrong)]
    return [Finding(explanation("wrong_shape", shapes, _shapes_told(bad, shapes)))] if shapes else []


def _shapes_told(bad: Sequence[Outcome], shapes: Sequence[str]) -> str:
    name = shapes[0]
    outcome = next(o for o in bad if name in o.shapes)
    returned, expected = outcome.shapes[name]
    return f"{name} has shape {returned}, expected {expected} ({outcome.probe.words})"


def _told(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return f"{in_words(outcome.failure)}; {outcome.probe.words}"


# ---- what is told besides


def _verified(named: Sequence[Finding], further: Sequence[Outcome]) -> tuple[list[Finding], list[Finding]]:
    """Try the findings on probes that they were not made from: what fails there is not named.

    A mistake holds if, carried out on the right calculation, it gives the code's own numbers there too: then taking it
    out again gives the right ones.
    """
    kept, dropped = [], []
    for finding in named:
        (kept if all(finding.holds(o) for o in further) else dropped).append(finding)
    return kept, dropped


def _where(found: Sequence[Outcome], named: Sequence[Finding], dropped: Sequence[Finding]) -> list[str]:
    remarks = []
    bad, returned = [o for o in found if o.bad], list(dict.fromkeys(n for o in found for n in o.answers))
    if fine := [t for t in returned if not any(t in o.wrong for o in found)]:
        remarks.append(f"{joined(fine)}: right wherever the code returns.")
    remarks.append(f"{len(bad)} of {len(found)} sets of numbers go wrong.")
    told = {t for f in named for t in f.explanation.arrays}
    left = [t for t in returned if any(t in o.wrong for o in bad) and t not in told]
    if left and all(f.explanation.arrays for f in named):
        remarks.append(f"{joined(left)}: no known mistake gives these numbers on all of them, nor two together.")
    if any(f.matches for f in named):
        remarks.append("Further numbers, which the search had not seen, bear this out.")
    for finding in dropped:
        title = finding.explanation.title
        remarks.append(
            f"“{title}” would explain these numbers, but not further ones: it is not the mistake, or not all."
        )
    return remarks


def _shown(bad: Sequence[Outcome], named: Sequence[Finding]) -> Outcome:
    """The bad outcome to show: one with wrong numbers before one that does not come back, small before large."""
    first = named[0].explanation.arrays if named else ()

    def rank(o: Outcome) -> tuple[bool, bool, int, int]:
        empty = sum(a.values.size == 0 for a in o.answers.values())
        return not o.ran, not any(t in o.wrong for t in first), empty, o.weight

    return min(bad, key=rank)


def _alike(start: Outcome, named: Sequence[Finding]) -> Callable[[Outcome], bool]:
    """Whether a smaller case goes wrong in the same way."""
    first = named[0] if named else None
    matched = first.matches if first else ()

    def alike(outcome: Outcome) -> bool:
        if start.ran != outcome.ran:
            return False
        if not start.ran:
            assert start.failure is not None and outcome.failure is not None
            return bool(
                start.failure["type"] == outcome.failure["type"] and start.failure["line"] == outcome.failure["line"]
            )
        wanted = [m.target for m in matched if m.target in start.wrong] or list(start.wrong)
        emptied = any(a.values.size == 0 and start.answers[t].values.size for t, a in outcome.answers.items())
        return not emptied and all(t in outcome.wrong for t in wanted) and all(m.explains(outcome) for m in matched)

    return alike


def _report(shown: Outcome, explanations: Sequence[Explanation], remarks: Sequence[str]) -> Report:
    case = f"The smallest case found: {shown.probe.words}."
    if not shown.ran:
        return Report(
            "wrong", tuple(explanations), (), (), (*remarks, case, f"It says: {_said(shown)}."), shown.probe.given
        )
    report = diagnose([_trial(shown)], False, 0.0)
    return replace(report, verdict="wrong", explanations=tuple(explanations), remarks=(*remarks, case))


def _said(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return in_words(outcome.failure).rstrip(".")
