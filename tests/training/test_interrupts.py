from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sharedgrad.training.interrupts import Terminated, ended_by_sigterm, held


@pytest.fixture(autouse=True)
def python_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_until_the_block_has_ended() -> None:
    done = []

    def work() -> None:
        with held():
            ctrl_c()
            ctrl_c()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_blocks_within_blocks() -> None:
    done = []

    def work() -> None:
        with held():
            with held():
                ctrl_c()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_nothing_happens_without_ctrl_c() -> None:
    with held():
        pass
    with pytest.raises(LookupError), held():
        raise LookupError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_callers_own_handler_is_left_alone() -> None:
    received = []
    signal.signal(signal.SIGINT, lambda *_: received.append(True))
    with held():
        ctrl_c()
        assert received


def test_other_threads_can_use_it() -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            with held():
                pass
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_waits_and_is_told_apart() -> None:
    done = []

    def work() -> None:
        with ended_by_sigterm(), held():
            sigterm()
            ctrl_c()
            done.append(True)

    with pytest.raises(Terminated):
        work()
    assert done
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_between_two_blocks() -> None:
    def work() -> None:
        with ended_by_sigterm():
            with held():
                pass
            sigterm()

    with pytest.raises(Terminated):
        work()


def test_a_handler_for_sigterm_of_the_callers_own_stays() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with ended_by_sigterm(), held():
            sigterm()
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
