"""Checkpoints: a run that is killed at any moment goes on and ends with the same bits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharedgrad.errors import CheckpointError, SharedgradError
from sharedgrad.network import Network
from sharedgrad.parameter import Array
from sharedgrad.storage import ensure_writable, load_arrays, rebuilt, save_arrays, unshared
from sharedgrad.training.callbacks import Callback
from sharedgrad.training.files import CHECKPOINT, METRICS, MODEL
from sharedgrad.training.history import Epoch
from sharedgrad.training.metrics import Metrics
from sharedgrad.training.state import State

SECONDS = 30.0  # between two checkpoints within an epoch
_FORMAT = "sharedgrad checkpoint"
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_UNSAID = {"accumulate": 1, "exact": False}  # settings that are written only where they are others
_NETWORK, _OPTIMIZER = "network/", "optimizer/"


class Checkpoint(Callback):
    """Writes ``checkpoint.safetensors`` and ``metrics.csv`` into a run folder, and takes a run up again.

    It holds weights, buffers and optimizer state, and the three numbers that key all randomness: the network's
    step (dropout), epoch and batch (order and augmentation). So nothing is left that could differ.

    Args:
        folder: The run folder.
        settings: What the run depends on (``Arguments.settings``).
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / CHECKPOINT
        self.settings = dict(settings)
        self._saved_at = time.monotonic()

    def begin(self, state: State, resume: bool, say: Callable[[str], None]) -> None:
        """Start afresh, or bring ``state`` to where the run stopped.

        Raises:
            OutputError: The folder cannot be made or written.
            CheckpointError: It holds a run and ``resume`` is false, or a run without its checkpoint; or the
                checkpoint in it is damaged, foreign or of other settings.
        """
        ensure_writable(self.folder)
        if not self.path.exists():
            self._refuse_a_run_without_checkpoint(resume)
            if resume:
                say(f"nothing to resume in {self.folder}: starting afresh")
            return
        if not resume:
            fix = "--resume (resume=True) goes on with it, another --out (out=…) keeps both"
            raise CheckpointError(self.folder, "holds a run already", fix)
        self._restore(state)
        state.history.write(self.folder / METRICS)
        if state.finished:
            say(f"the run in {self.folder} is finished: all {state.epochs} epochs are done")
        else:
            done = f"{state.epoch} of {state.epochs} epochs and {state.batch} batches"
            say(f"resuming the run in {self.folder} after {done}")
            if state.epochs > self._planned and self.settings["schedule"] != "constant":
                say(f"its learning rate now follows a schedule over {state.epochs} epochs, no longer {self._planned}")

    def _refuse_a_run_without_checkpoint(self, resume: bool) -> None:
        """What was trained once is not overwritten."""
        found = next((name for name in (MODEL, METRICS) if (self.folder / name).exists()), None)
        if found and resume:
            problem = f"holds a run ({found}) but no {CHECKPOINT} to go on from"
            raise CheckpointError(self.folder, problem, "take another --out (out=…), or put the checkpoint back")
        if found:
            raise CheckpointError(self.folder, "holds a run already", "take another --out (out=…)")

    def on_batch(self, state: State) -> None:
        """Save when the last checkpoint is old."""
        if time.monotonic() - self._saved_at >= SECONDS:
            self.save(state)

    def on_epoch(self, state: State) -> None:
        """Save, and write the metrics."""
        self.save(state)
        state.history.write(self.folder / METRICS)

    def on_end(self, state: State) -> None:
        """Save where a callback has stopped it."""
        if state.stopped and state.batch:
            self.save(state)

    def on_interrupt(self, state: State) -> None:
        """Save where the run was stopped."""
        self.save(state)

    def save(self, state: State) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            DivergedError: A weight is not finite; the last good checkpoint stays.
            OutputError: It cannot be written; the last good checkpoint stays.
        """
        state.ensure_finite()
        progress = {
            "step": state.network.step,
            "epoch": state.epoch,
            "batch": state.batch,
            "metrics": asdict(state.metrics),
            "seconds": state.seconds,
            "history": [asdict(row) for row in state.history.rows],
        }
        metadata = {
            "format": _FORMAT,
            "settings": json.dumps(self.settings),
            "progress": json.dumps(progress),
        }
        arrays = _joined({_NETWORK: unshared(state.network), _OPTIMIZER: state.optimizer.state_dict()})
        save_arrays(self.path, arrays, metadata)
        self._saved_at = time.monotonic()

    def _restore(self, state: State) -> None:
        arrays, settings, progress = _read(self.path)
        try:
            self._compare(settings)
            _check_range(progress, state)
            self._planned = int(settings["epochs"])
            state.network.load_state_dict(_part(_NETWORK, arrays))
            state.optimizer.load_state_dict(_part(_OPTIMIZER, arrays))
            state.network.step = int(progress["step"])
            state.epoch, state.batch = progress["epoch"], progress["batch"]
            state.metrics = Metrics(**progress["metrics"])
            state.seconds = float(progress["seconds"])
            state.history.rows = [Epoch(**{**row, "learning_rate": _rates(row)}) for row in progress["history"]]
        except _DAMAGE as error:
            raise _foreign(self.path, error) from None

    def _compare(self, saved: Mapping[str, Any]) -> None:
        """Refuse other settings: the result would be neither the one run's nor the other's. More epochs are welcome."""
        allowed = {"epochs"} if saved["epochs"] < self.settings["epochs"] else set()
        then, now = {**_UNSAID, **saved}, {**_UNSAID, **self.settings}
        differences = [
            _difference(name, then[name], now[name]) for name in now if then[name] != now[name] and name not in allowed
        ]
        if differences:
            problem = f"was written with other settings: {', '.join(differences)}"
            raise CheckpointError(self.path, problem, "resume with the same, or start another run (--out)")


def load_partial(path: str | Path) -> tuple[Network, str]:
    """The network in a checkpoint, as it was then, and how far training had come.

    Raises:
        CheckpointError: There is none, or it is damaged or foreign.
    """
    arrays, settings, progress = _read(Path(path))
    try:
        weights = _part(_NETWORK, arrays)
        network = rebuilt(settings["model"], weights)
        network.load_state_dict(weights)
        epoch, batch = int(progress["epoch"]), int(progress["batch"])
        batches = f" and {batch} batch{'' if batch == 1 else 'es'}" if batch else ""
        return network, f"{epoch} of {settings['epochs']} epochs{batches}"
    except (*_DAMAGE, SharedgradError) as error:
        raise _foreign(Path(path), error) from None


def _read(path: Path) -> tuple[dict[str, Array], Any, Any]:
    """Arrays, settings and progress of a checkpoint."""
    arrays, metadata = load_arrays(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(path, "is not a checkpoint of a training run")
    try:
        return arrays, json.loads(metadata["settings"]), json.loads(metadata["progress"])
    except (*_DAMAGE, RecursionError) as error:
        raise _foreign(path, error) from None


def _foreign(path: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}"
    return CheckpointError(path, f"is not a checkpoint of a training run ({reason})")


def _check_range(progress: Mapping[str, Any], state: State) -> None:
    """Raise ValueError unless a run could have come so far: a forged number would train for years, or not at all."""
    epoch, batch, rows = progress["epoch"], progress["batch"], progress["history"]
    for name, value, last in (("epoch", epoch, state.epochs), ("batch", batch, state.batches)):
        if type(value) is not int or not 0 <= value <= last:
            raise ValueError(f"expected {name} from 0 to {last}, got {value!r}")
    if [row["epoch"] for row in rows] != list(range(1, epoch + 1)):
        raise ValueError(f"expected a row for each of {epoch} epochs, got {len(rows)}")
    if epoch == state.epochs and batch:
        raise ValueError(f"expected no batch after the last epoch, got {batch}")
    if (batch == 0) != (progress["metrics"]["samples"] == 0):
        raise ValueError(f"expected samples in {batch} batches, got {progress['metrics']['samples']!r}")


def _rates(row: Mapping[str, Any]) -> Any:
    """JSON has no tuples."""
    rates = row["learning_rate"]
    return tuple(rates) if isinstance(rates, list) else rates


def _difference(name: str, then: object, now: object) -> str:
    if name in ("model", "trained parameters", "training data", "validation data"):
        return f"other {name}"
    return f"{name} {then} (now {now})"


def _joined(parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    return {prefix + name: array for prefix, arrays in parts.items() for name, array in arrays.items()}


def _part(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
