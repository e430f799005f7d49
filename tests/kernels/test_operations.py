"""What operations demand of their maps and numbers: every condition notices what breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sharedgrad.kernels.native", reason="no kernels were compiled", exc_type=ImportError)

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.conditions import Condition
from sharedgrad.kernels.native.maps import LARGEST, Map
from sharedgrad.kernels.native.operations import OPERATIONS, check

Given = tuple[tuple[Map | None, ...], tuple[int, ...]]

ITEMSIZE = 4
V = _native.lanes(ITEMSIZE)
N, C, F = 5, 6, 4  # samples, channels of x, filters
SAME = (3, 3, 1, 1, 1, 1, 1, 1, 1)  # a window of 3×3 with padding, and others
HALF = (2, 2, 2, 2, 0, 0, 1, 1, 1)
DEEP = (3, 3, 1, 1, 1, 1, 1, 1, C)


def blocks(channels: int, height: int = 8, width: int = 6, margin: int = 0, samples: int = N) -> Map:
    return Map(samples, V, channels, height, width, (margin,) * 4)


def row(count: int, samples: int = 1) -> Map:
    return Map(samples, 1, count)


def doubles(count: int) -> Map:
    return row(count * 8 // ITEMSIZE)


def plain(*shape: int) -> Map:
    return Map(shape[0], 1, *shape[1:])


X, Y, Z = blocks(C), blocks(C), blocks(C)
WIDE, SMALL, POOLED = blocks(C, margin=1), blocks(F), blocks(C, 4, 3)
W, DENSE = row(F * C * 9), row(F * C)
VX, VY, FACTORS = row(C, N), row(F, N), row(16)
C1, C2, C3, C4 = (row(C) for _ in range(4))

EXAMPLES: dict[str, Given] = {
    "relayout": ((X, Map(N, 1, C, 8, 6)), ()),
    "conv": ((SMALL, WIDE, W, row(F), row(16 + 36 * C * V)), (*SAME, 1)),
    "prepare_kernel": ((row(16 + 36 * C * V), W), (*SAME, F, C, 8, 6)),
    "conv_input_gradient": ((X, blocks(F, margin=1), W, Y), (*SAME, 0)),
    "conv_weight_gradient": ((row(F * C * 9), row(F), SMALL, WIDE), (*SAME, 0)),
    "channel_sums": ((row(C), X), (0,)),
    "activate": ((Y, X), (1,)),
    "activate_backward": ((Z, Y, X), (1,)),
    "add": ((Z, Y, X), (0,)),
    "multiply": ((Z, Y, X), ()),
    "clear_margins": ((WIDE,), ()),
    "max_pool": ((POOLED, X), HALF),
    "max_pool_backward": ((Z, POOLED, X, blocks(C, 4, 3)), (*HALF, 0)),
    "avg_pool": ((POOLED, X), (*HALF, 0)),
    "avg_pool_backward": ((X, POOLED), (*HALF, 0)),
    "global_mean": ((VX, X), ()),
    "global_mean_backward": ((X, VX), ()),
    "batch_normalize": ((Y, X, Z, C1, C2, C3, C4), (1, 0)),
    "normalize": ((Y, X, Z, C1, C2, C3, C4), (1, 0)),
    "normalize_backward": ((Z, row(C), row(C), Y, X, C1, C2, C3, C4), (1, 0, 0)),
    "linear": ((VY, VX, DENSE, row(F)), (1,)),
    "linear_input_gradient": ((VX, VY, DENSE), ()),
    "linear_weight_gradient": ((row(F * C), row(F), VY, VX), (0,)),
    "linear_descent": ((row(F * C), DENSE, row(F), row(F), row(C), doubles(3)), (0,)),
    "zero": ((X,), ()),
    "add_squares": ((doubles(N), VX), ()),
    "add_linear_squares": ((doubles(N), VY, VX), (1,)),
    "add_kernel_squares": ((doubles(N), SMALL, WIDE, Map(N, V, F * C * 9)), SAME),
    "add_gram_squares": ((doubles(N), SMALL, WIDE), SAME),
    "clip_factors": ((FACTORS, row(8), doubles(8), doubles(1)), ()),
    "scale_samples": ((X, FACTORS), ()),
    "weighted_sum": ((C1, Map(N, V, C), FACTORS), ()),
    "normalize_gradients": ((row(N * C), row(N * C), Y, X, Z, C1, C2), (0,)),
    "pool_2x2": ((POOLED, blocks(C, 4, 3), X), (1,)),
    "pool_2x2_backward": ((X, row(C), POOLED, blocks(C, 4, 3), blocks(C, 4, 3)), (1,)),
    "conv_pool_2x2": ((blocks(F, 4, 3), blocks(F, 4, 3), WIDE, W, row(F)), (*SAME, 1)),
    "pooled_weight_gradient": ((row(F * C * 9), row(F), *(blocks(F, 4, 3) for _ in range(3)), WIDE), (*SAME, 1, 0)),
    "pad": ((blocks(C, 10, 9), X), (0, 1, 2)),
    "pad_backward": ((X, blocks(C, 10, 9)), (0, 1, 2)),
    "copy_channels": ((X, blocks(F)), (1, 0, F)),
    "blocks": ((plain(N, 3, 1, F), plain(N, 3, 1, C), plain(3, F, 1, C)), ()),
    "blocks_input_gradient": ((plain(N, 3, 1, C), plain(N, 3, 1, F), plain(3, F, 1, C)), ()),
    "outer_sum": ((plain(2, 3, F, C), plain(2, N, 3, F), plain(2, N, 3, C)), ()),
    "along_directions": ((plain(N, 2, 1, 7), plain(N, 2, 8, 7), plain(N, 2, C, 7), plain(2, C, 1, 8)), ()),
    "channel_uses": ((row(7, N), row(7, N), VX, plain(N, C, 1, 7), plain(N, C, 1, 7), row(C, 3)), ()),
    "softmax": ((VX, row(C, N)), ()),
    "softmax_backward": ((VX, row(C, N), row(C, N)), ()),
    "cross_entropy": ((VX, row(C, N), doubles(N), doubles(4)), (0, 1)),
    "sgd": ((C1, C2, C3, doubles(5), C4, row(C)), (0, 2)),
    "adam": ((C1, C2, C3, doubles(7), C4, row(C), row(C), row(C)), (0, 1, 6)),
}
LARGER_SETTINGS = "settings.samples settings.channels settings.height settings.width"
# What of each map may be another while the rest stays: everything else must be refused.
FREE = {
    "relayout": "to.lanes to.margins to.order",
    "conv": "y.margins x.height x.width",
    "prepare_kernel": "",
    "conv_input_gradient": "dx.margins dy.height dy.width relu_output.margins",
    "conv_weight_gradient": "dy.margins x.height x.width",
    "channel_sums": "dy.samples dy.height dy.width dy.margins dy.order",
    "activate": "y.margins x.margins",
    "activate_backward": "dx.margins dy.margins y.margins",
    "add": "y.margins a.margins b.margins",
    "multiply": "y.margins a.margins b.margins",
    "clear_margins": "map.samples map.channels map.height map.width map.lanes map.margins map.emptied map.order",
    "max_pool": "y.height y.width y.margins x.height x.width x.margins",
    "max_pool_backward": "dx.margins dy.margins x.margins y.margins",
    "avg_pool": "y.height y.width y.margins x.height x.width x.margins",
    "avg_pool_backward": "dx.height dx.width dx.margins dy.height dy.width dy.margins",
    "global_mean": "x.height x.width x.margins x.order",
    "global_mean_backward": "dx.height dx.width dx.margins dx.order",
    "batch_normalize": "y.margins x.margins shortcut.margins",
    "normalize": "y.margins x.margins shortcut.margins",
    "normalize_backward": "dx.margins dy.margins x.margins",
    "linear": "",
    "linear_input_gradient": "",
    "linear_weight_gradient": "",
    "linear_descent": LARGER_SETTINGS,
    "zero": "map.samples map.channels map.height map.width map.lanes map.margins map.emptied map.order",
    "add_squares": "map.channels map.emptied",
    "add_linear_squares": "dy.channels dy.emptied x.channels x.emptied",
    "add_kernel_squares": "dy.margins x.height x.width",
    "add_gram_squares": "dy.channels dy.margins x.channels x.height x.width",
    "clip_factors": "factors.channels",
    "scale_samples": "map.samples map.channels map.height map.width map.margins map.emptied "
    "factors.samples factors.channels",
    "weighted_sum": "map.samples map.lanes factors.samples factors.channels",
    "normalize_gradients": "dy.margins x.margins y.margins",
    "pool_2x2": "y.margins winners.margins x.height x.width x.margins",
    "pool_2x2_backward": "dx.height dx.width dx.margins dy.margins y.margins winners.margins",
    "conv_pool_2x2": "y.margins winners.margins x.height x.width",
    "pooled_weight_gradient": "dy.margins y.margins winners.margins x.height x.width",
    "pad": "y.height y.width y.margins x.height x.width x.margins",
    "pad_backward": "dx.height dx.width dx.margins dy.height dy.width dy.margins",
    "copy_channels": "to.channels to.margins from.channels from.margins",
    "blocks": "",
    "blocks_input_gradient": "",
    "outer_sum": "",
    "along_directions": "",
    "channel_uses": "",
    "softmax": "",
    "softmax_backward": "",
    "cross_entropy": LARGER_SETTINGS,
    "sgd": LARGER_SETTINGS,
    "adam": LARGER_SETTINGS,
}
POOLING = ("max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward")


def other_maps(m: Map) -> Iterator[tuple[str, Map]]:
    """Maps that differ from this one in one property, with its name."""
    for name in ("samples", "channels", "height", "width"):
        yield name, replace(m, **{name: getattr(m, name) + 1})
    yield "lanes", replace(m, lanes=1 if m.lanes > 1 else V)
    yield "margins", replace(m, margins=(0,) * 4 if any(m.margins) else (1,) * 4)
    yield "emptied", replace(m, channels=0)
    if m.samples > 1:  # the order of a single row is all the same
        yield "order", replace(m, by_channel=True)


def with_another_map(given: Given) -> Iterator[tuple[int, str, Given]]:
    """Operands with one map changed in one property: the map's number, the property, the operands."""
    maps, numbers = given
    for i, m in enumerate(maps):
        assert m is not None
        for name, other in other_maps(m):
            yield i, name, ((*maps[:i], other, *maps[i + 1 :]), numbers)


