"""The epoch with the lowest validation loss: kept beside the last, and known when no better one comes any more."""

from __future__ import annotations

from pathlib import Path

from sharedgrad.errors import CheckpointError
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.storage import load_arrays, save_arrays, unshared
from sharedgrad.training.files import BEST
from sharedgrad.training.history import Epoch, History

_FORMAT = "sharedgrad best epoch"


class Best:
    """Holds the weights and buffers of the best epoch so far.

    Args:
        network: The network that is trained.
        folder: A run folder, where best.safetensors lets a resumed run know them too; None for memory alone.
    """

    def __init__(self, network: Network, folder: str | Path | None) -> None:
        self._network = network
        self._path = None if folder is None else Path(folder) / BEST
        self._loss: float | None = None
        self._state: dict[str, Array] | None = None

    def resume(self, history: History) -> None:
        """Take up what was kept before; without a file, epochs count from now on.

        Raises:
            CheckpointError: The file is damaged or of another run.
        """
        if self._path is None or not self._path.exists() or not history.rows:
            return
        arrays, metadata = load_arrays(self._path)
        rows = [row for row in history.rows if str(row.epoch) == metadata.get("epoch")]
        if metadata.get("format") != _FORMAT or not rows:
            raise CheckpointError(self._path, "does not belong to this run", "remove it")
        self._loss, self._state = rows[0].val_loss, arrays

    def consider(self, row: Epoch) -> None:
        """Keep the network as it is now, if the epoch that is done is the best.

        Raises:
            OutputError: The file cannot be written.
        """
        if row.val_loss is None or (self._loss is not None and row.val_loss >= self._loss):
            return
        self._loss, self._state = row.val_loss, self._network.state_dict()
        if self._path is not None:
            save_arrays(self._path, unshared(self._network), {"format": _FORMAT, "epoch": str(row.epoch)})

    def restore(self) -> None:
        """Give the network the weights and buffers of the best epoch."""
        if self._state is not None:
            self._network.load_state_dict(self._state)


def stalled(history: History, patience: int | None) -> bool:
    """Whether the last ``patience`` epochs were all no better than the best before them."""
    losses = [row.val_loss for row in history.rows if row.val_loss is not None]
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[:-patience]) <= min(losses[-patience:])
