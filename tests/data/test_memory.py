import numpy as np
import pytest

from sharedgrad.data import memory
from sharedgrad.errors import DataError


def test_available_is_positive_and_no_more_than_a_machine_has() -> None:
    assert 2**20 < memory.available() < 2**50


def test_reserve_gives_the_array() -> None:
    array = memory.reserve((2, 3), np.float32, "here", "")
    assert (array.shape, array.dtype) == ((2, 3), np.float32)


def test_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 4000)
    memory.reserve((1000,), np.float32, "here", "")
    with pytest.raises(
        DataError, match=r"^file: needs 4,004 bytes of memory, but 4,000 bytes .*; shrink it$"
    ):
        memory.reserve((1001,), np.float32, "file", "shrink it")


@pytest.mark.parametrize("limit", [None, 2**70])
def test_absurd_size_is_refused_whether_or_not_the_limit_is_known(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit:
        monkeypatch.setattr(memory, "available", lambda: limit)
    with pytest.raises(DataError, match="of memory"):
        memory.reserve((2**32 - 1, 2**30, 1), np.uint8, "file", "")
