"""What it costs to keep the uses apart instead of adding them up."""

from __future__ import annotations

from functools import partial

import sharedgrad as sg
from benchmarks import nets
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table
from benchmarks.timing import alternating

BATCH = 64


def section(options: Options) -> list[Table]:
    """One table: a trace beside the plain way back."""
    note = (
        "`tape.trace` beside `tape.backward` after one forward pass: for every node with parameters the upstream "
        f"gradient and what its layer has read. Batch {BATCH}; milliseconds: median (quartiles). The cost is the ratio."
    )
    cases = tuple(Case(name, partial(_row, options, name)) for name in options.narrowed(tuple(nets.NETS)))
    return [Table("trace", "Traces", note, ("net", "backward", "trace", "cost", "bar", "reached"), cases)]


def _row(options: Options, name: str) -> Row:
    net, (x, labels) = nets.build(name), nets.data(name, BATCH)
    y, tape = net.forward(x)
    _, upstream = sg.CrossEntropy()(y, labels)
    calls = {"backward": partial(tape.backward, upstream), "trace": partial(tape.trace, upstream)}
    spreads = alternating(calls, options.repeats)
    cost = spreads["trace"].median / spreads["backward"].median
    return {**spreads, "cost": cost, **Bar(2, 1.2, cost=True).cells(cost)}
