"""The record of a training run: one row for each epoch, its file metrics.csv, and one step to explain."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharedgrad.errors import CheckpointError, ConfigError, require
from sharedgrad.storage import write_text
from sharedgrad.training.step import Step


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: Its number, from 1.
        train_loss: Mean loss of its samples, each before its batch's update.
        train_accuracy: Share of labels predicted, likewise; None where the targets are no classes.
        val_loss: Mean loss on the validation data after the epoch; None without any.
        val_accuracy: Share of their labels predicted.
        learning_rate: That of the last step; a tuple where groups of parameters have rates of their own.
        images_per_second: Samples trained on per second; evaluation and checkpoints do not count.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float | tuple[float, ...]
    images_per_second: float


if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = tuple(column.name for column in fields(Epoch))
_SHORT = {"loss": "train_loss", "accuracy": "train_accuracy", "lr": "learning_rate"}


@dataclass
class History:
    """The epochs of a run, in order.

    Attributes:
        rows: One entry per epoch.
        step: The middle step of the first epoch, to be explained (see ``training.report``); of a run that was resumed
            after that, the first step since.
    """

    rows: list[Epoch] = field(default_factory=list)
    step: Step | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> list[Any]:
        """A column, one number for each epoch: ``history["val_loss"]``; "loss" and "accuracy" are those of training.

        Raises:
            ConfigError: There is no such column.
        """
        column = _SHORT.get(name, name) if isinstance(name, str) else name
        if column not in COLUMNS:
            fix = f"choose from {', '.join(COLUMNS)}; history.rows holds the epochs"
            raise ConfigError("history", f"there is no column {name!r}", fix)
        return [getattr(row, column) for row in self.rows]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Only what does not exist: say what to take instead."""
            hint = ': history["val_loss"] is a column' if name in ("history", "epoch", *COLUMNS, *_SHORT) else ""
            raise AttributeError(f"a History has no attribute {name!r}{hint}")

    @property
    def best(self) -> Epoch | None:
        """The row with the lowest validation loss; None without any."""
        rows = [(row.val_loss, row) for row in self.rows if row.val_loss is not None]
        return min(rows, key=lambda pair: pair[0])[1] if rows else None

    def plot(self) -> Figure:
        """Loss and accuracy over the epochs as a matplotlib figure: ``history.plot().savefig("curves.png")``.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        return require("sharedgrad.training.plots", "drawing").drawn_curves(self)

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in COLUMNS)
        rows = "".join(f"<tr>{''.join(map(_cell, asdict(row).values()))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def write(self, path: str | Path) -> None:
        """Write metrics.csv; a number that does not exist is an empty cell.

        Raises:
            OutputError: The file cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) | {"learning_rate": _rates(row.learning_rate)} for row in self.rows)
        write_text(path, text.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> History:
        """Read metrics.csv.

        Raises:
            CheckpointError: There is none, or it has other columns or cells that are no numbers.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                if tuple(next(reader, ())) != COLUMNS:
                    raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
                return cls([_row(cells) for cells in reader])
        except OSError as error:
            raise CheckpointError(path, f"cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise CheckpointError(path, f"is not the metrics of a run ({error})") from None


def _cell(value: float | tuple[float, ...] | None) -> str:
    several = value if isinstance(value, tuple) else () if value is None else (value,)
    return f"<td>{', '.join(format(number, '.4g') for number in several)}</td>"


def _rates(value: float | tuple[float, ...]) -> str:
    """One number, or several with spaces between them."""
    return " ".join(map(repr, value if isinstance(value, tuple) else (value,)))


def _read_rates(cell: str) -> float | tuple[float, ...]:
    rates = tuple(map(float, cell.split()))
    if not rates:
        raise ValueError("a learning rate is missing")
    return rates if len(rates) > 1 else rates[0]


def _row(cells: list[str]) -> Epoch:
    epoch, train_loss, train_accuracy, val_loss, val_accuracy, learning_rate, speed = cells
    return Epoch(
        int(epoch),
        float(train_loss),
        _number(train_accuracy),
        _number(val_loss),
        _number(val_accuracy),
        _read_rates(learning_rate),
        float(speed),
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
