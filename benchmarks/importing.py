"""How long ``import sharedgrad`` takes, NumPy being there already."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.memory import environment
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table
from benchmarks.timing import Spread

CODE = "import numpy, time; start = time.perf_counter(); import sharedgrad; print(time.perf_counter() - start)"


def section(options: Options) -> list[Table]:
    """One table with one row."""
    note = "In a fresh process each, compiled to bytecode and read before, as installed; seconds: median (quartiles)."
    cases = (Case("`import sharedgrad`, NumPy already imported", partial(_row, options)),)
    return [Table("import", "Import", note, ("what", "seconds", "bar", "reached"), cases)]


def _row(options: Options) -> Row:
    with TemporaryDirectory() as bytecode:
        _seconds(bytecode)
        spread = Spread(tuple(_seconds(bytecode) for _ in range(options.repeats)))
    return {"seconds": spread, **Bar(0.2, 0.05, cost=True).cells(spread.median)}


def _seconds(bytecode: str) -> float:
    """The time in a new process, which keeps its bytecode in this folder."""
    env = environment() | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
    command = [sys.executable, "-c", CODE]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
