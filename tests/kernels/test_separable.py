"""Depthwise and 1×1 convolutions, compiled, of any stride, dilation, width and number of samples, against NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from sharedgrad.kernels.threads import set_threads
from tests.helpers import Array, close, numbers, same_bits

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("memory_of_nan")]


Case = tuple[Geometry, Array, Array, Array, Array]


def _case(seed: int, kernel: tuple[int, ...], channels: int, groups: int, rows: int = 6, columns: int = 40) -> Case:
    """A geometry and x, w, b, dy: 1 to 17 samples, rows of 1 to 40 cells."""
    rng = np.random.default_rng([seed, groups])
    stride, dilation = numbers(rng, 1, 3, 2), numbers(rng, 1, 2, 2)
    padding = tuple(numbers(rng, 0, 3, 2) if groups > 1 else (0, 0) for _ in kernel)
    g = Geometry(kernel, stride, padding, dilation, groups)
    least = (max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True))
    spatial = tuple(n + int(rng.integers(0, most)) for n, most in zip(least, (rows, columns), strict=True))
    samples, filters = int(rng.integers(1, 18)), groups if groups > 1 else int(rng.integers(1, 80))
    shapes = ((samples, channels, *spatial), (filters, channels // groups, *kernel), (filters,))
    x, w, b = (rng.normal(size=shape).astype(rng.choice(["f4", "f8"])) for shape in shapes)
    dy = rng.normal(size=(samples, filters, *g.output(spatial)))
    return g, x, w.astype(x.dtype), b.astype(x.dtype), dy.astype(x.dtype)


def _agree(g: Geometry, x: Array, w: Array, b: Array | None, dy: Array) -> None:
    for name, arguments in {
        "conv": (x, w, b, g),
        "conv_input_gradient": (dy, w, g, x.shape[2:]),
        "conv_kernel_gradient": (dy, x, g),
    }.items():
        results = []
        for threads in (1, 3):
            set_threads(threads)
            results.append(getattr(kernels.native, name)(*arguments))
        same_bits(*results)
        close(results[0], getattr(vectorized, name)(*arguments))


@pytest.mark.parametrize("seed", range(40))
def test_depthwise(seed: int, instruction_set: str) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(2, 40))
    _agree(*_case(seed, numbers(rng, 1, 5, 2), channels, channels))


@pytest.mark.parametrize("seed", range(8))
def test_depthwise_of_large_maps(seed: int, instruction_set: str) -> None:
    """Some rows at a time; kernels of more rows than meet an input at once."""
    channels = int(np.random.default_rng(seed).integers(2, 20))
    kernel = ((4, 1), (3, 5), (11, 2), (2, 9))[seed % 4]
    _agree(*_case(seed + 40, kernel, channels, channels, *((150, 40) if seed < 4 else (12, 400))))


@pytest.mark.parametrize("seed", range(12))
def test_depthwise_of_maps_smaller_than_a_vector(seed: int, instruction_set: str) -> None:
    channels = int(np.random.default_rng(seed).integers(2, 40))
    _agree(*_case(seed + 60, ((1, 1), (3, 3), (7, 1))[seed % 3], channels, channels, rows=3, columns=3))


@pytest.mark.parametrize("channels", [100, 300])
def test_one_cell_at_a_stride(channels: int, instruction_set: str) -> None:
    """What windows see is copied side by side: of a whole sample, or if that is much of a row."""
    rng = np.random.default_rng(channels)
    g = Geometry.of(2, 1, stride=2)
    x, w, b = rng.normal(size=(3, channels, 23, 26)), rng.normal(size=(20, channels, 1, 1)), rng.normal(size=20)
    _agree(g, x, w, b, rng.normal(size=(3, 20, 12, 13)))


@pytest.mark.parametrize("seed", range(8))
def test_one_cell_of_many_channels(seed: int, instruction_set: str) -> None:
    """So many that their sums are stored in between."""
    _agree(*_case(seed + 40, (1, 1), int(np.random.default_rng(seed).integers(200, 600)), 1))


@pytest.mark.parametrize("channels", [1, 2])
def test_one_cell_with_padding(channels: int, instruction_set: str) -> None:
    """Some windows see no input, before the map or behind it; with a single channel it is depthwise too."""
    rng = np.random.default_rng(channels)
    for before, after, stride, size in product(range(4), range(4), range(1, 4), (1, 4, 9)):
        g = Geometry((1, 1), (1, stride), ((0, 0), (before, after)), (1, 1))
        x, w, b = rng.normal(size=(2, channels, 2, size)), rng.normal(size=(channels, channels, 1, 1)), None
        _agree(g, x, w, b, rng.normal(size=(2, channels, *g.output((2, size)))))


@pytest.mark.parametrize("seed", range(40))
def test_one_cell(seed: int, instruction_set: str) -> None:
    _agree(*_case(seed, (1, 1), int(np.random.default_rng(seed).integers(1, 70)), 1))


def test_an_infinite_number_reaches_only_what_sees_it() -> None:
    """Rows that end before a vector does are filled with zeros: what lies behind them is not multiplied by these."""
    rng = np.random.default_rng(0)
    for width in (5, 7, 13):
        g = Geometry.of(2, 3, padding=1, groups=4)
        x, dy = rng.normal(size=(2, 9, 4, 6, width)).astype(np.float32)
        x[2, 1, 3, 0] = np.inf
        dw = kernels.native.conv_kernel_gradient(dy, x, g)
        assert np.array_equal(np.isfinite(dw), np.isfinite(vectorized.conv_kernel_gradient(dy, x, g)))
