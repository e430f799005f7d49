"""Pooling on numbers that can be followed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.helpers import Array


def both_ways(layer: sg.Layer, x: Any, upstream: Any) -> tuple[Array, Array]:
    """y and dx of one sample's maps."""
    y, tape = sg.Network([layer], np.shape(x), dtype="float64").forward(x)
    return y, tape.backward(upstream, inputs=True).inputs["input"]


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[0, 6], [0, 0]]),
        ("last", [[0, 0], [6, 0]]),
        ("share", [[0, 3], [3, 0]]),
    ],
)
def test_who_wins_among_equals_is_a_convention(ties: str, expected: Any) -> None:
    y, dx = both_ways(sg.MaxPool2d(2, ties=ties), [[[1, 5], [5, 2]]], [[[6]]])
    assert y == 5
    np.testing.assert_array_equal(dx, [expected])


def test_a_winner_of_two_windows_gets_both_gradients() -> None:
    y, dx = both_ways(sg.MaxPool1d(2, stride=1), [[1, 9, 2, 3]], [[10, 100, 1000]])
    np.testing.assert_array_equal(y, [[9, 9, 3]])
    np.testing.assert_array_equal(dx, [[0, 110, 0, 1000]])


def test_padding_never_wins_not_even_over_negative_numbers() -> None:
    y, dx = both_ways(sg.MaxPool1d(3, 3, [(1, 2)]), [[-7, -8, -9]], [[1, 2]])
    np.testing.assert_array_equal(y, [[-7, -9]])
    np.testing.assert_array_equal(dx, [[1, 0, 2]])


@pytest.mark.parametrize(
    ("count", "y", "dx"),
    [(True, [[2, 3]], [[2, 2, 4]]), (False, [[3, 9]], [[3, 3, 12]])],
)
def test_padding_counts_in_the_mean_or_not(count: bool, y: Any, dx: Any) -> None:
    actual, back = both_ways(sg.AvgPool1d(3, 3, [(1, 2)], count), [[2, 4, 9]], [[6, 12]])
    np.testing.assert_array_equal(actual, y)
    np.testing.assert_array_equal(back, dx)


def test_windows_that_overlap_add() -> None:
    _, dx = both_ways(sg.AvgPool1d(2, 1), [[1, 2, 3]], [[10, 100]])
    np.testing.assert_array_equal(dx, [[5, 55, 50]])


def test_what_no_window_reaches_gets_nothing() -> None:
    for layer in (sg.MaxPool1d(1, 2), sg.AvgPool1d(1, 2)):
        _, dx = both_ways(layer, [[1, 2, 3, 4]], [[10, 100]])
        np.testing.assert_array_equal(dx, [[10, 0, 100, 0]])


def test_the_stride_is_the_windows_size_unless_said() -> None:
    assert sg.MaxPool2d((2, 3)).output_shape((4, 6, 6)) == (4, 3, 2)
    assert sg.AvgPool2d((2, 3), 1).output_shape((4, 6, 6)) == (4, 5, 4)


@pytest.mark.parametrize("kind", [sg.MaxPool2d, sg.AvgPool2d])
def test_a_window_of_padding_alone_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match="padding: expected less than the window's 2, got 2: a window would see"):
        kind(2, padding=((0, 1), (0, 2)))


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ConfigError, match="MaxPool2d: ties: expected one of first, last, share, got 'any'"):
        sg.MaxPool2d(2, ties="any")
