"""From answers to a verdict.

Right; or right under a convention that fits everything given; or a false alarm that can be proved; or wrong, with the
mistakes that reproduce the numbers; or, where two readings survive, that nobody can tell from these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sharedgrad.checking import distinguish, innocence
from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.columns import MOST_ROWS
from sharedgrad.checking.conventions import Convention, conventions
from sharedgrad.checking.given import Given
from sharedgrad.checking.report import ArrayReport, Explanation, Report, Verdict, joined
from sharedgrad.checking.right import UPDATES, magnitude, right, too_large, total
from sharedgrad.checking.search import Case, Fit, one_mistake, two_mistakes
from sharedgrad.checking.structure import structure
from sharedgrad.errors import SharedgradError
from sharedgrad.uses.terms import Terms

Progress = Callable[[float], None]
_LONGEST = 200  # characters of an array in a sentence


@dataclass(frozen=True)
class Trial:
    """One set of numbers with what a person, or a person's code, made of them.

    Attributes:
        given: The layer and its numbers.
        answers: Array name -> answer.
        failure: What happened instead, in words; empty if there are answers.
        earlier_wrong: Names of arrays among ``given`` that are the person's own and wrong.
    """

    given: Given
    answers: Mapping[str, Answer]
    failure: str = ""
    earlier_wrong: tuple[str, ...] = ()


def diagnose(
    trials: Sequence[Trial], use_conventions: bool = True, seconds: float = 10.0, progress: Progress | None = None
) -> Report:
    """Judge the answers; several trials are judged together, as the work of one person.

    Args:
        trials: Numbers on paper are one; code is run on many.
        use_conventions: Whether other conventions may make it right.
        seconds: At most this long for pairs of mistakes in one array, all arrays together.
        progress: Called with the part of the pairs that has been tried.
    """
    trials = [_decided(t) for t in trials if t.answers]
    names = [n for n in trials[0].answers if any(n in t.answers for t in trials)] if trials else []
    arrays = tuple(_beside(trials[0], name) for name in names)
    wrong = [n for n in names if not all(_fits(t, n) for t in trials if n in t.answers)]
    if not wrong and (loose := _loosely_right(trials)):
        return Report("cannot tell", loose, arrays, loose, given=_given(trials))
    if not wrong:
        saturated = innocence.saturated(trials[0])
        verdict: Verdict = "not a mistake" if saturated else "right"
        return Report(verdict, saturated, arrays, given=_given(trials))
    if use_conventions and (report := _under_a_convention(trials, names, wrong, arrays)):
        return report
    alarms = innocence.false_alarms(trials, wrong)
    at_a_kink = any(e.id == "kink_gradcheck" for e in alarms)
    if alarms and not (at_a_kink and all(_single(trials, wrong).values())):
        return Report("not a mistake", alarms, arrays, given=_given(trials))
    return _wrong(trials, wrong, arrays, seconds, progress)


def _decided(trial: Trial) -> Trial:
    """Small arrays with fewer digits than the rest: read strictly where a mistake then gives exactly these numbers."""
    decided = {}
    for name, answer in trial.answers.items():
        strict = answer.strictly()
        if strict.strict and _fits(trial, name):
            exact = replace(trial, answers={name: strict})
            if not _fits(exact, name) and one_mistake(_cases([exact], name), name):
                decided[name] = strict
    return replace(trial, answers={**trial.answers, **decided})


def _loosely_right(trials: Sequence[Trial]) -> tuple[Explanation, ...]:
    """Two readings, where a small array is right only if it was rounded more than the person's other answers."""
    names = [
        name
        for trial in trials
        for name, answer in trial.answers.items()
        if not answer.strict and not _fits(replace(trial, answers={name: answer.strictly()}), name)
    ]
    if not names:
        return ()
    arrays = tuple(dict.fromkeys(names))
    return (
        Explanation("rounded_more", "right, but rounded to fewer digits than the rest", arrays, sort="convention"),
        Explanation("unexplained", "wrong by a little, with as many digits as the rest", arrays),
    )


def _given(trials: Sequence[Trial]) -> Given | None:
    return trials[0].given if trials else None


def _fits(trial: Trial, name: str, given: Given | None = None, convention: Convention | None = None) -> bool:
    try:
        result = right(given or trial.given, name)
    except (SharedgradError, ValueError, IndexError):
        return False
    array = total(result)
    if convention:
        array = convention.back(name, array)
    return trial.answers[name].fits(array, magnitude(result))


