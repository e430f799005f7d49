"""Progress of reading and training: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from sharedgrad.errors import require
from sharedgrad.training import Callback, State

_PATIENCE = 2.0  # seconds of reading before a bar appears


class Lines(Callback):
    """A table with a line for each epoch.

    Args:
        watched: What the data are called that each epoch ends with.
    """

    def __init__(self, watched: str) -> None:
        self._watched = watched

    def on_start(self, state: State) -> None:
        """Print the head of the table."""
        columns = f"{'epoch':>9} {'loss':>9} {'accuracy':>10} {self._watched + ' loss':>15} {'accuracy':>10}"
        click.echo(f"{columns} {'images/s':>10}")

    def on_epoch(self, state: State) -> None:
        """Print what the epoch came to."""
        row = state.history.rows[-1]
        training = f"{row.train_loss:9.4f} {percent(row.train_accuracy):>10}"
        watched = f"{row.val_loss:15.4f} {percent(row.val_accuracy):>10}"
        self._print(f"{f'{row.epoch}/{state.epochs}':>9} {training} {watched} {row.images_per_second:10,.0f}")

    def on_message(self, text: str) -> None:
        """Print it."""
        click.echo(text)

    def _print(self, line: str) -> None:
        click.echo(line)


class Bar(Lines):
    """A bar over the whole run, and above it a line for each epoch that is done."""

    def on_start(self, state: State) -> None:
        """Show the bar."""
        super().on_start(state)
        progress = require("rich.progress", "progress bars")
        columns = (
            "loss {task.fields[loss]:.4f}",
            "accuracy {task.fields[accuracy]}",
            "{task.fields[speed]:,.0f} images/s",
        )
        self._progress = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(bar_width=None),
            *(progress.TextColumn(column) for column in columns),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("left"),
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


class Reading:
    """A bar while image files are read, on a terminal and only if it takes a while; call it with (done, all)."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._progress: Any = None

    def __call__(self, done: int, total: int) -> None:
        """So many of all files have been read."""
        if self._progress is None and sys.stdout.isatty() and time.monotonic() - self._began > _PATIENCE:
            progress = require("rich.progress", "progress bars")
            columns = ("reading images", progress.BarColumn(), progress.MofNCompleteColumn())
            self._progress = progress.Progress(*columns, transient=True)
            self._progress.add_task("", total=total)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(0, completed=done)

    def __enter__(self) -> Reading:
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
        "loss": state.loss,
        "accuracy": percent(state.accuracy),
        "speed": state.images_per_second,
    }
