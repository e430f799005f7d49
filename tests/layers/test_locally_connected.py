"""The unshared twins: with equal kernels a convolution, whose gradient is the sum over their positions."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from tests.helpers import PADDINGS, close, sliding

TWINS = {1: (sg.Conv1d, sg.LocallyConnected1d), 2: (sg.Conv2d, sg.LocallyConnected2d)}


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", PADDINGS)
def test_equal_kernels_make_it_a_convolution(padding: str, groups: int, rank: int, mode: str) -> None:
    rng = np.random.default_rng([PADDINGS.index(padding), groups])
    window = sliding(rng, rank, padding)
    arguments = (window.kernel, window.stride, window.padding, window.dilation, groups, True, mode)
    shared, unshared = TWINS[rank]
    conv = sg.Network([shared(4, 6, *arguments)], (4, *window.spatial), dtype="float64")
    local = sg.Network([unshared(4, 6, window.spatial, *arguments)], (4, *window.spatial), dtype="float64")
    kernel, bias = rng.normal(size=conv.parameter("0.weight").shape), rng.normal(size=6)
    positions = local.shapes()["0"][1:]
    conv.load_state_dict({"0.weight": kernel, "0.bias": bias})
    everywhere = bias.reshape(6, *(1,) * rank)
    local.load_state_dict(
        {
            "0.weight": np.broadcast_to(kernel, (*positions, *kernel.shape)),
            "0.bias": np.broadcast_to(everywhere, (6, *positions)),
        }
    )
    x = rng.normal(size=(3, 4, *window.spatial))
    (y, tape), (expected, conv_tape) = local.forward(x), conv.forward(x)
    close(y, expected)
    upstream = rng.normal(size=y.shape)
    own, one = tape.backward(upstream, inputs=True), conv_tape.backward(upstream, inputs=True)
    close(own.inputs["input"], one.inputs["input"])
    axes = tuple(range(rank))
    close(own["0.weight"].sum(axis=axes), one["0.weight"])
    close(own["0.bias"].sum(axis=tuple(a + 1 for a in axes)), one["0.bias"])
    close(np.moveaxis(own["0.weight"], axes, axes), conv_tape.trace(upstream)["0.weight"].sum("position"))


def test_the_weights_count_what_the_convolution_says_it_saves() -> None:
    for bias in (True, False):
        conv = sg.Conv2d(2, 6, (2, 3), (1, 2), padding=1, groups=2, bias=bias)
        local = sg.LocallyConnected2d(2, 6, (5, 6), (2, 3), (1, 2), padding=1, groups=2, bias=bias)
        count = sum(int(np.prod(p.shape)) for p in local.parameters().values())
        assert conv.without_sharing((2, 5, 6)) == count
    assert sg.Conv2d(1, 1, 2, bias=False).without_sharing((1, 3, 3)) == 16
