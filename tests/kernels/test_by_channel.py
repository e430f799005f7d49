"""Convolutions of few samples of small maps with many kernels, against the plain sums."""

from __future__ import annotations

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import close, frozen

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("samples", "channels", "filters", "kernel", "size", "padding"),
    [
        (1, 20, 33, (3, 3), (8, 8), (1, 1)),
        (1, 300, 7, (3, 3), (3, 3), (1, 1)),
        (2, 16, 17, (3, 3), (5, 6), (0, 2)),
        (3, 16, 25, (5, 2), (5, 4), (4, 0)),
        (1, 19, 16, (2, 5), (4, 9), (1, 3)),
        (7, 40, 12, (3, 3), (2, 3), (1, 1)),
        (1, 16, 16, (3, 3), (1, 1), (1, 1)),
        (1, 16, 16, (3, 3), (2, 2), (3, 4)),  # padded beyond the kernel: the way back is another
    ],
)
def test_few_samples(
    samples: int,
    channels: int,
    filters: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    padding: tuple[int, int],
    dtype: type,
    instruction_set: str,
) -> None:
    rng = np.random.default_rng(channels)
    g = Geometry.of(2, kernel, padding=padding)
    x = frozen(rng.normal(size=(samples, channels, *size)), dtype)
    w = frozen(rng.normal(size=(filters, channels, *kernel)), dtype)
    b = frozen(rng.normal(size=filters), dtype)
    dy = frozen(rng.normal(size=(samples, filters, *g.output(size))), dtype)
    error = 2e-6 if dtype is np.float32 else 1e-14
    close(kernels.native.conv(x, w, b, g), vectorized.conv(x, w, b, g), error)
    close(kernels.native.conv_input_gradient(dy, w, g, size), vectorized.conv_input_gradient(dy, w, g, size), error)
    close(kernels.native.conv_kernel_gradient(dy, x, g), vectorized.conv_kernel_gradient(dy, x, g), error)


def test_a_number_that_is_not_finite_reaches_the_cells_that_meet_it(instruction_set: str) -> None:
    rng = np.random.default_rng(0)
    g = Geometry.of(2, (3, 3))
    x, dy = rng.normal(size=(1, 9, 7, 6)).astype("f"), rng.normal(size=(1, 10, 5, 4)).astype("f")
    for row, column in ((0, 0), (4, 3), (6, 5)):
        bad = x.copy()
        bad[0, 2, row, column] = np.inf
        got = np.isfinite(kernels.native.conv_kernel_gradient(dy, bad, g))
        want = np.ones((10, 9, 3, 3), bool)
        for i in range(3):
            for j in range(3):
                want[:, 2, i, j] = not (0 <= row - i < 5 and 0 <= column - j < 4)
        assert np.array_equal(got, want)


def test_in_groups_it_reaches_no_other_group(instruction_set: str) -> None:
    """Also where a vector has the channels of several groups."""
    rng, g = np.random.default_rng(0), Geometry.of(2, (3, 3), padding=1, groups=3)
    x, w = rng.normal(size=(1, 6, 5, 4)).astype("f"), rng.normal(size=(9, 2, 3, 3)).astype("f")
    dy = rng.normal(size=(1, 9, 5, 4)).astype("f")
    x[0, 2:4], dy[0, 3:6] = np.nan, np.inf
    others = np.r_[0:3, 6:9]
    assert np.isfinite(kernels.native.conv(x, w, None, g)[0, others]).all()
    assert np.isfinite(kernels.native.conv_input_gradient(dy, w, g, (5, 4))[0, [0, 1, 4, 5]]).all()
    assert np.isfinite(kernels.native.conv_kernel_gradient(dy, x, g)[others]).all()
    assert np.isnan(kernels.native.conv(x, w, None, g)[0, 3:6]).all()
