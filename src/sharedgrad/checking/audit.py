"""Judging a test: the mistakes that it would let pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharedgrad.checking import exercise as exercises
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.distinguish import invisible
from sharedgrad.checking.network import Chain
from sharedgrad.checking.right import UPDATES, targets
from sharedgrad.document import Document, Paragraph, Section, Table
from sharedgrad.errors import ConfigError

COMPARISONS = ("elements", "mean", "sum")


@dataclass(frozen=True)
class Audit:
    """What a test cannot see.

    Attributes:
        passing: Array -> mistakes that give the right answer there: id -> which variants, in words.
        compare: What of the arrays the test compares.
    """

    passing: Mapping[str, Mapping[str, str]]
    compare: str

    @property
    def exit_code(self) -> int:
        """1 if some mistake passes, else 0."""
        return int(any(self.passing.values()))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"compare": self.compare, "passing": {name: dict(ids) for name, ids in self.passing.items()}}

    def document(self) -> Document:
        """A table of what passes, for each array."""
        sections = []
        for name, ids in self.passing.items():
            rows = tuple((catalogue()[i].title, notes, i) for i, notes in ids.items())
            told = "Every mistake that is known for it shows." if not ids else f"{len(ids)} mistakes would pass:"
            sections.append(
                Section(name, (Paragraph.of(told), *([Table(("mistake", "which", "id"), rows)] if ids else [])))
            )
        return Document("Audit of a test", tuple(sections))


def audit(test: Mapping[str, Any] | str | Path) -> Audit:
    """The mistakes that a test with these arrays lets pass.

    Args:
        test: An exercise as for ``check_numbers``, whose "answers" may be left out or be a list of names: the arrays
            that the test compares; "compare": "elements" (the default), "mean" or "sum"; "tolerance", relative.

    Raises:
        SharedgradError: It cannot be read.
    """
    data = exercises.load(test) if isinstance(test, str | Path) else test
    if not isinstance(data, Mapping):
        raise ConfigError("audit", f"expected an object with the test's arrays, got {type(data).__name__}")
    compare, tolerance = data.get("compare", "elements"), data.get("tolerance", 1e-8)
    if compare not in COMPARISONS:
        raise ConfigError("compare", f"expected one of {', '.join(COMPARISONS)}, got {compare!r}")
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
        raise ConfigError("tolerance", f"expected a number from 0 to below 1, got {tolerance!r}")
    names = data.get("answers")
    rest = {k: v for k, v in data.items() if k not in ("compare", "tolerance", "answers")}
    reading = exercises.readings({**rest, "answers": {"y": [0.0]}})[0]
    chain = Chain(reading.calculation)
    if len(chain.nodes) > 1:
        raise ConfigError("audit", "expected a test of one layer, got a network")
    given = chain.given(chain.order[0])
    wanted = list(names) if names else targets(given)
    passing = {}
    for name in wanted:
        target = chain.stage(str(name))[1] if str(name) != "dx" else "dx"
        if target not in targets(given) and target not in UPDATES:
            raise ConfigError("answers", f"there is no array {name!r}", f"choose from {', '.join(targets(given))}")
        passing[str(name)] = invisible(given, target, compare, float(tolerance))
    return Audit(passing, compare)
