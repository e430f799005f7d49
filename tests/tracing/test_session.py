"""The block: afterwards the model is as before, passes are told apart, and what cannot be answered is refused."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.helpers import collector_at_rest


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).to(dtype)


def step(model: nn.Module, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    x, y = torch.randn(4, 2, 6, 6), torch.randint(5, (4,))
    loss = nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)
    loss.backward()
    return loss


def hooks(model: nn.Module) -> list[Any]:
    found: list[Any] = [p._backward_hooks for p in model.parameters()]
    found += [(m._forward_pre_hooks, m._forward_hooks, m._backward_hooks) for m in model.modules()]
    return [*found, getattr(model, "_forward_pre_hooks_with_kwargs", None)]


def bits(model: nn.Module) -> list[bytes]:
    state = [v.numpy().tobytes() for v in model.state_dict().values()]
    return state + [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("keep", ["factors", ["norm:sample,position", "share:sample"]])
@pytest.mark.parametrize("times", [1, 2])
def test_the_step_and_the_model_are_what_they_would_be_without(keep: Any, times: int) -> None:
    plain = small()
    traced = copy.deepcopy(plain)
    before = hooks(plain)
    for seed in range(times):
        step(plain, seed)
    state = torch.get_rng_state()
    with sg.trace(traced, keep=keep) as t:
        for seed in range(times):
            step(traced, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(traced) == bits(plain)
    assert hooks(traced) == before
    assert len(t.passes) == times
    assert all(p.grad_fn is None for p in traced.parameters())
    for one in t.passes:
        assert all(one.certified(name) for name in one.names)


def test_a_gradient_hook_of_the_callers_own_stays_and_does_not_disturb() -> None:
    model = nn.Linear(3, 2)
    handle = model.weight.register_hook(lambda g: g * 100)
    with sg.trace(model) as t:
        model(torch.randn(4, 3)).sum().backward()
    assert t["weight"].certified
    assert len(model.weight._backward_hooks) == 1
    assert model.weight.grad.norm() > 50 * t["weight"].deposit.norm()
    handle.remove()


@pytest.mark.parametrize("where", ["forward", "backward", "block"])
def test_after_an_exception_the_model_is_as_before(where: str) -> None:
    model = small()
    before = hooks(model)
    handle: Any = None

    def fail(*_: Any) -> None:
        raise RuntimeError("of the caller's own")

    def block() -> None:
        nonlocal handle
        if where == "forward":
            handle = model[3].register_forward_hook(fail)
        if where == "backward":
            y = model(torch.randn(4, 2, 6, 6))
            y.register_hook(fail)
            y.sum().backward()
        step(model)
        fail()

    t = sg.trace(model)
    with pytest.raises(RuntimeError, match="caller's own"), t:
        block()
    if handle is not None:
        handle.remove()
    assert hooks(model) == before
    assert len(t.passes) == (where == "block")
    with sg.trace(model) as t:
        step(model)
    assert t["0.weight"].certified


def test_hooks_on_a_graph_that_outlives_the_block_are_gone() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        y = model(torch.randn(4, 3))
        y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert len(t.passes) == 1
    assert len(t["weight"].calls) == 1


def test_every_pass_is_certified_alone_and_the_total_too() -> None:
    model = small(torch.float64)
    with sg.trace(model) as t:
        for seed in range(3):
            step(model, seed)
    with pytest.raises(ConfigError, match=r"expected one recorded backward pass .* there were 3; use t\.passes"):
        t["0.weight"]
    total = t.total["0.weight"]
    assert total.certified
    assert len(total.calls) == 3
    np.testing.assert_allclose(total.gradient, model[0].weight.grad, atol=1e-12)
    assert set(t.total) == {name for name, _ in model.named_parameters()}
    for one in t.passes:
        assert one["0.weight"].certified
        assert not one.other


def test_a_graph_that_is_used_twice() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        y = model(torch.randn(4, 3))
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()
    assert [one["weight"].certified for one in t.passes] == [True, True]
    assert [len(one["weight"].calls) for one in t.passes] == [1, 1]


def test_forward_passes_without_a_way_back_leave_nothing() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        model(torch.randn(4, 3))
        with torch.no_grad():
            model(torch.randn(4, 3))
        model(torch.randn(5, 3)).sum().backward()
    assert [call.axes for call in t["weight"].calls] == [{"sample": (5,)}]


def test_every_second_pass() -> None:
    model = small()
    with sg.trace(model, every=2) as t:
        for seed in range(4):
            step(model, seed)
    assert len(t.passes) == 2
    for one, seed in zip(t.passes, (0, 2), strict=True):  # the first of each two
        model.zero_grad()
        step(model, seed)
        torch.testing.assert_close(torch.as_tensor(one["0.weight"].gradient), model[0].weight.grad)
    assert all(one.certified(name) for one in t.passes for name in one.names)


def test_ways_to_begin_a_backward_pass() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        torch.autograd.backward(model(torch.randn(4, 3)).sum())
        torch.autograd.grad(model(torch.randn(4, 3)).sum(), [model.weight])
        model(torch.randn(4, 3)).backward(torch.randn(4, 2))
    assert [one.names for one in t.passes] == [("weight", "bias"), ("weight",), ("weight", "bias")]
    assert all(one.certified(name) for one in t.passes for name in one.names)


def test_optimizer_steps_inside_the_block() -> None:
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with sg.trace(model) as t:
        for seed in range(2):
            optimizer.zero_grad()
            step(model, seed)
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
    assert all(one.certified(name) for one in t.passes for name in one.names)


def test_some_parameters_alone_and_names_of_tied_ones() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    with sg.trace(model, params=["b.weight"]) as t:
        model["b"](model["a"](torch.randn(2, 3))).sum().backward()
    assert list(t.passes[0]) == ["a.weight"]
    assert t["b.weight"] is t["a.weight"]
    assert len(t["b.weight"].calls) == 2
    with pytest.raises(KeyError, match="expected the name of a parameter, got something of type Parameter"):
        t[model["a"].weight]
    with pytest.raises(KeyError, match=r"no parameter b\.bias in this trace; there are a\.weight"):
        t["b.bias"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": ["nothing"]}, "nothing is no parameter of the model; choose from weight, bias"),
        ({"keep": "norms"}, r"expected 'factors', 'norm:axis,…' or 'share:axis,…', got 'norms'"),
        ({"params": nn.Parameter(torch.ones(2))}, "expected names of parameters, got something of type"),
        ({"params": 3}, "expected names of parameters, got something of type int"),
        ({"keep": []}, "got an empty list"),
        ({"keep": None}, "got None"),
        ({"keep": ["norm:sample,positon"]}, "names 'positon', which no use has; choose from sample, position"),
        ({"keep": ["norm:"]}, "got 'norm:'"),
        ({"every": 0}, "every: expected a whole number of at least 1, got 0"),
        ({"chunk": 1.5}, "chunk: expected a whole number"),
        ({"callback": 3}, "callback: expected a function of one parameter's answers, got 3"),
        ({"samples": []}, r"samples: expected a slice or numbers of samples, got \[\]"),
        ({"samples": torch.tensor([True, False])}, "expected a whole number of at least 0, got True"),
        ({"samples": slice("a", None)}, "samples: expected a whole number, got 'a'"),
        ({"samples": [-1]}, "samples: expected a whole number of at least 0, got -1"),
        ({"batch_axis": "first"}, "batch_axis: expected a whole number"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sg.trace(nn.Linear(3, 2), **settings)


def test_what_is_no_model_and_a_trace_entered_twice() -> None:
    with pytest.raises(ConfigError, match=r"expected a torch\.nn\.Module, got list"):
        sg.trace([])
    with pytest.raises(ConfigError, match=r"got Network; a network of sharedgrad's own has tape\.trace"):
        sg.trace(sg.Network([sg.Linear(3, 2)], (3,)))
    with sg.trace(nn.Linear(3, 2)) as t:
        pass
    with pytest.raises(ConfigError, match="has been entered before"):
        t.__enter__()
    with pytest.raises(ConfigError, match="there were 0; call backward in it"):
        t["weight"]


def test_a_trace_gives_its_memory_back_at_once() -> None:
    model = small()
    with sg.trace(model) as t:
        step(model)
    assert t["0.weight"].norm(by="sample").shape == (4,)
    alive = weakref.ref(t)
    with collector_at_rest():
        del t
        assert alive() is None


def test_what_was_not_kept_is_refused() -> None:
    model = small()
    with sg.trace(model, keep=["norm:sample,position"]) as t:
        step(model)
    u = t["0.weight"]
    assert u.norm(("position", "sample")).shape == (4, 4, 4)
    for ask in (
        lambda: u.norm("sample"),
        lambda: u.norm(3),
        lambda: u.share("sample"),
        lambda: u.sum(),
        lambda: u.inner("sample"),
    ):
        with pytest.raises(ConfigError, match="not kept"):
            ask()
    with pytest.raises(ConfigError, match="the factors of all uses were not kept"):
        t.total["0.weight"]


def test_factors_that_are_overwritten_are_refused() -> None:
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    with sg.trace(model) as t:
        model(x).sum().backward()
    x.zero_()
    with pytest.raises(ConfigError, match="has been overwritten since"):
        t["weight"]
    assert t["bias"].certified
