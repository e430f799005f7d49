"""Worked examples: each a file in the schema of ``calculation``, some with numbers that were published for it.

A file may hold besides ``"published": [{"array": "conv.dw", "values": …, "decimals": 6, "remark": "…"}]``: what a
source printed, null where it printed nothing, and to how many decimals the engine agrees with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sharedgrad import configuration
from sharedgrad.calculation import Calculation, Result
from sharedgrad.document.blocks import Block, Document
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import whole
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.gallery import chain, counting, sharing, symbols
from sharedgrad.explaining.gallery.published import Published, rounding, section
from sharedgrad.explaining.names import Names

Story = Callable[[Names, Limits], list[Block]]
FOLDER = Path(__file__).parent
NAMES = (
    "filter-1d",
    "four-weights",
    "count-32x32",
    "chain-1d",
    "network-5x5",
    "why-shared",
    "channels-and-filters",
    "stride-and-padding",
    "max-pool-overlap",
    "max-pool-ties",
    "average-pool",
    "rnn-three-steps",
    "siamese-pair",
    "inner-objective",
)
_BEFORE: dict[str, Story] = {"four-weights": symbols.blocks, "chain-1d": chain.blocks}
_INSTEAD: dict[str, Story] = {"count-32x32": counting.blocks, "why-shared": sharing.blocks}
_AFTER: dict[str, Story] = {"network-5x5": rounding}


@dataclass(frozen=True)
class Entry:
    """One worked example.

    Attributes:
        name: What ``explain`` calls it.
    """

    name: str

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The file."""
        return configuration.read(FOLDER / f"{self.name}.json")

    @property
    def title(self) -> str:
        """Its title."""
        return str(self.config["title"])

    @cached_property
    def calculation(self) -> Calculation:
        """Its network and numbers."""
        return Calculation.of({key: value for key, value in self.config.items() if key != "published"})

    @property
    def published(self) -> list[Published]:
        """What its source printed."""
        return [Published.of(entry) for entry in self.config.get("published", [])]

    def document(self, result: Result, limits: Limits) -> Document:
        """The steps, and what belongs to this example alone."""
        names, calculation = Names(self.calculation, result), self.calculation
        before, after = (table[self.name](names, limits) if self.name in table else [] for table in (_BEFORE, _AFTER))
        comparison = [section(names, self.published)] if self.published else []
        if self.name in _INSTEAD:
            blocks = [*whole.about(calculation), *_INSTEAD[self.name](names, limits)]
            return Document(calculation.title, tuple(blocks), whole.sources(calculation))
        return whole.document(calculation, result, limits, tuple(before), (*comparison, *after))


def entries() -> list[Entry]:
    """All worked examples, the simple ones first."""
    return [Entry(name) for name in NAMES]


def find(name: str) -> Entry | None:
    """The worked example of this name, if there is one."""
    return Entry(name) if name in NAMES else None


def unknown(name: str) -> ConfigError:
    """That there is neither an example nor a file of this name."""
    guess = difflib.get_close_matches(name, NAMES, 1)
    fix = (
        f"did you mean {guess[0]}?"
        if guess
        else "sharedgrad explain --list names the examples; files end in .json or .toml"
    )
    return ConfigError(f"explain {name}", "there is no such example or file", fix)
