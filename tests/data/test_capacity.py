import numpy as np
import pytest

from sharedgrad.data import capacity
from sharedgrad.errors import DataError


def test_available_is_positive_and_no_more_than_a_machine_has() -> None:
    assert 2**20 < capacity.available() < 2**50


def test_reserve_gives_the_array() -> None:
    array = capacity.reserve((2, 3), np.float32, "here", "")
    assert (array.shape, array.dtype) == ((2, 3), np.float32)


def test_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "available", lambda: 4000)
    capacity.reserve((1000,), np.float32, "here", "")
    with pytest.raises(DataError, match=r"^file: needs 4,004 bytes of memory, but 4,000 bytes .*; shrink it$"):
        capacity.reserve((1001,), np.float32, "file", "shrink it")


@pytest.mark.parametrize("limit", [None, 2**70])
def test_absurd_size_is_refused_whether_or_not_the_limit_is_known(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit:
        monkeypatch.setattr(capacity, "available", lambda: limit)
    with pytest.raises(DataError, match="of memory"):
        capacity.reserve((2**32 - 1, 2**30, 1), np.uint8, "file", "")


@pytest.mark.parametrize("shape", [(5, 2000, 2500), (5, 1000, 1000), (9000, 40, 25), (3,), (0, 4), (4, 0)])
def test_chunks_cover_every_sample_once_and_stay_small(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.uint8)
    x.T[...] = np.arange(len(x)) % 251
    parts = list(capacity.chunks(x))
    assert sum(map(len, parts)) == len(x)
    assert all(np.shares_memory(part, x) for part in parts if part.size)
    assert all(part.size <= 2**22 or len(part) == 1 for part in parts)
    if parts:
        np.testing.assert_array_equal(np.concatenate(parts), x)
