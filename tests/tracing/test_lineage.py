"""What an axis means is followed from the model's inputs, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.tracing.cases import Of, weight

N, T, C = 3, 4, 5
Axes = dict[str, tuple[int, ...]]
TOKENS: Axes = {"sample": (N,), "token": (T,)}


def _sequence_first(m: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x.transpose(0, 1), m.w)


def _attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    heads = x.view(N, T, 1, C).permute(0, 2, 1, 3)
    y = functional.scaled_dot_product_attention(heads, heads, heads)
    return functional.linear((y.softmax(-1) @ y.mT @ y).transpose(1, 2).reshape(N, T, C), m.w)


WAYS: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], Axes]] = {
    "as it is": (lambda m, x: functional.linear(x, m.w), TOKENS),
    "sequence first": (_sequence_first, TOKENS),
    "rows of a flattened batch": (lambda m, x: functional.linear(x.reshape(N * T, C), m.w), TOKENS),
    "back from rows": (lambda m, x: functional.linear(x.view(-1, C).view(N, T, C), m.w), TOKENS),
    "flattened": (lambda m, x: functional.linear(x.unflatten(2, (1, 5)).flatten(2), m.w), TOKENS),
    "shuffled": (lambda m, x: functional.linear(x[torch.tensor([2, 0, 1])], m.w), {"row": (N, T)}),
    "half of it": (lambda m, x: functional.linear(x[:2], m.w), {"row": (2, T)}),
    "a token": (lambda m, x: functional.linear(x[:, 0], m.w), {"sample": (N,)}),
    "a sample": (lambda m, x: functional.linear(x[0], m.w), {"row": (T,)}),
    "indexed": (lambda m, x: functional.linear(x[:, None, ..., :2, :].squeeze(1), m.w), {**TOKENS, "token": (2,)}),
    "chunks": (lambda m, x: functional.linear(torch.cat(x.chunk(2, 1), 1), m.w), TOKENS),
    "mean over tokens": (lambda m, x: functional.linear(x.mean(1), m.w), {"sample": (N,)}),
    "mean over samples": (lambda m, x: functional.linear(x.mean(0), m.w), {"row": (T,)}),
    "stacked": (lambda m, x: functional.linear(torch.stack([x, x]), m.w), {"sample": (N,), "position": (2, T)}),
    "attention": (_attention, TOKENS),
    "broadcast": (lambda m, x: functional.linear((x + torch.ones(T, C)) * torch.ones(1, 1, 1), m.w), TOKENS),
    "an unknown operation": (lambda m, x: functional.linear(torch.cummax(x, 1)[0], m.w), {"row": (N, T)}),
    "sorted": (lambda m, x: functional.linear(torch.sort(x, 0)[0], m.w), {"row": (N, T)}),
    "columns": (lambda m, x: m.w @ x.mT, TOKENS),
    "nothing of the inputs": (lambda m, x: functional.linear(torch.ones(N, T, C).double(), m.w), {"row": (N, T)}),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_axis_of_the_samples_is_followed(name: str) -> None:
    run, expected = WAYS[name]
    torch.manual_seed(0)
    model = Of(run, w=weight(6, C)).double()
    x = torch.randn(N, T, C).double()
    with sg.trace(model) as t:
        model(x).square().sum().backward()
    assert t["w"].certified
    assert t["w"].axes == expected
    if expected == TOKENS:
        apart = t.per_sample("sum")["w"]
        for n in range(N):
            model.zero_grad()
            y = model(x)
            (y.square() * (torch.arange(N) == n).view(-1, 1, 1)).sum().backward() if y.shape[0] == N else None
            if y.shape[0] == N:
                torch.testing.assert_close(apart[n], model.w.grad)


@pytest.mark.parametrize(("axis", "expected"), [(1, {"sample": (T,), "token": (N,)}), (None, {"row": (N, T)})])
def test_the_axis_of_the_inputs_is_the_callers_to_say(axis: int | None, expected: Axes) -> None:
    model = nn.Linear(C, 2)
    with sg.trace(model, batch_axis=axis) as t:
        model(torch.randn(N, T, C)).sum().backward()
    assert t["weight"].axes == expected


def test_a_part_of_the_model_called_alone_knows_of_no_samples() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    with sg.trace(model) as t:
        model[2](model[1](model[0](torch.randn(4, 2, 6, 6)))).sum().backward()
    assert t["0.weight"].axes == {"row": (4,), "position": (4, 4)}
    assert t["2.weight"].axes == {"row": (4,)}
    with pytest.raises(ConfigError, match=r"samples cannot be told apart in the uses of 0\.weight; its axes are row"):
        t.per_sample()


MIXED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "batch normalization in training mode": lambda m, x: m.norm(m.a(x)),
    "matmul of samples with samples": lambda m, x: m.a(x) @ m.a(x).T,
    "mean over the samples": lambda m, x: m.a(x) - m.a(x).mean(0),
}


@pytest.mark.parametrize("reason", MIXED)
def test_where_samples_meet_there_is_no_gradient_of_one_alone(reason: str) -> None:
    torch.manual_seed(0)
    model = Of(MIXED[reason], a=nn.Linear(5, 4), norm=nn.BatchNorm1d(4)).double()
    with sg.trace(model, params=["a.weight"]) as t:
        model(torch.randn(3, 5).double()).pow(3).sum().backward()
    assert t["a.weight"].certified
    for ask in (t.per_sample, t.noise_scale):
        with pytest.raises(ConfigError, match=f"samples depend on one another: {reason}"):
            ask()
    total = t.per_sample("sum", mixing="allow")["a.weight"].sum(0)
    torch.testing.assert_close(total, model.a.weight.grad)
    with sg.trace(model, params=["a.weight"]) as t:  # nothing is left of the pass before
        model.a(torch.randn(3, 5).double()).sum().backward()
    assert t.passes[0].mixing == ()
