"""The compiled kernels beyond small shapes: full and partly filled vectors, every tile, every instruction set."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import Array, close, frozen, numbers

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
SETS = ["avx512", "avx2", "baseline"]
compiled = pytest.mark.skipif(not kernels.compiled(), reason="no kernels were compiled")


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")
def test_kernels_are_compiled_where_there_is_a_compiler() -> None:
    """Fails where the build has fallen back to NumPy in silence."""
    assert kernels.compiled()


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    if not kernels.compiled():
        pytest.skip("no kernels were compiled")
    native = kernels.native._native
    before = native.instruction_set()
    try:
        native.choose(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.choose(before)


def _case(seed: int) -> tuple[Geometry, Array, Array, Array, Array]:
    """A geometry and x, w, b, dy: up to 40 samples, 30 filters and windows of 5 cells."""
    rng = np.random.default_rng(seed)
    rank, dtype = 1 + seed % 2, (np.float32, np.float64)[seed // 2 % 2]
    kernel, stride, dilation = numbers(rng, 1, 5, rank), numbers(rng, 1, 3, rank), numbers(rng, 1, 2, rank)
    padding = tuple(numbers(rng, 0, 3, 2) for _ in range(rank))
    groups, samples = int(rng.choice([1, 1, 2, 5])), int(rng.integers(1, 41))
    inside, outside = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    g = Geometry(kernel, stride, padding, dilation, groups)
    least = (max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True))
    spatial = tuple(n + int(rng.integers(0, 12)) for n in least)
    shapes = ((samples, groups * inside, *spatial), (groups * outside, inside, *kernel), (groups * outside,))
    x, w, b = (frozen(rng.normal(size=shape), dtype) for shape in shapes)
    return g, x, w, b, frozen(rng.normal(size=(samples, groups * outside, *g.output(spatial))), dtype)


@pytest.mark.parametrize("seed", range(60))
def test_convolutions_of_all_sizes(seed: int, instruction_set: str) -> None:
    g, x, w, b, dy = _case(seed)
    for name, arguments in {
        "conv": (x, w, b, g),
        "conv_input_gradient": (dy, w, g, x.shape[2:]),
        "conv_kernel_gradient": (dy, x, g),
        "conv_kernel_gradients": (dy, x, g),
    }.items():
        close(getattr(kernels.native, name)(*arguments), getattr(vectorized, name)(*arguments))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 200_000])
def test_elementwise_kernels_of_all_sizes(size: int, instruction_set: str) -> None:
    rng = np.random.default_rng(size)
    for dtype in (np.float32, np.float64):
        x, y = rng.normal(size=size).astype(dtype) * 5, rng.uniform(-1, 1, size).astype(dtype)
        close(kernels.native.sigmoid(x), vectorized.sigmoid(x), 1e-6)
        close(kernels.native.relu(x), vectorized.relu(x))
        for name in ("sigmoid_backward", "tanh_backward", "relu_backward"):
            close(getattr(kernels.native, name)(x, y), getattr(vectorized, name)(x, y))


@pytest.mark.parametrize("size", [(2, 3, 8, 8), (3, 2, 7, 9), (40, 16, 14, 14)])
def test_pooling_in_halves_and_otherwise(size: tuple[int, ...], instruction_set: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, size).astype(np.float32)  # many ties
    g = Geometry.of(2, 2, 2)
    y = kernels.native.max_pool(x, g)
    np.testing.assert_array_equal(y, vectorized.max_pool(x, g))
    dy = rng.normal(size=y.shape).astype(np.float32)
    np.testing.assert_array_equal(
        kernels.native.max_pool_backward(dy, x, y, g, "first"), vectorized.max_pool_backward(dy, x, y, g, "first")
    )


def test_not_a_number_stays_one(instruction_set: str) -> None:
    x = np.array([[[np.nan, 1.0], [2.0, 3.0]]], np.float32)[None]
    assert np.isnan(kernels.native.relu(x)[0, 0, 0, 0])
    assert np.isnan(kernels.native.sigmoid(x)[0, 0, 0, 0])
    for order in (x, x[..., ::-1, ::-1]):
        assert np.isnan(kernels.native.max_pool(order, Geometry.of(2, 2)))


@compiled
def test_arrays_that_do_not_belong_together_are_refused() -> None:
    native = kernels.native._native
    with pytest.raises(TypeError, match="different types"):
        native.relu(np.empty(3), np.empty(3, np.float32))
    with pytest.raises(TypeError, match="float32 or float64"):
        native.relu(np.empty(3, np.int64), np.empty(3, np.int64))


@compiled
def test_a_forked_process_gets_threads_of_its_own() -> None:
    script = """
import os, sys
import numpy as np
from sharedgrad import kernels, set_threads
set_threads(2)
x = np.ones((64, 8, 32, 32), np.float32)
expected = kernels.native.relu(x)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(kernels.native.relu(x), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@compiled
def test_larger_kernels_than_the_compiled_code_provides_for_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 1, 80)), rng.normal(size=(1, 1, 65))
    g = Geometry.of(1, 65, 2, 3)
    dy = rng.normal(size=(2, 1, *g.output((80,))))
    close(kernels.native.conv_input_gradient(dy, w, g, (80,)), vectorized.conv_input_gradient(dy, w, g, (80,)))
    close(kernels.native.conv(x, w, None, g), vectorized.conv(x, w, None, g))
