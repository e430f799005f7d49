"""Sections that set a whole net of sharedgrad against PyTorch: training steps and inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import nets, training
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table, compared
from benchmarks.timing import Call, alternating, ready

STEP_BARS = {
    ("lenet5", 64): Bar(4, 6),
    ("lenet5", 1): Bar(5, 12),
    ("cnn", 64): Bar(2.5, 3.5),
    ("vgg", 64): Bar(1, 1.2),
    ("resnet20", 64): Bar(1.2, 1.8),
    ("separable", 64): Bar(2, 3),
}
STEPS = {"lenet5": (64, 1), "cnn": (64, 1), "vgg": (64,), "resnet20": (64,), "separable": (64,)}

INFERENCE_BARS = {
    (name, batch): Bar(1 if name == "vgg" else 1.5, 4) for name in ("lenet5", "cnn", "vgg") for batch in (1, 64)
}

ONE_CALL = "in one call"

Rival = Callable[[str, int, str], Call]


def steps(options: Options) -> list[Table]:
    """Whole training steps."""
    note = (
        "Forward, cross-entropy, backward, plain SGD on the same data; milliseconds a step: median (quartiles). "
        "In one call: `sg.compile_step`. The ratios are PyTorch's best time over ours; the bar is for one call."
    )
    chosen = [(name, batch) for name in options.narrowed(tuple(STEPS)) for batch in options.batches or STEPS[name]]
    return [_table("steps", "Training steps", note, chosen, partial(step_duel, options), options)]


def step_duel(options: Options, name: str, batch: int) -> Row:
    """A training step of one net and batch."""
    theirs, failures = _rivals(_torch_step, options, name, batch)
    ours = {"sharedgrad": training.training_step(name, batch), ONE_CALL: training.step_in_one_call(name, batch)}
    spreads = alternating({**ours, **theirs}, options.repeats)
    peers = {peer: spreads[peer] for peer in theirs}
    row: Row = {**spreads, **failures, "ratio": compared(spreads["sharedgrad"], peers)}
    row["ratio in one call"] = ratio = compared(spreads[ONE_CALL], peers)
    bar = STEP_BARS.get((name, batch))
    return {**row, **bar.cells(ratio)} if bar else row


def inference(options: Options) -> list[Table]:
    """Scores of a batch, without a gradient."""
    note = "`net.predict` beside `torch.inference_mode`; milliseconds a batch: median (quartiles)."
    names = options.narrowed(("lenet5", "cnn", "vgg"))
    chosen = [(name, batch) for name in names for batch in options.batches or (1, 64)]
    measure = partial(_duel, _prediction, _torch_inference, INFERENCE_BARS, options)
    return [_table("inference", "Inference", note, chosen, measure, options)]


def _duel(
    ours: Callable[[str, int], Call],
    rival: Rival,
    bars: dict[tuple[str, int], Bar],
    options: Options,
    name: str,
    batch: int,
) -> Row:
    """One net and batch: sharedgrad, PyTorch in each kind, the ratio and what it must reach."""
    theirs, failures = _rivals(rival, options, name, batch)
    spreads = alternating({"sharedgrad": ours(name, batch), **theirs}, options.repeats)
    ratio = compared(spreads["sharedgrad"], {peer: spreads[peer] for peer in theirs})
    row: Row = {**spreads, **failures, "ratio": ratio}
    bar = bars.get((name, batch))
    return {**row, **bar.cells(ratio)} if bar else row


def _rivals(rival: Rival, options: Options, name: str, batch: int) -> tuple[dict[str, Call], dict[str, str]]:
    """PyTorch in each kind, and why a kind failed."""
    return ready({f"PyTorch {kind}": partial(rival, name, batch, kind) for kind in options.kinds()})


def _table(
    name: str,
    title: str,
    note: str,
    chosen: list[tuple[str, int]],
    measure: Callable[[str, int], Row],
    options: Options,
) -> Table:
    peers = (f"PyTorch {kind}" for kind in options.kinds())
    cases = (Case(f"{net}, batch {batch}", partial(measure, net, batch)) for net, batch in chosen)
    ours = ("sharedgrad", ONE_CALL) if name == "steps" else ("sharedgrad",)
    ratios = ("ratio", "ratio in one call") if name == "steps" else ("ratio",)
    return Table(name, title, note, ("net", *ours, *peers, *ratios, "bar", "reached"), tuple(cases))


def _torch_step(name: str, batch: int, kind: str) -> Call:
    from benchmarks import rival

    rival.check(name)
    return rival.training_step(name, batch, kind)


def _torch_inference(name: str, batch: int, kind: str) -> Call:
    from benchmarks import rival

    rival.check(name)
    return rival.inference(name, batch, kind)


def _prediction(name: str, batch: int) -> Call:
    net, (x, _) = nets.build(name), nets.data(name, batch)
    return partial(net.predict, x)
