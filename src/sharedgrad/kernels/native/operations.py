"""The operations that programs are made of: what each takes, and what must hold before it may run.

C++ (``operations.hpp``) carries them out and trusts what is written here: an operation that breaks a condition would
read beyond its maps. So each is checked when its program is made.
"""

from __future__ import annotations

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.conditions import (
    Condition,
    Operands,
    alike,
    by_samples,
    channels,
    convolves,
    doubles,
    factors,
    gradients,
    holds,
    in_blocks,
    in_halves,
    is_cell,
    is_vector,
    kernel,
    per_sample,
    pools,
    product,
    same_channels,
    samples,
    settings,
    shapes,
    slides,
    slides_back,
    slides_pooled,
    vector,
    vector_of,
    vectors,
    where,
)
from sharedgrad.kernels.native.maps import LARGEST, Map
from sharedgrad.kernels.native.windows import MOST_CELLS, Window

DIRECTIONS: int = _native.DIRECTIONS
ACTIVATIONS, PADDINGS = _native.ACTIVATIONS.split(), _native.PADDINGS.split()

_REFLECT = PADDINGS.index("reflect")
_NO_WINDOW = Window(*(0,) * len(Window._fields))
_FLAGS = ("relu", "add", "by_sample", "bias", "training", "padding_counts", "finite", "nesterov", "decoupled")
_CHOICES = {name: range(2) for name in _FLAGS} | {"kind": range(len(ACTIVATIONS)), "mode": range(len(PADDINGS))}


class Signature:
    """What an operation takes.

    Args:
        maps: Their names; a ``?`` behind those that may be missing.
        numbers: Their names; ``window`` stands for nine, and comes first.
        conditions: What must hold.
    """

    def __init__(self, maps: str, numbers: str = "", *conditions: Condition) -> None:
        self.maps = tuple(name.rstrip("?") for name in maps.split())
        self.needed = {name for name in maps.split() if name[-1] != "?"}
        names = numbers.split()
        self.behind_window = len(_NO_WINDOW) if "window" in names else 0
        self.numbers = tuple(name for name in names if name != "window")
        self.conditions = conditions

    def problem(self, maps: tuple[Map | None, ...], numbers: tuple[int, ...], itemsize: int) -> str | None:
        """What does not fit, if anything, for numbers of so many bytes."""
        if len(maps) != len(self.maps) or len(numbers) != self.behind_window + len(self.numbers):
            return "another number of maps or numbers than it takes"
        given = {name: m for name, m in zip(self.maps, maps, strict=True) if m is not None}
        if missing := self.needed - given.keys():
            return f"{', '.join(sorted(missing))} missing"
        own = dict(zip(self.numbers, numbers[self.behind_window :], strict=True))
        for name, number in own.items():
            if name in _CHOICES and number not in _CHOICES[name]:
                return f"{name} is {number}"
        window = Window(*numbers[: self.behind_window]) if self.behind_window else _NO_WINDOW
        o = Operands(itemsize, given, own, window)
        return next((condition.otherwise for condition in self.conditions if not condition.holds(o)), None)


def check(name: str, maps: tuple[Map | None, ...], numbers: tuple[int, ...], itemsize: int) -> None:
    """AssertionError if there is no such operation on such maps: a mistake of ours, which says what does not fit."""
    if name not in OPERATIONS:
        raise AssertionError(f"there is no operation {name!r}")
    if problem := OPERATIONS[name].problem(maps, numbers, itemsize):
        raise AssertionError(f"{name}: {problem}")


# ---- conditions of single operations


@where("the maps hold other cells")
def _holds_the_same(o: Operands) -> bool:
    a, b = o["to"], o["from"]
    flat = (is_vector(a) or is_vector(b)) and a.channels * a.height * a.width == b.channels * b.height * b.width
    return a.samples == b.samples and (a.shape == b.shape or flat)


