"""Progress of reading and training: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from sharedgrad.cli.echo import say
from sharedgrad.errors import require
from sharedgrad.layout import columns
from sharedgrad.training import Callback, State

_PATIENCE = 2.0  # seconds before a bar appears


class Lines(Callback):
    """A table with a line for each epoch; in a narrow window its columns give way, the speed first.

    Args:
        watched: What the data are called that each epoch ends with; None where there are none.
    """

    def __init__(self, watched: str | None) -> None:
        heads = [("epoch", 9), ("loss", 9), ("accuracy", 10), ("images/s", 10)]
        if watched:
            heads[3:3] = [(f"{watched} loss", 15), ("accuracy", 10)]
        self._heads = heads
        kept = list(range(len(heads)))
        leaving = [5, 2, 1, 3] if watched else [3, 2]
        while leaving and sum(heads[column][1] + 1 for column in kept) - 1 > columns():
            kept.remove(leaving.pop(0))
        self._kept = kept

    def on_start(self, state: State) -> None:
        """Print the head of the table."""
        click.echo(self._line([head for head, _ in self._heads]))

    def on_epoch(self, state: State) -> None:
        """Print what the epoch came to."""
        row = state.history.rows[-1]
        cells = [f"{row.epoch}/{state.epochs}", f"{row.train_loss:.4f}", percent(row.train_accuracy)]
        if len(self._heads) == 6:
            cells += ["" if row.val_loss is None else f"{row.val_loss:.4f}", percent(row.val_accuracy)]
        self._print(self._line([*cells, f"{row.images_per_second:,.0f}"]))

    def on_message(self, text: str) -> None:
        """Print it."""
        say(text)

    def _line(self, cells: list[str]) -> str:
        return " ".join(f"{cells[column]:>{self._heads[column][1]}}" for column in self._kept)

    def _print(self, line: str) -> None:
        click.echo(line)


class Bar(Lines):
    """A bar over the whole run, and above it a line for each epoch that is done."""

    def on_start(self, state: State) -> None:
        """Show the bar."""
        super().on_start(state)
        progress = require("rich.progress", "progress bars")
        column = require("rich.table", "progress bars").Column
        parts = [
            (0, "epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            (40, "loss {task.fields[loss]}"),
            (60, "accuracy {task.fields[accuracy]}"),
            (80, "{task.fields[speed]:,.0f} images/s"),
        ]
        epoch, *others = (
            progress.TextColumn(text, table_column=column(no_wrap=True)) for least, text in parts if columns() >= least
        )
        self._progress = progress.Progress(
            epoch,
            progress.BarColumn(bar_width=None),
            *others,
            progress.TimeRemainingColumn(compact=True, table_column=column(no_wrap=True)),
            progress.TextColumn("left", table_column=column(no_wrap=True)),
            expand=True,
            transient=True,
        )
        total = state.epochs * state.batches
        self._task = self._progress.add_task("", total=total, completed=state.step, **_fields(state))
        self._progress.start()

    def on_batch(self, state: State) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=state.step, **_fields(state))

    def on_end(self, state: State) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _print(self, line: str) -> None:
        self._progress.console.out(line, highlight=False)  # above the bar


class Waiting:
    """A bar over work that takes a while, on a terminal; call it with (done, all).

    Args:
        what: What is being done, e.g. "reading images".
    """

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()
        self._progress: Any = None

    def __call__(self, done: int, total: int) -> None:
        """So much of all has been done."""
        if self._progress is None and sys.stderr.isatty() and time.monotonic() - self._began > _PATIENCE:
            progress = require("rich.progress", "progress bars")
            console = require("rich.console", "progress bars").Console(stderr=True)
            columns = (self._what, progress.BarColumn(), progress.MofNCompleteColumn())
            self._progress = progress.Progress(*columns, transient=True, console=console)
            self._progress.add_task("", total=total)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(0, completed=done)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def percent(share: float | None) -> str:
    """0.9721 -> 97.21 %."""
    return "" if share is None else f"{100 * share:.2f} %"


def _fields(state: State) -> dict[str, Any]:
    return {
        "epoch": min(state.epoch + 1, state.epochs),
        "epochs": state.epochs,
        "loss": f"{state.loss:.4f}" if state.batch else "–",  # nothing has been learnt yet in this epoch
        "accuracy": percent(state.accuracy) or "–",
        "speed": state.images_per_second,
    }
