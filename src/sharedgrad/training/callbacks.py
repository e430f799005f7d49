"""What a caller can hook into a training run."""

from __future__ import annotations

import difflib
from typing import Any

from sharedgrad.errors import ConfigError
from sharedgrad.training.state import State

# Hooks of other libraries, and what they are called here.
_FAMILIAR = {
    **dict.fromkeys(("on_epoch_end", "on_train_epoch_end", "on_validation_end", "on_validation_epoch_end"), "on_epoch"),
    **dict.fromkeys(("on_batch_end", "on_train_batch_end"), "on_batch"),
    **dict.fromkeys(("on_train_begin", "on_train_start", "on_fit_start"), "on_start"),
    **dict.fromkeys(("on_train_end", "on_fit_end"), "on_end"),
    "on_exception": "on_interrupt",
}


class Callback:
    """Hooks of :func:`sharedgrad.fit`; override what you need.

    Read the state, change nothing in it; ``state.stop()`` ends the training.

    Raises:
        ConfigError: A subclass has a method ``on_…`` that is no hook, e.g. because of a slip of the pen.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and not hasattr(Callback, name):
                hooks = [hook for hook in vars(Callback) if hook.startswith("on_")]
                guess = difflib.get_close_matches(_FAMILIAR.get(name, name), hooks, 1)
                fix = f"did you mean {guess[0]}?" if guess else f"choose from {', '.join(hooks)}"
                raise ConfigError(f"class {cls.__name__}", f"{name} is no hook of a Callback", fix)

    def on_start(self, state: State) -> None:
        """Training begins or goes on: ``state.epoch`` and ``state.batch`` say where."""

    def on_batch(self, state: State) -> None:
        """A batch has been learnt: ``state.batch`` of ``state.batches``."""

    def on_epoch(self, state: State) -> None:
        """An epoch is done: ``state.history.rows[-1]``."""

    def on_interrupt(self, state: State) -> None:
        """Ctrl-C or SIGTERM, between two batches; KeyboardInterrupt goes on to the caller of fit afterwards."""

    def on_end(self, state: State) -> None:
        """Training is over: all epochs are done, or it was stopped (``state.stopped``), interrupted or failed."""

    def on_message(self, text: str) -> None:
        """One line for the person at the screen, e.g. that there is nothing to resume."""