def _beside(trial: Trial, name: str) -> ArrayReport:
    answer = trial.answers[name]
    result = right(trial.given, name)
    array = total(result)
    mask = answer.wrong_cells(array, magnitude(result))
    same_shape = bare(answer.shape) == bare(array.shape)
    words = structure(answer, array, trial.given, name) if mask.any() else ()
    report = ArrayReport(name, answer.values, array, mask, words, bool(trial.earlier_wrong))
    cell = report.first_wrong
    terms = None
    if same_shape and cell is not None and isinstance(result, Terms):
        terms = result.of(*cell)
    return ArrayReport(name, answer.values, array, mask, words, bool(trial.earlier_wrong), terms)


# ---- conventions


def _under_a_convention(
    trials: Sequence[Trial], names: list[str], wrong: list[str], arrays: tuple[ArrayReport, ...]
) -> Report | None:
    fitting = _fitting_conventions(trials, names)
    if not fitting:
        return None
    explanations = tuple(_convention(c, wrong) for c in fitting)
    if any(_shows(chain, trials[0], names) for chain in fitting):
        return Report("right under a convention", explanations, arrays, given=_given(trials))
    mistakes = _single(trials, wrong)
    if not all(mistakes.values()):
        return Report("right under a convention", explanations, arrays, given=_given(trials))
    readings = (*explanations, *_explanations(mistakes, trials))
    missing = sorted({name for chain in fitting for c in chain for name in c.shows_in if name not in names})
    remark = f"With {joined(missing)} as well, the readings could be told apart." if missing else ""
    return Report("cannot tell", readings, arrays, readings, (remark,) if remark else (), given=_given(trials))


def _fitting_conventions(trials: Sequence[Trial], names: list[str]) -> list[tuple[Convention, ...]]:
    """Conventions, alone or two together, that make every array of every trial right."""
    alone = list(conventions(trials[0].given))
    chains: list[tuple[Convention, ...]] = [(c,) for c in alone]
    chains += [(c, d) for c in alone for d in conventions(c.given) if c.id < d.id]
    fitting: list[tuple[Convention, ...]] = []
    for chain in chains:
        if any({c.id for c in known} <= {c.id for c in chain} for known in fitting):
            continue
        if all(_fits_chain(trial, name, chain) for trial in trials for name in names if name in trial.answers):
            fitting.append(chain)
    return fitting[:3]


def _fits_chain(trial: Trial, name: str, chain: tuple[Convention, ...]) -> bool:
    given, back = trial.given, list[Convention]()
    for wanted in chain:
        found = next((c for c in conventions(given) if c.id == wanted.id), None)
        if found is None:
            return False
        given, back = found.given, [found, *back]
    try:
        result = right(given, name)
    except (SharedgradError, ValueError, IndexError):
        return False
    array = total(result)
    for convention in back:
        array = convention.back(name, array)
    return trial.answers[name].fits(array, magnitude(result))


def _shows(chain: tuple[Convention, ...], trial: Trial, names: list[str]) -> bool:
    """Whether everything that tells these conventions from mistakes has been given."""
    return all(set(c.shows_in) <= set(names) or not c.shows_in for c in chain)


def _convention(chain: tuple[Convention, ...], wrong: list[str]) -> Explanation:
    title = "; ".join(c.title for c in chain)
    return Explanation(" + ".join(c.id for c in chain), title, tuple(wrong), sort="convention")


# ---- mistakes


def _cases(trials: Sequence[Trial], name: str) -> list[Case]:
    return [Case(t.given, t.answers[name]) for t in trials if name in t.answers]


def _single(trials: Sequence[Trial], wrong: list[str]) -> dict[str, list[Fit]]:
    return {name: one_mistake(_cases(trials, name), name) for name in wrong}


def _wrong(
    trials: Sequence[Trial],
    wrong: list[str],
    arrays: tuple[ArrayReport, ...],
    seconds: float,
    progress: Progress | None,
) -> Report:
    found = _single(trials, wrong)
    if not all(found.values()) and len(trials) == 1 and innocence.other_upstream(trials[0], wrong) is not None:
        alarm = innocence.explanation("upstream_already_wrong", wrong)
        return Report("not a mistake", (alarm,), arrays, given=_given(trials))
    remarks = list(_remarks(trials, wrong, arrays))
    open_ = [name for name in wrong if not found[name]]
    for name in open_:
        found[name], complete = two_mistakes(_cases(trials, name), name, seconds / len(open_), progress)
        if not found[name]:
            limit = "" if complete else f" in {seconds / len(open_):.0f} s"
            remarks.append(f"{name}: no known mistake gives these numbers, nor any two tried together{limit}.")
    if too_large(trials[0].given) and not all(found.values()):
        remarks = [r for r in remarks if "no known mistake" not in r]
        remarks.append(f"There are more than {MOST_ROWS:,} products here: too many to try mistakes on. Take fewer.")
    explanations = _explanations(found, trials)
    remarks += _ambiguities(trials[0].given, explanations)
    return Report("wrong", explanations, arrays, (), tuple(remarks), given=_given(trials))


