"""What a caller can hook into a training run."""

from __future__ import annotations

from sharedgrad.training.state import State


class Callback:
    """Hooks of :func:`sharedgrad.fit`; override what you need. Read the state, change nothing in it."""

    def on_start(self, state: State) -> None:
        """Training begins or goes on: ``state.epoch`` and ``state.batch`` say where."""

    def on_batch(self, state: State) -> None:
        """A batch has been learnt: ``state.batch`` of ``state.batches``."""

    def on_epoch(self, state: State) -> None:
        """An epoch is done: ``state.history.rows[-1]``."""

    def on_interrupt(self, state: State) -> None:
        """Ctrl-C or SIGTERM, between two batches; KeyboardInterrupt goes on to the caller of fit afterwards."""

    def on_end(self, state: State) -> None:
        """Training is over: all epochs are done (``state.finished``), or it was interrupted or failed."""

    def on_message(self, text: str) -> None:
        """One line for the person at the screen, e.g. that there is nothing to resume."""
