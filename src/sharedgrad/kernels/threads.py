"""How many threads the kernels use, and the promise that the number never changes a bit of any result.

Work is cut by shape, never by the number of threads, and partial results come back in index order. BLAS itself
runs on one thread while a network works, since it rounds differently on several; its setting is put back after.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import whole

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_THREADS = 256

_lock = threading.Lock()
_inside = threading.local()
_listeners: list[Callable[[int], None]] = []
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(count: int) -> None:
    """Use this many threads from now on (default: the processors this process may run on)."""
    global _threads
    count = whole(count, "threads")
    if count > MOST_THREADS:
        raise ConfigError("threads", f"expected at most {MOST_THREADS}, got {count}")
    _threads = count
    for tell in _listeners:
        tell(_threads)


def on_change(tell: Callable[[int], None]) -> None:
    """Tell the number of threads now and whenever it is set: compiled kernels have threads of their own."""
    _listeners.append(tell)
    tell(_threads)


def get_threads() -> int:
    """The number of threads in use."""
    return _threads


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """One pool for each setting; the process number in the key gives a forked child a fresh one."""
    return ThreadPoolExecutor(count, thread_name_prefix=f"sharedgrad-{process}", initializer=_enter)


def _enter() -> None:
    _inside.worker = True


def parallel(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """``[function(task) for task in tasks]``, in that order, on the threads; serial inside a worker."""
    if _threads == 1 or len(tasks) < 2 or getattr(_inside, "worker", False):
        return [function(task) for task in tasks]
    return list(_pool(_threads, os.getpid()).map(function, tasks))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


class _Limit:
    """BLAS held at one thread: the first to come in sets the limit, the last to go out puts it back."""

    def __init__(self) -> None:
        self._lock, self._own = threading.Lock(), threading.local()
        self._users, self._held = 0, None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            self._own.depth = self._depth + 1
            if self._users == 1:
                self._held = _blas().limit(limits=1)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._own.depth = self._depth - 1
            self._put_back()

    def after_fork(self) -> None:
        """In a child there is the thread that forked alone: what others held is nobody's any more."""
        self._lock, self._users = threading.Lock(), self._depth
        self._put_back()

    @property
    def _depth(self) -> int:
        return getattr(self._own, "depth", 0)

    def _put_back(self) -> None:
        if self._users == 0 and self._held is not None:
            self._held.restore_original_limits()
            self._held = None


_limit = _Limit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.after_fork)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread for as long as anybody is inside."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()
