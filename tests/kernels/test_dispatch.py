"""Which implementation serves an array."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.kernels import reference, vectorized

X = np.zeros(3)
FASTEST = kernels.native if kernels.compiled() else vectorized


def test_the_fastest_kernels_serve_unless_others_are_asked_for() -> None:
    assert kernels.of(X) is FASTEST
    with kernels.use("reference"):
        assert kernels.of(X) is reference
        with kernels.use("vectorized"):
            assert kernels.of(X) is vectorized
        assert kernels.of(X) is reference
    assert kernels.of(X) is FASTEST


def test_numpy_serves_types_that_the_compiled_kernels_do_not() -> None:
    assert kernels.of(np.arange(3)) is vectorized
    assert kernels.of(np.zeros(3, np.float16)) is vectorized
    assert kernels.of(np.zeros(3, np.dtype(np.float32).newbyteorder())) is vectorized


@pytest.mark.parametrize("array", [[1.0, 2.0], memoryview(b"12"), None])
def test_what_is_no_array_is_refused(array: object) -> None:
    with pytest.raises(ConfigError, match="expected a NumPy array or a PyTorch tensor, got"):
        kernels.of(array)


def test_the_choice_ends_with_its_block_even_after_an_error() -> None:
    with pytest.raises(RuntimeError), kernels.use("reference"):
        raise RuntimeError
    assert kernels.of(X) is FASTEST


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'vectorized' or 'native', got 'fast'"), kernels.use("fast"):
        pass


def test_compiled_kernels_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_fastest", vectorized)
    with pytest.raises(ConfigError, match="no kernels were compiled; install again"), kernels.use("native"):
        pass


def test_layers_compute_with_the_chosen_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    net = sg.Network([sg.Conv1d(1, 1, 2)], (1, 3))
    asked = []
    monkeypatch.setattr(reference, "conv", lambda *a: asked.append(a) or vectorized.conv(*a))
    net.forward(np.ones((1, 1, 3)))
    assert not asked
    with kernels.use("reference"):
        net.forward(np.ones((1, 1, 3)))
    assert len(asked) == 1
