"""A line for each epoch, for a person who looks on."""

from __future__ import annotations

import sys

from sharedgrad.training.callbacks import Callback
from sharedgrad.training.state import State


def watched(progress: bool | None) -> bool:
    """Whether to show progress: as asked for, or else where somebody looks on (a terminal, a notebook)."""
    if progress is not None:
        return progress
    return "ipykernel" in sys.modules or (sys.stdout is not None and sys.stdout.isatty())


class Progress(Callback):
    """Prints what each epoch came to, within 80 columns."""

    def on_epoch(self, state: State) -> None:
        """Print it."""
        row = state.history.rows[-1]
        parts = [f"epoch {row.epoch}/{state.epochs}", f"loss {row.train_loss:.4f}", _percent(row.train_accuracy)]
        if row.val_loss is not None:
            parts += [f"validation loss {row.val_loss:.4f}", _percent(row.val_accuracy)]
        print("  ".join(part for part in parts if part), flush=True)

    def on_message(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
