"""Attention and transformer layers: projections are uses with samples and tokens, and the caller's numbers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sharedgrad as sg
from tests.tracing.cases import Of, scrambled
from tests.tracing.test_recurrent import TOLERANCE, weighted

N, T, S, C = 3, 4, 5, 6
TOKENS = {"sample": (N,), "token": (T,)}
SOURCE = {"sample": (N,), "token": (S,)}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "dropout": {"dropout": 0.4, "batch_first": True},
    "other widths": {"kdim": 5, "vdim": 7},
    "biases at the end": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    "no bias": {"bias": False, "kdim": 5},
}


def attention(settings: dict[str, Any], dtype: torch.dtype) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = scrambled(nn.MultiheadAttention(C, 2, **settings)).to(dtype)
    first = settings.get("batch_first", False)
    widths = (C, settings.get("kdim", C), settings.get("vdim", C))
    lengths = (T, S, S)
    shapes = [(N, n, w) if first else (n, N, w) for n, w in zip(lengths, widths, strict=True)]
    return model, tuple(torch.randn(shape, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_projections_add_up_and_nothing_is_changed(name: str, need_weights: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, inputs = attention(SETTINGS[name], dtype)
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[1, 3:] = True
    masks = {"key_padding_mask": padding, "attn_mask": torch.triu(torch.ones(T, S), 2).bool()}
    for more in ({}, masks):
        state = torch.get_rng_state()
        plain = model(*inputs, need_weights=need_weights, **more)
        weighted(plain[0]).backward()
        grads, after = {n: p.grad for n, p in model.named_parameters()}, torch.get_rng_state()
        model.zero_grad()
        torch.set_rng_state(state)
        first = SETTINGS[name].get("batch_first", False)
        with sg.trace(model, strict=True, batch_axis=0 if first else 1) as t:
            out = model(*inputs, need_weights=need_weights, **more)
            weighted(out[0]).backward()
        assert torch.equal(torch.get_rng_state(), after)
        assert torch.equal(out[0], plain[0])
        for key, p in model.named_parameters():
            assert torch.equal(p.grad, grads[key])
            assert t[key].residual <= TOLERANCE[dtype]
        assert t["out_proj.weight"].axes == TOKENS
        if first:
            apart = t.per_sample("sum", mixing="allow")
            torch.testing.assert_close(apart["out_proj.weight"].sum(0), grads["out_proj.weight"])
        model.zero_grad()


def test_the_axes_of_projections() -> None:
    torch.manual_seed(1)
    model, (query, key, value) = attention({"kdim": 5, "vdim": 7, "batch_first": True}, torch.float64)
    with sg.trace(model, strict=True) as t:
        weighted(model(query, key, value)[0]).backward()
    axes = {"q_proj_weight": TOKENS, "k_proj_weight": SOURCE, "v_proj_weight": SOURCE, "out_proj.bias": TOKENS}
    assert {name: t[name].axes for name in axes} == axes
    assert len(t["in_proj_bias"].calls) == 3
    model, (x, _, _) = attention({"batch_first": True, "add_bias_kv": True}, torch.float64)
    with sg.trace(model, strict=True) as t:
        weighted(model(x, x, x)[0]).backward()
    assert t["in_proj_weight"].axes == TOKENS
    assert t["bias_v"].axes["sample"] == (N,)


ALONE: dict[str, Callable[[], nn.Module]] = {
    "encoder": lambda: nn.TransformerEncoderLayer(C, 2, 8, 0.0, batch_first=True, norm_first=True),
    "attention": lambda: Of(
        lambda m, x: m.a(x, x, x)[0],
        a=nn.MultiheadAttention(C, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True),
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_samples_part_is_what_it_has_alone(name: str) -> None:
    torch.manual_seed(2)
    model = scrambled(ALONE[name]()).double()
    x, upstream = torch.randn(N, T, C).double(), torch.randn(N, T, C).double()
    with sg.trace(model, strict=True) as t:
        (model(x) * upstream).sum().backward()
    apart = t.per_sample("sum")
    for n in range(N):
        model.zero_grad()
        (model(x[n : n + 1]) * upstream[n : n + 1]).sum().backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(apart[key][n], p.grad)
            assert t[key].axes == TOKENS or "bias_" in key


def _transformer(first: bool) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = nn.Transformer(C, 2, 2, 2, 8, 0.3, batch_first=first)
    shapes = [(N, n, C) if first else (n, N, C) for n in (S, T)]
    return model, tuple(torch.randn(shape) for shape in shapes)


LAYERS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "encoder layer": lambda: (
        nn.TransformerEncoderLayer(C, 2, 8, 0.2, activation="gelu"),
        (torch.randn(T, N, C),),
    ),
    "decoder layer": lambda: (
        nn.TransformerDecoderLayer(C, 2, 8, 0.2, batch_first=True),
        (torch.randn(N, T, C), torch.randn(N, S, C)),
    ),
    "transformer": lambda: _transformer(False),
    "transformer, batch first": lambda: _transformer(True),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("keep", ["factors", ["norm:sample,token", "share:token"]], ids=["factors", "passing"])
def test_transformer_layers(name: str, keep: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model, inputs = LAYERS[name]()
    scrambled(model).to(dtype)
    with sg.trace(model, keep=keep, batch_axis=0 if "first" in name or "decoder" in name else 1) as t:
        weighted(model(*(x.to(dtype) for x in inputs))).backward()
    assert not t.other
    for key, _ in model.named_parameters():
        assert t[key].residual <= TOLERANCE[dtype]
        assert set(t[key].axes) == {"sample", "token"} or "in_proj" in key
    assert not t.passes[0].mixing


def test_in_evaluation_without_gradients_nothing_is_recorded() -> None:
    torch.manual_seed(4)
    model = nn.TransformerEncoderLayer(C, 2, 8, 0.0, batch_first=True).eval()
    x = torch.randn(N, T, C)
    with torch.no_grad():
        plain = model(x)
        with sg.trace(model) as t:
            torch.testing.assert_close(model(x), plain)
    assert t.passes == []
    with sg.trace(model, strict=True) as t:
        weighted(model(x)).backward()
    assert t["linear1.weight"].axes == TOKENS


def test_attention_called_as_a_function_and_autocast() -> None:
    torch.manual_seed(5)
    model, (x, _, _) = attention({"batch_first": False}, torch.float32)

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        a = m.a
        weights = (a.in_proj_weight, a.in_proj_bias, None, None, False, 0.1, a.out_proj.weight, a.out_proj.bias)
        return nn.functional.multi_head_attention_forward(x, x, x, C, 2, *weights, need_weights=False)[0]

    whole = Of(run, a=model)
    for enabled in (False, True):
        with sg.trace(whole, batch_axis=1) as t:
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = whole(x)
            weighted(y.float()).backward()
        assert all(t[key].certified for key, _ in whole.named_parameters())
        assert t["a.in_proj_weight"].certificate.tolerance == (2**-6 if enabled else 1e-5)
