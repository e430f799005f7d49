"""Faults of state, types and shapes: what a comparison of numbers alone does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.code.observe import Failure, Outcome
from sharedgrad.checking.report import Explanation, joined
from sharedgrad.geometry import text

FAILURES = {
    "raises": "crashes", "count": "wrong_count", "type": "wrong_type", "size": "wrong_shape", "hangs": "hangs",
    "exits": "exits_program", "memory": "memory_exhausted", "killed": "ended_by_system", "unreadable": "exits_program",
}  # fmt: skip


def explanation(id: str, arrays: Sequence[str] = (), notes: str = "", same: Sequence[str] = ()) -> Explanation:
    """An entry of the catalogue as an explanation."""
    entry = catalogue()[id]
    return Explanation(id, entry.title, tuple(arrays), entry.why, entry.fix, notes, tuple(same))


def in_words(failure: Failure) -> str:
    """A failure in one line: what happened, and where in the person's file."""
    message = str(failure["message"])
    if failure["kind"] in ("raises", "memory") and failure["type"]:
        message = f"{failure['type']}: {message}" if message else str(failure["type"])
    if failure["kind"] == "exits" and failure["type"] == "SystemExit":
        message = "it ends the program (sys.exit)"
    where = f"line {failure['line']}: {failure['source']}" if failure["line"] else ""
    return f"{message} ({where})" if where and message else message or where


def findings(found: Sequence[Outcome], from_zero: Outcome | None = None) -> Iterator[Explanation]:
    """What the outcomes show besides their numbers, each once.

    Args:
        found: What the code made of the probes.
        from_zero: What it made of an upstream gradient of zeros, which must give zeros.
    """
    ran = [o for o in found if o.ran]
    changed = tuple(dict.fromkeys(name for o in ran for name in o.changed))
    if "dy" in changed:
        yield explanation("upstream_mutated")
    if others := [name for name in changed if name != "dy"]:
        yield explanation("inputs_mutated", notes=f"changed: {joined(others)}")
    seconds = {o.second for o in ran}
    if "added" in seconds and "differs" not in seconds:
        yield explanation("grad_not_zeroed", notes="a second call returns twice the first result")
    elif "differs" in seconds:
        started = from_zero is not None and any(a.values.any() for n, a in from_zero.answers.items() if n != "y")
        zeros = "with an upstream gradient of zeros the result is not zero: it does not start from zeros"
        yield explanation("grad_not_zeroed", notes=zeros) if started else explanation("second_call_differs")
    yield from _missing(ran)
    yield from _types(ran)
    yield from _shapes(ran)


def _missing(ran: Sequence[Outcome]) -> Iterator[Explanation]:
    missing = dict.fromkeys(name for o in ran for name in o.missing)
    if "dx" in missing:
        yield explanation("dx_not_implemented", ("dx",))
    if others := [name for name in missing if name != "dx"]:
        yield explanation("gradient_missing", others)


def _types(ran: Sequence[Outcome]) -> Iterator[Explanation]:
    whole = {name: kind for o in ran for name, kind in o.types.items() if np.dtype(kind).kind in "iub"}
    if whole:
        name, kind = next(iter(whole.items()))
        yield explanation("wrong_dtype", tuple(whole), f"{name} is {kind} where the input is float64")


def _shapes(ran: Sequence[Outcome]) -> Iterator[Explanation]:
    """A shape that an update w − rate · dw takes without complaint, and spreads."""
    for name in dict.fromkeys(n for o in ran for n in o.shapes):
        got = [(o.shapes[name]) for o in ran if name in o.shapes]
        asked = [o for o in ran if name in o.answers]
        if len(got) < len(asked) or not all(_broadcasts(*pair) for pair in got):
            continue
        returned, expected = got[0]
        notes = f"{name} has shape {text(returned) or '()'}, expected {text(expected) or '()'}"
        yield explanation("shape_broadcasts", (name,), notes)


def _broadcasts(returned: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(returned, expected)
    except ValueError:
        return False
    return True


def lesser_types(found: Sequence[Outcome]) -> str:
    """A remark on results with fewer digits than the input."""
    kinds = {name: kind for o in found for name, kind in o.types.items() if kind in ("float32", "float16")}
    if not kinds:
        return ""
    return f"{joined(list(kinds))}: {next(iter(kinds.values()))} where the input is float64; digits are lost."
