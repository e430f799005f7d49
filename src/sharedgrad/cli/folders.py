"""Where a run goes if the person names no folder."""

from __future__ import annotations

from itertools import count
from pathlib import Path


def run_folder(data: str, model: str, resume: bool) -> Path:
    """The first of runs/DATA-MODEL, runs/DATA-MODEL-2, … with nothing in it; to resume, the one before."""
    base = Path("runs") / f"{_name(data)}-{_name(model.rpartition(':')[0] or model)}"
    last = folder = base
    for number in count(2):
        if not (folder.is_file() or any(folder.glob("*"))):
            break
        last, folder = folder, base.with_name(f"{base.name}-{number}")
    return last if resume else folder


def _name(source: str) -> str:
    path = Path(source).resolve()
    return (path.stem if path.suffix in (".npz", ".py", ".json", ".toml") else path.name) or "data"
