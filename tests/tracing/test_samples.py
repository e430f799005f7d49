"""Gradients of each sample's own loss, and the gradient noise scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import ConfigError


def model_and_data() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 6, 3, groups=2, padding=1, padding_mode="circular"), nn.GELU(), nn.GroupNorm(2, 6))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16, 4)).double()
    return model, torch.randn(5, 2, 4, 4).double(), torch.randint(4, (5,))


def one_by_one(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = []
    for n in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
        rows.append(torch.autograd.grad(loss, list(model.parameters())))
    return {
        name: torch.stack(r) for (name, _), r in zip(model.named_parameters(), zip(*rows, strict=True), strict=True)
    }


def clipped_by_opacus(parameters: list[Any], max_norm: float) -> list[torch.Tensor]:
    """What ``opacus.optimizers.DPOptimizer.clip_and_accumulate`` (1.5) does with ``p.grad_sample``."""
    flat = [p.grad_sample.reshape(len(p.grad_sample), -1).norm(2, dim=-1) for p in parameters]
    norms = torch.stack(flat, dim=1).norm(2, dim=1)
    factor = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    return [torch.einsum("i,i...", factor, p.grad_sample) for p in parameters]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_clipping_as_opacus_does_it(reduction: str) -> None:
    model, x, y = model_and_data()
    with sg.trace(model) as t:
        nn.functional.cross_entropy(model(x), y, reduction=reduction).backward()
    t.set_grad_sample(loss_reduction=reduction)
    rows = one_by_one(model, x, y)
    norms = sum((g**2).flatten(1).sum(1) for g in rows.values()).sqrt()
    max_norm = float(norms.median())
    found = clipped_by_opacus(list(model.parameters()), max_norm)
    for p, got, apart in zip(model.parameters(), found, rows.values(), strict=True):
        torch.testing.assert_close(p.grad_sample, apart)
        expected = sum(min(1.0, max_norm / (n + 1e-6)) * g for n, g in zip(norms.tolist(), apart, strict=True))
        torch.testing.assert_close(got, expected)


def test_nothing_is_set_where_samples_mix() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with sg.trace(model) as t:
        model(torch.randn(5, 3)).square().sum().backward()
    with pytest.raises(ConfigError, match="samples depend on one another"):
        t.set_grad_sample()
    assert not any(hasattr(p, "grad_sample") for p in model.parameters())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_they_are_autograds_one_sample_after_the_other(reduction: str) -> None:
    model, x, y = model_and_data()
    with sg.trace(model) as t:
        nn.functional.cross_entropy(model(x), y, reduction=reduction).backward()
    expected = one_by_one(model, x, y)
    found = t.per_sample(loss_reduction=reduction)
    assert found.keys() == expected.keys()
    for name, apart in expected.items():
        torch.testing.assert_close(found[name], apart)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("keep", ["factors", ["norm:sample"]])
def test_the_noise_scale_is_that_of_the_samples_gradients(reduction: str, keep: Any) -> None:
    """tr(Σ) with the unbiased variance; ‖G‖² less the part of it that is noise."""
    model, x, y = model_and_data()
    with sg.trace(model, keep=keep) as t:
        nn.functional.cross_entropy(model(x), y, reduction=reduction).backward()
    rows = torch.cat([g.flatten(1) for g in one_by_one(model, x, y).values()], 1).numpy()
    variance = rows.var(0, ddof=1).sum()
    signal = (rows.mean(0) ** 2).sum() - variance / len(rows)
    np.testing.assert_allclose(t.noise_scale(), variance / signal if signal > 0 else np.inf, rtol=1e-9)


def test_what_makes_no_sense_is_refused() -> None:
    model, x, y = model_and_data()
    with sg.trace(model) as t:
        nn.functional.cross_entropy(model(x[:1]), y[:1]).backward()
    with pytest.raises(ConfigError, match="expected loss_reduction='mean' or 'sum', got 'none'"):
        t.per_sample("none")
    with pytest.raises(ConfigError, match="expected mixing='refuse' or 'allow'"):
        t.per_sample(mixing="yes")
    with pytest.raises(ConfigError, match="expected at least two samples, got 1"):
        t.noise_scale()
    with sg.trace(model, keep=["norm:sample"]) as t:
        nn.functional.cross_entropy(model(x), y).backward()
    with pytest.raises(ConfigError, match="per_sample: it needs the factors, which were not kept; trace with"):
        t.per_sample()


def test_grouped_padded_and_tied_where_known_tools_are_wrong() -> None:
    """Grouped convolutions, padding modes, and a weight tied into two modules."""
    torch.manual_seed(0)
    for mode in ("zeros", "reflect", "circular", "replicate"):
        a, b = (nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode=mode) for _ in range(2))
        b.weight = a.weight
        model = nn.Sequential(a, nn.Tanh(), b, nn.Flatten(), nn.Linear(100, 3)).double()
        x, y = torch.randn(4, 4, 5, 5).double(), torch.randint(3, (4,))
        with sg.trace(model) as t:
            nn.functional.cross_entropy(model(x), y).backward()
        norms = t["0.weight"].norm("sample")
        expected = one_by_one(model, x, y)["0.weight"].flatten(1).norm(dim=1)
        np.testing.assert_allclose(norms * 4, expected, rtol=1e-9)
