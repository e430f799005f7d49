"""What all tests share: PyTorch on one thread, threads put back, instruction sets in turn, the mark ``compiled``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sharedgrad import kernels

torch.set_num_threads(1)  # the tests' oracle: the tests are small and several processes may run them


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``compiled`` are skipped where no kernels were compiled."""
    if item.get_closest_marker("compiled") and not kernels.compiled():
        pytest.skip("no kernels were compiled")


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
    before = kernels.get_threads()
    yield
    if kernels.get_threads() != before:
        kernels.set_threads(before)


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in turn."""
    if not kernels.compiled():
        pytest.skip("no kernels were compiled")
    native = kernels.native._native
    before = native.instruction_set()
    try:
        native.choose(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.choose(before)
