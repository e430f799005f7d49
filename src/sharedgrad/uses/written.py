"""A gradient's sum written out, one line for each use."""

from __future__ import annotations

from math import prod
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from sharedgrad.parameter import Array
from sharedgrad.uses.arrays import Index, plain
from sharedgrad.uses.base import Uses

if TYPE_CHECKING:
    from sharedgrad.uses.shared import SharedWeight

MOST = 200  # numbers that a sum may have to be written out
_COLUMNS = 80


def terms(shared: SharedWeight) -> str:
    """Every use with its factors and contribution, and the gradient below."""
    many = len(shared.calls) > 1
    rows = [
        _row(call, index, f"call {number}" if many else "")
        for number, call in enumerate(shared.calls)
        for index in np.ndindex(*call.shape)
    ]
    left = max(len(place) for place, _, _ in rows)
    rows.append((f"gradient of {shared.name}", "", _numbers(plain(shared.gradient))))
    heads = [f"{place:<{left}}  {factors}" if factors else place for place, factors, _ in rows]
    width = max(map(len, heads))
    lines = [f"{head:<{width}} = {row[-1]}" for head, row in zip(heads, rows, strict=True)]
    return "\n".join(lines if max(map(len, lines)) <= _COLUMNS else map(_below, rows))


def _below(row: tuple[str, str, str]) -> str:
    """The parts of a row that is wider than a terminal, one below the other; numbers stay whole."""
    place, factors, value = row
    parts = filter(None, [factors, f"= {value}"])
    return "\n".join([place, *(fill(part, _COLUMNS, initial_indent="  ", subsequent_indent="    ") for part in parts)])


def _row(call: Uses, index: Index, where: str) -> tuple[str, str, str]:
    use = call.place(index)
    places = [f"{name} {','.join(map(str, use[name]))}" for name, n in call.axes.items() if prod(n) > 1]
    factors = " × ".join(_numbers(np.squeeze(plain(f))) for f in call.factors(**use))
    return ", ".join(filter(None, [where, *places])), factors, _numbers(plain(call.contribution(**use)))


def _numbers(array: Array) -> str:
    return np.array2string(
        np.squeeze(array),
        precision=6,
        suppress_small=True,
        separator=", ",
        formatter={"float_kind": "{:.6g}".format},
    ).replace("\n", "")
