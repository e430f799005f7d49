"""The compiled kernels beyond small shapes: full and partly filled vectors, every tile, every instruction set."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import Array, close, frozen, numbers, same_bits

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")
def test_kernels_are_compiled_where_there_is_a_compiler() -> None:
    """Fails where the build has fallen back to NumPy in silence."""
    assert kernels.compiled()


def _case(seed: int, rank: int, dtype: type) -> tuple[Geometry, Array, Array, Array, Array]:
    """A geometry and x, w, b, dy: up to 40 samples, 30 filters and windows of 5 cells."""
    rng = np.random.default_rng(seed)
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


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [1, 2])
def test_convolutions_of_all_sizes(rank: int, dtype: type, seed: int, instruction_set: str) -> None:
    g, x, w, b, dy = _case(seed, rank, dtype)
    for name, arguments in {
        "conv": (x, w, b, g),
        "conv_input_gradient": (dy, w, g, x.shape[2:]),
        "conv_kernel_gradient": (dy, x, g),
        "conv_kernel_gradients": (dy, x, g),
    }.items():
        close(getattr(kernels.native, name)(*arguments), getattr(vectorized, name)(*arguments))


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "padding", "size"),
    [
        (300, 50, 1, 0, (2, 40)),  # more channels than one tile's share of the cache, rows longer than a piece
        (3, 70, 1, 0, (9, 3)),  # several rows to a piece, the last one not full
        (520, 24, 1, 0, (2, 2)),  # filters in several ranges
        (10, 10, 3, 1, (5, 7)),
        (10, 10, 3, 2, (1, 4)),
        (4, 4, 5, 0, (9, 6)),
    ],
)
def test_convolutions_of_one_cell_or_one_channel(
    channels: int, filters: int, kernel: int, padding: int, size: tuple[int, int], instruction_set: str
) -> None:
    rng, groups = np.random.default_rng(channels), 1 if kernel == 1 else channels
    for samples, dtype in ((33, np.float32), (16, np.float64)):
        g = Geometry.of(2, kernel, padding=padding, groups=groups)
        x = frozen(rng.normal(size=(samples, channels, *size)), dtype)
        w = frozen(rng.normal(size=(filters, channels // groups, kernel, kernel)), dtype)
        b = frozen(rng.normal(size=filters), dtype)
        dy = frozen(rng.normal(size=(samples, filters, *g.output(size))), dtype)
        close(kernels.native.conv(x, w, b, g), vectorized.conv(x, w, b, g))
        close(kernels.native.conv_input_gradient(dy, w, g, size), vectorized.conv_input_gradient(dy, w, g, size))
        close(kernels.native.conv_kernel_gradient(dy, x, g), vectorized.conv_kernel_gradient(dy, x, g))


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


@pytest.mark.compiled
def test_arrays_that_do_not_belong_together_are_refused() -> None:
    native = kernels.native
    for call in (
        lambda: native.relu_backward(np.empty(3), np.empty(3, np.float32)),
        lambda: native.relu(np.empty(3, np.int64)),
    ):
        with pytest.raises(TypeError, match="elements of another type than expected"):
            call()


ROW = [2, 0, 1, 1, 3, 1, 1, 0, 0, 0, 0, 0]  # a map: the first array from outside, three numbers


def written(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


@pytest.mark.compiled
def test_a_program_runs_on_its_own_arrays_alone() -> None:
    native = kernels.native._native
    zero = native.OPERATIONS.split().index("zero")
    maps, code = written(*ROW), written(zero, 0)
    made, nothing, array = native.program(maps, code, 8, written(-1, -1, 3)), np.empty(0), np.ones(3)
    native.run(made, nothing, [array])
    assert not array.any()
    for given, error, message in (
        ((made, nothing, [np.ones(4)]), ValueError, "another size"),
        ((made, nothing, [np.ones(6)[::2]]), ValueError, "contiguous"),
        ((made, nothing, [None]), TypeError, "NoneType"),
        ((made, nothing, []), TypeError, "a list of 1 arrays"),
        ((made, nothing, (array,)), TypeError, "a list of 1 arrays"),
        ((made, nothing), TypeError, "expected 3 or 4 arguments"),
        ((None, nothing, [array]), ValueError, "invalid PyCapsule"),
    ):
        with pytest.raises(error, match=message):
            native.run(*given)
    kept = native.program(written(0, 5, *ROW[2:]), code, 8, written(8, -1))
    with pytest.raises(ValueError, match="another size"):
        native.run(kept, np.ones(7), [])
    with pytest.raises(ValueError, match="there is no array"):
        native.program(maps, code, 8, written(0))
    with pytest.raises(TypeError, match="bytes"):
        native.program(ROW, code, 8, written(-1, -1, 3))


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("row", "operation", "message"),
    [
        (ROW, ["nothing", 0], "no such operation"),
        (ROW, ["clear_margins", 1], "no such map"),
        (ROW, ["clear_margins", -2], "no such map"),
        (ROW, ["add", 0, 0], "ends within"),
        ([3, *ROW[1:]], ["zero", 0], "makes no sense"),
        ([-1, *ROW[1:]], ["zero", 0], "makes no sense"),
        ([2, -1, *ROW[2:]], ["zero", 0], "makes no sense"),
        ([2, 0, 1, 0, *ROW[4:]], ["zero", 0], "makes no sense"),
        ([2, 0, 1, 32, *ROW[4:]], ["zero", 0], "makes no sense"),
        ([2, 0, 1, 1, 2**40, *ROW[5:]], ["zero", 0], "makes no sense"),
        ([2, 0, 1, 1, 3, 1, -1, *ROW[7:]], ["zero", 0], "makes no sense"),
    ],
)
def test_programs_that_cannot_be_read_are_refused(row: list[int], operation: list[Any], message: str) -> None:
    name, *numbers = operation
    codes = {name: code for code, name in enumerate(kernels.native._native.OPERATIONS.split())}
    code = written(codes.get(name, len(codes)), *numbers)
    with pytest.raises(ValueError, match=message):
        kernels.native._native.program(written(*row), code, 8, written(-1, -1, 3))


@pytest.mark.compiled
def test_arrays_of_wrong_size_are_refused_and_not_read_beyond_their_end() -> None:
    native, g = kernels.native, Geometry.of(2, 3)
    x, w, dy = np.ones((2, 4, 9, 9)), np.ones((6, 4, 3, 3)), np.ones((2, 6, 7, 7))
    for call in (
        lambda: native.sigmoid_backward(dy, dy[:1]),
        lambda: native.conv(x, w[:, :3], None, g),
        lambda: native.conv(x, w, np.ones(5), g),
        lambda: native.conv_input_gradient(dy, w[:5], g, (9, 9)),
        lambda: native.conv_kernel_gradient(dy, x[:1], g),
        lambda: native.max_pool_backward(dy, x, dy, g, "first"),
    ):
        with pytest.raises((ValueError, AssertionError), match=r"another size|do not fit|hold other cells"):
            call()


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("x", "w", "stride"),
    [
        ((1, 1, 200_000), (1, 1, 3), 1),  # a signal: a row of very many tiles
        ((1, 1200, 11, 11), (1, 1200, 11, 11), 1),  # as many taps
        ((2, 3, 128, 128), (512, 3, 64, 64), 64),  # as many phases as the kernel has cells
        ((1, 1, 11, 11), (1, 1, 3, 3), 2**31 - 1),
    ],
)
def test_extreme_sizes(x: tuple[int, ...], w: tuple[int, ...], stride: int) -> None:
    rng = np.random.default_rng(0)
    inputs, kernel = rng.normal(size=x), rng.normal(size=w)
    g = Geometry.of(len(x) - 2, w[2:], stride)
    dy = rng.normal(size=(x[0], w[0], *g.output(x[2:])))
    for name, arguments in {
        "conv": (inputs, kernel, None, g),
        "conv_input_gradient": (dy, kernel, g, x[2:]),
        "conv_kernel_gradient": (dy, inputs, g),
    }.items():
        close(getattr(kernels.native, name)(*arguments), getattr(vectorized, name)(*arguments))


@pytest.mark.compiled
def test_no_samples_give_no_samples() -> None:
    assert kernels.native.conv(np.ones((0, 1, 9, 9)), np.ones((2, 1, 3, 3)), None, Geometry.of(2, 3)).shape[0] == 0


@pytest.mark.compiled
def test_windows_in_the_padding_alone_are_not_taken_for_halves() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    g = Geometry.of(2, 2, 2, ((0, 2), (0, 2)))
    np.testing.assert_array_equal(kernels.native.max_pool(x, g), vectorized.max_pool(x, g))


@pytest.mark.compiled
def test_the_number_of_threads_may_change_while_others_compute() -> None:
    """A call that finds the threads in use computes on its own; the bits are the same."""
    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(20, 4, 30, 30)), rng.normal(size=(5, 4, 3, 3)), Geometry.of(2, 3)
    expected = kernels.native.conv(x, w, None, g)
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(kernels.native.conv, x, w, None, g) for _ in range(60)]
        for number in range(60):
            kernels.set_threads(1 + number % 4)
    for result in (r.result() for r in results):
        same_bits(result, expected)


@pytest.mark.compiled
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell its memory")
def test_no_memory_is_an_error_and_no_crash() -> None:
    script = """
