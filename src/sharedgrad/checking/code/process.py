"""A process of its own for a person's code, with a limit of time and of memory.

It protects against accidents: a loop without end, an exit, output in megabytes, an array of gigabytes. It is no security
sandbox: the code may do whatever its user may do. Run strangers' code in a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

from sharedgrad.checking.code import wire
from sharedgrad.errors import ConfigError

_START = (
    "import json, sys; o = json.loads(sys.argv[1]); sys.path[:] = o['path'];"
    "from sharedgrad.checking.code.child import main; main(o['source'], o['out'], o['order'])"
)


@dataclass(frozen=True)
class Limits:
    """What a person's code may use.

    Attributes:
        seconds: Time of one call.
        loading: Time until its file is loaded.
        megabytes: Memory on top of what the loaded file takes.
    """

    seconds: float = 5.0
    loading: float = 60.0
    megabytes: int = 1024


class Process:
    """The process; started when it is first asked, and again after it had to be ended.

    Args:
        order: What to load: "file" or "module", and "name"; "forward".
        limits: Its limits.
        local: An object to call that cannot be loaded from a file: the process is forked from this one.
    """

    def __init__(self, order: dict[str, Any], limits: Limits, local: Any = None) -> None:
        self.limits, self.local = limits, local
        self.order = {**order, "memory": limits.megabytes * 2**20}
        self.told: Any = None
        self.starts = 0
        self._pid: int | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._to = self._from = -1

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> dict[str, Any] | None:
        """Load the code; a failure, or None."""
        self.end()
        self.starts += 1
        source, self._to = os.pipe()
        self._from, out = os.pipe()
        try:
            if self.local is None:
                self._spawn(source, out)
            else:
                self._fork(source, out)
        finally:
            os.close(source)
            os.close(out)
        answer = self._answer(self.limits.loading, "loading its file takes")
        if "told" in answer:
            self.told = answer["told"]
            return None
        self.end()
        return answer["failure"]

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to one job, or {"failure": …}; a process that has to be ended is started again next time."""
        if self._pid is None and (failure := self.start()):
            return {"failure": failure}
        try:
            wire.send(self._to, job)
        except OSError:  # it has ended by itself after its last answer
            self.end()
            return {"failure": _plain("exits", "its process ended")}
        return self._answer(self.limits.seconds, "takes")

    def _spawn(self, source: int, out: int) -> None:
        path = [p or os.getcwd() for p in sys.path]
        text = json.dumps({"path": path, "source": source, "out": out, "order": self.order})
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        nothing = subprocess.DEVNULL
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, text], pass_fds=(source, out), stdin=nothing, stdout=nothing,
            stderr=nothing, start_new_session=True, env={**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self._pid = self._popen.pid

    def _fork(self, source: int, out: int) -> None:
        if not hasattr(os, "fork") or sys.platform == "win32":
            raise ConfigError("check", "this function cannot be run in a process of its own here", "put it into a file")
        with warnings.catch_warnings():  # Python 3.12 warns of threads; the child uses none of the parent's
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            self._pid = pid
            return
        try:  # from here on in the child, which never returns
            from sharedgrad.checking.code import child
            from sharedgrad.checking.code.calls import describe

            os.setsid()
            os.close(self._to)
            os.close(self._from)
            child._quiet()
            if "torch" in sys.modules:  # its pool of threads did not come along
                sys.modules["torch"].set_num_threads(1)
            child.serve(source, out, self.local, describe(self.local), self.order)
        finally:
            os._exit(0)

    def _answer(self, seconds: float, doing: str) -> dict[str, Any]:
        try:
            answer = wire.receive(self._from, seconds)
            if isinstance(answer, dict):
                return answer
            failure = _plain("unreadable", "its process sent something unreadable")
        except wire.Late:
            failure = _plain("hangs", f"{doing} longer than {seconds:g} s")
        except wire.Broken as error:
            failure = self._how_it_ended() if str(error) == "closed" else _plain(
                "unreadable", "its process sent something unreadable"
            )  # fmt: skip
        self.end()
        return {"failure": failure}

    def _how_it_ended(self) -> dict[str, Any]:
        code = self._wait(1.0)
        if code is None:
            return _plain("exits", "closed its files")
        if code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
            return _plain("killed", f"its process was ended by {signal.Signals(-code).name}")
        if code < 0:
            return _plain("killed", f"its process was ended by signal {-code}")
        return _plain("exits", f"ends the program (exit code {code})")

    def _wait(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while True:
            code = self._poll()
            if code is not None or time.monotonic() > end:
                return code
            time.sleep(0.005)

    def _poll(self) -> int | None:
        if self._popen is not None:
            return self._popen.poll()
        if self._pid is None:
            return 0
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = None
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """End the process and everything that it has started in its session."""
        for descriptor in (self._to, self._from):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._to = self._from = -1
        if self._pid is not None:
            _kill(self._pid)
            if self._popen is not None:
                self._popen.wait()
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self._pid, 0)
        self._pid = self._popen = None


def _kill(pid: int) -> None:
    kill = getattr(os, "killpg", None)
    with contextlib.suppress(OSError):
        if kill is not None:
            kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(OSError):  # before setsid has run, a forked child is in no group of its own
        os.kill(pid, signal.SIGKILL)


def _plain(kind: str, message: str) -> dict[str, Any]:
    return {"kind": kind, "type": "", "message": message, "line": 0, "source": ""}
