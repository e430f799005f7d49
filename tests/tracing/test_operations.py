"""Every first-class operation: the uses add up to what autograd deposits, and apart they are autograd's too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.tracing.cases import CASES, Of, build, scrambled, upstream, weight

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
NOT_BY_SAMPLE = {"vectors", "rows by number", "relative positions"}  # no axis is known to be the samples'


def traced(name: str, seed: int, dtype: torch.dtype = torch.float64, **settings: Any) -> tuple[Any, Any, Any]:
    model, inputs = build(name, seed, dtype)
    weights = upstream(model, inputs, seed).to(dtype)
    with sg.trace(model, **settings) as t:
        (model(*inputs) * weights).sum().backward()
    return t, model, (inputs, weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_the_uses_add_up_to_what_autograd_deposits(name: str, seed: int, dtype: torch.dtype) -> None:
    t, model, _ = traced(name, seed, dtype)
    assert not t.other
    trained = dict(model.named_parameters())
    assert set(t.passes[0]) == set(trained)
    for key, p in trained.items():
        u = t[key]
        assert u.certified
        assert u.residual <= TOLERANCE[dtype]
        assert p.grad is not None
        np.testing.assert_allclose(
            u.gradient, p.grad.to_dense(), rtol=0, atol=TOLERANCE[dtype] * max(u.certificate.length, 1)
        )
        shares = [np.sum(np.asarray(s)) for s in u.share(("call", *u.axes))]
        if not u.zero_up_to_rounding:
            assert abs(sum(shares) - 1) < 1e-9 if dtype == torch.float64 else 1e-3


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", sorted(CASES.keys() - NOT_BY_SAMPLE))
def test_a_samples_part_is_autograds_gradient_of_that_sample(name: str, seed: int) -> None:
    t, model, (inputs, weights) = traced(name, seed)
    apart = t.per_sample(loss_reduction="sum")
    frequency = "frequency" in name  # it counts over the whole batch: nothing that one sample has alone
    for n in range(len(inputs[0])):
        model.zero_grad()
        (model(*(x[n : n + 1] for x in inputs)) * weights[n : n + 1]).sum().backward()
        for key, p in model.named_parameters():
            if not frequency:
                np.testing.assert_allclose(apart[key][n], p.grad.to_dense(), atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_single_uses_are_what_the_closed_forms_say(name: str) -> None:
    """Norms and shares of the uses one by one, from contributions written out."""
    t, model, _ = traced(name, 5)
    for key, _ in model.named_parameters():
        u = t[key]
        total = u.gradient
        for number, call in enumerate(u.calls):
            every = call.sum(tuple(call.axes)).reshape(call.count, -1).numpy()
            np.testing.assert_allclose(call.squares().reshape(-1), (every**2).sum(-1), atol=1e-10)
            np.testing.assert_allclose(
                call.projection(total).reshape(-1), every @ total.reshape(-1).numpy(), atol=1e-10
            )
            assert number < len(u.calls)


@pytest.mark.parametrize("name", CASES)
def test_answers_in_passing_are_those_of_the_factors(name: str) -> None:
    questions = ["norm:sample,position,token,row", "share:sample", "norm:row"]
    whole, model, _ = traced(name, 1)
    for chunk in (None, 2):
        kept, _, _ = traced(name, 1, keep=questions, chunk=chunk)
        assert not kept.other
        for key, _ in model.named_parameters():
            u, k = whole[key], kept[key]
            assert k.certified
            assert k.residual <= 1e-12
            assert k.count == u.count
            every = [axis for axis in ("sample", "position", "token", "row") if axis in u.axes]
            np.testing.assert_allclose(k.norm(("sample", "position", "token", "row")), u.norm(every), atol=1e-10)
            by = [axis for axis in ["sample"] if axis in u.axes]
            if not u.zero_up_to_rounding:
                np.testing.assert_allclose(k.share("sample"), u.share(by), atol=1e-9)
            np.testing.assert_allclose(k.coherence().value, u.coherence().value, rtol=1e-9)
            np.testing.assert_allclose(k.cancellation().value, u.cancellation().value, rtol=1e-9)


def test_a_layer_in_the_middle_is_the_same_as_alone() -> None:
    """Frozen layers before and behind, and samples that are followed through everything between."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4).eval(), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(True)),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(54, 5), nn.LogSoftmax(-1)),
    ).double()
    for frozen in (0, 1):
        model[frozen].requires_grad_(False)
    x, y = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 3, 1, 1])
    with sg.trace(model) as t:
        nn.functional.nll_loss(model(x), y).backward()
    assert set(t.passes[0]) == {"3.weight", "3.bias", "8.weight", "8.bias"}
    assert t["3.weight"].axes == {"sample": (4,), "position": (6, 6)}
    assert t["8.weight"].axes == {"sample": (4,)}
    assert all(t[name].certified for name in t.passes[0])