def _ambiguities(given: Given, explanations: Sequence[Explanation]) -> list[str]:
    """What these numbers cannot tell apart, with numbers that can."""
    remarks = []
    for e in explanations[:2]:
        rivals = [r.split(" + ") for r in e.same]
        rivals += [o.id.split(" + ") for o in explanations if o is not e and set(o.arrays) & set(e.arrays)]
        for rival in rivals[:2]:
            target = UPDATES.get(e.arrays[0], e.arrays[0])
            other = distinguish.telling(given, target, tuple(e.id.split(" + ")), tuple(rival))
            names = f"{e.id} and {' + '.join(rival)}"
            if other is None:
                remarks.append(f"{names} are one formula with these settings: no numbers tell them apart.")
            else:
                remarks.append(f"These numbers cannot tell {names} apart; {_numbers(other)} can.")
    return list(dict.fromkeys(remarks))[:2]


def _numbers(given: Given) -> str:
    """The numbers of an exercise in one line."""
    data = distinguish.as_data(given)
    return "; ".join(f"{name} = {_short(value)}" for name, value in data.items())


def _short(value: object) -> str:
    text = str(value).replace(".0,", ",").replace(".0]", "]")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _remarks(trials: Sequence[Trial], wrong: list[str], arrays: tuple[ArrayReport, ...]) -> list[str]:
    remarks = []
    fine = [a.name for a in arrays if a.name not in wrong]
    earlier = trials[0].earlier_wrong
    if fine and earlier:
        remarks.append(f"{joined(fine)}: right for your {joined(earlier)}.")
    elif fine:
        remarks.append(f"{joined(fine)}: right.")
    return remarks


def _explanations(found: Mapping[str, list[Fit]], trials: Sequence[Trial]) -> tuple[Explanation, ...]:
    """One explanation for each mistake, the one that explains most arrays first."""
    ranked: dict[tuple[tuple[str, ...], str], list[tuple[str, Fit]]] = {}
    everywhere = {name: {i for fit in fits for i in fit.group} for name, fits in found.items()}
    for name, fits in found.items():
        for fit in fits:
            shared = max(fit.group, key=lambda ids: sum(ids in other for other in everywhere.values()))
            ranked.setdefault((shared, ""), []).append((name, fit))
    explanations = []
    for (ids, _), hits in ranked.items():
        names = tuple(dict.fromkeys(name for name, _ in hits))
        fit = min((f for _, f in hits), key=lambda f: f.prior)
        notes = "; ".join(dict.fromkeys(n for _, f in hits for n in f.notes if n))
        same = {i for _, f in hits for i in f.group if i != ids}
        explanations.append((len(names), -fit.prior, _explanation(ids, names, notes, sorted(same), trials)))
    explanations.sort(key=lambda e: (-e[0], -e[1]))
    return tuple(e for *_, e in explanations)


def _explanation(
    ids: tuple[str, ...], names: tuple[str, ...], notes: str, same: list[tuple[str, ...]], trials: Sequence[Trial]
) -> Explanation:
    entries = [catalogue()[i] for i in ids]
    return Explanation(
        " + ".join(ids),
        "; and ".join(e.title for e in entries),
        names,
        " ".join(e.why for e in entries),
        " ".join(e.fix for e in entries),
        notes,
        tuple(" + ".join(s) for s in same),
        verified=all(_verified(t, names) for t in trials),
    )


def _verified(trial: Trial, names: tuple[str, ...]) -> bool:
    """Whether the table of terms, without the mistake, adds up to what the engine computes."""
    from sharedgrad.checking.right import engine

    if trial.given.layer is None:
        return True
    computed = engine(trial.given)
    for name in names:
        base = UPDATES.get(name, name)
        if base in computed and base in trial.answers:
            mine = right(trial.given, base)
            if not np.allclose(total(mine), computed[base], rtol=1e-9, atol=1e-9 * magnitude(mine).max(initial=0.0)):
                return False
    return True