def with_another_number(given: Given, *values: int) -> Iterator[tuple[int, Given]]:
    """Operands with one number changed."""
    maps, numbers = given
    for i in range(len(numbers)):
        for value in values:
            yield i, (maps, (*numbers[:i], value, *numbers[i + 1 :]))


def problem(name: str, given: Given) -> str | None:
    return OPERATIONS[name].problem(*given, ITEMSIZE)


def conditions() -> list[tuple[str, Condition]]:
    return [(name, condition) for name, signature in OPERATIONS.items() for condition in signature.conditions]


def test_every_operation_has_its_row_and_its_example() -> None:
    assert set(OPERATIONS) == set(_native.OPERATIONS.split()) == set(EXAMPLES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_fits_is_accepted_and_both_sides_count_alike(name: str) -> None:
    maps, numbers = EXAMPLES[name]
    check(name, maps, numbers, ITEMSIZE)
    signature = OPERATIONS[name]
    fewest = tuple(m if n in signature.needed else None for n, m in zip(signature.maps, maps, strict=True))
    check(name, fewest, numbers, ITEMSIZE)
    code = np.array([_native.OPERATIONS.split().index(name), *(0 for _ in maps), *numbers], np.int64)
    rows, sizes = np.array(X.row(), np.int64).tobytes(), np.array([-1, X.end], np.int64).tobytes()
    _native.program(rows, code.tobytes(), ITEMSIZE, sizes)
    with pytest.raises(ValueError, match="ends within an operation"):
        _native.program(rows, code[:-1].tobytes(), ITEMSIZE, sizes)
    with pytest.raises(ValueError, match="no such operation"):
        _native.program(rows, np.append(code, -1).tobytes(), ITEMSIZE, sizes)


@pytest.mark.parametrize("name", OPERATIONS)
def test_maps_that_differ_in_what_matters_are_refused(name: str) -> None:
    maps, numbers = EXAMPLES[name]
    signature = OPERATIONS[name]
    names = signature.maps
    changed = [(f"{names[i]}.{what}", problem(name, given)) for i, what, given in with_another_map(EXAMPLES[name])]
    assert {what for what, refused in changed if not refused} == set(FREE[name].split())
    for i, map_name in enumerate(names):
        if map_name in signature.needed:
            assert problem(name, ((*maps[:i], None, *maps[i + 1 :]), numbers)) == f"{map_name} missing"
    for given in ((maps[1:], numbers), (maps, (*numbers, 0)), (maps, numbers[:-1]) if numbers else ((), ())):
        assert problem(name, given) == "another number of maps or numbers than it takes"


@pytest.mark.parametrize("name", OPERATIONS)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    signature = OPERATIONS[name]
    names = ("window",) * signature.behind_window + signature.numbers
    for value in (-1, LARGEST + 1):
        free = {"epsilon"}
        accepted = {names[i] for i, given in with_another_number(EXAMPLES[name], value) if not problem(name, given)}
        if name == "prepare_kernel" or (name in POOLING and value > 0):
            free.add("window")  # a kernel alone has no padding, and pooling no groups
        assert accepted <= free


@pytest.mark.parametrize(("name", "condition"), conditions())
def test_every_condition_notices_what_breaks_it(name: str, condition: Condition) -> None:
    example = EXAMPLES[name]
    changed = [given for _, _, given in with_another_map(example)]
    changed += [given for _, given in with_another_number(example, -1, 0, 2, 7, LARGEST + 1)]
    assert condition.otherwise in {problem(name, given) for given in changed}


def test_a_velocity_needs_the_old_one() -> None:
    maps, numbers = EXAMPLES["sgd"]
    for missing in (4, 5):
        assert "state is missing" in (problem("sgd", ((*maps[:missing], None, *maps[missing + 1 :]), numbers)) or "")


@pytest.mark.parametrize(("window", "filters"), [((1, 1, 2, 2, 0, 0, 1, 1, 1), F), ((3, 3, 2, 2, 1, 1, 1, 1, C), C)])
def test_plain_arrays_are_convolved_alone(window: tuple[int, ...], filters: int) -> None:
    """1×1 and depthwise convolutions take them; but a ReLU, or a sum with what is there, takes blocks."""
    dx, dy, w = plain(N, C, 8, 6), plain(N, filters, 4, 3), row(filters * C * window[0] ** 2 // window[8])
    assert problem("conv", ((dy, dx, w, None, None), (*window, 0))) is None
    assert problem("conv", ((dy, dx, w, None, None), (*window, 1))) == "the windows do not fit y and x"
    assert problem("conv_input_gradient", ((dx, dy, w, None), (*window, 0))) is None
    for gate, add in ((dx, 0), (None, 1)):
        refused = problem("conv_input_gradient", ((dx, dy, w, gate), (*window, add)))
        assert refused == "the windows do not fit dx and dy"


def test_windows_of_one_cell_that_see_none_take_blocks() -> None:
    """Products are of cells that are there: here the last of a row is padding."""
    x, y, w = plain(N, C, 1, 8), plain(N, F, 1, 9), row(F * C)
    window = (1, 1, 1, 1, 0, 0, 1, 1, 1)
    assert problem("conv", ((y, x, w, None, None), (*window, 0))) == "the windows do not fit y and x"
    assert problem("conv_input_gradient", ((x, y, w, None), (*window, 0))) == "the windows do not fit dx and dy"
    assert problem("conv_weight_gradient", ((w, None, y, x), (*window, 0))) == "the windows do not fit dy and x"


@pytest.mark.parametrize(("width", "kernel", "stride"), [(200_000, 3, 1), (1000, 60, 1), (40, 3, 3)])
def test_long_rows_and_strides_beyond_two_take_blocks(width: int, kernel: int, stride: int) -> None:
    """What each vector of a plain row sees is written down: a long signal's would take hundreds of megabytes."""
    outputs = (width - kernel) // stride + 1
    x, y, w = plain(1, C, 1, width), plain(1, C, 1, outputs), row(C * kernel)
    window = (1, kernel, 1, stride, 0, 0, 1, 1, C)
    assert problem("conv", ((y, x, w, None, None), (*window, 0))) == "the windows do not fit y and x"
    assert problem("conv_input_gradient", ((x, y, w, None), (*window, 0))) == "the windows do not fit dx and dy"
    assert problem("conv_weight_gradient", ((w, None, y, x), (*window, 0))) == "the windows do not fit dy and x"
