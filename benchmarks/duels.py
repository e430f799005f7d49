"""Sections that set a whole net of sharedgrad against others: training steps and inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import nets, training
from benchmarks.apart import Apart
from benchmarks.options import Options
from benchmarks.tables import Bar, Case, Row, Table, compared
from benchmarks.timing import Call, alternating, ready

STEP_BARS = {
    ("lenet5", 64): Bar(4, 5),
    ("lenet5", 1): Bar(5, 10),
    ("vgg", 64): Bar(2.3, 2.3),
    ("resnet20", 64): Bar(1.6, 1.8),
    ("separable", 64): Bar(2.5, 3),
    **{("cnn", batch): Bar(2.5, 3.5) for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256)},
}
JAX_LAYOUTS = ("NCHW", "NHWC")
STEPS = {"lenet5": (64, 1), "cnn": (64, 1), "vgg": (64,), "resnet20": (64,), "separable": (64,)}

INFERENCE_BARS = {(name, batch): Bar(1.2, 2) for name in ("lenet5", "cnn", "vgg") for batch in (1, 64)}

ONE_CALL = "in one call"
OURS = ("sharedgrad", ONE_CALL)  # a training step's two ways
STEP_RATIOS = ("ratio", f"ratio {ONE_CALL}")
Makers = dict[str, Callable[[], Call]]  # of the rivals' calls, by the rival's name


def steps(options: Options) -> list[Table]:
    """Whole training steps."""
    note = (
        "Forward, cross-entropy, backward, plain SGD on the same data; milliseconds a step: median (quartiles). "
        "In one call: `sg.compile_step`. JAX runs a jitted step in a process of its own. The ratios are the best "
        "rival's time over ours; the bar is for one call."
    )
    chosen = [(name, batch) for name in options.narrowed(tuple(STEPS)) for batch in options.batches or STEPS[name]]
    peers = step_rivals(options)
    return [_table("steps", "Training steps", note, chosen, peers, partial(step_duel, options))]


def step_duel(options: Options, name: str, batch: int) -> Row:
    """A training step of one net and batch."""
    makers = (training.training_step, training.step_in_one_call)
    ours = {way: partial(make, name, batch) for way, make in zip(OURS, makers, strict=True)}
    return _duel(ours, step_rivals(options, name, batch), STEP_BARS.get((name, batch)), options)


def step_rivals(options: Options, name: str = "", batch: int = 0) -> Makers:
    """Who makes training steps besides us."""
    makers: Makers = {f"PyTorch {kind}": partial(_torch_step, name, batch, kind) for kind in options.kinds()}
    for layout in JAX_LAYOUTS if options.rivals else ():
        place = ("rival_jax", "training_step", options.threads)
        makers[f"JAX {layout}"] = partial(Apart, *place, name, batch, layout)
    return makers


def inference(options: Options) -> list[Table]:
    """Scores of a batch, without a gradient."""
    note = (
        "`net.predict` beside `torch.inference_mode` and ONNX Runtime in a process of its own; milliseconds a batch: "
        "median (quartiles). The ratio is the best rival's time over ours."
    )
    names = options.narrowed(("lenet5", "cnn", "vgg"))
    chosen = [(name, batch) for name in names for batch in options.batches or (1, 64)]
    peers = inference_rivals(options)
    return [_table("inference", "Inference", note, chosen, peers, partial(_inference_duel, options))]


def _inference_duel(options: Options, name: str, batch: int) -> Row:
    ours = {"sharedgrad": partial(_prediction, name, batch)}
    return _duel(ours, inference_rivals(options, name, batch), INFERENCE_BARS.get((name, batch)), options)


def inference_rivals(options: Options, name: str = "", batch: int = 0) -> Makers:
    """Who gives scores besides us; ONNX Runtime with fewer threads is sometimes faster."""
    makers: Makers = {f"PyTorch {kind}": partial(_torch_inference, name, batch, kind) for kind in options.kinds()}
    for threads in sorted({1, options.threads}) if options.rivals else ():
        place = ("rival_onnx", "inference", options.threads)
        makers[f"ONNX Runtime, threads {threads}"] = partial(Apart, *place, name, batch, threads)
    return makers


def _duel(ours: Makers, makers: Makers, bar: Bar | None, options: Options) -> Row:
    """sharedgrad in one way or two, its rivals, the ratios to the best of them, and what the last one must reach."""
    theirs, failures = ready(makers)
    try:
        spreads = alternating({**{name: make() for name, make in ours.items()}, **theirs}, options.repeats)
    finally:
        for call in theirs.values():
            if isinstance(call, Apart):
                call.close()
    row: Row = {**spreads, **failures}
    for name in ours:
        ratio = compared(spreads[name], {peer: spreads[peer] for peer in theirs})
        row["ratio" if name == "sharedgrad" else f"ratio {name}"] = ratio
    return {**row, **bar.cells(ratio)} if bar else row


def _table(
    name: str,
    title: str,
    note: str,
    chosen: list[tuple[str, int]],
    peers: Makers,
    measure: Callable[[str, int], Row],
) -> Table:
    cases = (Case(f"{net}, batch {batch}", partial(measure, net, batch)) for net, batch in chosen)
    ours, ratios = (OURS, STEP_RATIOS) if name == "steps" else (OURS[:1], STEP_RATIOS[:1])
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