@where("neither map is a plain array")
def _has_a_way(o: Operands) -> bool:
    return o["to"].plain or o["from"].plain


@where("the kernel's or the outputs' sizes are out of range")
def _prepares(o: Operands) -> bool:
    sizes = (o.numbers[name] for name in ("filters", "channels", "height", "width"))
    cells = o.window.kernel_h, o.window.kernel_w
    return all(0 < n <= LARGEST // 64 for n in sizes) and all(0 < n <= MOST_CELLS for n in cells)


@where("the windows do not fit dy and x")
def _meets(o: Operands) -> bool:
    """By sample no margins are made."""
    return (o.window.slides if o.numbers["by_sample"] else o.window.convolves)(o["dy"], o["x"])


@where("gradients are not the kernel's for each sample of dy")
def _keeps_apart(o: Operands) -> bool:
    dy, size = o["dy"], o.window.kernel_size(o["dy"], o["x"])
    return all(
        is_cell(m) and (m.samples, m.lanes, m.channels) == (dy.samples, dy.lanes, size) for m in o.there("gradients")
    )


@where("the groups do not fit dy and x")
def _has_kernel(o: Operands) -> bool:
    return o.window.kernel_size(o["dy"], o["x"]) > 0


@where("dx lies by channel: nobody adds sums")
def _sums(o: Operands) -> bool:
    return not (o.there("sums") and o["dx"].by_channel)


@where("the channels are not there, or the maps lie in other orders")
def _copies(o: Operands) -> bool:
    a, b, n = o["to"], o["from"], o.numbers
    order = a.by_channel == b.by_channel and a.lanes == b.lanes
    there = n["first_to"] + n["count"] <= a.channels and n["first_from"] + n["count"] <= b.channels
    return order and min(n.values()) >= 0 and there and a.samples == b.samples and a.shape[1:] == b.shape[1:]


def _cell_or_blocks(name: str) -> Condition:
    return Condition(f"{name} is plain and no vector", lambda o: is_vector(o[name]) or not o[name].plain)


@where("values, gradient and states are not rows of one size, or one state is missing")
def _are_rows(o: Operands) -> bool:
    rows = [m for name, m in o.maps.items() if name != "settings"]
    both = len(o.there("next_velocity", "velocity")) != 1
    return both and all(m.plain and m.size == rows[0].size for m in rows)


def _pads(padded: str, inner: str) -> Condition:
    """The first is the second with copies of its cells around it; a reflection reaches no further than the map."""

    @where(f"{padded} is not {inner} with its padding")
    def fits(o: Operands) -> bool:
        whole, own, reflects = o[padded], o[inner], o.numbers["mode"] == _REFLECT
        for name, size, length in zip(("top", "left"), own.shape[1:], whole.shape[1:], strict=True):
            before = o.numbers[name]
            after = length - size - before
            if size < 1 or min(before, after) < 0 or (reflects and max(before, after) >= size):
                return False
        return same_channels(whole, own) and not own.plain

    return fits


def _prepared(o: Operands) -> int:
    return o.window.prepared_size(o["y"].channels, o["x"].channels, o.vector)


def _prepared_alone(o: Operands) -> int:
    return o.window.prepared_size(o.numbers["filters"], o.numbers["channels"], o.vector)


def _kernel_alone(o: Operands) -> int:
    return o.numbers["filters"] * o.numbers["channels"] * o.window.cells


_NORMALIZES = in_blocks("x"), alike("y", "x", "shortcut"), holds("mean variance weight bias", channels("y"))


OPERATIONS: dict[str, Signature] = {
    "relayout": Signature("to from", "", _holds_the_same, _has_a_way),
    "conv": Signature(
        "y x w bias? prepared?",
        "window relu",
        convolves("y", "x"),
        holds("w", kernel("y", "x")),
        holds("bias", channels("y")),
        holds("prepared", _prepared),
    ),
    "prepare_kernel": Signature(
        "to w",
        "window filters channels height width",
        _prepares,
        holds("to", _prepared_alone),
        holds("w", _kernel_alone),
    ),
    "conv_input_gradient": Signature(
        "dx dy w relu_output?",
        "window add",
        slides_back("dx", "dy"),
        holds("w", kernel("dy", "dx")),
        alike("dx", "relu_output"),
    ),
    "conv_weight_gradient": Signature(
        "dw dbias? dy x", "window by_sample", _meets, *gradients("dw", "dbias", kernel("dy", "x"), of="dy")
    ),
    "channel_sums": Signature(
        "sums dy", "by_sample", _cell_or_blocks("dy"), holds("sums", per_sample(channels("dy"), "dy"))
    ),
    "activate": Signature("y x", "kind", alike("y", "x")),
    "activate_backward": Signature("dx dy y", "kind", alike("dx", "dy", "y")),
    "add": Signature("y a b", "kind", alike("y", "a", "b")),
    "multiply": Signature("y a b", "", alike("y", "a", "b")),
    "clear_margins": Signature("map"),
    "max_pool": Signature("y x", "window", pools("y", "x")),
    "max_pool_backward": Signature("dx dy x y", "window relu", pools("dy", "dx"), alike("dx", "x"), alike("dy", "y")),
    "avg_pool": Signature("y x", "window padding_counts", pools("y", "x")),
    "avg_pool_backward": Signature("dx dy", "window padding_counts", pools("dy", "dx")),
    "global_mean": Signature("y x", "", in_blocks("x"), vector_of("y", "x")),
    "global_mean_backward": Signature("dx dy", "", in_blocks("dx"), vector_of("dy", "dx")),
    "batch_normalize": Signature("y x shortcut? mean variance weight bias", "relu epsilon", *_NORMALIZES),
    "normalize": Signature("y x shortcut? mean variance weight bias", "relu epsilon", *_NORMALIZES),
    "normalize_backward": Signature(
        "dx? dweight dbias dy x mean variance weight bias",
        "training relu epsilon",
        in_blocks("x"),
        alike("dy", "dx", "x"),
        holds("dweight dbias mean variance weight bias", channels("dy")),
    ),
    "linear": Signature(
        "y x w bias?", "relu", vectors("y", "x"), holds("w", product("y", "x")), holds("bias", channels("y"))
    ),
    "linear_input_gradient": Signature("dx dy w", "", vectors("dx", "dy"), holds("w", product("dy", "dx"))),
    "linear_weight_gradient": Signature(
        "dw dbias? dy x", "by_sample", vectors("dy", "x"), *gradients("dw", "dbias", product("dy", "x"), of="dy")
    ),
    "linear_descent": Signature(
        "next w dbias? dy x settings",
        "at",
        Condition("dy has several samples", lambda o: o["dy"].samples == 1),
        vectors("dy", "x"),
        holds("next w", product("dy", "x")),
        holds("dbias", channels("dy")),
        settings(3),
    ),
    "zero": Signature("map"),
    "add_squares": Signature("squares map", "", vector("map"), holds("squares", doubles(samples("map")))),
    "add_linear_squares": Signature(
        "squares dy x", "bias", vectors("dy", "x"), holds("squares", doubles(samples("dy")))
    ),
    "add_kernel_squares": Signature(
        "squares dy x gradients?",
        "window",
        by_samples("dy"),
        slides("dy", "x"),
        _has_kernel,
        _keeps_apart,
        holds("squares", doubles(samples("dy"))),
    ),
    "add_gram_squares": Signature(
        "squares dy x",
        "window",
        by_samples("dy"),
        slides("dy", "x"),
        _has_kernel,
        holds("squares", doubles(samples("dy"))),
    ),
    "clip_factors": Signature(
        "factors norms squares max_norm",  # the last two in float64
        "",
        Condition("norms are several rows", lambda o: o["norms"].samples == 1),
        vectors("factors", "norms"),
        Condition("there are fewer factors than norms", lambda o: o["factors"].size >= o["norms"].channels),
        holds("squares", doubles(channels("norms"))),
        holds("max_norm", doubles(lambda o: 1)),
    ),
    "scale_samples": Signature("map factors", "", _cell_or_blocks("map"), factors("factors", "map")),
    "weighted_sum": Signature(
        "sum map factors",
        "",
        Condition("map has several cells", lambda o: is_cell(o["map"])),
        holds("sum", channels("map")),
        factors("factors", "map"),
    ),
    "normalize_gradients": Signature(
        "dweight? dbias? dy x y? mean variance",
        "epsilon",
        in_blocks("x"),
        alike("dy", "x", "y"),
        holds("dweight dbias", lambda o: o["dy"].channels * o["dy"].samples),
        holds("mean variance", channels("dy")),
    ),
    "pool_2x2": Signature("y winners? x", "kind", in_blocks("x"), in_halves("y", "x"), alike("y", "winners")),
    "pool_2x2_backward": Signature(
        "dx sums? dy y winners",
        "kind",
        _sums,
        in_blocks("dx"),
        in_halves("dy", "dx"),
        alike("dy", "y", "winners"),
        holds("sums", channels("dx")),
    ),
    "conv_pool_2x2": Signature(
        "y winners? x w bias?",
        "window kind",
        *slides_pooled("y", "x"),
        alike("y", "winners"),
        holds("w", kernel("y", "x")),
        holds("bias", channels("y")),
    ),
    "pooled_weight_gradient": Signature(
        "dw dbias? dy y winners x",
        "window kind by_sample",
        *slides_pooled("y", "x"),
        alike("y", "dy", "winners"),
        *gradients("dw", "dbias", kernel("y", "x"), of="y"),
    ),
    "pad": Signature("y x", "mode top left", _pads("y", "x")),
    "pad_backward": Signature("dx dy", "mode top left", _pads("dy", "dx")),
    "copy_channels": Signature("to from", "first_to first_from count", _copies),
    "blocks": Signature("y p w", "", shapes(y="U B 1 O", p="U B 1 I", w="B O 1 I")),
    "blocks_input_gradient": Signature("dp delta w", "", shapes(dp="U B 1 I", delta="U B 1 O", w="B O 1 I")),
    "outer_sum": Signature("total delta p", "", shapes(total="K B O I", delta="K U B O", p="K U B I")),
    "along_directions": Signature(
        "squares seen x directions",
        "",
        shapes(squares="N G 1 S", seen=f"N G {DIRECTIONS} S", x="N G C S", directions=f"G C 1 {DIRECTIONS}"),
    ),
    "channel_uses": Signature(
        "squares products totals delta x? coefficients",
        "",
        shapes(
            squares="N S 1 1",
            products="N S 1 1",
            totals="N C 1 1",
            delta="N C 1 S",
            x="N C 1 S",
            coefficients="3 C 1 1",
        ),
    ),
    "softmax": Signature("y x", "", shapes(y="N C 1 1", x="N C 1 1")),
    "softmax_backward": Signature("dx dy y", "", shapes(dx="N C 1 1", dy="N C 1 1", y="N C 1 1")),
    "cross_entropy": Signature(  # smoothing, count, and a place for the sum
        "upstream scores labels settings",
        "finite at",
        shapes(upstream="N C 1 1", scores="N C 1 1"),
        holds("labels", doubles(samples("scores"))),
        settings(3),
    ),
    "sgd": Signature(  # lr, momentum, decay
        "next w gradient settings next_velocity? velocity?",
        "nesterov at",
        _are_rows,
        settings(3),
    ),
    "adam": Signature(  # lr, β₁, β₂, ε, decay, and elsewhere the number of steps
        "next w gradient settings next_mean mean next_square square",
        "decoupled at steps_at",
        _are_rows,
        settings(5),
        settings(1, "steps_at"),
    ),
}
