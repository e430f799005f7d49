"""Sizes at the ends of what the compiled kernels count in: computed rightly, or refused, and never a crash."""

from __future__ import annotations

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import close

pytestmark = pytest.mark.compiled


def test_no_filters_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        kernels.native.conv(np.ones((2, 1, 4, 4)), np.ones((0, 1, 2, 2)), None, Geometry.of(2, 2))


def test_a_stride_beyond_all_sizes_is_refused() -> None:
    maps = np.array([[i, 0, 1, 1, 1, 1, n, 0, 0, 0, 0, 0] for i, n in ((2, 1), (3, 4), (4, 1))], np.int64)
    window = (1, 1, 1, 2**31 - 1, 0, 0, 1, 1, 1)
    code = np.array([kernels.native._native.operations().index("conv"), 0, 1, 2, -1, -1, *window, 0], np.int64)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.native._native.program(maps, code, 8, 3)


def test_more_padding_than_a_million_cells() -> None:
    rng = np.random.default_rng(0)
    g = Geometry.of(2, (1, 3), (1, 2**19), ((0, 0), (2**21, 0)))
    x, w = rng.normal(size=(3, 1, 1, 9)), rng.normal(size=(2, 1, 1, 3))
    dy = rng.normal(size=(3, 2, *g.output(x.shape[2:])))
    for name, arguments in {
        "conv": (x, w, None, g),
        "conv_input_gradient": (dy, w, g, x.shape[2:]),
        "conv_kernel_gradient": (dy, x, g),
    }.items():
        close(getattr(kernels.native, name)(*arguments), getattr(vectorized, name)(*arguments))


def test_the_odd_line_between_channels_counts_in_a_maps_size() -> None:
    """In blocks, 2 cells take 3 lines."""
    native = kernels.native._native
    lanes = native.lanes(8)
    maps = np.array([0, 0, 2, lanes, 1, 1, 2, 0, 0, 0, 0, 0], np.int64)
    code = np.array([native.operations().index("clear_margins"), 0], np.int64)
    program = native.program(maps, code, 8, 0)
    native.run(program, np.zeros(3 * lanes), [])
    with pytest.raises(ValueError, match="another size"):
        native.run(program, np.zeros(2 * lanes), [])
