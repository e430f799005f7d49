"""Ctrl-C, and SIGTERM as schedulers and ``docker stop`` send it, at a moment when everything is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; the exit code is the shell's for it."""

    exit_code = 128 + signal.SIGTERM


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise Terminated instead of ending the process, where nobody else has a use for it."""
    if not _in_main() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended, then raise what they stand for.

    Only in the main thread, the only one that gets them, and only if the caller has not installed another handler.
    """
    known = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}
    ours = {number: handler for number, handler in known.items() if signal.getsignal(number) is handler}
    if not ours or not _in_main():
        yield
        return
    received: list[int] = []
    for number in ours:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    if received:
        raise Terminated if signal.SIGTERM in received else KeyboardInterrupt


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()
