from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sharedgrad.errors import CheckpointError, OutputError
from sharedgrad.training import claim
from sharedgrad.training.claim import LOCK, claimed
from tests.training import job

SRC = Path(claim.__file__).parents[2]
HOLD = """
import sys
from sharedgrad.training.claim import claimed
with claimed(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_has_to_wait(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(CheckpointError, match="another run is writing to it"):
            job.fit(job.network(), out=tmp_path)
        process.communicate("\n")
    job.fit(job.network(), epochs=1, out=tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
    assert (tmp_path / LOCK).exists()
    with claimed(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_another_thread_has_to_wait_and_the_same_may_claim_again(tmp_path: Path) -> None:
    failures: list[CheckpointError] = []

    def other() -> None:
        try:
            with claimed(tmp_path):
                pass
        except CheckpointError as error:
            failures.append(error)

    with claimed(tmp_path), claimed(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(failures) == 1
    other()
    assert len(failures) == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, problem in {"file": "is a file, expected a folder", "file/run": "cannot be written"}.items():
        with pytest.raises(OutputError, match=problem), claimed(tmp_path / name):
            pass


def test_where_nothing_can_be_locked_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(claim.fcntl, "flock", unsupported)
    with pytest.warns(RuntimeWarning, match="cannot be locked here"), claimed(tmp_path):
        pass
