"""Every printed formula, with the numbers put in, gives the engine's values: over random geometries and networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sharedgrad.calculation import Calculation
from sharedgrad.document import terminal
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import explain
from sharedgrad.explaining.whole import document
from sharedgrad.models import lenet5
from tests.explaining.reading import check


def random(rng: np.random.Generator, *shape: int) -> Any:
    return np.round(rng.normal(size=shape), 2).tolist()


def filled(config: dict[str, Any], rng: np.random.Generator, x: Any) -> dict[str, Any]:
    """A network's configuration, with random weights and upstream gradients."""
    from sharedgrad.network import Network

    shapes = {name: tuple(np.shape(array)[1:]) for name, array in x.items()}
    network = Network.from_config({**config, "inputs": {n: list(s) for n, s in shapes.items()}})
    samples = len(next(iter(x.values())))
    names = set(network.state_dict()) - set(network.aliases())
    weights = {p.name: random(rng, *p.shape) for p in network.parameters() if p.name in names}
    upstream = {name: random(rng, samples, *network.shapes()[name]) for name in network.outputs}
    numbers = {"x": x, "weights": weights, "upstream": upstream, "learning_rate": 0.1}
    return {**config, "inputs": {n: list(s) for n, s in shapes.items()}, "numbers": numbers}


def convolution(rng: np.random.Generator) -> dict[str, Any]:
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    channels, filters = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
    kernel = [int(k) for k in rng.integers(1, 4, rank)]
    layer = {
        "name": "conv",
        "layer": f"Conv{rank}d",
        "in_channels": channels,
        "out_channels": filters,
        "kernel_size": kernel,
        "stride": [int(s) for s in rng.integers(1, 4, rank)],
        "padding": [[int(a), int(b)] for a, b in rng.integers(0, 3, (rank, 2))],
        "dilation": [int(d) for d in rng.integers(1, 3, rank)],
        "groups": groups,
        "bias": bool(rng.integers(0, 2)),
    }
    size = [int(n) for n in rng.integers(5, 8, rank)]
    return filled({"nodes": [layer]}, rng, {"input": random(rng, int(rng.integers(1, 3)), channels, *size)})


@pytest.mark.parametrize("seed", range(30))
def test_a_convolution_of_any_geometry(seed: int) -> None:
    calculation = Calculation.of(convolution(np.random.default_rng(seed)))
    found = explain(calculation)
    assert check(found.document) > 10


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_convolution_that_pads_with_its_input(mode: str) -> None:
    rng = np.random.default_rng(5)
    layer = {"name": "c", "layer": "Conv2d", "in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1}
    config = filled({"nodes": [{**layer, "padding_mode": mode}]}, rng, {"input": random(rng, 1, 2, 4, 5)})
    assert check(explain(config).document) > 10


LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("MaxPool2d", {"kernel_size": 2, "stride": 1, "padding": 1}, (2, 2, 4, 5)),
    ("MaxPool2d", {"kernel_size": [2, 3], "ties": "share"}, (1, 1, 4, 6)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "ties": "last"}, (1, 2, 7)),
    ("AvgPool2d", {"kernel_size": 2, "stride": 1}, (1, 2, 4, 3)),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, (1, 1, 5, 5)),
    ("AvgPool1d", {"kernel_size": 2, "padding": 1}, (2, 1, 5)),
    ("GlobalAvgPool", {}, (2, 2, 3, 2)),
    ("Linear", {"in_features": 3, "out_features": 2}, (2, 3)),
    ("Linear", {"in_features": 2, "out_features": 3, "bias": False}, (1, 4, 2)),
    ("Sigmoid", {}, (2, 3)),
    ("Tanh", {}, (1, 2, 2, 3)),
    ("ReLU", {}, (1, 2, 3)),
    ("Softmax", {}, (2, 3)),
    ("RNN", {"input_size": 2, "hidden_size": 2}, (1, 3, 2)),
    ("RNN", {"input_size": 1, "hidden_size": 3, "last": True}, (2, 4, 1)),
    ("RNN", {"input_size": 2, "hidden_size": 2, "bias": False}, (1, 1, 2)),
    ("LocallyConnected2d", {"in_channels": 1, "out_channels": 2, "input_size": [4, 3], "kernel_size": 2}, (1, 1, 4, 3)),
    ("LocallyConnected1d", {"in_channels": 2, "out_channels": 1, "input_size": 5, "kernel_size": 2}, (2, 2, 5)),
    ("BatchNorm2d", {"num_features": 2}, (2, 2, 2, 2)),
    ("Flatten", {}, (1, 2, 2)),
]


@pytest.mark.parametrize(("kind", "options", "shape"), LAYERS)
def test_every_layer(kind: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(kind))
    config = filled({"nodes": [{"name": "it", "layer": kind, **options}]}, rng, {"input": random(rng, *shape)})
    found = explain(config)
    assert check(found.document) >= (0 if kind == "Flatten" else 4)
    assert max(map(len, found.text().splitlines())) <= 80


