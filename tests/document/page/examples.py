"""Small networks with random numbers for the page, and what the engine makes of them.

Between them they hold every layer, loss and kind of sharing that the page computes again, with non-default settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad.calculation import Calculation, Result
from sharedgrad.explaining.gallery import entries
from tests.helpers import Array

Example = dict[str, Any]
Example = dict[str, Any]


def engine(example: Mapping[str, Any]) -> Result:
    """What the engine makes of the numbers that the page holds."""
    return Calculation.of(example).run()


def weights(result: Result) -> dict[str, Array]:
    """Parameter name -> gradient, of those that are reached."""
    return {p.name: result.gradients[p] for p in result.gradients}


def draw(example: Example, seed: int, batch: int) -> Example:
    """The example with random numbers of the right shapes: inputs, weights, targets, upstream gradients."""
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Any:
        return np.round(rng.normal(size=shape), 2).tolist()

    net = sg.Network.from_config({k: example[k] for k in ("inputs", "nodes", "ties") if k in example})
    shapes = net.shapes()
    numbers: dict[str, Any] = {
        "x": {name: some(batch, *shape) for name, shape in example["inputs"].items()},
        "weights": {p.name: some(*p.shape) for p in net.parameters()},
        "learning_rate": 0.1,
    }
    given = example["numbers"]
    if "upstream" in given:
        numbers["upstream"] = {node: some(batch, *shapes[node]) for node in given["upstream"]}
    for entry in given.get("loss", []):
        shape = (batch, *shapes[entry["node"]])
        if entry["name"] == "CrossEntropy":
            target: Any = rng.integers(0, shape[1], (shape[0], *shape[2:])).tolist()
        elif entry["name"] == "BinaryCrossEntropy":
            target = np.round(rng.random(shape), 2).tolist()
        else:
            target = some(*shape)
        numbers.setdefault("loss", []).append({**entry, "target": target})
    return Calculation.of({**example, "numbers": numbers}).to_config()


def node(name: str, layer: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "layer": layer, **arguments}


_PART = [[1, 4, 2], [0, 4, 1]]
CONV = {"in_channels": 2, "out_channels": 2, "kernel_size": 2}
_SHAPES: dict[str, tuple[Example, int]] = {
    "filter": (
        {
            "title": "A filter of two weights",
            "inputs": {"x": [1, 4]},
            "nodes": [node("conv", "Conv1d", in_channels=1, out_channels=1, kernel_size=2)],
            "numbers": {"upstream": ["conv"]},
        },
        1,
    ),
    "geometry": (
        {
            "title": "Stride, padding, dilation and groups",
            "inputs": {"x": [4, 5, 6]},
            "nodes": [
                node("conv", "Conv2d", in_channels=4, out_channels=4, kernel_size=[2, 3], stride=[2, 1])
                | {"padding": [[1, 0], [2, 1]], "dilation": [1, 2], "groups": 2, "padding_mode": "reflect"},
                node("relu", "ReLU"),
                node("pool", "MaxPool2d", kernel_size=2, stride=1, ties="share", padding=1),
                node(
                    "average", "AvgPool2d", kernel_size=[2, 3], stride=[1, 2], padding=[0, 1], count_include_pad=False
                ),
            ],
            "numbers": {"upstream": ["average", "conv"]},
        },
        2,
    ),
    "classifier": (
        {
            "title": "Convolution, pooling, dense, cross-entropy",
            "inputs": {"x": [1, 6, 6]},
            "nodes": [
                node("conv", "Conv2d", in_channels=1, out_channels=2, kernel_size=3, padding="same"),
                node("tanh", "Tanh"),
                node("pool", "MaxPool2d", kernel_size=2),
                node("flat", "Flatten"),
                node("fc", "Linear", in_features=18, out_features=3),
            ],
            "numbers": {"loss": [{"name": "CrossEntropy", "node": "fc", "label_smoothing": 0.1, "reduction": "mean"}]},
        },
        2,
    ),
    "recurrent": (
        {
            "title": "Three steps of a recurrent layer, then tokens",
            "inputs": {"x": [3, 2]},
            "nodes": [
                node("rnn", "RNN", input_size=2, hidden_size=3),
                node("out", "Linear", in_features=3, out_features=2),
                node("softmax", "Softmax"),
            ],
            "numbers": {
                "upstream": ["rnn"],
                "loss": [{"name": "MSE", "node": "softmax", "reduction": "half_sum"}],
            },
        },
        2,
    ),
    "last": (
        {
            "title": "The last state of a recurrent layer",
            "inputs": {"x": [3, 1]},
            "nodes": [
                node("rnn", "RNN", input_size=1, hidden_size=2, last=True, bias=False),
                node("out", "Linear", in_features=2, out_features=1),
            ],
            "numbers": {"loss": [{"name": "BinaryCrossEntropy", "node": "out", "reduction": "sum"}]},
        },
        2,
    ),
    "siamese": (
        {
            "title": "Two inputs through one kernel, and a weight that is tied",
            "inputs": {"left": [1, 5], "right": [1, 5]},
            "nodes": [
                node("a", "Conv1d", in_channels=1, out_channels=2, kernel_size=3, padding=1, inputs=["left"]),
                {"name": "b", "reuses": "a", "inputs": ["right"]},
                node("both", "Concat", axis=1, inputs=["a", "b"]),
                node("pair", "Conv1d", in_channels=4, out_channels=2, kernel_size=1, groups=4 // 2, bias=False),
                node("sum", "Add", inputs=["pair", "a"]),
                node("local", "LocallyConnected1d", in_channels=2, out_channels=1, input_size=5, kernel_size=2),
                node("sigmoid", "Sigmoid"),
                node("flat", "Flatten"),
                node("up", "Linear", in_features=4, out_features=4),
                node("again", "Linear", in_features=4, out_features=4),
                node("back", "Linear", in_features=4, out_features=2),
            ],
            "ties": {
                "again.weight": "up.weight",
                "back.weight": {
                    "parameter": "up.weight",
                    "view": [{"transpose": [1, 0]}, {"slice": [[1, 4, 2], [0, 4, 1]]}],
                },
            },
            "numbers": {"upstream": ["sum"], "loss": [{"name": "MSE", "node": "back", "reduction": "mean"}]},
        },
        2,
    ),
    "average": (
        {
            "title": "Overlapping averages",
            "inputs": {"x": [2, 4, 4]},
            "nodes": [
                node("local", "LocallyConnected2d", input_size=4, stride=2, padding=1, **CONV),
                node("average", "AvgPool2d", kernel_size=2, stride=1, padding=1),
                node("reshape", "Reshape", shape=[2, 2, 8]),
                node("global", "GlobalAvgPool"),
            ],
            "numbers": {"upstream": ["global"], "loss": [{"name": "MSE", "node": "global", "reduction": "sum"}]},
        },
        1,
    ),
    "many": (
        {
            "title": "900 uses of nine weights",
            "inputs": {"x": [1, 32, 32]},
            "nodes": [node("conv", "Conv2d", in_channels=1, out_channels=1, kernel_size=3)],
            "numbers": {"upstream": ["conv"]},
        },
        1,
    ),
}

GALLERY: dict[str, Example] = {entry.name: entry.calculation.to_config() for entry in entries()}
EXAMPLES = {name: draw(example, seed, batch) for seed, (name, (example, batch)) in enumerate(_SHAPES.items())}
