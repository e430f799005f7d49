"""The kernels for tensors compute what the reference loops compute from the same numbers."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import reference
from sharedgrad.kernels import torch as tensors
from tests.helpers import Array, close
from tests.kernels.test_vectorized import ARGUMENTS, arguments

NAMES = [name for name, value in vars(tensors).items() if inspect.isfunction(value) and name[0] != "_"]
TYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-4, torch.float16: 1e-4}


def _tensor(value: object, dtype: Any) -> Any:
    """Floating-point arrays as tensors; the index of ``row_sums`` stays with NumPy."""
    return torch.tensor(value).to(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def _plain(value: Any) -> Any:
    """The numbers that a tensor holds, in float64."""
    return value.double().numpy() if isinstance(value, torch.Tensor) else value


def test_the_names_are_those_that_the_uses_ask_for() -> None:
    assert set(NAMES) <= set(ARGUMENTS)
    assert vars(kernels.of(torch.zeros(3))) is vars(tensors)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(name: str, rank: int, dtype: Any) -> None:
    for seed in range(4):
        given = [_tensor(value, dtype) for value in arguments(name, rank, seed, np.float64)]
        expected: Array = getattr(reference, name)(*map(_plain, given))
        found = getattr(tensors, name)(*given)
        pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        for actual, right in pairs:
            close(np.asarray(_plain(actual), np.float64), right, TYPES[dtype])


def test_half_precision_is_added_in_single() -> None:
    """256 in bfloat16 plus 1 is 256: added in that type, the sum would stay there."""
    ones = torch.ones(1, 1, 1000, dtype=torch.bfloat16)
    g = Geometry((1,), (1,), ((0, 0),), (1,))
    assert tensors.conv_kernel_gradient(ones, ones, g).item() == 1000
    assert tensors.row_dots(ones, ones).item() == 1000
    assert tensors.row_sums(np.zeros(1000, np.int64), ones.reshape(1000, 1), 1).item() == 1000
