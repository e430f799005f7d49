"""A rival's call in a process of its own, which stands still between its turns: its threads slow nobody down.

``python -m benchmarks.apart MODULE FUNCTION THREADS ARGUMENT…`` makes the call ``FUNCTION(ARGUMENT, …)`` of a module of
this package and then obeys lines of its input: ``count`` (calls that a turn takes) or a number (a turn of so many
calls: milliseconds a call). It answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from time import process_time

from benchmarks import machine, timing
from benchmarks.memory import environment

Argument = str | int


class Apart:
    """Started when it is made, with the call made and run once.

    Args:
        module: A module of this package.
        function: Its function that makes the call; whole numbers and texts are its arguments.
        threads: Cores that the process may run on.

    Raises:
        ModuleNotFoundError: The library is not installed.
        RuntimeError: The call could not be made, and why.
    """

    def __init__(self, module: str, function: str, threads: int, *arguments: Argument) -> None:
        command = [sys.executable, "-m", __name__, module, function, str(threads), json.dumps(arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment() | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __call__(self) -> None:
        """One call."""
        self.turn(1)

    def calls_a_turn(self) -> int:
        return int(self._ask("count")["calls"])

    def turn(self, calls: int) -> timing.Turn:
        found = self._ask(str(calls))
        return timing.Turn(found["milliseconds"], found["processor"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str) -> dict[str, float]:
        assert self._process.stdin is not None
        self._signal("SIGCONT")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with code {self._process.wait()}")
        self._signal("SIGSTOP")
        found: dict[str, float | str] = json.loads(line)
        if "missing" in found:
            raise ModuleNotFoundError(f"No module named {found['missing']!r}", name=str(found["missing"]))
        if "failed" in found:
            raise RuntimeError(found["failed"])
        return found

    def _signal(self, name: str) -> None:
        """Where processes can be stopped and go on."""
        if number := getattr(signal, name, None):
            self._process.send_signal(number)


def main() -> None:
    module, function, threads, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    if hasattr(os, "sched_setaffinity"):  # before libraries count the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        machine.use_threads(threads, rivals=False)
        call = getattr(import_module(f"benchmarks.{module}"), function)(*arguments)
        call()
        answer: dict[str, object] = {}
    except ModuleNotFoundError as error:
        answer = {"missing": error.name}
    except Exception as error:
        answer = {"failed": timing.reason(error)}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        before = process_time()
        if line == "count\n":
            answer = {"calls": timing.calls_a_turn(call)}
        else:
            milliseconds = timing.turn(call, int(line)).milliseconds
            answer = {"milliseconds": milliseconds, "processor": process_time() - before}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
