"""Answers handed on as the backward pass goes, nothing kept; and some samples looked at alone."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.tracing.test_session import bits, hooks, small, step

QUESTIONS = ["norm:sample,position", "share:sample,position"]


def model_of_all_kinds() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 12, 3, groups=2), nn.BatchNorm2d(12).eval(), nn.ReLU(True), nn.Flatten(), nn.Linear(192, 5))
    return nn.Sequential(*layers).double()


def loss_of(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    x, y = torch.randn(6, 2, 6, 6).double(), torch.randint(5, (6,))
    return nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("keep", ["factors", QUESTIONS])
def test_the_callback_is_given_what_would_have_been_kept(keep: Any) -> None:
    model = model_of_all_kinds()
    with sg.trace(model, keep=keep) as whole:
        loss_of(model).backward()
    seen: dict[str, Any] = {}

    def norms_of(u: Any) -> Any:
        return u.norm([a for a in ("sample", "position") if keep != "factors" or a in u.axes])

    def take(u: Any) -> None:
        assert model.get_parameter(u.name).grad is None  # before it is added to .grad
        seen[u.name] = norms_of(u)
        assert u.certified

    model.zero_grad()
    with sg.trace(model, keep=keep, callback=take, strict=True) as t:
        loss_of(model).backward()
    assert set(seen) == set(t.passes[0])
    for name, norms in seen.items():
        u: Any = whole[name]
        np.testing.assert_allclose(norms, norms_of(u))
        assert t[name].certified
        assert t[name].count == u.count
        with pytest.raises(ConfigError, match="not kept in this pass, but nothing: the callback was given it"):
            t[name].norm("sample")
        with pytest.raises(ConfigError, match="sum needs the factors, which were not kept"):
            t[name].sum()
    assert "yes" in t.table()


def test_nothing_is_held_after_the_callback() -> None:
    model = nn.Linear(3, 2)
    held: list[Any] = []
    with sg.trace(model, callback=lambda u: held.append(weakref.ref(u))) as t:
        model(torch.randn(4, 3)).sum().backward()
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    assert t["weight"].certified


def test_an_error_in_the_callback_comes_out_and_leaves_the_model_as_before() -> None:
    model = small()
    before = hooks(model)

    def fail(_: Any) -> None:
        raise RuntimeError("of the caller's own")

    with pytest.raises(RuntimeError, match="of the caller's own"), sg.trace(model, callback=fail):
        step(model)
    assert hooks(model) == before


@pytest.mark.parametrize("settings", [{"callback": lambda u: u.norm("sample")}, {"samples": [0, 2]}])
@pytest.mark.parametrize("keep", ["factors", ["norm:sample"]])
def test_the_step_is_what_it_would_be_without(settings: Any, keep: Any) -> None:
    plain, traced = small(), small()
    step(plain)
    state = torch.get_rng_state()
    with sg.trace(traced, keep=keep, **settings):
        step(traced)
    assert bits(traced) == bits(plain)
    assert hooks(traced) == hooks(plain)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("samples", [[1, 4], slice(1, 6, 3)])
def test_some_samples_are_those_of_the_whole(samples: Any) -> None:
    model = model_of_all_kinds()
    with sg.trace(model) as whole:
        loss_of(model).backward()
    with sg.trace(model, samples=samples, strict=True) as t:
        loss_of(model).backward()
    with sg.trace(model, keep=["norm:sample", "share:sample,position", "norm:position"], samples=samples) as kept:
        loss_of(model).backward()
    for name in whole.passes[0]:
        u, some, answers = whole[name], t[name], kept[name]
        assert some.certified
        assert some.axes["sample"] == (2,)
        every = ["sample", "position"] if "position" in u.axes else ["sample"]
        np.testing.assert_allclose(some.norm("sample"), u.norm("sample")[[1, 4]])
        np.testing.assert_allclose(answers.norm("sample"), u.norm("sample")[[1, 4]])
        if not u.zero_up_to_rounding:
            np.testing.assert_allclose(some.share(every), u.share(every)[[1, 4]], atol=1e-12)
            np.testing.assert_allclose(answers.share(("sample", "position")), u.share(every)[[1, 4]], atol=1e-12)
        np.testing.assert_allclose(some.gradient, u.sum("sample")[[1, 4]].sum(0), atol=1e-14)
        np.testing.assert_allclose(some.sum(), some.gradient)
        np.testing.assert_allclose(some.norm(), np.linalg.norm(some.gradient))
        np.testing.assert_allclose(some.sum("sample"), u.sum("sample")[[1, 4]], atol=1e-14)
        if "position" in u.axes:
            np.testing.assert_allclose(answers.norm("position"), some.norm("position"))
        np.testing.assert_allclose(answers.coherence().value, u.coherence().value)
        for ask in (some.coherence, some.cancellation):
            with pytest.raises(ConfigError, match="is about all samples; trace without samples="):
                ask()
    for name, apart in t.per_sample().items():
        torch.testing.assert_close(apart, whole.per_sample()[name][[1, 4]])
    with pytest.raises(ConfigError, match="it is about all samples, and some were looked at"):
        t.noise_scale()
    with pytest.raises(ConfigError, match="the factors of all uses were not kept"):
        t.total["0.weight"]
    with pytest.raises(ConfigError, match="there is no sample 6 in a batch of 6"), sg.trace(model, samples=[6]):
        loss_of(model).backward()


def test_uses_that_do_not_tell_samples_apart_are_kept_as_a_whole() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model, samples=[0], batch_axis=None) as t:
        model(torch.randn(4, 3)).sum().backward()
    assert t["weight"].axes == {"row": (4,)}


def test_few_samples_at_once_change_no_answer() -> None:
    model = model_of_all_kinds()
    found = []
    for chunk in (None, 1, 4):
        with sg.trace(model, keep=QUESTIONS, chunk=chunk) as t:
            loss_of(model).backward()
        found.append({name: (t[name].norm(("sample", "position")), t[name].residual) for name in t.passes[0]})
    for other in found[1:]:
        for name, (norms, _) in found[0].items():
            np.testing.assert_allclose(other[name][0], norms, rtol=1e-12)
            assert other[name][1] < 1e-12
