"""Peak memory of a training step, each kind of net in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import sharedgrad
from benchmarks.machine import ROOT
from benchmarks.nets import NETS
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Cell, Row, Table, compared
from benchmarks.timing import Spread

BATCH = 64
PROCESSES = 3  # at most: memory differs little from run to run


def section(options: Options) -> list[Table]:
    """One table."""
    note = (
        f"Peak resident memory over several steps, batch {BATCH}, above what the process held before the first: "
        "weights, data, and libraries that have run a small net (torch.compile: has compiled this one). "
        "MiB: median (quartiles). The ratio is PyTorch's least over ours."
    )
    cases = tuple(Case(name, partial(_row, options, name)) for name in options.narrowed(tuple(NETS)))
    peers = (f"PyTorch {kind}" for kind in options.kinds())
    columns = ("net", "sharedgrad", *peers, "ratio", "bar", "reached")
    return [Table("memory", "Peak memory of a training step", note, columns, cases)]


def _row(options: Options, name: str) -> Row:
    cells = {"sharedgrad": _peaks(options, name, "sharedgrad")}
    cells |= {f"PyTorch {kind}": _peaks(options, name, kind) for kind in options.kinds()}
    spreads = {kind: cell for kind, cell in cells.items() if isinstance(cell, Spread)}
    ours = spreads.pop("sharedgrad", None)
    ratio = compared(ours, spreads) if ours else None
    return {**cells, "ratio": ratio, **Bar(1, 2).cells(ratio)}


def _peaks(options: Options, name: str, kind: str) -> Cell:
    """MiB in some processes, or why it could not be measured."""
    command = [sys.executable, "-m", "benchmarks.probe", name, kind, str(BATCH), str(options.threads)]
    peaks = []
    for _ in range(min(options.repeats, PROCESSES)):
        ended = subprocess.run(command, capture_output=True, text=True, env=environment())
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
            return f"failed: {reason[:120]}".replace("|", "/")
        peaks.append(int(ended.stdout.split()[-1]) / 2**20)
    return Spread(tuple(peaks))


def environment() -> dict[str, str]:
    """For a child that finds this package and the sharedgrad that is measured here."""
    places = [str(ROOT), str(Path(sharedgrad.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
