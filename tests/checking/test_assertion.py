"""``sg.assert_backward``: a line of a test that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg


def right(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    return dout * (x > 0)


def wrong(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.maximum(dout, 0)


def test_a_right_backward_passes() -> None:
    sg.assert_backward(right, layer="relu")


def test_a_wrong_one_fails_with_the_report() -> None:
    with pytest.raises(AssertionError, match="The ReLU is applied to the gradient"):
        sg.assert_backward(wrong, layer="relu")
