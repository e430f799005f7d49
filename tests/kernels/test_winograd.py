"""3×3 convolutions with fewer multiplications: every size of tile, strip and chunk, against plain sums in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import Array, close, frozen, same_bits

pytestmark = pytest.mark.compiled
ERROR = 4e-6  # of the largest value; the plain sums in float32 have 1e-6

CASES = [  # samples, channels, filters, size, padding
    (16, 16, 16, (8, 8), 1),
    (40, 24, 25, (5, 7), 1),  # tiles with one row, with three columns; the last block is half empty
    (33, 17, 31, (1, 1), 1),  # one tile in each block, of one output
    (17, 32, 16, (3, 12), 0),  # one row of outputs
    (9, 16, 47, (4, 5), 2),  # the maps grow
    (20, 129, 16, (4, 9), 1),  # channels in two chunks
    (16, 16, 130, (6, 4), 1),  # likewise on the way back
    (5, 40, 70, (9, 2), 1),
    (64, 20, 16, (13, 13), 1),  # several strips to a task
    # few samples, by channel: numbers of channels that fill vectors and others
    (1, 48, 53, (16, 15), 1),
    (1, 51, 48, (13, 14), 0),
    (2, 48, 48, (9, 14), 2),
    (3, 60, 49, (8, 7), 1),
    (1, 48, 48, (59, 62), 1),
    (4, 16, 32, (8, 8), 1),  # by channel: sixteen tiles
    (2, 32, 16, (9, 11), 0),
    (1, 80, 48, (16, 16), 2),
]


def _case(samples: int, channels: int, filters: int, size: tuple[int, int], padding: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(samples)
    out = [n + 2 * padding - 2 for n in size]
    shapes = ((samples, channels, *size), (filters, channels, 3, 3), (filters,), (samples, filters, *out))
    return tuple(frozen(rng.normal(size=shape), np.float32) for shape in shapes)


def _double(*arrays: Array) -> tuple[Array, ...]:
    return tuple(a.astype(np.float64) for a in arrays)


@pytest.mark.parametrize("case", CASES)
def test_all_three_passes(case: tuple[int, int, int, tuple[int, int], int], instruction_set: str) -> None:
    x, w, b, dy = _case(*case)
    g, size = Geometry.of(2, 3, padding=case[4]), case[3]
    x64, w64, b64, dy64 = _double(x, w, b, dy)
    close(kernels.native.conv(x, w, b, g), vectorized.conv(x64, w64, b64, g), ERROR)
    close(kernels.native.conv_input_gradient(dy, w, g, size), vectorized.conv_input_gradient(dy64, w64, g, size), ERROR)
    close(kernels.native.conv_kernel_gradient(dy, x, g), vectorized.conv_kernel_gradient(dy64, x64, g), ERROR)
    close(kernels.native.conv_kernel_gradients(dy, x, g), vectorized.conv_kernel_gradients(dy64, x64, g), ERROR)


@pytest.mark.parametrize(
    ("samples", "channels"),
    [(19, 30), (19, 150), (1, 30), (2, 64), (4, 50)],
)
def test_what_comes_before_and_after(samples: int, channels: int, instruction_set: str) -> None:
    """A ReLU at once; a gradient that is added to another; one that goes back through a ReLU."""
    from sharedgrad.kernels.native import program

    x, w, b, dy = _case(samples, channels, 48, (7, 6), 1)
    g, rng = Geometry.of(2, 3, padding=1), np.random.default_rng(0)
    window = program.window(g)

    builder = program.Builder(len(x), x.dtype)
    outside = [builder.array(*a.shape[1:], samples=len(a)) for a in (x, dy)]
    weights, bias = builder.array(w.size), builder.array(b.size)
    inside, y = builder.map(*x.shape[1:]), builder.map(*dy.shape[1:])
    inside.widen((1, 1, 1, 1))
    y.widen((0, 1, 2, 1))  # for the next convolution
    builder.emit("relayout", (inside, outside[0]))
    builder.emit("conv", (y, inside, weights, bias, None), *window, 1)
    builder.emit("relayout", (outside[1], y))
    result = np.empty_like(dy)
    builder.build().run(np.empty(0, x.dtype), [x, result, w, b])
    close(result, np.maximum(vectorized.conv(*_double(x, w, b), g), 0), ERROR)

    wide = frozen(rng.normal(size=(channels, 48, 3, 3)), np.float32)  # so many channels on the way back
    upstream = frozen(rng.normal(size=(samples, channels, 7, 6)), np.float32)
    there, gate = (frozen(rng.normal(size=dy.shape), np.float32) for _ in range(2))
    expected = vectorized.conv_input_gradient(*_double(upstream, wide), g, (7, 6))
    for add in (0, 1):
        builder = program.Builder(len(x), x.dtype)
        outside = [builder.array(*a.shape[1:], samples=len(a)) for a in (upstream, there, gate)]
        weights, out = builder.array(wide.size), builder.array(*dy.shape[1:], samples=len(dy))
        delta, dx, through = (builder.map(*m.shape) for m in outside)
        delta.widen((1, 1, 1, 1))
        dx.widen((1, 1, 1, 1))
        for m, source in zip((delta, dx, through), outside, strict=True):
            builder.emit("relayout", (m, source))
        builder.emit("conv_input_gradient", (dx, delta, weights, through), *window, add)
        builder.emit("relayout", (out, dx))
        result = np.empty_like(dy)
        builder.build().run(np.empty(0, x.dtype), [upstream, there, gate, wide, result])
        close(result, np.where(gate > 0, expected + add * there, 0), ERROR)


@pytest.mark.parametrize("samples", [1, 40])
def test_the_same_bits_for_any_number_of_threads(samples: int) -> None:
    x, w, b, dy = _case(samples, 140, 49, (12, 11), 1)
    g, results = Geometry.of(2, 3, padding=1), []
    for count in (1, 2, 5):
        kernels.set_threads(count)
        results.append(
            (
                kernels.native.conv(x, w, b, g),
                kernels.native.conv_input_gradient(dy, w, g, (12, 11)),
                kernels.native.conv_kernel_gradient(dy, x, g),
                kernels.native.conv_kernel_gradients(dy, x, g),
            )
        )
    for result in results[1:]:
        for ours, first in zip(result, results[0], strict=True):
            same_bits(ours, first)


def test_what_is_not_a_number_stays_one() -> None:
    x, w, b, _ = (a.copy() for a in _case(16, 16, 16, (8, 8), 1))
    x[3, 5, 6, 6] = np.nan
    y = kernels.native.conv(x, w, b, Geometry.of(2, 3, padding=1))
    assert np.isnan(y[3, :, 5:8, 5:8]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()


@pytest.fixture
def plain_sums() -> Iterator[None]:
    kernels.set_winograd(False)
    yield
    kernels.set_winograd(True)


def _errors(case: Any) -> list[float]:
    """The mean error of each pass, beside its largest value."""
    x, w, b, dy = _case(*case)
    g, size = Geometry.of(2, 3, padding=case[4]), case[3]
    native, x64, w64, b64, dy64 = kernels.native, *_double(x, w, b, dy)
    pairs = [
        (native.conv(x, w, b, g), vectorized.conv(x64, w64, b64, g)),
        (native.conv_input_gradient(dy, w, g, size), vectorized.conv_input_gradient(dy64, w64, g, size)),
        (native.conv_kernel_gradient(dy, x, g), vectorized.conv_kernel_gradient(dy64, x64, g)),
    ]
    return [float(np.abs(a - b).mean() / np.abs(b).max()) for a, b in pairs]


@pytest.mark.parametrize("case", [(16, 64, 64, (16, 16), 1), (1, 64, 64, (16, 16), 1)])
def test_plain_sums_round_less(case: Any, instruction_set: str) -> None:
    """The figures of docs/kernels.md."""
    fewer = _errors(case)
    kernels.set_winograd(False)
    try:
        plain = _errors(case)
    finally:
        kernels.set_winograd(True)
    assert all(error < 4.5e-7 for error in fewer)
    assert all(error < 1.2e-7 for error in plain)
    assert fewer[0] > 1.5 * plain[0]
    assert fewer[1] > 1.5 * plain[1]


@pytest.mark.parametrize("samples", [1, 20])
def test_networks_follow_the_setting(samples: int) -> None:
    network = sg.Network([sg.Conv2d(48, 48, 3, padding=1), sg.ReLU(), sg.Conv2d(48, 48, 3)], (48, 16, 16))
    x = np.random.default_rng(0).normal(size=(samples, 48, 16, 16))
    y = network.predict(x)
    kernels.set_winograd(False)
    try:
        assert not sg.get_winograd()
        plain = network.predict(x)
    finally:
        kernels.set_winograd(True)
    assert sg.get_winograd()
    assert not np.array_equal(y, plain)
    close(y, plain, 1e-5)
    same_bits(network.predict(x), y)


def test_the_setting_is_true_or_false() -> None:
    with pytest.raises(ConfigError, match="set_winograd: expected True or False, got 0"):
        kernels.set_winograd(0)


FAR = [np.nan, np.inf, -np.inf, 1e37, -3e38]
PLACES = [(40, 24, 25, (9, 11), 1), (20, 129, 16, (8, 12), 1), (1, 48, 53, (16, 15), 1), (3, 60, 49, (20, 18), 1)]


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.parametrize("value", FAR)
def test_a_number_out_of_range_reaches_only_the_outputs_that_see_it(
    value: float, case: Any, instruction_set: str, plain_sums: None
) -> None:
    x, w, b, dy = (a.copy() for a in _case(*case))
    g, size = Geometry.of(2, 3, padding=1), case[3]
    x[-1, 3, 4, 5] = dy[-1, 2, 4, 5] = value
    native = kernels.native

    def passes() -> list[Array]:
        return [
            native.conv(x, w, b, g),
            native.conv_input_gradient(dy, w, g, size),
            native.conv_kernel_gradient(dy, x, g),
            native.conv_kernel_gradients(dy, x, g),
        ]

    expected = passes()
    kernels.set_winograd(True)
    for ours, plain in zip(passes(), expected, strict=True):
        finite = np.isfinite(plain)
        np.testing.assert_array_equal(np.isfinite(ours), finite)
        small = finite & (np.abs(np.nan_to_num(plain)) < 1e6)
        close(ours[small], plain[small], 1e-5)


def test_pooling_at_once_keeps_to_it_too() -> None:
    network = sg.Network([sg.Conv2d(16, 16, 3, padding=1), sg.ReLU(), sg.MaxPool2d(2)], (16, 12, 12))
    x = np.random.default_rng(0).normal(size=(16, 16, 12, 12))
    before = network.predict(x)
    x[3, 5, 6, 6] = -np.inf
    seen = np.zeros(before.shape, bool)
    seen[3, :, 2:4, 2:4] = True
    after = network.predict(x)
    close(after[~seen], before[~seen], 1e-5)
