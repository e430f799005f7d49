"""Losses against PyTorch and against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import sharedgrad as sg
from sharedgrad.errors import ConfigError, DataError, ShapeError

Loss = Callable[[Any, Any], tuple[float, Any]]
RNG = np.random.default_rng(28593)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(28593)


def agrees(loss: Loss, y: Any, target: Any, oracle: Callable[[torch.Tensor], torch.Tensor], rtol: float = 1e-9) -> None:
    """Value and upstream are PyTorch's, in the type that came in; nothing that came in is changed."""
    y, target = np.array(y), np.array(target)
    before, goal = y.copy(), target.copy()
    value, upstream = loss(y, target)
    tensor = torch.tensor(y, requires_grad=True)
    expected = oracle(tensor)
    expected.backward()
    assert isinstance(value, float)
    assert value == pytest.approx(float(expected.detach()), rel=rtol)
    assert (upstream.shape, upstream.dtype) == (y.shape, y.dtype)
    np.testing.assert_allclose(upstream, tensor.grad, rtol=rtol, atol=rtol * min(np.abs(upstream).max(), 1))
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(target, goal)


def differences(loss: Loss, y: Any, target: Any) -> None:
    _, upstream = loss(y, target)
    step = 1e-6
    for index in np.ndindex(y.shape):
        up, down = y.copy(), y.copy()
        up[index] += step
        down[index] -= step
        numeric = (loss(up, target)[0] - loss(down, target)[0]) / (2 * step)
        assert upstream[index] == pytest.approx(numeric, rel=1e-6, abs=1e-8)


TYPES = [(np.float64, 1e-9), (np.float32, 1e-5)]


@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "half_sum"])
def test_mse(reduction: str, shape: tuple[int, ...], dtype: Any, rtol: float, rng: np.random.Generator) -> None:
    y, target = rng.normal(size=(2, *shape)).astype(dtype)
    kind = "mean" if reduction == "mean" else "sum"
    factor = 0.5 if reduction == "half_sum" else 1.0
    goal = torch.tensor(target)
    agrees(sg.MSE(reduction), y, target, lambda t: factor * functional.mse_loss(t, goal, reduction=kind), rtol)


