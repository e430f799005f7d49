"""The handwritten digits that come with scikit-learn: 1797 grey images of 8×8, no test part."""

from __future__ import annotations

import numpy as np

from sharedgrad.data.dataset import Dataset
from sharedgrad.errors import require


def load_digits() -> Dataset:
    """Read the digits; their pixels 0..16 become 0..255, so that image files can be compared with them.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    """
    source = require("sklearn.datasets", "the digits data set").load_digits()
    x = np.rint(source.images * (255 / 16)).astype(np.uint8)[:, None]
    return Dataset("digits", x, source.target.astype(np.int64), None, None, tuple("0123456789"))
