"""Per-sample gradients: what they cost beside a plain step, and beside the libraries that make them for PyTorch."""

from __future__ import annotations

from functools import partial

import sharedgrad as sg
from benchmarks import nets, training
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table, compared
from benchmarks.timing import Call, Spread, alternating, ready

BATCH = 64
MAX_NORM = 1.0


def section(options: Options) -> list[Table]:
    """Three tables: convolution gradients kept apart, clipped sums, everything materialized."""
    return [_apart(options), _clipped(options), _materialized(options)]


def _apart(options: Options) -> Table:
    note = (
        "Forward, cross-entropy, backward, with the gradients of all convolutions kept apart by sample, beside the "
        f"same with plain sums; no update. Batch {BATCH}; milliseconds: median (quartiles). The cost is the ratio."
    )
    names = options.narrowed(("lenet5", "cnn"))
    cases = tuple(Case(name, partial(_apart_row, options, name)) for name in names)
    columns = ("net", "plain", "kept apart", "cost", "bar", "reached")
    return Table("kept apart", "Convolution gradients kept apart by sample", note, columns, cases)


def _apart_row(options: Options, name: str) -> Row:
    net = nets.build(name)
    convolutions = [p for node in net for p in node.layer.parameters().values() if isinstance(node.layer, sg.Conv2d)]
    calls = {"plain": gradients(name), "kept apart": gradients(name, net, convolutions)}
    return _cost_row(alternating(calls, options.repeats), "kept apart", Bar(1.15, 1.05, cost=True))


def _clipped(options: Options) -> Table:
    note = (
        "A training step with the norm of every sample's gradient (all layers) and the sum of the gradients clipped to "
        f"norm {MAX_NORM:g}, beside a plain step. Batch {BATCH}; milliseconds: median (quartiles)."
    )
    cases = tuple(Case(name, partial(_clipped_row, options, name)) for name in options.narrowed(("cnn", "vgg")))
    columns = ("net", "plain", "clipped", "cost", "bar", "reached")
    return Table("clipped", "Per-sample norms and clipped sums", note, columns, cases)


def _clipped_row(options: Options, name: str) -> Row:
    calls = {"plain": training.training_step(name, BATCH), "clipped": clipped_step(name)}
    return _cost_row(alternating(calls, options.repeats), "clipped", Bar(1.4, 1.15, cost=True))


def _cost_row(spreads: dict[str, Spread], costly: str, bar: Bar) -> Row:
    cost = spreads[costly].median / spreads["plain"].median
    return {**spreads, "cost": cost, **bar.cells(cost)}


def _materialized(options: Options) -> Table:
    note = (
        "Forward, cross-entropy, backward, with the gradients of all parameters kept apart by sample; no update. "
        f"Batch {BATCH}; milliseconds: median (quartiles). The ratio is the best rival's time over ours."
    )
    cases = tuple(Case(name, partial(_materialized_row, options, name)) for name in options.narrowed(("cnn",)))
    columns = ("net", "sharedgrad", *rivals(options), "ratio", "bar", "reached")
    return Table("materialized", "All per-sample gradients materialized", note, columns, cases)


def _materialized_row(options: Options, name: str) -> Row:
    net = nets.build(name)
    ours = gradients(name, net, net.parameters())
    makers = {rival: partial(_rival, rival, name, ours) for rival in rivals(options)}
    theirs, failures = ready(makers)
    spreads = alternating({"sharedgrad": ours, **theirs}, options.repeats)
    ratio = compared(spreads["sharedgrad"], {rival: spreads[rival] for rival in theirs})
    return {**spreads, **failures, "ratio": ratio, **Bar(4, 5).cells(ratio)}


def gradients(name: str, net: sg.Network | None = None, apart: list[sg.Parameter] | None = None) -> Call:
    """A call that gives all gradients, in the order of the parameters; those of ``apart`` kept apart by sample."""
    net, (x, labels) = net or nets.build(name), nets.data(name, BATCH)
    loss, parameters = sg.CrossEntropy(reduction="sum"), net.parameters()
    how = {"by_sample": apart} if apart else {}

    def run() -> list[sg.parameter.Array]:
        y, tape = net.forward(x)
        _, upstream = loss(y, labels)
        found = tape.backward(upstream, **how)
        return [found[p] for p in parameters]

    return run


def clipped_step(name: str) -> Call:
    """A call that makes a training step with per-sample clipping."""
    net, (x, labels) = nets.build(name), nets.data(name, BATCH)
    loss, optimizer = sg.CrossEntropy(reduction="sum"), sg.SGD(net.parameters(), lr=training.RATE)

    def step() -> None:
        y, tape = net.forward(x)
        _, upstream = loss(y, labels)
        total, _ = tape.clipped_by_sample(upstream, MAX_NORM)
        optimizer.step(total)

    return step


def rivals(options: Options) -> tuple[str, ...]:
    """The libraries that are measured."""
    if not options.rivals:
        return ()
    return ("torch.func", *(("torch.func compiled",) if options.compile else ()), "BackPACK", "Opacus")


def _rival(rival: str, name: str, ours: Call) -> Call:
    from benchmarks import rival_persample

    return rival_persample.checked(rival, name, BATCH, ours)
