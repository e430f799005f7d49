"""What a trace of a PyTorch model costs beside the plain step, in time and memory, and beside per-sample libraries."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from importlib.util import find_spec

from benchmarks.memory import PROCESSES, environment
from benchmarks.options import Options
from benchmarks.persample import BATCH as SAMPLES
from benchmarks.persample import rivals
from benchmarks.tables import Bar, Case, Cell, Row, Table, compared
from benchmarks.timing import Spread, alternating, ready

MODELS = ("vgg", "resnet18", "transformer")
KINDS = ("norms", "norms and shares")
TIME = {
    ("vgg", "norms"): Bar(1.2, 1.1, cost=True),
    ("resnet18", "norms"): Bar(1.2, 1.1, cost=True),
    ("vgg", "norms and shares"): Bar(1.6, 1.4, cost=True),
    ("resnet18", "norms and shares"): Bar(1.6, 1.4, cost=True),
    ("transformer", "norms and shares"): Bar(1.6, 1.4, cost=True),
}


def section(options: Options) -> list[Table]:
    """Three tables: time, memory, per-sample gradients; none without PyTorch."""
    measurable = options.rivals and find_spec("torch")
    return [_time(options), _memory(options), _apart(options)] if measurable else []


def _models(options: Options) -> list[str]:
    return [name for name in MODELS if not options.nets or name in options.nets]


def _time(options: Options) -> Table:
    note = (
        "A PyTorch model's own step (forward, loss, backward; batch 32), plain and in `sg.trace(model, keep=[…])` with "
        "norms, or norms and shares, of every use of every parameter; certified in both. Milliseconds: median "
        "(quartiles). For scale: what writing every contribution out, one after the other, would take (seconds)."
    )
    cases = tuple(Case(name, partial(_time_row, options, name)) for name in _models(options))
    columns = (
        "model",
        "plain",
        *(c for kind in KINDS for c in (kind, f"cost of {kind}", f"bar of {kind}", kind + "?")),
    )
    return Table("torch trace", "Traces of PyTorch models", note, (*columns, "one by one"), cases)


def _time_row(options: Options, name: str) -> Row:
    from benchmarks import traced_models

    calls = {kind: traced_models.step(name, kind) for kind in ("plain", *KINDS)}
    spreads = alternating(calls, options.repeats)
    row: Row = {**spreads, "one by one": traced_models.one_by_one(name) / 1e3}
    for kind in KINDS:
        cost = row[f"cost of {kind}"] = spreads[kind].median / spreads["plain"].median
        if (name, kind) in TIME:
            cells = TIME[name, kind].cells(cost)
            row |= {f"bar of {kind}": cells["bar"], f"{kind}?": cells["reached"]}
    return row


def _memory(options: Options) -> Table:
    note = (
        "Peak resident memory of the same steps, above what the process held before the first. "
        "MiB: median (quartiles), each kind in processes of its own."
    )
    cases = tuple(
        Case(f"{name}, {kind}", partial(_memory_row, options, name, kind))
        for name in _models(options)
        for kind in KINDS
    )
    columns = ("model and questions", "plain", "traced", "cost", "bar", "reached")
    return Table("torch trace memory", "Memory of traces of PyTorch models", note, columns, cases)


def _memory_row(options: Options, name: str, kind: str) -> Row:
    plain, traced = (_peaks(options, name, k) for k in ("plain", kind))
    if not isinstance(plain, Spread) or not isinstance(traced, Spread):
        return {"plain": plain, "traced": traced}
    cost = traced.median / plain.median
    return {"plain": plain, "traced": traced, "cost": cost, **Bar(1.4, 1.2, cost=True).cells(cost)}


def _peaks(options: Options, name: str, kind: str) -> Cell:
    command = [sys.executable, "-m", "benchmarks.probe", name, f"traced {kind}", "32", str(options.threads)]
    peaks = []
    for _ in range(min(options.repeats, PROCESSES)):
        ended = subprocess.run(command, capture_output=True, text=True, env=environment())
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
            return f"failed: {reason[:120]}".replace("|", "/")
        peaks.append(int(ended.stdout.split()[-1]) / 2**20)
    return Spread(tuple(peaks))


def _apart(options: Options) -> Table:
    note = (
        "Forward, cross-entropy, backward of the PyTorch net, with the gradients of all parameters kept apart by "
        f"sample: `sg.trace` and `t.per_sample`, beside libraries for it. Batch {SAMPLES}; milliseconds: median "
        "(quartiles). The ratio is the best rival's time over ours."
    )
    cases = tuple(Case(name, partial(_apart_row, options, name)) for name in options.narrowed(("cnn",)))
    columns = ("net", "sg.trace", *rivals(options), "ratio", "bar", "reached")
    return Table("torch per sample", "Per-sample gradients of a PyTorch net", note, columns, cases)


def _apart_row(options: Options, name: str) -> Row:
    from benchmarks import rival_persample, traced_models

    ours = traced_models.per_sample(name, SAMPLES)
    makers = {other: partial(rival_persample.checked, other, name, SAMPLES, ours) for other in rivals(options)}
    theirs, failures = ready(makers)
    spreads = alternating({"sg.trace": ours, **theirs}, options.repeats)
    ratio = compared(spreads["sg.trace"], {other: spreads[other] for other in theirs})
    return {**spreads, **failures, "ratio": ratio, **Bar(1, 2).cells(ratio)}
