"""Writes docs/ten_mistakes.md: each mistake is made by the library, checked by the checker, and printed as it found it.

python tools/ten_mistakes.py          (tests/checking/test_page.py sees that the file is up to date)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import sharedgrad as sg
from sharedgrad.checking.catalogue import catalogue
from sharedgrad.checking.distinguish import classes, drawn
from sharedgrad.checking.exercises import SHEETS, sheet
from sharedgrad.checking.given import Given
from sharedgrad.checking.report import Report
from sharedgrad.checking.right import of_layer, right, targets, total
from sharedgrad.checking.rules import Outcome, outcomes
from sharedgrad.checking.search import is_right, rules_for, way
from sharedgrad.document.numbers import show

PAGE = Path(__file__).parents[1] / "docs" / "ten_mistakes.md"
SETTINGS = {"in_channels": 1, "out_channels": 2, "kernel_size": 2, "padding": 1, "stride": 2}
TEN = [
    ("dw", "mean_over_positions"),
    ("dw", "overwritten_not_accumulated"),
    ("dw", "dw_flipped"),
    ("dw", "dw_true_convolution"),
    ("dw", "dw_from_unpadded_input"),
    ("dw", "stride_missing_in_loop"),
    ("dx", "dx_kernel_not_rotated"),
    ("dx", "dx_no_sum_over_filters"),
    ("dx", "padding_not_cropped"),
    ("db", "db_summed_over_everything"),
]
INTRODUCTION = """# Ten mistakes in a convolution's backward pass, and how each one looks in the numbers

One small convolution ({settings}), one way wrong at a time.
Each wrong array below was made by the library's wrong procedure, handed to `sharedgrad check`, and is shown with what
the checker said about it. This page is written by `python tools/ten_mistakes.py`.

The numbers: x = {x}; w = {w}; the upstream gradient dy = {dy}.

"""


def rows(array: np.ndarray) -> str:
    """An array in one line, maps separated by bars."""
    maps = array.reshape(-1, *array.shape[-2:]) if array.ndim > 2 else array.reshape(1, -1, array.shape[-1])
    return " / ".join("; ".join(" ".join(show(float(v), 4) for v in row) for row in one) for one in maps)


def made(given: Given, target: str, id: str) -> Outcome:
    """What the first variant of a mistake that shows makes of the numbers."""
    rules = [r for r in rules_for(given.kind, target) if r.id == id]
    found = (o for r in rules for o in outcomes(way(target), given, (r,)))
    return next(o for o in found if not is_right(given, target, o.array) and o.array.size)


def section(number: int, data: dict[str, object], given: Given, target: str, id: str) -> str:
    """One mistake: the wrong array beside the right one, and what the checker says."""
    outcome, entry = made(given, target, id), catalogue()[id]
    good = {n: total(right(given, n)).tolist() for n in ("y", "dw", "db", "dx")}
    report: Report = sg.check_numbers({**data, "answers": {**good, target: outcome.array.tolist()}})
    named = [i for e in report.explanations for i in (e.id, *e.same)]
    if report.verdict != "wrong" or id not in named:
        raise SystemExit(f"{id}: the checker says {report.verdict}, {named}")
    shown = next(a for a in report.arrays if a.name == target)
    note = f" ({outcome.notes[0]})" if outcome.notes[0] else ""
    lines = [
        f"## {number}. {entry.title}",
        "",
        f"`{id}` in {target}{note}",
        "",
        "| | |",
        "|---|---|",
        f"| right {target} | {rows(np.array(good[target]))} |",
        f"| wrong {target} | {rows(outcome.array)} |",
        f"| wrong numbers | {int(shown.wrong.sum())} of {shown.wrong.size} |",
    ]
    if shown.structure:
        lines.append(f"| the pattern | {'; '.join(shown.structure)} |")
    others = [i for i in named if i != id]
    if others:
        lines.append(f"| the same numbers | {', '.join(others)} |")
    return "\n".join([*lines, "", f"**Why it is wrong.** {entry.why}", "", f"**Instead.** {entry.fix}", ""])


IDENTITIES = """## Mistakes that are one formula

On generic numbers the checker names several mistakes together only where they are the same formula with the settings
at hand, so that no numbers could tell them apart. These are all such groups of the exercises' layers (and of a
convolution with several samples, channels, groups and dilation):

| layer | array | one formula |
|---|---|---|
"""


def identities() -> str:
    """The groups of different mistakes with equal results on generic numbers."""
    lines = []
    for name, given in generic():
        for target in targets(given):
            for group in classes(given, target):
                words = sorted({f"`{id}`{f' ({note})' if note else ''}" for id, note in group})
                if len({id for id, _ in group}) > 1:
                    lines.append(f"| {name} | {target} | {'; '.join(words)} |")
    return IDENTITIES + "\n".join(lines) + "\n"


def generic() -> Iterator[tuple[str, Given]]:
    """Layers with generic numbers."""
    for layer in SHEETS:
        yield layer, drawn(sheet(layer.lower(), 0).given, 0, friendly=False)
    layer = sg.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2)
    network = sg.Network({"layer": layer}, (4, 7, 6), dtype="float64")
    x = np.ones((2, 4, 7, 6))
    yield "Conv2d, general", drawn(of_layer(network["layer"], x, network.forward(x)[0]), 0, friendly=False)


def page() -> str:
    """The whole page."""
    exercise = sheet("conv2d", 4, 0, SETTINGS)
    given, data = exercise.given, exercise.to_json()
    settings = "2×2 kernel, two filters, stride 2, padding 1"
    words = {"x": rows(given["x"]), "w": rows(given["w"]), "dy": rows(given["dy"])}
    sections = [section(n, data, given, target, id) for n, (target, id) in enumerate(TEN, 1)]
    return INTRODUCTION.format(settings=settings, **words) + "\n".join([*sections, identities()])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
