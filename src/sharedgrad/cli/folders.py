"""Where a run goes if the person names no folder."""

from __future__ import annotations

from itertools import count
from pathlib import Path


def run_folder(data: str, model: str, resume: bool) -> Path:
    """The folder runs/DATA-MODEL, or with -2, -3 … the first that is free; the last that is taken to resume."""
    base = Path("runs") / f"{_name(data)}-{_name(model.rpartition(':')[0] or model)}"
    last = base
    for number in count(2):
        candidate = base if number == 2 else base.with_name(f"{base.name}-{number - 1}")
        if not candidate.exists():
            return last if resume else candidate
        last = candidate
    raise AssertionError("count never ends")


def _name(source: str) -> str:
    path = Path(source).resolve()
    return (path.stem if path.suffix in (".npz", ".py", ".json", ".toml") else path.name) or "data"
