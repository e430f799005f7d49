"""Certification cannot be fooled: whatever is spoilt is noticed, exactly and by random probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import UncertifiedWarning
from sharedgrad.tracing import certify, recorder
from sharedgrad.tracing.sketch import REACH, WIDTH, Sketch
from tests.tracing.sabotage import WAYS, noticed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_spoilt_is_noticed(way: Any, seed: int) -> None:
    assert noticed(seed, way)


def test_the_bound_holds_but_for_one_case_in_a_million() -> None:
    """The worst difference has rank one: then ‖S‖ is the product of two chi-distributed numbers.

    P(χ χ' < REACH) = Σ over the density of χ² of P(χ'² < REACH² / χ²), which for WIDTH = 8 is a finite sum.
    """
    assert WIDTH == 8
    logs = np.linspace(-40, 6, 200_001)
    x = np.exp(logs)
    half = REACH**2 / x / 2
    below = 1 - np.exp(-half) * (1 + half + half**2 / 2 + half**3 / 6)
    small = half < 1e-3
    below[small] = half[small] ** 4 / 24
    density = x**3 * np.exp(-x / 2) / (2**4 * 6)
    assert abs(np.trapezoid(density * x, logs) - 1) < 1e-6
    assert 0.9e-6 < np.trapezoid(density * below * x, logs) < 1.01e-6


def test_other_differences_are_seen_at_least_as_well() -> None:
    """Rank one is the worst: the smallest of many sketches, beside differences of higher rank."""
    rng = np.random.default_rng(0)
    lowest = []
    for rank in (1, 2, 8):
        whole = torch.from_numpy(rng.standard_normal((12, rank)) @ rng.standard_normal((rank, 10)))
        seen = [Sketch(whole.shape, seed, "cpu").of(whole, 1).norm() / whole.norm() for seed in range(2000)]
        lowest.append(float(min(seen)))
    assert REACH < lowest[0] < lowest[1] < lowest[2]


@pytest.mark.parametrize("seed", range(20))
def test_probes_bound_the_exact_residual(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(12, 16).double()
    with sg.trace(model) as t:
        model(torch.randn(5, 12).double()).square().sum().backward()
    u: Any = t["weight"]
    wrong = u.deposit + torch.outer(torch.randn(16), torch.randn(12)).double()
    exact = certify.exact(u.calls, wrong, u.gradient, u.types)
    probed = certify.probed(u.calls, wrong, u.types, seed)
    assert probed.bound
    assert exact.residual <= probed.residual <= 200 * exact.residual
    assert str(probed).startswith("NOT certified, residual ≤")


@pytest.mark.parametrize("keep", ["factors", ["norm:sample"]])
@pytest.mark.parametrize("spoil", ["sign", "lost", "operand"])
def test_a_recorder_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch, keep: Any, spoil: str) -> None:
    """The parameter is named, in the table and in what is left over; no number comes without a warning."""
    right = recorder.OPERATIONS["linear"]

    def wrong(site: Any) -> Any:
        found = right(site)
        if (site.kwargs.get("bias") is None and len(site.args) < 3) or site.args[2] is None:  # the head alone
            return {"sign": _flipped(found), "lost": [], "operand": _doubled(found)}[spoil]
        return found

    monkeypatch.setattr(recorder, "OPERATIONS", {**recorder.OPERATIONS, "linear": wrong})
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 10, bias=False))
    with sg.trace(model, keep=keep) as t:
        model(torch.randn(4, 12)).square().mean().backward()
    assert set(t.other) == {"2.weight"}
    assert t.other["2.weight"].norm > 0
    assert not t.passes[0].certified("2.weight")
    assert "not explained by uses:\n  2.weight" in t.table()
    if spoil != "lost":
        with pytest.warns(UncertifiedWarning, match="the uses of 2.weight do not add up"):
            assert not t["2.weight"].certified
    assert t["0.weight"].certified
    with pytest.raises(sg.errors.ConfigError, match=r"2\.weight do not add up"):
        t.per_sample()


def _flipped(found: list[Any]) -> list[Any]:
    return [use._replace(build=_with(use.build, lambda delta: -delta)) for use in found]


def _doubled(found: list[Any]) -> list[Any]:
    return [use._replace(build=_with(use.build, lambda delta: delta * 1.01)) for use in found]


def _with(build: Callable[[Any], Any], change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda delta: build(change(delta))


def test_gradients_that_are_not_numbers_are_never_certified() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        (model(torch.randn(4, 3)) * float("nan")).sum().backward()
    with pytest.warns(UncertifiedWarning):
        assert not t["weight"].certified