import resource
from typing import Any

import numpy as np
from sharedgrad import kernels, set_threads
from sharedgrad.geometry import Geometry
set_threads(2)
x, g = np.ones((16, 1, 8, 8), np.float32), Geometry.of(2, 3)
w, wide = np.ones((2, 1, 3, 3), np.float32), np.ones((20_000, 1, 30, 30), np.float32)
expected = kernels.native.conv(x, w, None, g)
large = np.ones((16, 1, 30, 30), np.float32)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
for attempt in range(10):
    resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, limits[1]))  # the maps, but not the weights in tiles
    try:
        kernels.native.conv(large, wide, None, Geometry.of(2, 30))
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        assert np.array_equal(kernels.native.conv(x, w, None, g), expected)
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("refused\n" * 10, 0), done.stderr


@pytest.mark.compiled
def test_a_forked_process_gets_threads_of_its_own() -> None:
    script = """
import os, sys
from typing import Any

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


@pytest.mark.compiled
def test_larger_kernels_than_the_compiled_code_provides_for_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 1, 80)), rng.normal(size=(1, 1, 65))
    g = Geometry.of(1, 65, 2, 3)
    dy = rng.normal(size=(2, 1, *g.output((80,))))
    close(kernels.native.conv_input_gradient(dy, w, g, (80,)), vectorized.conv_input_gradient(dy, w, g, (80,)))
    close(kernels.native.conv(x, w, None, g), vectorized.conv(x, w, None, g))
