"""One weight: all its uses in a table, their sum, and the update."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.calculation import Calculation, Result
from sharedgrad.document.blocks import Block, Document, Equation, Paragraph, Part, Section, Table
from sharedgrad.document.expression import Cell, Difference, Number, Product, Symbol
from sharedgrad.document.numbers import count
from sharedgrad.explaining import whole
from sharedgrad.explaining.backward import gradient_sum, used
from sharedgrad.explaining.cells import Limits
from sharedgrad.explaining.names import Names
from sharedgrad.graph import Node
from sharedgrad.parameter import Parameter
from sharedgrad.uses import Terms, Uses

_ROWS = 40  # of the ledger, before it shows the largest alone
_LARGEST = 20


def document(
    calculation: Calculation, result: Result, parameter: Parameter, element: tuple[int, ...], limits: Limits
) -> Document:
    """The gradient of one element of a parameter, taken apart."""
    names = Names(calculation, result)
    dw = names.weight_gradient(parameter)
    w = names.weight(parameter)
    place = f"{parameter.name}[{','.join(map(str, element))}]"
    title = f"{calculation.title}: one weight, {place}" if calculation.title else f"One weight, {place}"
    sources = whole.sources(calculation)
    if dw is None:
        return Document(title, (Paragraph.of(f"No gradient reaches {parameter.name}."),), sources)
    calls = [(node, use) for node in names.network for use in names.uses(node, parameter)]
    cell = dw.cell(*element)
    blocks: list[Block] = [
        Paragraph.of(
            w.cell(*element), " = ", float(w.array[element]), ". ", used(names, parameter, [u for _, u in calls])
        ),
        Equation.cell(cell, gradient_sum(names, calls, cell, limits)),
        ledger(names, calls, cell, limits),
    ]
    if result.updated:
        new = names.updated(parameter)
        rate = Number(calculation.learning_rate or 0.0)
        step = Difference(w.cell(*element), Product((rate, cell)))
        blocks.append(Section("The one update", (Equation.cell(new.cell(*element), step),), "update"))
    return Document(title, tuple(blocks), sources)


def ledger(names: Names, calls: list[tuple[Node, Uses]], cell: Cell, limits: Limits) -> Section:
    """Every use: where it is, its factors, its product, and the sum so far; what is 0 is there too, and why."""
    assert cell.index is not None
    rows, products = [], []
    for number, (node, use) in enumerate(calls, 1):
        terms, symbols = names.of_uses(node, use, use.products(*cell.index))
        products.append(np.asarray(terms.values, np.float64))
        rows += list(_rows(terms, symbols, number if len(calls) > 1 else None, use))
    values = np.concatenate(products)
    running = np.cumsum(values)
    factors = list(symbols.values())
    chosen, how = _chosen(values, limits)
    in_order = len(chosen) == len(rows)  # a sum so far says something only where no row is left out
    head = ("use", *(s.key for s in factors), "product", *(["sum so far"] if in_order else []), "")
    kept: list[tuple[Part, ...]] = []
    for i in chosen:
        where, numbers, why = rows[i]
        kept.append((where, *numbers, float(values[i]), *([float(running[i])] if in_order else []), why))
    total, sizes = float(values.sum()), float(np.abs(values).sum())
    blanks = [""] * (len(factors) + (1 if in_order else 0))
    last: tuple[Part, ...] = ("all uses", *blanks, cell.value, f"= {cell.symbol.key}")
    blocks: list[Block] = [
        Table(head, (*kept, last), left_out=len(rows) - len(kept), how=how),
        Paragraph.of(
            f"The {count(len(values), 'product')} add up to ",
            total,
            "; their sizes alone, |products|, to ",
            sizes,
            ": ",
            sizes - abs(total),
            " of it cancels.",
        ),
    ]
    zeros = int((values == 0).sum())
    if zeros:
        blocks.append(Paragraph.of(f"{count(zeros, 'product')} of {len(values):,} {'is' if zeros == 1 else 'are'} 0."))
    return Section("The ledger: every use", tuple(blocks), f"{cell.symbol.key}.ledger")


def _chosen(values: np.ndarray, limits: Limits) -> tuple[list[int], str]:
    if len(values) <= _ROWS or not limits.how:
        return list(range(len(values))), ""
    largest = np.argsort(-np.abs(values), kind="stable")[:_LARGEST]
    return [int(i) for i in largest], f"these are the largest, by size; {limits.how}"


def _rows(
    terms: Terms, symbols: dict[str, Symbol], call: int | None, use: Uses
) -> Iterator[tuple[str, list[float | str], str]]:
    """Where each use is, its factors, and why it is 0 if it is."""
    columns = {name: np.asarray(factor.values, np.float64) for name, factor in terms.factors.items()}
    for number in range(len(terms)):
        where = [f"call {call}"] if call else []
        for axis, places in terms.use.items():
            if np.prod(use.axes[axis]) > 1:
                where.append(f"{_AXES.get(axis, axis)} {','.join(str(int(i)) for i in places[number])}")
        numbers: list[float | str] = [float(column[number]) for column in columns.values()]
        yield " ".join(where) or "the only one", numbers, _why(terms, symbols, number)


_AXES = {"position": "at"}


def _why(terms: Terms, symbols: dict[str, Symbol], number: int) -> str:
    """Why a product is 0."""
    for name, factor in terms.factors.items():
        if factor.index[number] == -1:
            return "padding"
        if float(factor.values[number]) == 0:
            return f"{symbols[name].key} is 0"
    return ""
