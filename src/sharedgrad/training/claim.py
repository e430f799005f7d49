"""A run folder is written by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sharedgrad.errors import CheckpointError, OutputError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_held: dict[Path, int] = {}  # folder -> the thread that holds it


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Make a folder, and hold it for this thread alone; within the block the thread may claim it again.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        CheckpointError: Another process or thread holds it.
        OutputError: It cannot be made or written.
    """
    folder, thread = Path(folder), threading.get_ident()
    key = folder.absolute()
    if _held.get(key) == thread:
        yield
        return
    if _held.setdefault(key, thread) != thread:
        raise _taken(folder)
    try:
        lock = _locked(folder)
        try:
            yield
        finally:
            _release(folder / LOCK, lock)
    finally:
        del _held[key]


def _locked(folder: Path) -> int:
    """The lock file of a folder, open and locked."""
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(lock, folder)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
                        return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # whoever held it has removed the file since it was opened
    except BlockingIOError:
        raise _taken(folder) from None
    except FileExistsError:
        raise OutputError(folder, "is a file, expected a folder", "choose another name for the folder") from None
    except OSError as error:
        fix = "choose a folder that is writable and has room"
        raise OutputError(folder, f"cannot be written ({error.strerror})", fix) from None


def _lock(lock: int, folder: Path) -> None:
    """Take the lock; where the system or the file system has none, say that nothing stands in another run's way."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(f"{folder} cannot be locked here: let no other run write to it", RuntimeWarning, stacklevel=5)


def _release(path: Path, lock: int) -> None:
    with contextlib.suppress(OSError):  # the folder may have been removed
        path.unlink()
    if fcntl is not None:  # closing alone would leave it to a child process that has inherited the file
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _taken(folder: Path) -> CheckpointError:
    return CheckpointError(folder, "another run is writing to it", "wait for its end, or take another --out (out=…)")
