"""Every instruction set that this processor has, in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sharedgrad import kernels


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    native = kernels.native._native
    before = native.instruction_set()
    try:
        native.choose(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.choose(before)


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if not kernels.compiled():
        pytest.skip("no kernels were compiled")