@pytest.mark.parametrize("batch", [0, 1])
def test_batches_of_one_and_of_none(batch: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 20), nn.LayerNorm(20))
    for keep in ("factors", ["norm:sample,position", "share:sample"]):
        with sg.trace(model, keep=keep) as t:
            model(torch.randn(batch, 3, 6, 6)).square().sum().backward()
        assert len(t.passes[0]) == 6
        for name in t.passes[0]:
            assert t[name].certified
            assert t[name].axes["sample"] == (batch,)
            assert name in str(t[name])
        assert all("yes" in line for line in t.table().splitlines()[2:])
        if keep == "factors":
            with pytest.raises(ConfigError, match=f"expected at least two samples, got {batch}"):
                t.noise_scale()
        if not batch:
            with pytest.raises(ConfigError, match="there is no use to draw"):
                t["0.weight"].plot("sample")


def test_a_row_that_one_number_looks_up() -> None:
    torch.manual_seed(0)
    model = nn.Embedding(4, 3).double()
    with sg.trace(model) as t:
        model(torch.tensor(2)).square().sum().backward()
    assert t["weight"].residual < 1e-12
    assert t["weight"].axes == {}


def test_a_use_with_zero_gradient() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model) as t:
        (model(torch.randn(4, 3)) * 0).sum().backward()
    assert t["weight"].certified
    assert t["weight"].residual == 0
    assert t["weight"].zero_up_to_rounding


def test_gradients_that_are_zero_up_to_rounding_are_called_so() -> None:
    """A bias before batch normalization in training mode learns nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double()
    with sg.trace(model) as t:
        (model(torch.randn(4, 2, 6, 6).double()) ** 3).sum().backward()
    assert t["0.bias"].certified
    assert t["0.bias"].zero_up_to_rounding
    assert not t["0.weight"].zero_up_to_rounding
    assert "zero" in t.table()


def test_a_parameter_that_is_cast_is_held_to_the_narrower_type() -> None:
    torch.manual_seed(0)
    model = Of(lambda m, x: x * (1 + m.a.float()).double(), a=weight(5)).double()
    with sg.trace(model, strict=True) as t:
        model(torch.randn(3, 4, 5).double()).square().sum().backward()
    assert 1e-12 < t["a"].residual < t["a"].certificate.tolerance == 1e-5


@pytest.mark.parametrize("keep", ["factors", ["norm:sample,position"]])
def test_autocast_computes_in_bfloat16(keep: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 20), nn.LayerNorm(20))
    with sg.trace(model, keep=keep) as t:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(4, 3, 6, 6)).square().mean()
        loss.backward()
    for name in t.passes[0]:
        assert t[name].certified
    assert t["0.weight"].certificate.tolerance == 2**-6
    with sg.trace(model) as t:
        model(torch.randn(4, 3, 6, 6)).square().mean().backward()
    assert t["0.weight"].certificate.tolerance == 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_tensors_that_numpy_cannot_look_at(dtype: torch.dtype) -> None:
    """Half precision takes the path of other devices: factors stay tensors; answers are added in float32."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12).eval(), nn.ReLU(), nn.Flatten())
    wide = nn.Sequential(*layers, nn.Linear(12 * 36, 20), nn.LayerNorm(20), nn.Linear(20, 3))
    x = torch.randn(4, 3, 6, 6)
    narrow = scrambled(wide).to(dtype)
    found = []
    for keep in ("factors", ["norm:sample,position", "share:sample"]):
        with sg.trace(narrow, keep=keep, strict=True) as t:
            narrow(x.to(dtype)).float().square().mean().backward()
        assert t["0.weight"].certificate.tolerance > 1e-3
        found.append(t)
    factors, kept = found
    assert factors["0.weight"].calls[0].tensor.dtype == dtype
    for name in factors.passes[0]:
        u, k = factors[name], kept[name]
        every = [axis for axis in ("sample", "position") if axis in u.axes]
        np.testing.assert_allclose(k.norm(("sample", "position")), u.norm(every), rtol=1e-4)
        np.testing.assert_allclose(k.share("sample"), u.share("sample"), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12])
@pytest.mark.parametrize("name", ["conv2d", "linear on tokens", "batch norm", "layer norm", "embedding"])
def test_very_small_and_very_large_gradients_in_float32(name: str, scale: float) -> None:
    """Squares of such numbers do not fit into float32: they are added in float64 then."""
    questions = ["norm:sample,position,token", "share:sample,position,token"]
    model, inputs = build(name, 1, torch.float32)
    weights = upstream(model, inputs, 1).float()
    answers = []
    for factor in (1.0, scale):
        with sg.trace(model, keep=questions, strict=True) as t:
            (model(*inputs) * (weights * factor)).sum().backward()
        answers.append(t)
    for key, _ in model.named_parameters():
        one, other = (t[key] for t in answers)
        norms = one.norm(("sample", "position", "token"))
        np.testing.assert_allclose(other.norm(("sample", "position", "token")) / scale, norms, rtol=1e-4)
        shares = one.share(("sample", "position", "token"))
        np.testing.assert_allclose(other.share(("sample", "position", "token")), shares, rtol=1e-3, atol=1e-4)


def test_a_batch_far_from_zero_is_normalized_as_pytorch_does() -> None:
    torch.manual_seed(0)
    model = nn.BatchNorm2d(3)
    with sg.trace(model, strict=True) as t:
        (model(torch.randn(4, 3, 5, 5) + 500) * torch.randn(4, 3, 5, 5)).sum().backward()
    assert t["weight"].residual < 1e-5
