"""A pass as a table: a row for each parameter, in at most 80 columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import text
from sharedgrad.tracing.passes import Pass
from sharedgrad.tracing.report import number

HEAD = (
    ("parameter", "", "", "", "cancellation", "top", "top"),
    ("", "uses", "certified", "coherence", "(random)", "sample", "position"),
)
PLACES = ("position", "token", "time")  # what the uses of one sample are told apart by
WIDTHS = (16, 9, 9, 9, 13, 6, 8)


def table(done: Pass) -> str:
    """The table; parameters whose uses do not add up say "no", and what the rest came through stands below it."""
    rows = [_row(done, name) for name in done.names]
    lines = [_line(head) for head in HEAD] + [_line(row) for row in rows]
    if done.other:
        lines += ["", "not explained by uses:"]
    for name, other in done.other.items():
        lines += [f"  {name}: ‖rest‖ = {other.norm:.2g}, through", f"    {', '.join(other.operations)}"]
    return "\n".join(lines)


def _row(done: Pass, name: str) -> tuple[str, ...]:
    if name not in done:
        return name, "0", "no", "–", "–", "–", "–"
    weight = done.weight(name)
    agrees, cancels = ("–", "–") if done.partial else _agreement(weight)
    place = next((axis for axis in PLACES if axis in weight.axes), "position")
    sample = "–" if done.partial else _top(weight, "sample")
    position = _top(weight, place)
    return name, str(weight.count), "yes" if weight.certified else "no", agrees, cancels, sample, position


def _agreement(weight: Any) -> tuple[str, str]:
    """Coherence and cancellation, which are about the uses of all samples."""
    cancellation = weight.cancellation()
    agrees = "zero" if weight.zero_up_to_rounding else number(weight.coherence().value)
    return agrees, f"{number(cancellation.value)} ({number(cancellation.random)})"


def _top(weight: Any, axis: str) -> str:
    """The index on one axis with the largest norm; a dash where it was not kept or there is no such axis."""
    if axis not in weight.axes or 0 in weight.axes[axis]:
        return "–"
    try:
        norms = np.asarray(weight.norm(axis))
    except ConfigError:
        return "–"
    return text(int(i) for i in np.unravel_index(int(norms.argmax()), norms.shape)).replace("×", ",")


def _line(cells: tuple[str, ...]) -> str:
    """A long name has a line of its own."""
    name, *rest = cells
    numbers = " ".join(cell.rjust(width) for cell, width in zip(rest, WIDTHS[1:], strict=True))
    if len(name) > WIDTHS[0]:
        return f"{name}\n{' ' * WIDTHS[0]} {numbers}".rstrip()
    return f"{name.ljust(WIDTHS[0])} {numbers}".rstrip()
