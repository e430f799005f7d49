"""What is known about every mistake, in words (``catalogue.toml``)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Entry:
    """A mistake in words.

    Attributes:
        id: Its name in reports.
        title: What it is, in one line.
        why: Why it is wrong.
        fix: The line or formula to change.
        sort: "procedure" (the library executes it), "code" (found by running code), "test" (a fault of a test),
            "none" (not a mistake).
    """

    id: str
    title: str
    why: str
    fix: str
    sort: str = "procedure"


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by its id, in the order of the file."""
    text = resources.files("sharedgrad.checking").joinpath("catalogue.toml").read_text("utf-8")
    return {
        id: Entry(id, words["title"], words["why"], words["fix"], words.get("sort", "procedure"))
        for id, words in tomllib.loads(text).items()
    }
