"""What the trace cannot take apart is reported: the parameter, the operation, and the unexplained part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import sharedgrad as sg
from sharedgrad.errors import ConfigError, UncertifiedError, UncertifiedWarning
from tests.tracing.cases import Of, weight
from tests.tracing.test_session import bits, hooks


class Doubled(torch.autograd.Function):
    """An operation of somebody's own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        return dy * 2


def _regularized(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.a(x).square().mean() + 0.3 * m.a.weight.square().sum() + m.a.bias.norm()


WRITTEN = {"w": "DoubledBackward"}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "regularizers": (lambda: Of(_regularized, a=nn.Linear(5, 4)), {"a.weight": "square", "a.bias": "norm"}),
    "weight times weight": (
        lambda: Of(lambda m, x: (x @ m.w).sum() + (m.w * m.w).sum(), w=weight(5, 4)),
        {"w": "mul"},
    ),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)),
        {
            "parametrizations.weight.original0": "_weight_norm",
            "parametrizations.weight.original1": "_weight_norm",
        },
    ),
    "a mask": (lambda: Of(lambda m, x: x @ (m.w * torch.ones(5, 4)), w=weight(5, 4)), {"w": "mul"}),
    "bilinear": (
        lambda: Of(lambda m, x: m.a(x, x), a=nn.Bilinear(5, 5, 3)),
        {"a.weight": "bilinear", "a.bias": "bilinear"},
    ),
    "prelu": (lambda: nn.PReLU(), {"weight": "prelu"}),
    "einsum": (lambda: Of(lambda m, x: torch.einsum("ni,oi->no", x, m.w), w=weight(4, 5)), {"w": "einsum"}),
    "a function of one's own": (
        lambda: Of(lambda m, x: x @ Doubled.apply(m.w), w=weight(5, 4)),
        {"w": "DoubledBackward"},
    ),
    "a use besides": (
        lambda: Of(lambda m, x: x @ m.w + x @ Doubled.apply(m.w), w=weight(5, 4)),
        {"w": "DoubledBackward"},
    ),
    "recomputed inside": (
        lambda: Of(lambda m, x: checkpoint(m.a, x.requires_grad_(), use_reentrant=True), a=nn.Linear(5, 4)),
        {"a.weight": "inside CheckpointFunctionBackward", "a.bias": "inside CheckpointFunctionBackward"},
    ),
    "a slice with numbers": (lambda: Of(lambda m, x: x @ m.w[:, [0, 2, 1, 3]], w=weight(5, 4)), {"w": "__getitem__"}),
}


@pytest.mark.parametrize("keep", ["factors", ["norm:sample"]])
@pytest.mark.parametrize("name", CASES)
def test_the_parameter_and_the_operation_are_named(name: str, keep: Any) -> None:
    make, expected = CASES[name]
    torch.manual_seed(0)
    model, x = make(), torch.randn(3, 5)
    plain = [p.grad for p in model.parameters()]
    with sg.trace(model, keep=keep) as t:
        model(x).square().mean().backward()
    assert set(t.other) == set(expected)
    assert plain.count(None) == len(plain)
    for key, operation in expected.items():
        other = t.other[key]
        assert operation in other.operations, other.operations
        assert other.norm > 0
        assert not t.passes[0].certified(key)
        assert other.operations[0] in t.table()
        if keep == "factors":
            known = t.passes[0].weight(key).gradient if key in t.passes[0] else 0
            torch.testing.assert_close(other.gradient + known, dict(model.named_parameters())[key].grad)
        if key in t.passes[0]:
            for ask in (lambda key: t[key], lambda key: t.passes[0][key]):
                with pytest.warns(UncertifiedWarning, match=f"the uses of {key} do not add up"):
                    ask(key)
            if keep == "factors":
                with pytest.warns(UncertifiedWarning):
                    assert "NOT certified" in str(t.total[key])
        else:
            with pytest.raises(ConfigError, match="no use of it was seen; its gradient came through"):
                t[key]
    with pytest.raises(UncertifiedError, match="uses do not add up to the gradient of"), sg.trace(model, strict=True):
        model(x).square().mean().backward()


