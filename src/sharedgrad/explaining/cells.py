"""Which cells of an array are written out, and the equations of these cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from sharedgrad.document.blocks import Block, Equation, Equations, Grid
from sharedgrad.document.expression import Cell, Expression, Symbol, from_terms
from sharedgrad.uses import Terms


@dataclass(frozen=True)
class Limits:
    """How much is written out before a document summarizes.

    Attributes:
        cells: The most equations of one array; of a larger one the ``few`` largest cells are written.
        few: See ``cells``.
        terms: The most terms of one sum; the others are left out with their number and total.
        grid: The most numbers of one array that are printed as a grid.
        side: How many rows and columns of a larger array are printed.
        how: How to ask for what is left out.
    """

    cells: int = 16
    few: int = 6
    terms: int = 12
    grid: int = 400
    side: int = 6
    how: str = "ask for all with --all"


EVERYTHING = Limits(cells=10**6, few=10**6, terms=10**6, grid=10**6, side=10**6, how="")


def chosen(symbol: Symbol, limits: Limits) -> list[int]:
    """The flat indices of the cells that are written out: all, or the largest."""
    values = symbol.array.reshape(-1)
    if values.size <= limits.cells:
        return list(range(values.size))
    largest = np.argsort(-np.abs(values), kind="stable")[: limits.few]
    return sorted(int(i) for i in largest)


def equations(symbol: Symbol, limits: Limits, right: Callable[[Cell], Expression]) -> Equations:
    """One equation for each cell that is written out."""
    cells = [symbol.at(flat) for flat in chosen(symbol, limits)]
    written = tuple(Equation.cell(cell, right(cell)) for cell in cells)
    left_out = symbol.array.size - len(cells)
    return Equations(written, left_out, f"these are the largest; {limits.how}" if left_out else "")


def sums(symbol: Symbol, terms: Terms, symbols: Mapping[str, Symbol], limits: Limits) -> Equations:
    """The cells of an array as sums of their terms; ``terms`` holds at least those of the cells that are chosen."""

    def right(cell: Cell) -> Expression:
        return from_terms(terms.rows(terms.cell == cell.flat), symbols, limits.terms)

    return equations(symbol, limits, right)


def wanted(symbol: Symbol, limits: Limits) -> np.ndarray:
    """The cells whose terms are needed, as an array."""
    return np.asarray(chosen(symbol, limits), np.int64)


def grid(
    symbol: Symbol, limits: Limits, caption: str = "", marks: Mapping[tuple[int, ...], str] | None = None
) -> Block:
    """An array as a grid; of a large one the first corner."""
    shape = symbol.array.shape
    if prod(shape) <= limits.grid and (not shape or shape[-1] <= 4 * limits.side):
        return Grid(symbol, marks or {}, caption)
    leading = [slice(0, 1)] * (len(shape) - 2)
    shown = (*leading, *(slice(0, limits.side) for _ in shape[-2:]))
    return Grid(symbol, marks or {}, caption, shown, limits.how)
