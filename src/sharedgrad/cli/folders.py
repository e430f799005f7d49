"""Where a run goes if the person names no folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sharedgrad.errors import CheckpointError
from sharedgrad.training.claim import LOCK, claimed
from sharedgrad.training.files import RUN
from sharedgrad.training.run import load_settings


@contextmanager
def run_folder(out: Path | None, data: str, model: str, resume: bool) -> Iterator[Path]:
    """The folder of a run, held as long as the block lasts: two runs never write to one.

    Args:
        out: What the person named; None for the first of runs/DATA-MODEL, runs/DATA-MODEL-2, … with nothing in
            it, or to resume, the one before.
        data, model: What the folder is named after.
        resume: Whether a run is to go on.

    Raises:
        CheckpointError: Another run is writing to it.
        OutputError: It cannot be made or written.
    """
    with ExitStack() as held:
        if out is None and not resume:
            folder = _first_free(data, model, held)
        else:
            held.enter_context(claimed(folder := out or _latest(data, model)))
        yield folder
    if out is None:
        with contextlib.suppress(OSError):  # only if nothing was written
            folder.rmdir()


def planned(out: Path | None, data: str, model: str) -> dict[str, Any]:
    """The settings that the run that is to go on was started with; none if there is none."""
    folder = out or _latest(data, model)
    return load_settings(folder) if (folder / RUN).is_file() else {}


def _first_free(data: str, model: str, held: ExitStack) -> Path:
    """The first folder with nothing in it, claimed."""
    for folder in _numbered(data, model):
        if _is_free(folder):
            with ExitStack() as attempt, contextlib.suppress(CheckpointError):
                attempt.enter_context(claimed(folder))
                if _is_free(folder):  # still
                    held.push(attempt.pop_all())
                    return folder
    raise AssertionError  # there is always a next number


def _latest(data: str, model: str) -> Path:
    """The last folder before the first free one."""
    last = next(_numbered(data, model))
    for folder in _numbered(data, model):
        if _is_free(folder):
            break
        last = folder
    return last


def _numbered(data: str, model: str) -> Iterator[Path]:
    """runs/DATA-MODEL, runs/DATA-MODEL-2, …"""
    base = Path("runs") / f"{_name(data)}-{_name(model.rpartition(':')[0] or model)}"
    yield base
    yield from (base.with_name(f"{base.name}-{number}") for number in count(2))


def _is_free(folder: Path) -> bool:
    return not folder.is_file() and all(path.name == LOCK for path in folder.glob("*"))


def _name(source: str) -> str:
    path = Path(source).resolve()
    return (path.stem if path.suffix in (".npz", ".py", ".json", ".toml") else path.name) or "data"
