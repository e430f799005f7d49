"""Thousands of small convolutions and pools, compiled, against the loops of the definition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import reference
from tests.helpers import Array, close, numbers

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("memory_of_nan")]
EACH = 50  # geometries in one test


def _in_another_order(rng: np.random.Generator, array: Array) -> Array:
    """The same numbers, read-only, and perhaps not one after the other in memory."""
    match rng.integers(5):
        case 0:
            array = np.asfortranarray(array)
        case 1:
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        case 2:
            array = array[::-1, ..., ::-1].copy()[::-1, ..., ::-1]
        case 3:
            array = np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1)
    array = array.view()
    array.flags.writeable = False
    return array


def _window(rng: np.random.Generator, pool: bool) -> tuple[Geometry, tuple[int, ...]]:
    """A window and maps that it fits into: one or two axes, every kind of edge."""
    rank = int(rng.integers(1, 3))
    kernel = numbers(rng, 1, 4 if rank == 2 else 9, rank)
    stride = numbers(rng, 1, 4, rank)
    dilation = (1,) * rank if pool else numbers(rng, 1, 3, rank)
    padding = tuple(numbers(rng, 0, k - 1 if pool else 4, 2) for k in kernel)
    groups = 1 if pool else int(rng.choice([1, 1, 2, 3]))
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, e - sum(pair)) for e, pair in zip(extents, padding, strict=True)]
    spare = 6 if rank == 1 else 3
    return Geometry(kernel, stride, padding, dilation, groups), tuple(n + rng.integers(spare) for n in least)


def _samples(rng: np.random.Generator) -> int:
    return int(rng.choice([0, 1, 1, 2, 3, 4, 5, 9]))


def _cases(first: int, pool: bool) -> Iterator[tuple[np.random.Generator, Geometry, tuple[int, ...]]]:
    for seed in range(first * EACH, (first + 1) * EACH):
        rng = np.random.default_rng([seed, pool])
        g, spatial = _window(rng, pool)
        yield rng, g, tuple(int(n) for n in spatial)


def _agree(name: str, *arguments: object) -> Array:
    actual, expected = (getattr(k, name)(*arguments) for k in (kernels.native, reference))
    assert actual.dtype == expected.dtype, (name, arguments)
    try:
        close(actual, expected)
    except AssertionError as error:
        shapes = [a.shape if isinstance(a, np.ndarray) else a for a in arguments]
        raise AssertionError(f"{name} {shapes}: {error}") from None
    return np.asarray(expected)


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("instruction_set")
def test_convolutions(dtype: type, first: int) -> None:
    for rng, g, spatial in _cases(first, pool=False):
        inside, outside = numbers(rng, 1, 2, 2)
        samples, filters = _samples(rng), g.groups * outside
        shapes = ((samples, g.groups * inside, *spatial), (filters, inside, *g.kernel))
        x, w = (_in_another_order(rng, rng.normal(size=shape).astype(dtype)) for shape in shapes)
        b = rng.normal(size=filters).astype(dtype) if rng.random() < 0.5 else None
        y = _agree("conv", x, w, b, g)
        dy = _in_another_order(rng, rng.normal(size=y.shape).astype(dtype))
        _agree("conv_input_gradient", dy, w, g, spatial)
        _agree("conv_kernel_gradient", dy, x, g)
        _agree("conv_kernel_gradients", dy, x, g)


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("instruction_set")
def test_pools(dtype: type, first: int) -> None:
    for rng, g, spatial in _cases(first, pool=True):
        shape = (_samples(rng), int(rng.integers(1, 4)), *spatial)
        x = _in_another_order(rng, rng.integers(-3, 3, shape).astype(dtype))  # many ties
        y = _agree("max_pool", x, g)
        dy = _in_another_order(rng, rng.normal(size=y.shape).astype(dtype))
        _agree("max_pool_backward", dy, x, y, g, "first")
        for count_padding in (False, True):
            _agree("avg_pool", x, g, count_padding)
            _agree("avg_pool_backward", dy, g, spatial, count_padding)