def test_half_the_sum_of_squares_has_the_difference_itself_as_upstream() -> None:
    value, upstream = sg.MSE("half_sum")([0.75, 0.77], [0.01, 0.99])
    assert value == pytest.approx(0.5 * (0.74**2 + 0.22**2))
    np.testing.assert_allclose(upstream, [0.74, -0.22], rtol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("positions", [(), (3,), (4, 2)])
def test_cross_entropy(
    positions: tuple[int, ...], reduction: str, smoothing: float, dtype: Any, rtol: float, rng: np.random.Generator
) -> None:
    y = (3 * rng.normal(size=(6, 5, *positions))).astype(dtype)
    target = rng.integers(0, 5, (6, *positions))
    goal = torch.tensor(target)
    agrees(
        sg.CrossEntropy(smoothing, reduction),
        y,
        target,
        lambda t: functional.cross_entropy(t, goal, reduction=reduction, label_smoothing=smoothing),
        rtol,
    )


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_classes_may_be_integers_of_any_size(kind: Any, rng: np.random.Generator) -> None:
    y, target = rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
    value, upstream = sg.CrossEntropy()(y, target.astype(kind))
    assert value == sg.CrossEntropy()(y, target.tolist())[0]
    np.testing.assert_allclose(upstream.sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_extreme_scores(smoothing: float, dtype: Any) -> None:
    y = np.array([[1e4, 0, -1e4], [-1e30, 1e30, 0], [1e4, 1e4, 1e4]], dtype)
    target = np.array([0, 1, 2])
    goal = torch.tensor(target)
    agrees(
        sg.CrossEntropy(smoothing),
        y,
        target,
        lambda t: functional.cross_entropy(t, goal, label_smoothing=smoothing),
        1e-6,
    )


def test_a_class_ruled_out_costs_nothing_where_it_is_not_asked_for() -> None:
    y, target = np.array([[0.5, -np.inf, 1.0]]), np.array([2])
    agrees(sg.CrossEntropy(), y, target, lambda t: functional.cross_entropy(t, torch.tensor(target)))


@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_cross_entropy_of_scores(reduction: str, dtype: Any, rtol: float, rng: np.random.Generator) -> None:
    y = np.array([[-800, -30, -2, -0.1], [0, 0.3, 25, 900]], dtype)
    target = rng.random((2, 4)).astype(dtype)
    target[0, 0], target[1, 3], target[0, 1] = 0, 1, 1
    goal = torch.tensor(target)
    agrees(
        sg.BinaryCrossEntropy(reduction=reduction),
        y,
        target,
        lambda t: functional.binary_cross_entropy_with_logits(t, goal, reduction=reduction),
        rtol,
    )


@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_cross_entropy_of_probabilities(reduction: str, dtype: Any, rtol: float) -> None:
    loss = sg.BinaryCrossEntropy(from_logits=False, reduction=reduction)
    y = np.array([[0.2, 0.7, 0.999], [0.3, 1e-6, 0.5]], dtype)
    target = np.array([[0.0, 1.0, 0.9], [0.2, 1.0, 0.5]], dtype)
    goal = torch.tensor(target)
    agrees(loss, y, target, lambda t: functional.binary_cross_entropy(t, goal, reduction=reduction), rtol)
    ends, right = np.array([0, 1, 0, 1], dtype), np.array([0, 1, 1, 0], dtype)
    goal = torch.tensor(right)
    agrees(loss, ends, right, lambda t: functional.binary_cross_entropy(t, goal, reduction=reduction), 1e-6)


def test_both_forms_of_binary_cross_entropy_meet_behind_a_sigmoid(rng: np.random.Generator) -> None:
    z, target = rng.normal(size=(3, 4)), rng.random((3, 4))
    p, tape = sg.Network([sg.Sigmoid()], dtype="float64").forward(z)
    value, upstream = sg.BinaryCrossEntropy(from_logits=False)(p, target)
    direct, expected = sg.BinaryCrossEntropy()(z, target)
    assert value == pytest.approx(direct, rel=1e-12)
    np.testing.assert_allclose(tape.backward(upstream, inputs=True).inputs["input"], expected, rtol=1e-10)


def test_cross_entropy_is_the_logarithm_behind_a_softmax(rng: np.random.Generator) -> None:
    z, target = rng.normal(size=(3, 4)), np.array([1, 3, 0])
    p, tape = sg.Network([sg.Softmax()], dtype="float64").forward(z)
    upstream = np.zeros_like(p)
    upstream[range(3), target] = -1 / p[range(3), target] / 3
    value, expected = sg.CrossEntropy()(z, target)
    assert value == pytest.approx(-np.log(p[range(3), target]).mean(), rel=1e-12)
    np.testing.assert_allclose(tape.backward(upstream, inputs=True).inputs["input"], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("loss", "y", "target"),
    [
        (sg.MSE(), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))),
        (sg.MSE("sum"), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))),
        (sg.MSE("half_sum"), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))),
        (sg.CrossEntropy(), RNG.normal(size=(3, 4)), np.array([1, 3, 0])),
        (sg.CrossEntropy(0.2, "sum"), RNG.normal(size=(2, 3, 2)), RNG.integers(0, 3, (2, 2))),
        (sg.BinaryCrossEntropy(), RNG.normal(size=(2, 3)), RNG.random((2, 3))),
        (sg.BinaryCrossEntropy(False, "sum"), RNG.uniform(0.1, 0.9, (2, 3)), RNG.random((2, 3))),
    ],
)
def test_the_upstream_is_the_derivative_of_the_value(loss: Loss, y: Any, target: Any) -> None:
    differences(loss, y, target)


