"""What tests of kernels share: memory in which nobody has written yet."""

from __future__ import annotations

import numpy as np
import pytest

from sharedgrad import kernels
from tests.helpers import Array


@pytest.fixture
def memory_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results begin as NaN, so that a cell which a kernel forgets to write is noticed."""
    empty = np.empty

    def of_nan(shape: tuple[int, ...], dtype: object = float, **keywords: object) -> Array:
        array = empty(shape, dtype, **keywords)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(np, "empty", of_nan)
    monkeypatch.setattr(np, "empty_like", lambda like: of_nan(like.shape, like.dtype))
    if kernels.compiled():
        monkeypatch.setattr(kernels.native.recycled, "SMALL", np.inf)  # what is smaller is NumPy's
