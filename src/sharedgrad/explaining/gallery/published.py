"""What sources printed, beside what the engine computes, and why they differ where they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharedgrad.calculation import Calculation
from sharedgrad.document.blocks import Block, Equation, Equations, Paragraph, Part, Section, Table
from sharedgrad.document.expression import Cell, Difference, Number, Product, Symbol
from sharedgrad.document.plain import Plain
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names
from sharedgrad.parameter import Array

_EXACT = 6  # decimals from which on nobody asks why


@dataclass(frozen=True)
class Published:
    """An array that a source printed.

    Attributes:
        array: Which one, as the document calls it: "conv.dw".
        values: Its numbers; NaN where none was printed.
        decimals: To so many the engine agrees.
        remark: How the source came to it.
    """

    array: str
    values: Array
    decimals: int
    remark: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Published:
        """From a gallery file."""
        values = np.array(entry["values"], dtype=np.float64)
        return cls(str(entry["array"]), values, int(entry["decimals"]), str(entry.get("remark", "")))

    def ours(self, names: Names) -> Symbol:
        """The engine's array."""
        return next(symbol for symbol in names.all() if symbol.key == self.array)

    def pairs(self, names: Names) -> list[tuple[Cell, float]]:
        """Every cell that was printed, with the number that was."""
        ours = self.ours(names)
        printed = self.values.reshape(ours.array.shape).reshape(-1)
        return [(ours.at(i), float(value)) for i, value in enumerate(printed) if not np.isnan(value)]


def section(names: Names, published: list[Published]) -> Section:
    """Every array that was printed, beside the engine's."""
    blocks: list[Block] = []
    for entry in published:
        pairs = entry.pairs(names)
        remark = f" ({entry.remark})" if entry.remark else ""
        if entry.decimals >= _EXACT:
            largest = max(abs(cell.value - value) for cell, value in pairs)
            words = f"All {len(pairs)} numbers of {entry.array} agree" if len(pairs) > 1 else f"{entry.array} agrees"
            blocks.append(Paragraph.of(f"{words}{remark}; the largest difference is ", float(f"{largest:.1g}"), "."))
        else:
            blocks.append(_table(entry, pairs, remark))
    return Section("The published numbers, stage by stage", tuple(blocks), "published")


def _table(entry: Published, pairs: list[tuple[Cell, float]], remark: str) -> Table:
    rows: list[tuple[Part, ...]] = []
    zeros = [pair for pair in pairs if not pair[1] and not pair[0].value]
    for cell, value in pairs:
        if value or cell.value:
            rows.append((Plain().formula(cell), value, cell.value, float(f"{cell.value - value:.2g}")))
    also = f" The other {len(zeros)} numbers are 0 in both." if zeros else ""
    caption = f"{entry.array}{remark}.{also}"
    return Table((entry.array, "published", "computed", "difference"), tuple(rows), caption)


def rounding(names: Names, limits: Limits) -> list[Block]:
    """Why the 5×5 network's published numbers differ in the fourth digit: rounding on the way, step by step."""
    sigmoid, dy = names.value("sigmoid"), names.gradient("sigmoid")
    assert dy is not None
    rounded = Symbol("rounded", np.round(sigmoid.array, 2), "sigmoid", sigmoid.hidden)
    deltas = []
    for flat in range(rounded.array.size):
        out = rounded.at(flat)
        right = Product((dy.at(flat), out, Difference(Number(1), out)))
        deltas.append(Equation(f"delta {flat + 1}", right, right.value))
    published = np.array([[0, 0, 0.0686, 0], [0, 0.0364, 0, 0], [0, 0.0467, 0, 0], [0, 0, 0, -0.0681]])
    kernel = names.calculation.network["conv"].parameters()["weight"].value
    again = Calculation.of(
        {"layer": "conv2d", "x": names.value("before").array, "w": kernel, "upstream": published}
    ).run()
    dw = Symbol("dw", again.gradients["conv.weight"], "", (0, 1))
    rows = tuple((Plain().formula(dw.at(i)), dw.at(i).value) for i in range(4))
    blocks: tuple[Block, ...] = (
        Paragraph.of(
            "The source went on with sigmoids rounded to two digits. With these the same rule gives exactly its deltas:"
        ),
        Equations(tuple(deltas)),
        Paragraph.of(
            "Then it went on with four digits of these, and two were cut instead of rounded: 0.04675 became 0.0467 "
            "(rounded: 0.0468) and -0.06819 became -0.0681 (rounded: -0.0682). With the map that it printed, the same "
            "sum over the uses of each weight gives exactly its dw:"
        ),
        Table(("from the printed map", "dw"), rows),
        Paragraph.of(
            "So the method is the same, and right; only numbers that were rounded on the way differ, in the fourth "
            "digit. "
            "Round at the end, never on the way."
        ),
    )
    return [Section("Why they differ in the fourth digit", blocks, "rounding")]
