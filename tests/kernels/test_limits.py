"""Sizes at the ends of what the compiled kernels count in: computed rightly, or refused, and never a crash."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sharedgrad.kernels.native", reason="no kernels were compiled", exc_type=ImportError)

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from sharedgrad.kernels.native.maps import Map
from sharedgrad.kernels.native.program import Builder
from tests.helpers import close


def builder() -> Builder:
    return Builder(1, np.dtype(float))


def test_no_filters_are_refused() -> None:
    with pytest.raises(AssertionError, match="conv: the windows do not fit y and x"):
        kernels.native.conv(np.ones((2, 1, 4, 4)), np.ones((0, 1, 2, 2)), None, Geometry.of(2, 2))


def test_a_stride_beyond_all_sizes_is_refused() -> None:
    b = builder()
    b.emit("conv", (b.array(1), b.array(1, 1, 4), b.array(1), None, None), *(1, 1, 1, 2**31 - 1, 0, 0, 1, 1, 1), 0)
    with pytest.raises(AssertionError, match="conv: the windows do not fit y and x"):
        b.build()


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
    b = builder()
    b.emit("clear_margins", (Map(2, b.lanes, 1, 1, 2, kept=True),))
    program = b.build()
    program.run(np.zeros(3 * b.lanes), [])
    with pytest.raises(ValueError, match="another size"):
        program.run(np.zeros(2 * b.lanes), [])
