"""Optimizers step for step beside PyTorch's, their state, and the ends of the schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import CheckpointError, ConfigError
from sharedgrad.optimizers import SCHEDULES, Optimizer

SHAPES: list[tuple[int, ...]] = [(3, 2), (4,), ()]
SETTINGS: dict[str, tuple[Callable[..., Optimizer], Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (sg.SGD, torch.optim.SGD, {}),
    "decay": (sg.SGD, torch.optim.SGD, {"weight_decay": 0.03}),
    "momentum": (sg.SGD, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (sg.SGD, torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.03}),
    "adam": (sg.Adam, torch.optim.Adam, {}),
    "adam with decay": (sg.Adam, torch.optim.Adam, {"betas": (0.7, 0.95), "eps": 1e-4, "weight_decay": 0.03}),
    "adamw": (sg.AdamW, torch.optim.AdamW, {}),
    "adamw with decay": (sg.AdamW, torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
}


def parameters(dtype: Any = np.float64) -> list[sg.Parameter]:
    return [
        sg.Parameter(shape, lambda rng, size: rng.normal(size=size), f"{i}.weight", dtype)
        for i, shape in enumerate(SHAPES)
    ]


def gradients(of: list[sg.Parameter], step: int) -> sg.Gradients:
    rng = np.random.default_rng(step)
    return sg.Gradients({p: rng.normal(size=p.shape).astype(p.dtype) for p in of})


def run(optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.lr = 0.02 / (1 + step)
        optimizer.step(gradients(optimizer.parameters, step))


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("name", SETTINGS)
def test_twenty_steps_with_a_changing_rate_are_pytorchs(name: str, dtype: Any, rtol: float) -> None:
    ours, theirs, settings = SETTINGS[name]
    values = parameters(dtype)
    tensors = [torch.nn.Parameter(torch.tensor(p.value)) for p in values]
    optimizer, oracle = ours(values, lr=0.02, **settings), theirs(tensors, lr=0.02, **settings)
    for step in range(20):
        optimizer.lr = oracle.param_groups[0]["lr"] = 0.02 / (1 + step)
        given = gradients(values, step)
        for tensor, array in zip(tensors, given.values(), strict=True):
            tensor.grad = torch.tensor(array)
        optimizer.step(given)
        oracle.step()
        for p, tensor in zip(values, tensors, strict=True):
            np.testing.assert_allclose(p.value, tensor.detach(), rtol=rtol, atol=rtol)
            assert p.value.dtype == dtype


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_defaults_are_pytorchs(name: str) -> None:
    ours, theirs, _ = SETTINGS[name]
    optimizer, group = ours(parameters()), theirs([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert isinstance(optimizer, sg.Adam)
    assert (optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay) == (
        group["lr"], tuple(group["betas"]), group["eps"], group["weight_decay"]
    )  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_going_on_from_a_saved_state_gives_the_same_bits(name: str, dtype: Any) -> None:
    make, _, settings = SETTINGS[name]
    straight = make(parameters(dtype), lr=0.02, **settings)
    run(straight, range(10))
    first = make(parameters(dtype), lr=0.02, **settings)
    run(first, range(6))
    state = first.state_dict()
    second = make(parameters(dtype), lr=0.02, **settings)
    for p, q in zip(second.parameters, first.parameters, strict=True):
        p.value = q.value
    second.load_state_dict(state)
    run(first, range(6, 8))  # must not reach into what was saved or loaded
    for array in state.values():
        array[...] = 0
    run(second, range(6, 10))
    for p, q in zip(straight.parameters, second.parameters, strict=True):
        assert p.value.tobytes() == q.value.tobytes()
    expected = straight.state_dict()
    assert expected.keys() == second.state_dict().keys()
    assert all(np.array_equal(expected[key], array) for key, array in second.state_dict().items())


def test_the_state_is_named_after_the_parameters() -> None:
    optimizer = sg.Adam(parameters())
    assert optimizer.state_dict() == {}
    run(optimizer, range(3))
    state = optimizer.state_dict()
    assert sorted(state) == sorted(f"{i}.weight/{kind}" for i in range(3) for kind in ("mean", "square", "steps"))
    assert state["1.weight/steps"] == 3


@pytest.mark.parametrize(
    "state",
    [
        {"9.weight/mean": np.zeros((3, 2))},
        {"0.weight/mean": np.zeros((2, 3))},
        {"mean": np.zeros((3, 2))},
        {"1.weight/mean": np.zeros(4), "0.weight/mean": np.zeros(7)},
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    optimizer = sg.Adam(parameters())
    run(optimizer, range(2))
    before = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=r"optimizer state: .* does not fit this network"):
        optimizer.load_state_dict(state)
    assert all(np.array_equal(before[key], array) for key, array in optimizer.state_dict().items())


def test_the_state_of_another_optimizer_is_refused() -> None:
    values = parameters()
    adam = sg.Adam(values)
    run(adam, range(2))
    for other in (sg.SGD(values, 0.1, momentum=0.9), sg.SGD(values, 0.1)):
        with pytest.raises(CheckpointError, match="does not fit SGD: expected momentum of"):
            other.load_state_dict(adam.state_dict())
    with pytest.raises(CheckpointError, match="does not fit Adam: expected mean, square, steps"):
        adam.load_state_dict({"1.weight/mean": adam.state_dict()["1.weight/mean"]})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_parameter_without_gradient_stays_and_its_steps_are_its_own(name: str) -> None:
    make, theirs, settings = SETTINGS[name]
    values = parameters()
    tensors = [torch.nn.Parameter(torch.tensor(p.value)) for p in values]
    optimizer, oracle = make(values, lr=0.02, **settings), theirs(tensors, lr=0.02, **settings)
    for step in range(6):
        given = gradients(values, step)
        some = sg.Gradients({p: a for i, (p, a) in enumerate(given.items()) if step % (i + 1) == 0})
        for p, tensor in zip(values, tensors, strict=True):
            tensor.grad = torch.tensor(some[p]) if p in some else None
        before = [p.value for p in values]
        optimizer.step(some)
        oracle.step()
        for p, tensor, value in zip(values, tensors, before, strict=True):
            np.testing.assert_allclose(p.value, tensor.detach(), rtol=1e-12)
            assert (p.value is value) == (p not in some)


def test_gradients_and_old_values_are_not_touched() -> None:
    for make, _, settings in SETTINGS.values():
        values = parameters()
        optimizer = make(values, lr=0.1, **settings)
        given = gradients(values, 0)
        arrays, old = {p: a.copy() for p, a in given.items()}, {p: (p.value, p.value.copy()) for p in values}
        for _ in range(3):
            optimizer.step(given)
        for p in values:
            np.testing.assert_array_equal(given[p], arrays[p])
            np.testing.assert_array_equal(*old[p])


def test_a_gradient_of_a_parameter_not_trained_is_left_alone() -> None:
    values = parameters()
    before = values[2].value
    sg.SGD(values[:2], lr=0.1).step(gradients(values, 0))
    assert values[2].value is before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: sg.SGD(p, lr=-0.1), "lr: expected a number of at least 0, got -0.1"),
        (lambda p: sg.SGD(p, lr=float("nan")), "lr: expected a number of at least 0, got nan"),
        (lambda p: sg.SGD(p, lr=float("inf")), "lr: expected a number of at least 0, got inf"),
        (lambda p: sg.SGD(p, lr="fast"), "lr: expected a number of at least 0, got 'fast'"),
        (lambda p: sg.SGD(p, 0.1, momentum=1.0), "momentum: expected a number of at least 0 and below 1, got 1.0"),
        (lambda p: sg.SGD(p, 0.1, nesterov=True), "SGD: nesterov: needs a momentum above 0, got 0; set momentum=0.9"),
        (lambda p: sg.SGD(p, 0.1, weight_decay=-1), "weight_decay: expected a number of at least 0, got -1"),
        (lambda p: sg.Adam(p, betas=(0.9, 1.0)), "betas: expected a number of at least 0 and below 1, got 1.0"),
        (lambda p: sg.Adam(p, eps=-1e-8), "eps: expected a number of at least 0, got -1e-08"),
        (lambda p: sg.AdamW(p, weight_decay=-1), "weight_decay: expected a number of at least 0, got -1"),
    ],
)
def test_senseless_settings(make: Callable[[Any], Optimizer], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(parameters())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("constant", {0: 1, 0.5: 1, 1: 1}),
        ("step", {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1: 0.01}),
        ("cosine", {0: 1, 0.25: 0.5 + 0.125**0.5, 0.5: 0.5, 1: 0}),
        ("one-cycle", {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.5005, 1: 0.001}),
    ],
)
def test_schedules(name: str, points: dict[float, float]) -> None:
    for progress, factor in points.items():
        assert SCHEDULES[name](progress) == pytest.approx(factor, abs=1e-12)
    for progress in np.linspace(0, 1, 101):
        assert 0 <= SCHEDULES[name](progress) <= 1
    assert SCHEDULES[name](1.0) == pytest.approx(SCHEDULES[name](1 + 1e-12))


def test_every_schedule_is_tested() -> None:
    assert set(SCHEDULES) == {"constant", "step", "cosine", "one-cycle"}


def test_a_group_has_its_own_rate_again_after_a_step_and_after_a_mistake() -> None:
    net = sg.Network([sg.Linear(3, 2)], (3,))
    group = sg.SGD(net.parameters(), lr=0.1)
    both = sg.Combined(group)
    both.lr, group.lr = 0.5, 0.4
    weight = net.parameter("0.weight")
    before = weight.value
    both.step(sg.Gradients({weight: np.ones((2, 3), np.float32)}))
    assert np.allclose(weight.value, before - 0.2)
    with pytest.raises(sg.errors.ShapeError):
        both.step(sg.Gradients({weight: np.ones(2, np.float32)}))
    assert group.lr == 0.4
