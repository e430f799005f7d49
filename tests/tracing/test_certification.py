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
from sharedgrad.tracing.certify import PROBES, REACH
from tests.tracing.sabotage import WAYS, noticed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_spoilt_is_noticed(way: Any, seed: int) -> None:
    assert noticed(seed, way)


def test_the_bound_holds_but_for_one_case_in_a_million() -> None:
    """The worst difference has rank one: then a probe is the product of two normal numbers."""
    rng = np.random.default_rng(0)
    products = np.abs(rng.standard_normal(2_000_000) * rng.standard_normal(2_000_000))
    assert (products < REACH).mean() ** PROBES < 1.1e-6


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
