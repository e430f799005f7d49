"""Turn the labels of a source, numbers or names, into class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharedgrad.errors import DataError

Indices = NDArray[np.int64]


def encode(where: object, train: NDArray[Any], test: NDArray[Any] | None) -> tuple[list[Any], Indices, Indices | None]:
    """The sorted distinct training labels, and both parts' labels as indices into them.

    Raises:
        DataError: A test label does not occur in the training part.
    """
    values, y = np.unique(train, return_inverse=True)
    if test is None:
        return values.tolist(), y.astype(np.int64), None
    y_test = np.searchsorted(values, test).clip(max=values.size - 1)
    unknown = np.flatnonzero(values[y_test] != test)
    if unknown.size:
        raise DataError(
            where,
            f"test sample {unknown[0]} has label {test[unknown[0]].item()!r}, which no training sample has",
            "remove such test samples or add training samples of that class",
        )
    return values.tolist(), y.astype(np.int64), y_test.astype(np.int64)
