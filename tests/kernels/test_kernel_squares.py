"""Norms of the samples' kernel gradients, compiled: from their sums and from inner products, whichever costs less."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized
from tests.helpers import close

pytestmark = pytest.mark.compiled
COSTS = {"as they are": None, "inner products": 0.0, "sums": inf}
GEOMETRIES = {  # with the channels of x and the filters
    "3×3": (Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 5, 7),
    "stride": (Geometry((3, 2), (2, 1), ((1, 0), (0, 2)), (1, 1)), 3, 4),
    "dilation": (Geometry((2, 3), (1, 1), ((1, 1), (2, 2)), (2, 2)), 4, 3),
    "groups": (Geometry((3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1), 3), 6, 9),
    "1×1": (Geometry((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)), 8, 6),
    "a signal": (Geometry((3,), (2,), ((1, 1),), (1,)), 4, 5),
}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.usefixtures("instruction_set")
def test_norms_of_samples_gradients(name: str, dtype: type, cost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    convolution: Any = kernels.native.convolution
    convolution._kernel_squares_program.cache_clear()
    if COSTS[cost] is not None:
        monkeypatch.setattr(convolution, "gram_squares_cost", lambda *_: COSTS[cost])
    g, channels, filters = GEOMETRIES[name]
    spatial = (6, 5)[: g.rank]
    rng = np.random.default_rng(len(name))
    x = rng.normal(size=(19, channels, *spatial)).astype(dtype)  # a full vector of samples and some more
    dy = rng.normal(size=(19, filters, *g.output(spatial))).astype(dtype)
    found = kernels.native.conv_kernel_squares(dy, x, g)
    convolution._kernel_squares_program.cache_clear()
    close(found, vectorized.conv_kernel_squares(dy.astype(np.float64), x.astype(np.float64), g), 1e-4)


@pytest.mark.parametrize(("samples", "name"), [(64, "add_gram_squares"), (1, "add_squares")])
def test_many_channels_on_small_maps_take_inner_products(
    samples: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of 64 × 64 × 9 numbers, from 9 cells with 64 channels each; of one sample it is kept."""
    builder: Any = kernels.native.program.Builder
    emitted, emit = [], builder.emit
    monkeypatch.setattr(builder, "emit", lambda self, name, *rest: (emitted.append(name), emit(self, name, *rest)))
    convolution: Any = kernels.native.convolution
    convolution._kernel_squares_program.cache_clear()
    maps = np.ones((samples, 64, 3, 3), np.float32)
    kernels.native.conv_kernel_squares(maps, maps, GEOMETRIES["3×3"][0])
    assert emitted[-1] == name
