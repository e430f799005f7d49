"""Pictures of the scaling: time over batch, channels or threads, with a band from quartile to quartile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.duels import ONE_CALL, OURS
from benchmarks.tables import Row, Table
from benchmarks.timing import Spread

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def draw(table: Table, rows: Mapping[str, Row], folder: Path) -> None:
    """Save one table as ``scaling-by-<axis>.png``; a line for a net's steps in one call, dashed for the best rival."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    measured = [row for row in rows.values() if "curve" in row]
    if not measured:
        return
    axis = table.name.split()[-1]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for colour, curve in zip(COLOURS, dict.fromkeys(row["curve"] for row in measured), strict=False):
        points = [row for row in measured if row["curve"] == curve]
        _line(axes, axis, f"{curve}, sharedgrad", points, [row[ONE_CALL] for row in points], color=colour)
        rivals = [(row, best_rival(row)) for row in points]
        theirs = [(row, best) for row, best in rivals if best]
        _line(axes, axis, f"{curve}, best rival", [r for r, _ in theirs], [b for _, b in theirs], color=colour, ls="--")
    ticks = sorted({row[axis] for row in measured})
    axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="milliseconds a training step", title=table.title)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(folder / f"{table.name.replace(' ', '-')}.png", dpi=120)
    pyplot.close(figure)


def _line(axes: Any, axis: str, label: str, rows: list[Row], spreads: list[Spread], **style: str) -> None:
    if rows:
        places = [row[axis] for row in rows]
        axes.plot(places, [spread.median for spread in spreads], marker="o", ms=3, label=label, **style)
        low, high = zip(*(spread.quartiles for spread in spreads), strict=True)
        axes.fill_between(places, low, high, color=style["color"], alpha=0.2)


def best_rival(row: Row) -> Spread | None:
    """The best rival, if one was measured."""
    spreads = [cell for name, cell in row.items() if name not in OURS and isinstance(cell, Spread)]
    return min(spreads, key=lambda spread: spread.median, default=None)
