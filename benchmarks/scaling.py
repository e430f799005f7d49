"""How a training step's time grows with the batch, with the channels and with the threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from benchmarks import duels, machine
from benchmarks.nets import CHANNELS
from benchmarks.options import Options
from benchmarks.tables import Case, Row, Table

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH = 64


def section(options: Options) -> list[Table]:
    """Three tables; torch.compile, which would compile for every row, is left out."""
    options = replace(options, compile=False)
    note = (
        "Milliseconds a training step: median (quartiles). The ratios are the best rival's time over ours; the bar is "
        "for one call."
    )
    batches = (
        Case(f"{name}, batch {batch}", partial(_row, options, "batch", batch, name, batch))
        for name in options.narrowed(("lenet5", "cnn"))
        for batch in BATCHES
    )
    channels = (
        Case(f"{count} channels", partial(_row, options, "channels", count, f"wide{count}", BATCH))
        for count in CHANNELS
    )
    threads = (
        Case(f"{name}, threads {count}", partial(_threads_row, options, name, count))
        for name in options.narrowed(("lenet5", "cnn", "vgg", "resnet20", "separable"))
        for count in thread_counts()
    )
    wide = f"Two 3×3 convolutions of so many channels on 32×32, each pooled, batch {BATCH}. {note}"
    return [
        _table(options, "batch", note, batches),
        _table(options, "channels", wide, () if options.nets else channels),
        _table(options, "threads", f"Batch {BATCH}. {note}", threads),
    ]


def thread_counts() -> list[int]:
    """1, 2, 4 and so on, and all cores."""
    cores = os.cpu_count() or 1
    return sorted({cores, *(2**n for n in range(cores.bit_length()) if 2**n <= cores)})


def _table(options: Options, axis: str, note: str, cases: Iterable[Case]) -> Table:
    columns = ("net", *duels.OURS, *duels.step_rivals(options), *duels.STEP_RATIOS, "bar", "reached")
    return Table(f"scaling by {axis}", f"A training step's time by {axis}", note, columns, tuple(cases))


def _row(options: Options, axis: str, value: int, name: str, batch: int) -> Row:
    curve = "two convolutions" if axis == "channels" else name
    return {"curve": curve, axis: value, **duels.step_duel(options, name, batch)}


def _threads_row(options: Options, name: str, count: int) -> Row:
    machine.use_threads(count, options.rivals)
    try:
        return _row(replace(options, threads=count), "threads", count, name, BATCH)
    finally:
        machine.use_threads(options.threads, options.rivals)
