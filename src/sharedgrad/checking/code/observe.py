"""Running a person's code on probes, and reading what it makes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sharedgrad.checking import right
from sharedgrad.checking.answers import Answer
from sharedgrad.checking.code.forms import Form
from sharedgrad.checking.code.probes import Probe
from sharedgrad.checking.code.process import Process

Failure = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the code made of one probe.

    Attributes:
        probe: The numbers.
        answers: Array -> what it returned, in the layer's own layout.
        failure: What happened instead, or None: "kind", "type", "message", "line", "source".
        shapes: Array -> (returned, expected), where they differ, in the code's own layout.
        missing: Arrays for which it returned None.
        changed: Arguments that it changed in place.
        second: "same", "added" (twice the first result) or "differs".
        types: Array -> type of its numbers.
    """

    probe: Probe
    answers: Mapping[str, Answer] = field(default_factory=dict)
    failure: Failure | None = None
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    second: str = "same"
    types: Mapping[str, str] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        """Whether it came back."""
        return self.failure is None

    @cached_property
    def wrong(self) -> tuple[str, ...]:
        """The arrays whose numbers are wrong (another shape counts, one that differs by axes of length 1 does not)."""
        return tuple(name for name, answer in self.answers.items() if not _fits(self.probe, name, answer))

    @property
    def bad(self) -> bool:
        """Whether anything is wrong here."""
        return not self.ran or bool(self.wrong or self.missing)

    @property
    def weight(self) -> int:
        """Numbers in it: what is shown to a person should have few."""
        return sum(int(a.size) for a in self.probe.given.arrays.values())


def _fits(probe: Probe, name: str, answer: Answer) -> bool:
    result = right.right(probe.given, name)
    return answer.fits(right.total(result), right.magnitude(result))


def observed(process: Process, form: Form, probe: Probe, again: bool = False) -> Outcome:
    """Run the code on one probe."""
    reply = process.ask(form.job(probe.given, probe.extra, again))
    if "failure" in reply:
        return Outcome(probe, failure=reply["failure"])
    answers, shapes = {}, {}
    for target, array in reply["results"].items():
        answers[target], expected = form.read(target, array, probe.given)
        if expected is not None:
            shapes[target] = (array.shape, expected)
    return Outcome(
        probe, answers, None, shapes, tuple(reply["missing"]), tuple(reply["changed"]), reply["second"], reply["types"]
    )


def order_matters(process: Process, form: Form, probe: Probe) -> bool:
    """Whether samples in another order give other gradients (dx in that order, the others unchanged)."""
    given = probe.given
    order = np.roll(np.arange(given.samples), 1)
    parts = {n: a[order] if n in ("x", "dy", "x1", "x2") else a for n, a in given.arrays.items()}
    turned = Probe(given.replaced(**parts), probe.recipe, probe.values, probe.extra)
    first, second = observed(process, form, probe), observed(process, form, turned)
    if not first.ran or not second.ran:
        return first.ran != second.ran
    for name, answer in first.answers.items():
        values, other = answer.values, second.answers[name].values
        if name in ("dx", "dx1", "y") and values.shape[:1] == order.shape:
            values = values[order]
        if values.shape != other.shape or not np.allclose(values, other, rtol=1e-9, atol=1e-9, equal_nan=True):
            return True
    return False
