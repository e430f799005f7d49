"""The one formula for shapes, against brute force and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import Geometry, text
from tests.helpers import sliding


@pytest.mark.parametrize(
    ("rank", "padding", "expected"),
    [
        (2, 3, ((3, 3), (3, 3))),
        (2, (1, 2), ((1, 1), (2, 2))),
        (2, [[1, 0], [0, 2]], ((1, 0), (0, 2))),
        (2, [3, (1, 2)], ((3, 3), (1, 2))),
        (1, [(1, 2)], ((1, 2),)),
        (1, [4], ((4, 4),)),
        (2, "valid", ((0, 0), (0, 0))),
    ],
)
def test_the_forms_that_padding_is_written_in(rank: int, padding: Any, expected: Any) -> None:
    assert Geometry.of(rank, 3, padding=padding).padding == expected


@pytest.mark.parametrize(
    ("kernel", "dilation", "expected"), [(3, 1, (1, 1)), (4, 1, (1, 2)), (2, 3, (1, 2)), (5, 2, (4, 4)), (1, 3, (0, 0))]
)
def test_same_keeps_the_size_and_puts_an_odd_cell_after(kernel: int, dilation: int, expected: tuple[int, int]) -> None:
    g = Geometry.of(1, kernel, padding="same", dilation=dilation)
    assert g.padding == (expected,)
    assert g.output((7,)) == (7,)


def test_one_number_serves_every_axis() -> None:
    assert Geometry.of(2, 3, 2, 1, 4, 5) == Geometry((3, 3), (2, 2), ((1, 1), (1, 1)), (4, 4), 5)
    g = Geometry.of(3, [1, 2, 3], (1, 2, 1), dilation=[2, 1, 1])
    assert (g.kernel, g.stride, g.dilation) == ((1, 2, 3), (1, 2, 1), (2, 1, 1))
    assert (g.rank, g.cells) == (3, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "conv: kernel_size: expected a whole number of at least 1, or 2 of them, got 0"),
        ({"kernel": (3, 3, 3)}, r"kernel_size: .* got \(3, 3, 3\)"),
        ({"kernel": "33"}, "kernel_size: .* got '33'"),
        ({"kernel": 2.0}, r"kernel_size: .* got 2\.0"),
        ({"kernel": True}, "kernel_size: .* got True"),
        ({"stride": 0}, "stride: .* got 0"),
        ({"stride": (1, -1)}, r"stride: .* got \(1, -1\)"),
        ({"dilation": None}, "dilation: .* got None"),
        ({"padding": -1}, "padding: .* got -1"),
        ({"padding": "full"}, "padding: .* 'same' or 'valid', got 'full'"),
        ({"padding": (1, 2, 3)}, r"padding: .* got \(1, 2, 3\)"),
        ({"padding": ((1, 2), (1, 2, 3))}, "padding: expected a number, 2 numbers, 2 pairs"),
        ({"padding": ((1, 2), (1, -2))}, "padding: "),
        ({"padding": 0.5}, r"padding: .* got 0\.5"),
        ({"padding": "same", "stride": (1, 2)}, r"padding: 'same' needs stride 1, got stride \(1, 2\); give"),
        ({"padding": np.array([1, 1])}, r"padding: .* got array\(\[1, 1\]\)"),
        ({"stride": 2**31}, "conv: expected numbers below 2³¹, got 2147483648"),
        ({"padding": (1, 10**30)}, "conv: expected numbers below 2³¹, got 10{30}"),
        ({"groups": 0}, "groups: .* got 0"),
        ({"groups": True}, "groups: .* got True"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Geometry.of(2, **{"kernel": 3, "where": "conv", **arguments})


def test_a_window_that_does_not_fit_is_refused_with_both_sizes() -> None:
    g = Geometry.of(2, (3, 2), padding=(0, 1), dilation=(3, 1))
    with pytest.raises(ShapeError, match="layer 'c': a window of 7×2 does not fit into the padded input of 6×4; use a"):
        g.output((6, 2), "layer 'c'")
    assert g.output((7, 1)) == (1, 2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_source_reach_and_interior_tell_the_same_story(rank: int, seed: int) -> None:
    """By the formula, by slices of the padded input, and by PyTorch's count of positions."""
    window = sliding(np.random.default_rng(seed), rank)
    g, spatial = window.geometry(groups=2), window.spatial
    x = np.arange(1, 1 + np.prod(spatial)).reshape(spatial)
    padded = np.pad(x, window.pads)
    assert padded.shape == g.padded(spatial)
    np.testing.assert_array_equal(padded[g.interior(spatial)], x)
    positions = g.output(spatial)
    conv = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[rank - 1]
    one = torch.ones(1, 1, *g.kernel)
    assert positions == conv(torch.tensor(padded)[None, None] * 1.0, one, None, g.stride, 0, g.dilation).shape[2:]
    for offset in np.ndindex(*g.kernel):
        seen = padded[g.reach(offset, positions)]
        assert seen.shape == positions
        for position in np.ndindex(*positions):
            source = g.source(position, offset)
            inside = all(0 <= i < n for i, n in zip(source, spatial, strict=True))
            assert seen[position] == (x[source] if inside else 0)
    bare = g.without_padding()
    assert bare.output(padded.shape) == positions
    assert (bare.kernel, bare.stride, bare.dilation, bare.groups) == (g.kernel, g.stride, g.dilation, 2)


def test_shapes_are_written_as_people_write_them() -> None:
    assert text((3, 32, 32)) == "3×32×32"
    assert text(()) == ""


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_sources_are_what_windows_read_from_a_map_of_cell_numbers(rank: int, mode: str, seed: int) -> None:
    """The reference's padding and patches of a map that holds each cell's number, counted from 1."""
    window = sliding(np.random.default_rng(seed), rank, ("pairs", "numbers", "same")[seed % 3])
    numbered = 1 + np.arange(np.prod(window.spatial)).reshape(1, 1, *window.spatial)
    g = seen = window.geometry()
    with kernels.use("reference"):
        if mode != "zeros":
            numbered, seen = kernels.of(numbered).pad(numbered, g, mode), g.without_padding()
        expected = kernels.of(numbered).patches(numbered, seen).reshape(-1, g.cells)
    sources = g.sources(window.spatial, mode)
    assert sources.dtype == np.int64
    assert (sources + 1).tolist() == expected.tolist()
