"""What a layer in Python, or an unusual mode, costs a network that is compiled otherwise."""

from __future__ import annotations

from functools import partial

from benchmarks import nets, training
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table
from benchmarks.timing import alternating

BARS = {"cnn, an own layer": Bar(1.3, 1.15, cost=True), "cnn, reflecting padding": Bar(1.5, 1.2, cost=True)}


def section(options: Options) -> list[Table]:
    """Whole training steps beside those of the plain net."""
    note = (
        "A training step of the CNN with one own layer in Python behind the first dense layer, or with reflecting "
        "padding, beside that of the plain one; milliseconds: median (quartiles). The cost is the ratio; the bars are "
        "for batch 64."
    )
    names = tuple(nets.VARIED) if options.narrowed(("cnn",)) else ()
    chosen = [(name, batch) for name in names for batch in options.batches or (64, 1)]
    cases = tuple(Case(f"{name}, batch {batch}", partial(_row, options, name, batch)) for name, batch in chosen)
    columns = ("net", "plain", "varied", "cost", "bar", "reached")
    return [Table("varied", "One layer in Python, one unusual mode", note, columns, cases)]


def _row(options: Options, name: str, batch: int) -> Row:
    calls = {"plain": training.training_step("cnn", batch), "varied": training.training_step(name, batch)}
    spreads = alternating(calls, options.repeats)
    cost = spreads["varied"].median / spreads["plain"].median
    return {**spreads, "cost": cost, **(BARS[name].cells(cost) if batch == 64 else {})}
