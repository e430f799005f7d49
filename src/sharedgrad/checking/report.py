"""What a check has found, as a value: for the terminal, for a page, for JSON and for an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sharedgrad.parameter import Array

if TYPE_CHECKING:
    from sharedgrad.document import Document

Verdict = Literal["right", "right under a convention", "wrong", "not a mistake", "cannot tell"]
EXIT_CODES: dict[Verdict, int] = {
    "right": 0, "right under a convention": 0, "not a mistake": 0, "wrong": 1, "cannot tell": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One mistake, convention or false alarm, with what it explains.

    Attributes:
        id: Its name in the catalogue; several joined by " + " where mistakes came together.
        title: What it is, in one line.
        arrays: The arrays it explains.
        why: Why it is wrong.
        fix: The line or formula to change.
        notes: Which variant it is ("only filter 0").
        same: Ids of other mistakes that give the same numbers here.
        sort: "mistake", "convention", or "false alarm".
        verified: Whether the right way, without the mistake, gives the engine's own answer on these numbers.
    """

    id: str
    title: str
    arrays: tuple[str, ...]
    why: str = ""
    fix: str = ""
    notes: str = ""
    same: tuple[str, ...] = ()
    sort: str = "mistake"
    verified: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data; empty fields are left out."""
        data = {
            "id": self.id, "title": self.title, "arrays": list(self.arrays), "why": self.why, "fix": self.fix,
            "notes": self.notes, "same": list(self.same), "sort": self.sort, "verified": self.verified,
        }  # fmt: skip
        return {key: value for key, value in data.items() if value not in ("", [])}


@dataclass(frozen=True)
class ArrayReport:
    """One answer beside the right one.

    Attributes:
        name: Which array.
        yours: What the person gave; ``right``: the engine's; ``wrong``: mask of the cells that differ by more than
            their rounding (all of them where the shape is another one).
        structure: What the error looks like, in words.
        given_earlier: Whether it was judged given the person's own earlier numbers, which are wrong.
        terms: The sum of the first wrong cell, as terms; None where there is no table.
    """

    name: str
    yours: Array
    right: Array
    wrong: Array
    structure: tuple[str, ...] = ()
    given_earlier: bool = False
    terms: Any = None

    @property
    def first_wrong(self) -> tuple[int, ...] | None:
        """Index of the first wrong cell in the right array; None if there is none or the shapes differ."""
        if not self.wrong.any() or self.yours.size != self.right.size:
            return None
        flat = int(self.wrong.reshape(-1).argmax())
        return tuple(int(i) for i in _unravel(flat, self.right.shape))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        cell = self.first_wrong
        data: dict[str, Any] = {
            "name": self.name, "cells": int(self.right.size), "wrong": int(self.wrong.sum()),
            "structure": list(self.structure),
        }  # fmt: skip
        if self.yours.shape != self.right.shape and self.yours.size != self.right.size:
            data["shape"], data["expected_shape"] = list(self.yours.shape), list(self.right.shape)
        if cell is not None:
            data["first_wrong"] = {
                "index": list(cell),
                "yours": float(self.yours.reshape(self.right.shape)[cell]),
                "right": float(self.right[cell]),
            }
        if self.given_earlier:
            data["given_your_earlier_numbers"] = True
        return data


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for n in reversed(shape):
        flat, i = divmod(flat, n)
        index.append(i)
    return tuple(reversed(index))


@dataclass(frozen=True)
class Report:
    """The verdict, and what led to it.

    Attributes:
        verdict: One of five.
        explanations: What reproduces the answers; where it is wrong, the likeliest first.
        arrays: Every answer beside the right one.
        readings: Where nobody can tell: what each reading says, at least two.
        remarks: What else is known, in sentences.
        given: The numbers that it is about.
    """

    verdict: Verdict
    explanations: tuple[Explanation, ...] = ()
    arrays: tuple[ArrayReport, ...] = ()
    readings: tuple[Explanation, ...] = ()
    remarks: tuple[str, ...] = ()
    given: Any = field(default=None, compare=False, repr=False)

    @property
    def exit_code(self) -> int:
        """0 right (also under a convention, or not a mistake), 1 wrong, 3 cannot tell."""
        return EXIT_CODES[self.verdict]

    @property
    def ids(self) -> list[str]:
        """The ids of its explanations."""
        return [e.id for e in self.explanations]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as ``sharedgrad check --json`` prints it."""
        return {
            "verdict": self.verdict,
            "explanations": [e.to_json() for e in self.explanations],
            "readings": [e.to_json() for e in self.readings],
            "arrays": [a.to_json() for a in self.arrays],
            "remarks": list(self.remarks),
        }

    def document(self, hint: int | None = None) -> Document:
        """The report as a document of steps, with as much as the hint (1 to 4) tells; everything without one."""
        from sharedgrad.checking.words import document

        return document(self, hint)

    def __str__(self) -> str:
        from sharedgrad.checking.words import plain

        return plain(self)

    def _repr_html_(self) -> str:
        from sharedgrad.document import html

        return html.fragment(self.document().blocks)


def joined(names: Sequence[str]) -> str:
    """dx, dw and db."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
