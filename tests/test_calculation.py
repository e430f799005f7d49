"""A small network with its numbers: read, run, written, and everything that can be wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad.calculation import Calculation
from sharedgrad.errors import SharedgradError

LINEAR: dict[str, Any] = {"layer": "linear", "x": [1, 2], "w": [[1, -1], [0.5, 2]], "upstream": [1, -1]}
FULL: dict[str, Any] = {
    "title": "Two layers",
    "about": "One.\n\nTwo.",
    "source": [{"title": "a book", "url": "https://example.org"}],
    "nodes": [
        {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 2, "bias": False},
        {"name": "flatten", "layer": "Flatten"},
        {"name": "fc", "layer": "Linear", "in_features": 4, "out_features": 2},
    ],
    "numbers": {
        "x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "weights": {"conv.weight": [[1, 0], [0, -1]], "fc.weight": [[1, 2, 3, 4], [0, 1, 0, 1]], "fc.bias": [0.5, 1]},
        "loss": {"name": "MSE", "reduction": "half_sum", "target": [0, 1]},
        "upstream": {"conv": [[1, 0], [0, 2]]},
        "learning_rate": 0.1,
    },
    "focus": {"weight": "conv.weight[0,0,0,0]"},
}


def test_the_short_form() -> None:
    result = Calculation.of(
        {"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "b": 0, "upstream": [-0.1, 0.2], "learning_rate": 1}
    ).run()
    np.testing.assert_allclose(result.gradients["conv.weight"], [[[0.3, 0.4]]])
    np.testing.assert_allclose(result.gradients["conv.bias"], [0.1])
    np.testing.assert_allclose(result.trace.inputs["input"].reshape(-1), [-0.03, 0.01, 0.1])
    np.testing.assert_allclose(result.updated["conv.weight"], [[[0.0, 0.1]]], atol=1e-15)
    np.testing.assert_allclose(result.values["conv"], [[[1.3, 2.1]]])


def test_the_full_form_against_pytorch() -> None:
    result = Calculation.of(FULL).run()
    x = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3).requires_grad_()
    kernel = torch.tensor([[[[1.0, 0], [0, -1]]]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(FULL["numbers"]["weights"]["fc.weight"], dtype=torch.float64, requires_grad=True)
    maps = torch.conv2d(x, kernel)
    y = maps.flatten(1) @ weight.T + torch.tensor([0.5, 1])
    loss = 0.5 * ((y - torch.tensor([0.0, 1])) ** 2).sum()
    (loss + (maps * torch.tensor([[1.0, 0], [0, 2]])).sum()).backward()
    assert result.losses == (pytest.approx(loss.item()),)
    for ours, theirs in (
        (result.gradients["conv.weight"], kernel.grad),
        (result.gradients["fc.weight"], weight.grad),
        (result.trace.inputs["input"], x.grad),
    ):
        assert theirs is not None
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs.numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        result.updated["fc.weight"], weight.detach().numpy() - 0.1 * result.gradients["fc.weight"], rtol=1e-12
    )


@pytest.mark.parametrize("config", [FULL, LINEAR, {**LINEAR, "learning_rate": 3}])
def test_written_and_read_again_it_is_the_same(config: dict[str, Any]) -> None:
    written = json.loads(json.dumps(Calculation.of(config).to_config()))
    again = Calculation.of(written).to_config()
    assert again == written
    assert written["numbers"]["x"]["input"][0] is not None
    assert written.get("title", "") == config.get("title", "")


def test_numbers_keep_their_full_precision() -> None:
    x = [0.1 + 0.2, 1 / 3]
    assert Calculation.of({**LINEAR, "x": x}).to_config()["numbers"]["x"]["input"] == [x]


def test_two_calls_of_one_layer_have_one_weight_in_the_file() -> None:
    nodes = [
        {"name": "a", "layer": "Linear", "in_features": 1, "out_features": 1, "bias": False},
        {"name": "b", "reuses": "a"},
    ]
    config = {"nodes": nodes, "numbers": {"x": [[2]], "weights": {"a.weight": [[3]]}, "upstream": [[1]]}}
    calculation = Calculation.of(config)
    assert list(calculation.to_config()["numbers"]["weights"]) == ["a.weight"]
    np.testing.assert_allclose(calculation.run().gradients["a.weight"], [[12]])  # d(w·w·x)/dw


def test_running_changes_nothing() -> None:
    nodes = [{"name": "norm", "layer": "BatchNorm2d", "num_features": 1}]
    weights = {"norm.weight": [2], "norm.bias": [1]}
    x = np.arange(8.0).reshape(2, 1, 2, 2)
    calculation = Calculation.of({"nodes": nodes, "numbers": {"x": x, "weights": weights, "upstream": x}})
    before = calculation.to_config(), calculation.network.state_dict()
    first, second = calculation.run(), calculation.run()
    np.testing.assert_array_equal(first.gradients["norm.weight"], second.gradients["norm.weight"])
    assert calculation.to_config() == before[0]
    for name, value in calculation.network.state_dict().items():
        np.testing.assert_array_equal(value, before[1][name])


@pytest.mark.parametrize(
    ("layer", "x", "shape"),
    [
        ({"layer": "conv2d", "w": [[1]]}, np.ones((2, 2)), (1, 1, 2, 2)),
        ({"layer": "conv2d", "w": [[1]]}, np.ones((1, 2, 2)), (1, 1, 2, 2)),
        ({"layer": "conv2d", "w": [[1]]}, np.ones((3, 1, 2, 2)), (3, 1, 2, 2)),
        ({"layer": "conv1d", "w": np.ones((1, 2, 1))}, np.ones((2, 2)), (1, 2, 2)),
        ({"layer": "maxpool2d", "kernel_size": 2}, np.ones((2, 2)), (1, 1, 2, 2)),
        ({"layer": "linear", "w": [[1, 1]]}, np.ones(2), (1, 2)),
        ({"layer": "linear", "w": [[1, 1]]}, np.ones((3, 2)), (3, 2)),
        ({"layer": "rnn", "weight_ih_l0": [[1]], "weight_hh_l0": [[1]]}, np.ones(3), (1, 3, 1)),
        ({"layer": "relu"}, np.ones(3), (1, 3)),
    ],
)
def test_axes_may_be_left_out(layer: dict[str, Any], x: np.ndarray, shape: tuple[int, ...]) -> None:
    calculation = Calculation.of({**layer, "x": x, "upstream": _ones_like_the_output(layer, x)})
    assert calculation.inputs["input"].shape == shape


def _ones_like_the_output(layer: dict[str, Any], x: np.ndarray) -> Any:
    """In the shape that the error about a wrong one names."""
    with pytest.raises(SharedgradError) as error:
        Calculation.of({**layer, "x": x, "upstream": np.ones(97)})
    return np.ones([int(n) for n in re.findall(r"expected shape ([\d×]+)", str(error.value))[0].split("×")])


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "calculation: expected an object, got list"),
    "empty": ({}, "numbers: expected an object of names and values, got nothing"),
    "no nodes": ({"numbers": {"x": 1}}, 'network configuration: expected an object with a list "nodes"'),
    "unknown key": ({**FULL, "nubmers": {}}, "network configuration: unknown key 'nubmers', did you mean 'numbers'?"),
    "unknown layer": ({**LINEAR, "layer": "linera"}, "layer: there is no layer 'linera', did you mean 'Linear'?"),
    "unknown option": ({**LINEAR, "stirde": 1}, "node 'linear' (Linear): unknown key 'stirde'; known are"),
    "missing option": ({"layer": "maxpool2d", "x": [1], "upstream": 1}, "node 'maxpool2d"[:13]),
    "no x": ({"layer": "linear", "w": [[1]], "upstream": 1}, "numbers: x: is missing"),
    "ragged x": ({**LINEAR, "x": [[1, 2], [3]]}, "numbers: x: expected an array of numbers"),
    "words in x": ({**LINEAR, "x": [1, "two"]}, "numbers: x: expected an array of numbers"),
    "NaN in x": ({**LINEAR, "x": [1, float("nan")]}, "numbers: x: expected finite numbers"),
    "empty x": ({**LINEAR, "x": []}, "numbers: x: expected numbers, got none"),
    "x that does not fit": ({**LINEAR, "x": [1, 2, 3]}, "layer 'linear' (Linear): expected 2 features"),
    "upstream of another shape": (
        {**LINEAR, "upstream": [1]},
        "numbers: upstream at 'linear': expected shape 1×2, got 1",
    ),
    "upstream at no node": ({**LINEAR, "upstream": {"q": 1}}, "numbers: upstream: there is no node 'q'"),
    "nothing goes back": (
        {k: v for k, v in LINEAR.items() if k != "upstream"},
        "expected an upstream gradient or a loss",
    ),
    "no such loss": ({**LINEAR, "loss": {"name": "MAE"}}, "numbers: loss: name: expected one of MSE, CrossEntropy"),
    "no target": ({**LINEAR, "loss": {"name": "MSE"}}, "numbers: loss: target: is missing"),
    "a target that does not fit": (
        {**LINEAR, "loss": {"name": "MSE", "target": [1, 2, 3]}},
        "numbers: loss: target: expected shape 1×2, got 3",
    ),
    "no such class": (
        {**LINEAR, "loss": {"name": "CrossEntropy", "target": 7}},
        "numbers: loss: target: expected classes from 0 to 1, got 7",
    ),
    "no such reduction": (
        {**LINEAR, "loss": {"name": "MSE", "target": [1, 2], "reduction": "all"}},
        "MSE: reduction: expected one of mean, sum, half_sum",
    ),
    "unknown key of a loss": (
        {**LINEAR, "loss": {"name": "MSE", "target": [1, 2], "reduce": "sum"}},
        "numbers: loss: unknown key 'reduce', did you mean 'reduction'?",
    ),
    "learning rate": ({**LINEAR, "learning_rate": -1}, "numbers: learning_rate: expected a positive number, got -1"),
    "learning rate in words": (
        {**LINEAR, "learning_rate": "0.1"},
        "numbers: learning_rate: expected a positive number",
    ),
    "kernel of too many axes": (
        {"layer": "conv1d", "x": [1, 2], "w": [[[[1]]]], "upstream": 1},
        "w: expected 1 axes, or filters×channels and 1 axes, got shape 1×1×1×1",
    ),
    "missing weight": (
        {**FULL, "numbers": {**FULL["numbers"], "weights": {"conv.weight": [[1, 0], [0, 1]]}}},
        "numbers: weights: fc.weight: is missing, expected shape 2×4",
    ),
    "unknown weight": (
        {**FULL, "numbers": {**FULL["numbers"], "weights": {"conv.wieght": 1}}},
        "numbers: weights: there is no 'conv.wieght', did you mean 'conv.weight'?",
    ),
    "unknown number": ({**FULL, "numbers": {**FULL["numbers"], "lr": 1}}, "numbers: unknown key 'lr'; known are"),
    "title": ({**FULL, "title": 5}, "title: expected a text, got int"),
    "source": ({**FULL, "source": [{"link": 1}]}, "source: expected an address"),
    "focus": ({**FULL, "focus": {"weight": 3}}, "focus: expected texts"),
}


@pytest.mark.parametrize(("config", "message"), WRONG.values(), ids=WRONG)
def test_one_line_names_the_field(config: Any, message: str) -> None:
    with pytest.raises(SharedgradError) as error:
        Calculation.of(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**LINEAR, "x": "no"}))
    with pytest.raises(SharedgradError, match=r"mine\.json: numbers: x: expected an array of numbers"):
        Calculation.read(path)
    path.write_text("{")
    with pytest.raises(SharedgradError, match=r"mine\.json: is not valid JSON"):
        Calculation.read(path)


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('layer = "conv1d"\nx = [1, 2, 3]\nw = [0.3, 0.5]\nupstream = [-0.1, 0.2]\n')
    np.testing.assert_allclose(Calculation.read(path).run().gradients["conv.weight"], [[[0.3, 0.4]]])
