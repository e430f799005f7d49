"""The blocks of well-known models: every parameter is certified, with samples and tokens told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from tests.tracing.blocks import BLOCKS, Bert, N, T
from tests.tracing.cases import Of, scrambled
from tests.tracing.test_recurrent import TOLERANCE, weighted


def built(name: str, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, draw = BLOCKS[name]
    model, x = scrambled(make()).to(dtype), draw()
    return model, x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize("keep", ["factors", ["norm:sample,token,position", "share:sample"]], ids=["factors", "kept"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_is_certified(name: str, dtype: torch.dtype, keep: Any) -> None:
    model, x = built(name, dtype)
    with sg.trace(model, keep=keep) as t:
        weighted(model(x)).backward()
    assert not t.other
    for key, p in model.named_parameters():
        u = t[key]
        assert u.residual <= TOLERANCE[dtype]
        if keep == "factors":
            difference = torch.as_tensor(u.gradient) - p.grad
            assert float(difference.norm()) <= TOLERANCE[dtype] * u.certificate.length


@pytest.mark.parametrize("name", BLOCKS)
def test_a_samples_part_is_what_it_has_alone(name: str) -> None:
    model, x = built(name, torch.float64)
    model.eval()
    upstream = torch.randn(model(x).shape, dtype=torch.float64)
    with sg.trace(model) as t:
        (model(x) * (1 + 0 * upstream if name == "convnext" else upstream)).sum().backward()
    if name == "convnext":  # it draws which samples are dropped
        assert all("sample" in t[key].axes for key, _ in model.named_parameters())
        return
    apart = t.per_sample("sum")
    for n in range(N):
        model.zero_grad()
        (model(x[n : n + 1]) * upstream[n : n + 1]).sum().backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(apart[key][n], p.grad)


def _twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    rows = m.table(torch.arange(x.shape[1]))
    return x + rows + torch.tanh(rows)


def _dropped(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x + torch.dropout(m.table(torch.arange(x.shape[1])), 0.5, True)


MET = {
    "added to every sample": (lambda m, x: x + m.table(torch.arange(T)), {"sample": (N,), "token": (T,)}),
    "added twice": (lambda m, x: (x + m.table(torch.arange(T))).tanh() + m.table(torch.arange(T)), None),
    "used besides": (_twice, {"row": (T,)}),
    "used otherwise": (_dropped, {"row": (T,)}),
    "a row of its own for each": (lambda m, x: m.table(torch.arange(N * T).view(N, T)) + x, None),
    "half of it added": (lambda m, x: torch.add(x, m.table(torch.arange(T)), alpha=0.5), {"row": (T,)}),
    "multiplied with every sample": (lambda m, x: x * m.table(torch.arange(T)), {"row": (T,)}),
    "a row for all": (lambda m, x: x + m.table(torch.tensor(3)), {"sample": (N,), "token": (T,)}),
    "joined": (lambda m, x: torch.cat([m.table(torch.arange(N * T).view(N, T)), x], 1), None),
    "as many rows as samples joined along them": (
        lambda m, x: torch.cat([m.table(torch.arange(N * T).view(N, T)), x]),
        {"row": (N, T)},
    ),
    "joined along the samples": (lambda m, x: torch.cat([m.table(torch.arange(2 * T).view(2, T)), x]), "row"),
}


@pytest.mark.parametrize("keep", ["factors", ["norm:sample,token"]], ids=["factors", "kept"])
@pytest.mark.parametrize("way", MET)
def test_rows_that_are_looked_up_by_constants_meet_the_samples(way: str, keep: Any) -> None:
    run, axes = MET[way]
    torch.manual_seed(1)
    model, x = Of(run, table=nn.Embedding(20, 4, padding_idx=2)).double(), torch.randn(N, T, 4).double()
    with sg.trace(model, strict=True, keep=keep) as t:
        weighted(model(x)).backward()
    u = t["table.weight"]
    wanted = {"sample": (N,), "token": (T,)} if axes is None else {"row": (2, T)} if axes == "row" else axes
    assert u.axes == wanted
    if keep == "factors" and "sample" in wanted:
        upstream = torch.randn(N, T, 4, dtype=torch.float64)
        with sg.trace(model) as t:
            (model(x)[:, -T:] * upstream).sum().backward()
        for n in range(N):
            model.zero_grad()
            (model(x)[n, -T:] * upstream[n]).sum().backward()
            torch.testing.assert_close(t["table.weight"].sum("sample")[n], model.table.weight.grad)


def test_rows_that_are_one_for_each_sample_and_one_for_each_token_are_neither() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        rows = m.table(torch.arange(N))
        return (x + rows).tanh().sum() + (x.mean(1) * rows).square().sum()

    torch.manual_seed(1)
    model = Of(run, table=nn.Embedding(20, 4)).double()
    with sg.trace(model, strict=True) as t:
        model(torch.randn(N, N, 4).double()).backward()
    assert t["table.weight"].axes == {"row": (N,)}


def test_the_table_of_a_tied_head_is_read_and_predicts() -> None:
    model, index = built("gpt2", torch.float64)
    with sg.trace(model) as t:
        weighted(model(index)).backward()
    u = t["wte.weight"]
    assert [type(call).__name__ for call in u.calls] == ["Lookup", "Outer"]
    assert t["head.weight"] is u
    assert u.axes == {"sample": (N,), "token": (T,)}
    assert abs(np.sum(np.asarray(u.share("call"))) - 1) < 1e-9
    assert t["c_attn.weight"].axes == {"sample": (N,), "token": (T,)}


def test_the_keys_bias_of_attention_learns_nothing() -> None:
    """A shift of all keys moves all of a query's scores alike, and softmax does not see it."""
    model, index = built("bert", torch.float64)
    assert isinstance(model, Bert)
    with sg.trace(model) as t:
        weighted(model(index)).backward()
    assert t["key.bias"].certified
    assert [key for key, _ in model.named_parameters() if t[key].zero_up_to_rounding] == ["key.bias"]
    assert t["key.bias"].coherence().reason == "zero up to rounding"


@pytest.mark.parametrize("name", BLOCKS)
def test_autocast_computes_in_bfloat16(name: str) -> None:
    model, x = built(name, torch.float32)
    with sg.trace(model) as t:
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        weighted(y.float()).backward()
    assert not t.other
