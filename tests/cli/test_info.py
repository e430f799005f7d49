"""``sharedgrad info``: what serves here."""

from __future__ import annotations

import pytest

from sharedgrad import kernels
from tests.cli.conftest import Cli


def test_it_names_the_kernels_and_the_threads(cli: Cli) -> None:
    result = cli("info")
    assert result.code == 0
    assert f"threads: {kernels.get_threads()}\n" in result.out
    if kernels.compiled():
        assert f"kernels: compiled C++, instruction set {kernels.native.instruction_set()}\n" in result.out
        said = " ".join(result.out.split())
        assert "3×3 convolutions: fewer multiplications, unless --exact or set_winograd(False)" in said
        assert "pad, pad_backward, patches, patches_backward, " in said
        assert "window_squares: no compiled kernel of their own" in said
        assert "RNN" in said.partition("without a compiled operation")[0].rpartition(":")[0]
        assert "max_pool_backward: ties other than 'first'" in said
        assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("width", [40, 60, 80])
def test_names_stay_whole(cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    whole = cli("info").out.split()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    narrow = cli("info").out
    assert max(map(len, narrow.splitlines())) <= width
    assert narrow.split() == whole


def test_it_says_when_nothing_was_compiled(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_fastest", kernels.vectorized)
    assert "kernels: NumPy (none were compiled" in cli("info").out
