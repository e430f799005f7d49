"""Threads: as many as asked for, results in order, never another bit."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
import warnings
from queue import Empty
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.kernels import threads
from sharedgrad.kernels.threads import _blas, get_threads, one_blas_thread, parallel, set_threads
from sharedgrad.kernels.vectorized import windows
from tests.helpers import same_bits


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, None])
def test_a_senseless_number_is_refused(count: object) -> None:
    before = get_threads()
    with pytest.raises(ConfigError, match="threads: expected a whole number of at least 1"):
        set_threads(count)
    assert get_threads() == before


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_back_in_the_order_of_the_tasks(count: int) -> None:
    set_threads(count)

    def slow_first(task: int) -> int:
        time.sleep(0.01 if task == 0 else 0)
        return task * task

    assert parallel(slow_first, range(7)) == [0, 1, 4, 9, 16, 25, 36]


def test_as_many_threads_work_at_once_as_were_set() -> None:
    set_threads(3)
    meeting = threading.Barrier(3, timeout=10)
    assert sorted(parallel(lambda _: meeting.wait(), range(3))) == [0, 1, 2]


def test_work_inside_work_is_serial() -> None:
    """A pool that waited for itself would never end."""
    set_threads(2)
    inner = parallel(lambda i: parallel(lambda j: (i, j, threading.get_ident()), range(3)), range(4))
    assert [[(i, j) for i, j, _ in row] for row in inner] == [[(i, j) for j in range(3)] for i in range(4)]
    assert all(len({thread for _, _, thread in row}) == 1 for row in inner)


def test_an_error_in_a_thread_comes_out() -> None:
    set_threads(2)
    with pytest.raises(ZeroDivisionError):
        parallel(lambda task: 1 // task, [1, 0, 2])


def test_a_forked_process_gets_threads_of_its_own() -> None:
    script = """
import os, sys
from sharedgrad.kernels.threads import parallel, set_threads
set_threads(2)
parallel(abs, [1, 2, 3])
child = os.fork()
if child == 0:
    os._exit(0 if parallel(abs, [-1, -2, -3]) == [1, 2, 3] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


def test_blas_runs_on_one_thread_and_gets_its_own_setting_back() -> None:
    def setting() -> list[int]:
        return [library["num_threads"] for library in _blas().info()]

    before = setting()
    with one_blas_thread():
        assert set(setting()) <= {1}
        with one_blas_thread():
            pass
        assert set(setting()) <= {1}
    assert setting() == before


def _pass() -> list[np.ndarray]:
    """Everything that one training pass computes, on a net with every kernel that is cut into chunks."""
    net = sg.Network(
        {
            "conv": sg.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
            "norm": sg.BatchNorm2d(8),
            "relu": sg.ReLU(),
            "pool": sg.MaxPool2d(3, 2, 1),
            "local": sg.LocallyConnected2d(8, 4, 5, 3, groups=2),
            "mean": sg.AvgPool2d(2, 1),
            "drop": sg.Dropout(0.3),
            "flat": sg.Flatten(),
            "dense": sg.Linear(16, 5),
        },
        (3, 9, 9),
    )
    rng = np.random.default_rng(0)
    y, tape = net.forward(rng.normal(size=(11, 3, 9, 9)))
    gradients = tape.backward(rng.normal(size=y.shape), inputs=True)
    return [y, gradients.inputs["input"], *gradients.values()]


def _same_for_any_number_of_threads() -> None:
    set_threads(1)
    expected = _pass()
    for count in (2, 3, 2):
        set_threads(count)
        for actual, one in zip(_pass(), expected, strict=True):
            same_bits(actual, one)


@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 1 << 20])
def test_any_number_of_threads_gives_the_same_bits(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CHUNK_BYTES", chunk_bytes)
    with kernels.use("vectorized"):
        _same_for_any_number_of_threads()


@pytest.mark.compiled
def test_any_number_of_threads_gives_the_same_bits_compiled() -> None:
    with kernels.use("native"):
        _same_for_any_number_of_threads()


def test_blas_is_held_for_uses_summed_outside_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    product = np.matmul
    monkeypatch.setattr(np, "matmul", lambda *a, **k: seen.append(_blas().info()) or product(*a, **k))
    with kernels.use("vectorized"):
        sg.kernel_uses([1, 2, 3], [1, 2], [1, 1]).sum()
    assert seen
    assert all(library["num_threads"] == 1 for info in seen for library in info)


def _in_a_child(queue: Any) -> None:
    inside_before = [library["num_threads"] for library in _blas().info()]
    with one_blas_thread():
        inside = [library["num_threads"] for library in _blas().info()]
    queue.put((inside_before, inside, [library["num_threads"] for library in _blas().info()]))


def _forked() -> tuple[list[int], list[int], list[int]]:
    """What a forked child sees of the setting: at first, inside, and afterwards."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from Python 3.12 on
        child.start()
    try:
        return queue.get(timeout=20)
    except Empty:
        child.kill()
        pytest.fail("the child hangs")
    finally:
        child.join()


forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")


@forks
@pytest.mark.parametrize("where", ["coming in", "inside"])
def test_a_child_is_free_of_what_other_threads_held_when_it_was_forked(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, go_on = threading.Event(), threading.Event()
    controller = _blas()
    usual = [library["num_threads"] for library in controller.info()]

    def slow() -> Any:
        if threading.current_thread() is other and where == "coming in":
            there.set()
            go_on.wait(20)
        return controller

    def work() -> None:
        with one_blas_thread():
            there.set()
            go_on.wait(20)

    monkeypatch.setattr(threads, "_blas", slow)
    other = threading.Thread(target=work)
    other.start()
    assert there.wait(20)
    try:
        before, inside, after = _forked()
    finally:
        go_on.set()
        other.join()
    assert before == after == usual
    assert set(inside) <= {1}
    assert [library["num_threads"] for library in controller.info()] == usual


@forks
def test_who_forks_inside_is_still_inside_in_the_child() -> None:
    with one_blas_thread():
        before, inside, after = _forked()
    assert set(before) | set(inside) | set(after) <= {1}