@pytest.mark.parametrize("keep", ["factors", ["norm:sample", "share:sample"]])
def test_recomputed_activations_are_not_counted_twice(keep: Any) -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3))
    model = Of(lambda m, x: checkpoint(m.a, x, use_reentrant=False), a=a).double()
    before, x = hooks(model), torch.randn(6, 5).double()
    for backward in (torch.Tensor.backward, torch.autograd.backward):
        found = []
        for traced in (False, True):
            model.zero_grad()
            torch.manual_seed(1)
            with sg.trace(model, keep=keep, strict=True) if traced else nullcontext() as t:
                backward(model(x).square().sum())
            found.append((bits(model), torch.get_rng_state()))
        assert found[0][0] == found[1][0]
        assert torch.equal(found[0][1], found[1][1])
        assert hooks(model) == before
        assert t["a.0.weight"].count == 6


@pytest.mark.parametrize("keep", ["factors", ["norm:sample"]])
def test_reentrant_checkpointing_leaves_the_step_as_it_would_be(keep: Any) -> None:
    torch.manual_seed(0)
    model = Of(lambda m, x: m.b(checkpoint(m.a, x, use_reentrant=True)), a=nn.Linear(5, 4), b=nn.Linear(4, 3))
    before, x = hooks(model), torch.randn(6, 5).requires_grad_()
    model(x).square().sum().backward()
    expected = bits(model)
    model.zero_grad()
    with sg.trace(model, keep=keep) as t:
        model(x).square().sum().backward()
    assert bits(model) == expected
    assert hooks(model) == before
    assert set(t.other) == {"a.weight", "a.bias"}
    assert t["b.weight"].certified


def test_parts_recomputed_inside_a_pass_are_not_mistaken_for_the_whole() -> None:
    model = Of(
        lambda m, x: checkpoint(m.a, checkpoint(m.a, x, use_reentrant=True), use_reentrant=True), a=nn.Linear(5, 5)
    )
    x = torch.randn(3, 5).requires_grad_()
    for keep in ("factors", ["norm:sample"]):
        with sg.trace(model, keep=keep) as t:
            (model(x) + model.a(x)).square().sum().backward()
        assert set(t.other) == {"a.weight", "a.bias"}


def test_a_gradient_penalty() -> None:
    """The second pass runs through the graph of the first one's way back: what was not seen is reported."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(6, 5).double().requires_grad_()
    with sg.trace(model) as t:
        y = model(x).sum()
        (dx,) = torch.autograd.grad(y, x, create_graph=True)
        (y + dx.square().sum()).backward()
    assert t.passes[0].names == ()
    assert set(t.passes[1].other) == {"0.weight", "2.weight"}
    for name in ("0.bias", "2.bias"):  # all of their gradient arrives at the calls that were seen
        assert t.passes[1][name].residual < 1e-12
    for name, other in t.passes[1].other.items():
        known = torch.as_tensor(t.passes[1].weight(name).gradient)
        torch.testing.assert_close(known + other.gradient, model.get_parameter(name).grad)
        assert other.norm > 0.01


def test_a_compiled_model_runs_uncompiled_and_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(UserWarning, match="runs uncompiled in this block"), sg.trace(compiled, strict=True) as t:
        compiled(torch.randn(3, 5)).sum().backward()
    assert t["_orig_mod.weight"].axes == {"sample": (3,)}


def test_functional_call_and_vmap_are_reported_or_right() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4).double()
    x = torch.randn(3, 5).double()
    with sg.trace(model) as t:
        own = {name: p * 1 for name, p in model.named_parameters()}
        torch.func.functional_call(model, own, (x,)).sum().backward()
    assert set(t.other) == {"weight", "bias"}
    assert t.other["weight"].operations == ("mul",)
    model.zero_grad()
    with sg.trace(model) as t:
        torch.func.vmap(lambda v: model(v))(x).square().sum().backward()
    assert set(t.other) == {"weight", "bias"}  # what is seen inside vmap is one sample, not the batch
    for name, p in model.named_parameters():
        torch.testing.assert_close(t.other[name].gradient, p.grad)
        with pytest.raises(ConfigError, match="no use of it was seen"):
            t[name]
    with sg.trace(model) as t:
        torch.func.functional_call(model, dict(model.named_parameters()), (x,)).square().sum().backward()
    assert t["weight"].certified
    assert t["weight"].axes == {"sample": (3,)}
