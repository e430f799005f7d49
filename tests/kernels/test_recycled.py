"""Memory of results comes back when the last view is gone, and never before."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from tests.helpers import Array

pytestmark = pytest.mark.compiled

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def _empty(shape: tuple[int, ...], dtype: np.dtype[np.floating] = F32) -> Array:
    from sharedgrad.kernels.native.recycled import empty

    return empty(shape, dtype)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("shape", [(), (3,), (0, 5), (1023,), (1024,), (1025,), (7, 33, 1000), (2_000_003,)])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_it_is_an_ordinary_array(shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> None:
    array = _empty(shape, dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == (shape, dtype, True, True)
    if array.nbytes >= 4096:
        assert _address(array) % 64 == 0
    array[...] = 1.5
    assert array.sum() == 1.5 * array.size


def test_a_block_comes_back_when_the_last_view_is_gone_and_not_before() -> None:
    array = _empty((50, 1001))
    where, view = _address(array), array[3:, ::2].T
    array[...] = 7
    del array
    others = [_empty((50, 1001)) for _ in range(5)]
    for other in others:
        assert _address(other) != where
        other[...] = 0
    assert (view == 7).all()
    del view, other, others
    assert where in {_address(a) for a in [_empty((50, 1001)) for _ in range(6)]}


def test_arrays_in_use_never_overlap() -> None:
    rng = np.random.default_rng(0)
    held: list[Array] = []
    for number in range(2000):
        array = _empty((int(rng.integers(1000, 40_000)),))
        array.fill(number)
        held.append(array)
        if len(held) > 40:
            gone = held.pop(int(rng.integers(len(held))))
            assert (gone == gone[0]).all()
    ends = sorted((_address(a), _address(a) + a.nbytes) for a in held)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert all((a == a[0]).all() for a in held)


def test_what_a_network_hands_out_stays_what_it_was() -> None:
    rng = np.random.default_rng(0)
    net = sg.Network([sg.Linear(300, 400), sg.ReLU(), sg.Linear(400, 60)], (300,))
    optimizer = sg.Adam(net.parameters())
    kept: list[tuple[Array, Array]] = []
    for _ in range(6):
        y, tape = net.forward(rng.normal(size=(80, 300)))
        _, upstream = sg.MSE()(y, np.ones(y.shape))
        gradients = tape.backward(upstream)
        optimizer.step(gradients)
        for array in (y, *gradients.values(), *(p.value for p in net.parameters())):
            kept.append((array, array.copy()))
    for array, copy in kept:
        np.testing.assert_array_equal(array, copy)


def test_threads_take_and_give_back_at_once() -> None:
    def work(seed: int) -> bool:
        rng, held = np.random.default_rng(seed), []
        for _ in range(300):
            array = _empty((int(rng.integers(1024, 9000)),))
            array.fill(seed)
            held = [*held[-5:], array]
            if not all((a == seed).all() for a in held):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system does not fork")
def test_a_forked_process_has_blocks_of_its_own() -> None:
    script = """
import os, sys
import numpy as np
from sharedgrad.kernels.native.recycled import empty
array = empty((5000,), np.dtype(np.float32))
array.fill(1)
child = os.fork()
if child == 0:
    array.fill(2)
    other = empty((5000,), np.dtype(np.float32))
    del array, other
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code or not (array == 1).all())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell its memory")
def test_no_more_is_kept_than_was_in_use_at_once() -> None:
    script = """
import resource
import numpy as np
from sharedgrad.kernels.native.recycled import empty
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before = resident()
for size in range(10_000_000, 20_000_000, 500_000):  # 20 sizes of 40 to 80 MB, one after the other
    empty((size,), np.dtype(np.float32)).fill(1)
print((resident() - before) // 1_000_000)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 130


def test_a_size_that_cannot_be_had_is_an_error() -> None:
    memory = kernels.native._native.memory
    for size in (2**62, 2**49, -1):
        with pytest.raises(MemoryError):
            memory(size)
    with pytest.raises(TypeError):
        memory(1.5)
    with pytest.raises(TypeError):
        type(memory(8))()


def test_blocks_are_buffers() -> None:
    block = kernels.native._native.memory(100)
    view = memoryview(block)
    assert (view.nbytes, view.readonly, view.contiguous) == (100, False, True)
    del block
    view[:] = bytes(range(100))
    gc.collect()
    assert bytes(view) == bytes(range(100))