def test_a_network_with_a_shared_layer_two_paths_and_two_losses() -> None:
    rng = np.random.default_rng(1)
    nodes = [
        {"name": "left", "layer": "Linear", "in_features": 3, "out_features": 2, "inputs": ["a"]},
        {"name": "right", "reuses": "left", "inputs": ["b"]},
        {"name": "sum", "layer": "Add", "inputs": ["left", "right"]},
        {"name": "relu", "layer": "ReLU"},
        {"name": "both", "layer": "Concat", "inputs": ["relu", "left"]},
        {"name": "out", "layer": "Linear", "in_features": 4, "out_features": 3},
    ]
    config = filled({"nodes": nodes}, rng, {"a": random(rng, 2, 3), "b": random(rng, 2, 3)})
    config["numbers"]["loss"] = [
        {"name": "CrossEntropy", "node": "out", "target": [2, 0]},
        {"name": "MSE", "node": "sum", "target": random(rng, 2, 2), "reduction": "sum"},
    ]
    found = explain(config)
    assert check(found.document) > 40
    text = " ".join(found.text().split())
    assert "Gradients come back on 2 paths; they add" in text
    assert "left.w is one weight for 4 uses (sample 2 + sample 2)" in text


@pytest.mark.parametrize("reduction", ["mean", "sum", "half_sum"])
def test_losses(reduction: str) -> None:
    config = {"layer": "linear", "x": [[1, 2], [3, 4]], "w": [[1, -1], [0.5, 2]], "learning_rate": 1}
    loss = {"name": "MSE", "reduction": reduction, "target": [[1, 0], [0, 1]]}
    assert check(explain({**config, "loss": loss}).document) > 10
    if reduction != "half_sum":
        loss = {"name": "CrossEntropy", "reduction": reduction, "target": [1, 0]}
        assert check(explain({**config, "loss": loss}).document) > 10


def test_a_part_of_a_large_array_is_written_and_the_rest_is_counted() -> None:
    rng = np.random.default_rng(0)
    layer = {"name": "conv", "layer": "Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 3}
    found = explain(filled({"nodes": [layer]}, rng, {"input": random(rng, 2, 3, 12, 10)}), layer="conv")
    text = found.text()
    assert check(found.document) > 10
    assert len(text.splitlines()) < 700
    assert "(1,274 more lines; these are the largest; ask for all with --all)" in " ".join(text.split())
    assert "148 more terms" in " ".join(text.split())


def test_a_network_that_is_too_large_is_summarized() -> None:
    rng = np.random.default_rng(0)
    net = lenet5((1, 28, 28), 10)
    found = explain(filled({**net.to_config(), "dtype": "float64"}, rng, {"input": random(rng, 1, 1, 28, 28)}))
    text = found.text()
    assert check(found.document) == 1
    assert len(text.splitlines()) < 150
    words = " ".join(text.split())
    assert (
        f"numbers, too many to write out: {len(net.nodes)} layers left out. Ask for one of them, e.g. --layer" in words
    )
    for node in net:
        assert node.name in words
    with pytest.raises(ConfigError, match="too many to write out"):
        explain(found.calculation, everything=True)
    assert check(explain(found.calculation, layer="fc2").document) > 10


def test_everything_is_written_where_it_is_asked_for() -> None:
    config = {"layer": "conv2d", "x": np.arange(36.0).reshape(6, 6), "w": [[1, 2], [3, 4]], "upstream": np.ones((5, 5))}
    few, all_of_it = explain(config).text(), explain(config, everything=True).text()
    assert "more lines" in few
    assert "more" not in all_of_it.replace("moved by more than one", "")
    assert "y[4,4] =" in all_of_it


def test_the_terminal_is_never_wider_than_asked_for() -> None:
    calculation = Calculation.of(convolution(np.random.default_rng(3)))
    found = explain(calculation)
    for width in (80, 60, 100):
        assert max(map(len, terminal.render(found.document, width).splitlines())) <= width


def test_a_renamed_node_shows_in_every_name() -> None:
    nodes = [{"name": "first", "layer": "ReLU"}, {"name": "second", "layer": "Tanh"}]
    config = {"nodes": nodes, "inputs": {"input": [2]}, "numbers": {"x": [1, -1], "weights": {}, "upstream": [1, 2]}}
    calculation = Calculation.of(config)
    from sharedgrad.explaining.cells import Limits

    text = terminal.render(document(calculation, calculation.run(), Limits()))
    assert "second.y[0] = tanh(first.y[0]) = tanh(1) = 0.761594" in text


def test_a_weight_and_its_transpose_are_one_weight() -> None:
    nodes = [
        {"name": "encoder", "layer": "Linear", "in_features": 3, "out_features": 2, "bias": False},
        {"name": "tanh", "layer": "Tanh"},
        {"name": "decoder", "layer": "Linear", "in_features": 2, "out_features": 3, "bias": False},
    ]
    ties = {"decoder.weight": {"parameter": "encoder.weight", "view": [{"transpose": [1, 0]}]}}
    rng = np.random.default_rng(4)
    numbers = {
        "x": random(rng, 2, 3),
        "weights": {"encoder.weight": random(rng, 2, 3)},
        "upstream": random(rng, 2, 3),
        "learning_rate": 0.5,
    }
    found = explain({"nodes": nodes, "ties": ties, "inputs": {"input": [3]}, "numbers": numbers})
    assert check(found.document) > 25
    text = " ".join(found.text().split())
    assert "encoder.w is one weight for 4 uses" in text
    assert "decoder.w[0,0]·tanh.y[0,0]" in text
    again = Calculation.of(found.calculation.to_config())
    np.testing.assert_array_equal(
        again.run().updated["encoder.weight"], found.calculation.run().updated["encoder.weight"]
    )
