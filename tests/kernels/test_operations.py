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


def blocks(channels: int, height: int = 8, width: int = 6, margin: int = 0, samples: int = N, lanes: int = 4) -> Map:
    return Map(samples, lanes, channels, height, width, (margin,) * 4)


def row(count: int, samples: int = 1) -> Map:
    return Map(samples, 1, count)


def doubles(count: int) -> Map:
    return row(count * 8 // ITEMSIZE)


def full(channels: int, height: int, width: int, margin: int = 0) -> Map:
    return blocks(channels, height, width, margin, 2 * V, V)


X, Y, Z = blocks(C), blocks(C), blocks(C)
WIDE, SMALL, POOLED = blocks(C, margin=1), blocks(F), blocks(C, 4, 3)
W, DENSE = row(F * C * 9), row(F * C)
VX, VY, FACTORS = row(C, N), row(F, N), row(8)
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
    "linear_descent": ((row(F * C), row(F), DENSE, row(F), row(C), row(2)), ()),
    "zero": ((X,), ()),
    "add_squares": ((doubles(N), X), ()),
    "add_linear_squares": ((doubles(N), VY, VX), (1,)),
    "add_kernel_squares": ((doubles(N), SMALL, WIDE, Map(N, 4, F * C * 9)), SAME),
    "add_gram_squares": ((doubles(2 * V), full(F, 8, 6), full(C, 8, 6, 1)), SAME),
    "clip_factors": ((FACTORS, row(8), doubles(8), doubles(1)), ()),
    "scale_samples": ((X, FACTORS), ()),
    "weighted_sum": ((C1, Map(N, 4, C), FACTORS), ()),
    "normalize_gradients": ((row(N * C), row(N * C), Y, X, Z, C1, C2), (0,)),
    "pool_2x2": ((POOLED, blocks(C, 4, 3), X), (1,)),
    "pool_2x2_backward": ((X, row(C), POOLED, blocks(C, 4, 3), blocks(C, 4, 3)), (1,)),
    "conv_pool_2x2": ((full(F, 4, 3), full(F, 4, 3), full(C, 8, 6, 1), W, row(F)), (*SAME, 1)),
    "pooled_weight_gradient": (
        (row(F * C * 9), row(F), full(F, 4, 3), full(F, 4, 3), full(F, 4, 3), full(C, 8, 6, 1)),
        (*SAME, 1, 0),
    ),
    "pad": ((blocks(C, 10, 9), X), (0, 1, 2)),
    "pad_backward": ((X, blocks(C, 10, 9)), (0, 1, 2)),
    "copy_channels": ((X, blocks(F)), (1, 0, F)),
}
TAKE_ANY_MAP = {"clear_margins", "zero"}


def other_maps(m: Map) -> Iterator[Map]:
    """Maps that differ from this one in one thing each."""
    for name in ("samples", "channels", "height", "width"):
        yield replace(m, **{name: getattr(m, name) + 1})
    yield replace(m, lanes=m.lanes * 2 if m.lanes < V else 1)
    yield replace(m, margins=(0,) * 4 if any(m.margins) else (1,) * 4)
    yield replace(m, by_channel=True)
    yield replace(m, channels=0)
    yield replace(m, samples=m.samples + 1, channels=m.channels + 1, height=m.height + 3)


def other_numbers(numbers: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Numbers of which one is another."""
    for i, number in enumerate(numbers):
        for value in (-1, 0, number + 1, 7, LARGEST + 1):
            yield (*numbers[:i], value, *numbers[i + 1 :])


def others(given: Given) -> Iterator[tuple[int | None, Given]]:
    """Operands that differ in one map, whose number is given, or in one number."""
    maps, numbers = given
    for i, m in enumerate(maps):
        if m is not None:
            for other in other_maps(m):
                yield i, ((*maps[:i], other, *maps[i + 1 :]), numbers)
    for changed in other_numbers(numbers):
        yield None, (maps, changed)


def problem(name: str, given: Given) -> str | None:
    return OPERATIONS[name].problem(*given, ITEMSIZE)


def conditions() -> list[tuple[str, Condition]]:
    return [(name, condition) for name, signature in OPERATIONS.items() for condition in signature.conditions]


def test_every_operation_has_its_row_and_its_example() -> None:
    assert set(OPERATIONS) == set(_native.operations()) == set(EXAMPLES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_fits_is_accepted_and_both_sides_count_alike(name: str) -> None:
    maps, numbers = EXAMPLES[name]
    check(name, maps, numbers, ITEMSIZE)
    signature = OPERATIONS[name]
    fewest = tuple(m if n in signature.needed else None for n, m in zip(signature.maps, maps, strict=True))
    check(name, fewest, numbers, ITEMSIZE)
    code = np.array([_native.operations().index(name), *(0 for _ in maps), *numbers], np.int64)
    rows, sizes = np.array(X.row(), np.int64), np.array([-1, X.end(V)], np.int64)
    _native.program(rows, code, ITEMSIZE, sizes)
    with pytest.raises(ValueError, match="ends within an operation"):
        _native.program(rows, code[:-1], ITEMSIZE, sizes)
    with pytest.raises(ValueError, match=r"no such operation|ends within"):
        _native.program(rows, np.append(code, -1), ITEMSIZE, sizes)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_map_is_looked_at(name: str) -> None:
    maps, numbers = EXAMPLES[name]
    refused = {i for i, given in others(EXAMPLES[name]) if problem(name, given)} - {None}
    assert refused == (set() if name in TAKE_ANY_MAP else set(range(len(maps))))
    for i, map_name in enumerate(OPERATIONS[name].maps):
        if map_name in OPERATIONS[name].needed:
            assert problem(name, ((*maps[:i], None, *maps[i + 1 :]), numbers)) == f"{map_name} missing"
    for given in ((maps[1:], numbers), (maps, (*numbers, 0)), (maps, numbers[:-1]) if numbers else ((), ())):
        assert problem(name, given) == "another number of maps or numbers than it takes"


@pytest.mark.parametrize(("name", "condition"), conditions())
def test_every_condition_notices_what_breaks_it(name: str, condition: Condition) -> None:
    assert any(problem(name, given) == condition.otherwise for _, given in others(EXAMPLES[name]))