def test_mean_divides_by_the_number_of_targets_and_sum_by_nothing(rng: np.random.Generator) -> None:
    y, target = rng.normal(size=(4, 3, 2)), rng.integers(0, 3, (4, 2))
    np.testing.assert_allclose(sg.CrossEntropy(reduction="sum")(y, target)[1] / 8, sg.CrossEntropy()(y, target)[1])
    goal = rng.random((4, 3, 2))
    for loss in (sg.MSE, lambda reduction: sg.BinaryCrossEntropy(reduction=reduction)):
        np.testing.assert_allclose(loss("sum")(y, goal)[1] / 24, loss("mean")(y, goal)[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.MSE("avg"), "MSE: reduction: expected one of mean, sum, half_sum, got 'avg'"),
        (lambda: sg.CrossEntropy(reduction="half_sum"), "CrossEntropy: reduction: expected one of mean, sum, got"),
        (lambda: sg.CrossEntropy(1.0), "CrossEntropy: label_smoothing: expected 0 to below 1, got 1.0"),
        (lambda: sg.CrossEntropy(-0.1), "CrossEntropy: label_smoothing: expected 0 to below 1, got -0.1"),
        (lambda: sg.BinaryCrossEntropy(reduction="x"), "BinaryCrossEntropy: reduction: expected one of mean, sum"),
    ],
)
def test_senseless_arguments(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("loss", "y", "target", "error", "message"),
    [
        (sg.MSE(), np.ones((2, 3)), np.ones((2, 1)), ShapeError, "expected a target of the output's shape (2, 3)"),
        (sg.MSE(), np.ones((0, 3)), np.ones((0, 3)), ShapeError, "expected at least one output"),
        (sg.CrossEntropy(), np.ones((2, 3)), np.zeros((2, 1), int), ShapeError, "expected scores (N, C) and classes"),
        (sg.CrossEntropy(), np.ones(3), np.zeros((), int), ShapeError, "expected scores (N, C) and classes"),
        (sg.CrossEntropy(), np.ones((2, 3)), np.array([0.0, 1.0]), DataError, "expected class numbers as integers"),
        (sg.CrossEntropy(), np.ones((2, 3)), np.array([0, 3]), DataError, "expected classes from 0 to 2, got 0 to 3"),
        (sg.CrossEntropy(), np.ones((2, 3)), np.array([-1, 2]), DataError, "expected classes from 0 to 2, got -1 to 2"),
        (sg.BinaryCrossEntropy(), np.ones(2), np.array([0, 1.5]), DataError, "expected targets from 0 to 1"),
        (sg.BinaryCrossEntropy(False), np.array([0.5, 2]), np.ones(2), DataError, "expected y from 0 to 1"),
    ],
)
def test_outputs_and_targets_that_do_not_fit(loss: Loss, y: Any, target: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        loss(y, target)
    assert message in str(caught.value)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("positions", [(), (3, 2)])
def test_soft_targets_and_class_weights_are_pytorchs(
    reduction: str, smoothing: float, weighted: bool, soft: bool, positions: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(8)
    y = rng.normal(size=(7, 4, *positions)) * 3
    weight = [0.5, 2.0, 0.0, 1.3] if weighted else None
    if soft:
        target = rng.random(y.shape)
        target /= target.sum(axis=1, keepdims=True)
    else:
        target = rng.integers(0, 4, (7, *positions))
    value, upstream = sg.CrossEntropy(smoothing, reduction, weight)(y, target)
    scores = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        scores,
        torch.tensor(target),
        weight=None if weight is None else torch.tensor(weight, dtype=torch.float64),
        reduction=reduction,
        label_smoothing=smoothing,
    )
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(upstream, scores.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_one_hot_classes_are_classes() -> None:
    y, labels = np.random.default_rng(1).normal(size=(6, 4)), np.array([0, 3, 1, 2, 2, 0])
    for one_hot in (np.eye(4)[labels], np.eye(4, dtype=int)[labels], np.eye(4, dtype=bool)[labels]):
        value, upstream = sg.CrossEntropy()(y, one_hot)
        expected, gradient = sg.CrossEntropy()(y, labels)
        assert value == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(upstream, gradient, rtol=1e-10, atol=1e-14)
    assert sg.CrossEntropy()(y.astype(np.float32), np.eye(4)[labels])[1].dtype == np.float32


@pytest.mark.parametrize("wrong", [np.full((2, 3), 0.5), [[2.0, -1.0, 0.0]] * 2, np.full((2, 3), np.nan)])
def test_soft_targets_that_are_no_probabilities(wrong: object) -> None:
    with pytest.raises(DataError, match="expected one-hot or soft targets from 0 up that add to 1"):
        sg.CrossEntropy()(np.zeros((2, 3)), wrong)


@pytest.mark.parametrize("weight", [[1, -1], [np.nan, 1], [0, 0], 1.0])
def test_senseless_class_weights(weight: object) -> None:
    with pytest.raises(ConfigError, match="CrossEntropy: weight: expected"):
        sg.CrossEntropy(weight=weight)


def test_class_weights_by_name() -> None:
    message = "expected a number for each class, in the order of the classes, got a dict; pass a list"
    with pytest.raises(ConfigError, match=message):
        sg.CrossEntropy(weight={0: 1.0, 1: 2.0})


def test_class_weights_of_another_number_of_classes() -> None:
    with pytest.raises(ConfigError, match="expected a weight for each of 3 classes, got 2"):
        sg.CrossEntropy(weight=[1, 2])(np.zeros((2, 3)), np.array([0, 1]))


def test_a_column_of_labels_is_told_how_to_become_a_row() -> None:
    with pytest.raises(ShapeError, match=r"pass target\[:, 0\]"):
        sg.CrossEntropy()(np.zeros((2, 3)), np.array([[0], [1]]))
