"""What the check of a person's own layer has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sharedgrad.checking.report import Report, joined

if TYPE_CHECKING:
    from sharedgrad.document import Document

MODES = ("training", "evaluation")


@dataclass(frozen=True)
class Fault:
    """One thing that the layer does wrong, in one line.

    Attributes:
        layer: What messages call the layer.
        problem: The array, what was expected and what came.
        fix: How to mend it; may be empty.
        modes: The modes that it shows in.
    """

    layer: str
    problem: str
    fix: str = ""
    modes: tuple[str, ...] = MODES

    def __str__(self) -> str:
        mode = "" if self.modes == MODES else f" in {self.modes[0]} mode"
        return f"{self.layer}{mode}: {self.problem}" + (f"; {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class LayerReport:
    """What :func:`sharedgrad.check_layer` has found; true if that is nothing.

    Attributes:
        layer: What messages call the layer.
        faults: One for each thing that it does wrong.
        remarks: What else is known, in sentences.
        likeness: The check of its numbers as those of a built-in layer, which names mistakes; None without ``like``.
    """

    layer: str
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...] = ()
    likeness: Report | None = None

    @property
    def verdict(self) -> Literal["right", "wrong"]:
        """Whether there are faults, or numbers that are not those of the built-in layer."""
        return "right" if self else "wrong"

    @property
    def exit_code(self) -> int:
        """0 right, 1 wrong."""
        return 0 if self else 1

    def __bool__(self) -> bool:
        return not self.faults and (self.likeness is None or self.likeness.exit_code == 0)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data: dict[str, Any] = {"verdict": self.verdict, "faults": [str(f) for f in self.faults]}
        likeness = {} if self.likeness is None else {"likeness": self.likeness.to_json()}
        return {**data, "remarks": list(self.remarks), **likeness}

    def document(self) -> Document:
        """The report as a document: a paragraph for each fault and remark."""
        from sharedgrad.document import Document, Paragraph

        found = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}" if self.faults else "no fault found"
        lines = [f"{self.layer}: {found}.", *map(str, self.faults), *self.remarks]
        further = () if self.likeness is None else self.likeness.document().blocks
        return Document("Check", (*map(Paragraph.of, lines), *further))

    def __str__(self) -> str:
        from sharedgrad.document import terminal

        return terminal.render(self.document(), 80)

    def _repr_html_(self) -> str:
        from sharedgrad.document import html

        return html.fragment(self.document().blocks)


def gathered(layer: str, found: Sequence[tuple[str, str, str]]) -> tuple[Fault, ...]:
    """Faults from (mode, problem, fix), each once."""
    modes: dict[tuple[str, str], list[str]] = {}
    for mode, problem, fix in found:
        modes.setdefault((problem, fix), []).append(mode)
    return tuple(Fault(layer, *words, tuple(dict.fromkeys(seen))) for words, seen in modes.items())


def told(names: Sequence[tuple[str, int, int]]) -> str:
    """Which arrays were measured: "dx (24 of 24 numbers) and gain (3 of 3)"."""
    return joined([f"{name} ({cells} of {size} numbers)" for name, cells, size in names])
