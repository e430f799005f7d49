"""What the compiled kernels leave to NumPy, and that they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import vectorized

pytestmark = pytest.mark.compiled

CUBE = Geometry((1, 1, 1), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 1)
LINE = Geometry((1,), (1,), ((0, 0),), (1,), 1)
X, MAP, SIGNAL = np.ones((2, 3)), np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 2))
NONE = np.ones((0, 3))
LEFT: list[tuple[str, tuple[Any, ...]]] = [  # arguments that each limited kernel is not compiled for
    ("conv", (MAP, np.ones((1, 1, 1, 1, 1)), None, CUBE)),
    ("conv_input_gradient", (MAP, np.ones((1, 1, 1, 1, 1)), CUBE, (2, 2, 2))),
    ("conv_kernel_gradients", (MAP, MAP, CUBE)),
    ("conv_kernel_gradient", (MAP, MAP, CUBE)),
    ("conv_kernel_squares", (MAP, MAP, CUBE)),
    ("max_pool", (MAP, CUBE)),
    ("max_pool_backward", (MAP, MAP, MAP, CUBE, "first")),
    ("max_pool_backward", (SIGNAL, SIGNAL, SIGNAL, LINE, "share")),
    ("avg_pool", (MAP, CUBE, True)),
    ("avg_pool_backward", (MAP, CUBE, (2, 2, 2), True)),
    *((name, (NONE,)) for name in ("relu", "sigmoid", "tanh")),
    *((name, (NONE, NONE)) for name in ("relu_backward", "sigmoid_backward", "tanh_backward")),
    ("softmax", (X, 0)),
    ("softmax_backward", (X, X, 0)),
    ("cross_entropy", (SIGNAL, np.zeros((1, 2), np.int64), 0.0, 1.0)),
]


def test_the_cases_are_all_that_there_are() -> None:
    _, *limits = kernels.native.fallbacks().values()
    assert sorted(name for name, _ in LEFT) == sorted(name for names in limits for name in names)


@pytest.mark.parametrize(("name", "arguments"), LEFT, ids=lambda value: value if isinstance(value, str) else "")
def test_numpy_computes_what_is_not_compiled(name: str, arguments: tuple[Any, ...]) -> None:
    actual, expected = getattr(kernels.native, name)(*arguments), getattr(vectorized, name)(*arguments)
    np.testing.assert_equal(actual, expected)


def test_borrowed_kernels_are_numpys_own() -> None:
    borrowed, *_ = kernels.native.fallbacks().values()
    assert "pad" in borrowed
    assert "conv" not in borrowed
    assert all(getattr(kernels.native, name) is getattr(vectorized, name) for name in borrowed)
