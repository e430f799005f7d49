"""False alarms: answers that differ from the right ones for a reason that is no mistake, each proved by numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.columns import flat
from sharedgrad.checking.given import Given
from sharedgrad.checking.report import Explanation
from sharedgrad.checking.right import magnitude, right, total
from sharedgrad.parameter import Array
from sharedgrad.uses.terms import Terms

if TYPE_CHECKING:
    from sharedgrad.checking.diagnosis import Trial

KINK = 1e-3  # nearer than this part of the largest input: a finite difference may cross it
ROUNDING = 0.05  # early rounding must not move a number by more than this part of the largest
_SATURATED = 15.0


def false_alarms(trials: Sequence[Trial], wrong: Sequence[str]) -> tuple[Explanation, ...]:
    """What explains every wrong array of every trial without a mistake; nothing if one is left."""
    found: dict[str, list[str]] = {}
    for name in wrong:
        ids = {_reason(trial, name) for trial in trials if name in trial.answers and not _is_right(trial, name)}
        if len(ids) != 1 or None in ids:
            return ()
        found.setdefault(str(ids.pop()), []).append(name)
    return tuple(explanation(id, names) for id, names in found.items())


def saturated(trial: Trial) -> tuple[Explanation, ...]:
    """Zeros that are right to all digits because a unit is saturated."""
    given = trial.given
    if given.kind not in ("sigmoid", "tanh") or "dx" not in trial.answers:
        return ()
    answer = trial.answers["dx"].values.reshape(given["x"].shape)
    zero = (answer == 0) & (given["dy"] != 0) & (np.abs(given["x"]) > _SATURATED)
    return (explanation("saturation_underflow", ["dx"]),) if zero.any() else ()


_MOST_EQUATIONS = 4000


def other_upstream(trial: Trial, wrong: Sequence[str]) -> Array | None:
    """An upstream gradient for which every wrong gradient is right; None if there is none, or if any would do.

    dw, db and dx are linear in dy: with more equations than unknowns, a solution is no accident.
    """
    given = trial.given
    names = [n for n in wrong if n in ("dw", "db", "dx")]
    if "dy" not in given or len(names) != len(wrong) or len(names) < 2:
        return None
    sizes = [trial.answers[n].values.size for n in names]
    equations, unknowns = sum(sizes), given["dy"].size
    if not unknowns < equations <= _MOST_EQUATIONS or unknowns > _MOST_EQUATIONS // 8:
        return None
    rows = []
    for name in names:
        result = right(given, name)
        if not isinstance(result, Terms) or bare(result.shape) != bare(trial.answers[name].shape):
            return None
        rows.append(_matrix(result, unknowns))
    values = np.concatenate([trial.answers[n].values.reshape(-1) for n in names])
    dy = np.linalg.lstsq(np.concatenate(rows), values, rcond=None)[0].reshape(given["dy"].shape)
    other = given.replaced(dy=dy)
    fits = all(trial.answers[n].fits(total(right(other, n)), magnitude(right(other, n))) for n in names)
    return dy if fits else None


def _matrix(result: Terms, unknowns: int) -> Array:
    """The terms as a matrix on dy: each row is one number of the result."""
    dy = result.factors["dy"]
    matrix = np.zeros((int(np.prod(result.shape)), unknowns))
    np.add.at(matrix, (result.cell, dy.index), _others(result))
    return matrix


def _others(result: Terms) -> Array:
    ones = np.ones(len(result)) if result.coefficient is None else result.coefficient
    for name, factor in result.factors.items():
        ones = ones * (factor.values if name != "dy" else 1.0)
    return ones


def _is_right(trial: Trial, name: str) -> bool:
    result = right(trial.given, name)
    return trial.answers[name].fits(total(result), magnitude(result))


def _reason(trial: Trial, name: str) -> str | None:
    answer, given = trial.answers[name], trial.given
    result = right(given, name)
    array = total(result)
    if bare(answer.shape) != bare(array.shape):
        return None
    off = np.abs(answer.values.reshape(array.shape) - array)
    for id, allowed in REASONS.items():
        bound = allowed(given, name, result, answer)
        if bound is not None and (off <= bound).all():
            return id
    return None


Bound = Callable[[Given, str, "Terms | Array", Answer], "Array | None"]


def _kink(given: Given, name: str, result: Terms | Array, answer: Answer) -> Array | None:
    """Where x is next to a kink, anything between the two slopes is possible."""
    if name != "dx" or given.kind not in ("relu", "max_pool"):
        return None
    near = KINK * np.abs(given["x"]).max(initial=0.0) if "step" not in given.options else given.options["step"]
    small = 1e-4 * np.abs(given["dy"]).max(initial=0.0)  # what a difference quotient leaves elsewhere
    if given.kind == "relu":
        jump = np.where(np.abs(given["x"]) <= near, np.abs(given["dy"]), 0.0)
    else:
        jump = _near_ties(given, near)
    off = np.abs(answer.values.reshape(jump.shape) - total(result))
    return small + jump if ((off > small) & (jump > 0)).any() else None


def _near_ties(given: Given, near: float) -> Array:
    """For each input, Σ |dy| of the windows where it nearly wins and another nearly does."""
    m, x = given.meetings, given["x"]
    index = flat(x.shape, m["sample"], m["input_channel"], m["source"])
    values = np.where(index >= 0, x.reshape(-1)[index], -np.inf).reshape(-1, given.window.cells)
    close = values >= values.max(axis=1, keepdims=True) - 2 * near
    contested = (close & (close.sum(1, keepdims=True) > 1)).reshape(-1)
    dy = np.abs(given["dy"]).reshape(-1)[flat(given["dy"].shape, m["sample"], m["filter"], m["position"])]
    inside = contested & (index >= 0)
    return np.bincount(index[inside], dy[inside], minlength=x.size).reshape(x.shape)


def _float32(given: Given, name: str, result: Terms | Array, answer: Answer) -> Array | None:
    """A finite difference in float32: each loss is known to eps · Σ |terms|, and the difference is divided by 2h."""
    step, y = given.options.get("step"), None
    if not step or given.options.get("dtype") != "float32" or "dy" not in given:
        return None
    y = magnitude(right(given, "y"))
    loss = float((np.abs(given["dy"]).reshape(-1) * y.reshape(-1)).sum())
    return np.full(total(result).shape, 4 * float(np.finfo(np.float32).eps) * loss / step)


def _integers(given: Given, name: str, result: Terms | Array, answer: Answer) -> Array | None:
    """A finite difference of an integer array: the step is cut off and every quotient is 0."""
    whole = given.options.get("dtype", "").startswith(("int", "uint")) and given.options.get("step")
    return np.abs(total(result)) if whole and not answer.values.any() else None


def _rounding(given: Given, name: str, result: Terms | Array, answer: Answer) -> Array | None:
    """Each product may have been rounded, or cut, to the digits of the answer before it was added."""
    if not isinstance(result, Terms) or answer.computed or not answer.most_decimals:
        return None
    unit = 10.0**-answer.most_decimals
    if not looks_rounded(answer, total(result)):
        return None
    values = result.values
    inexact = np.abs(np.round(values, answer.most_decimals) - values) > 1e-9 * unit
    sums = np.bincount(result.cell, inexact * unit, minlength=int(np.prod(result.shape)))
    bound = sums.reshape(result.shape) + 0.5 * unit
    return bound if bound.max() <= ROUNDING * np.abs(total(result)).max(initial=0.0) else None


def looks_rounded(answer: Answer, array: Array) -> bool:
    """Whether the differences are spread as early rounding spreads them, and do not sit in a few numbers."""
    off = np.abs(answer.values.reshape(array.shape) - array) > 0.5 * 10.0**-answer.most_decimals
    return array.size < 4 or int(off.sum()) >= max(2, array[array != 0].size // 5)


def _zero_over_noise(given: Given, name: str, result: Terms | Array, answer: Answer) -> Array | None:
    """Noise where the right number is 0, at most a millionth of the largest one."""
    array = total(result)
    largest = np.abs(array).max(initial=0.0)
    return np.where(np.abs(array) <= 1e-12 * largest, 1e-6 * largest, answer.noise() * largest)


REASONS: dict[str, Bound] = {
    "rel_error_zero_over_noise": _zero_over_noise,
    "kink_gradcheck": _kink,
    "integer_input_gradcheck": _integers,
    "float32_gradcheck": _float32,
    "rounding_propagated": _rounding,
}


def explanation(id: str, names: Sequence[str]) -> Explanation:
    """A false alarm with its words."""
    entry = catalogue()[id]
    return Explanation(id, entry.title, tuple(names), entry.why, entry.fix, sort="false alarm")
