"""Code that hangs, ends the program, prints without end or asks for all memory: contained, with one clear line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.code.process import Limits, Process
from sharedgrad.errors import ConfigError, DataError
from tests.checking.code.helpers import check

HOSTILE = {
    "hangs": ("while True: pass", "takes longer than 0.5 s"),
    "exits_program": ("import sys; sys.exit(3)", "sys.exit"),
    "exits_program now": ("import os; os._exit(4)", "exit code 4"),
    "ended_by_system": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "memory_exhausted": ("return np.ones((10 ** 6, 10 ** 6))", "MemoryError"),
    "memory_exhausted bit by bit": (
        "a = []\n    while True: a.append(np.ones(10 ** 6))", ""),
    "crashes": ("return 1 / 0", "ZeroDivisionError: division by zero (line 5: return 1 / 0)"),
    "crashes by recursion": ("return backward(dout, x)", "RecursionError"),
    "crashes reading": ("return input()", "EOFError"),
    "crashes silently": ("raise type('Odd', (BaseException,), {'__str__': lambda s: 1 / 0})()", "Odd"),
    "wrong_type": ("return 'a gradient'", "expected numbers for dx, got str"),
    "wrong_type object": ("return [[1], [2, 3]]", "rows of different lengths"),
    "wrong_shape": ("return np.ones(10 ** 7)", "10,000,000 numbers"),
    "exits_program closing": ("import os; os.closerange(3, 256); return x", ""),
    "exits_program writing": (
        "import os\n    for n in range(3, 30):\n        try: os.write(n, b'x' * 4000)\n        except OSError: pass\n"
        "    return x",
        "unreadable"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_code_is_contained(what: str, tmp_path: Path) -> None:
    body, message = HOSTILE[what]
    text = f"import numpy as np\n\n\ndef backward(dout, x):\n    {body}\n"
    report = check(tmp_path, text, "relu", limits=Limits(0.5 if what == "hangs" else 5.0, megabytes=256))
    assert report.verdict == "wrong"
    assert report.explanations[0].id == what.split()[0]
    assert message in report.explanations[0].notes
    assert "\n" not in report.explanations[0].notes


def test_prints_in_megabytes_go_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = """
        import os, sys
        def backward(dout, x):
            for _ in range(100):
                print("x" * 100_000)
            sys.stderr.write("y" * 100_000)
            os.write(1, b"z" * 100_000)
            return dout * (x > 0)
    """
    assert check(tmp_path, text, "relu").verdict == "right"
    out, err = capfd.readouterr()
    assert not out
    assert not err


def test_a_process_left_behind_is_ended(tmp_path: Path) -> None:
    text = f"""
        import subprocess, sys
        def backward(dout, x):
            p = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open({str(tmp_path / "pid")!r}, "w").write(str(p.pid))
            while True: pass
    """
    assert check(tmp_path, text, "relu", limits=Limits(1.0)).ids == ["hangs"]
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}/stat").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.05)
    else:
        os.kill(pid, 9)
        pytest.fail("the process lives on")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; sys.exit(1)", "mine.py: cannot be loaded: it ends the program (sys.exit) (line 1"),
        ("def backward(:", "mine.py: cannot be loaded: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("while True: pass", "loading its file takes longer than 1 s"),
        ("def forward(): pass", "mine.py has no 'backward'; it has forward"),
    ],
)
def test_a_file_that_cannot_be_loaded(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, text, "relu", limits=Limits(loading=1.0 if "while" in text else 60.0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_checked_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        sg.checking.code.api.of_file(str(tmp_path / "none.py:f"), None)
    with pytest.raises(ConfigError, match="expected a function or a class, got int"):
        sg.check_backward(3, "relu")
    with pytest.raises(ConfigError, match="there is no layer 'conv9d'"):
        sg.check_backward(lambda dout, x: x, "conv9d")
    with pytest.raises(ConfigError, match="expected arguments -> results, got 'dx'"):
        sg.check_backward(lambda dout, x: x, "relu", signature="dx")
    with pytest.raises(ConfigError, match="nobody knows what the argument 'apple' stands for"):
        sg.check_backward(lambda *a: a, "relu", signature="dout, apple -> dx")


def test_a_function_that_cannot_be_imported_is_forked() -> None:
    limit = 0.0
    report = sg.check_backward(lambda dout, x: dout * (x > limit), "relu")
    assert report.verdict == "right"

    def hang(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
        while True:
            pass

    assert sg.check_backward(hang, "relu", timeout=0.3).ids == ["hangs"]


def test_the_parents_arrays_stay_as_they_are() -> None:
    seen = np.zeros(3)

    def backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
        seen[:] = 1
        return dout * (x > 0)

    assert sg.check_backward(backward, "relu").verdict == "right"
    assert not seen.any()


def test_an_ended_process_starts_again(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\ndef backward(x): os._exit(0)\n")
    with Process({"file": str(tmp_path / "mine.py"), "name": "backward"}, Limits()) as process:
        for starts in (1, 2):
            answer = process.ask({"form": {"how": "function", "order": ["dx"]}, "values": {"x": 1.0, "dy": 1.0}})
            assert answer["failure"]["kind"] == "exits"
            assert process.starts == starts
