"""Networks as plain data: written, read back, and refused in one line where they make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import configuration
from sharedgrad.errors import ConfigError, ShapeError, SharedgradError
from sharedgrad.models import MODELS


def again(net: sg.Network) -> sg.Network:
    """Through JSON text and back: the same structure, the same first weights."""
    config = net.to_config()
    text = json.dumps(config)
    read = sg.Network.from_config(json.loads(text))
    assert read.to_config() == config
    assert json.loads(text) == config
    assert read.outputs == net.outputs
    assert [(n.name, n.inputs, type(n.layer)) for n in read] == [(n.name, n.inputs, type(n.layer)) for n in net]
    assert (read.aliases(), read.dtype, read.seed, read.inputs) == (net.aliases(), net.dtype, net.seed, net.inputs)
    state = read.state_dict()
    assert list(state) == list(net.state_dict())
    assert all(np.array_equal(state[name], value) for name, value in net.state_dict().items())
    return read


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back(name: str) -> None:
    again(MODELS[name]((3, 16, 20), 5, seed=9))


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Conv1d": (lambda: sg.Conv1d(4, 6, 3, 2, [(2, 1)], 2, 2, False, "reflect", "glorot"), (4, 12)),
    "Conv2d": (lambda: sg.Conv2d(2, 4, (3, 2), (2, 1), [[1, 2], [0, 1]], (1, 2), 2, False, "circular"), (2, 7, 9)),
    "LocallyConnected1d": (lambda: sg.LocallyConnected1d(2, 4, 9, 3, 2, 1, groups=2, bias=False), (2, 9)),
    "LocallyConnected2d": (lambda: sg.LocallyConnected2d(2, 4, (6, 5), 3, padding="same", init="glorot"), (2, 6, 5)),
    "Linear": (lambda: sg.Linear(3, 5, bias=False, init="glorot"), (4, 3)),
    "RNN": (lambda: sg.RNN(3, 5, bias=False, last=True), (4, 3)),
    "BatchNorm2d": (lambda: sg.BatchNorm2d(2, eps=1e-3, momentum=0.25), (2, 4, 4)),
    "MaxPool1d": (lambda: sg.MaxPool1d(3, 2, 1, ties="share"), (2, 9)),
    "MaxPool2d": (lambda: sg.MaxPool2d((3, 2), (2, 1), ((1, 0), (0, 1)), "last"), (2, 9, 8)),
    "AvgPool1d": (lambda: sg.AvgPool1d(3, 1, "same", count_include_pad=False), (2, 9)),
    "AvgPool2d": (lambda: sg.AvgPool2d((3, 2), count_include_pad=False), (2, 9, 8)),
    "GlobalAvgPool": (sg.GlobalAvgPool, (2, 3, 4)),
    "Sigmoid": (sg.Sigmoid, (3,)),
    "Tanh": (sg.Tanh, (3,)),
    "ReLU": (sg.ReLU, (3,)),
    "Softmax": (lambda: sg.Softmax(1), (3, 2)),
    "Dropout": (lambda: sg.Dropout(0.25), (3,)),
    "Flatten": (sg.Flatten, (3, 2)),
    "Reshape": (lambda: sg.Reshape((2, 3)), (6,)),
    "Add": (sg.Add, (3, 2)),
    "Concat": (lambda: sg.Concat(-1), (3, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_comes_back_with_arguments_other_than_the_defaults(kind: str) -> None:
    make, shape = LAYERS[kind]
    sources = ("input", "input") if kind in ("Add", "Concat") else ("input",)
    for dtype in ("float32", "float64"):
        net = sg.Network({"node": (make(), *sources)}, shape, dtype=dtype, seed=5)
        read = again(net)
        assert type(read["node"]).__name__ == kind
        x = np.random.default_rng(1).normal(size=(2, *shape))
        np.testing.assert_array_equal(read.predict(x), net.predict(x))


def test_every_layer_of_the_package_is_tested() -> None:
    assert set(LAYERS) == {n for n, kind in sg.Layer.registry.items() if kind.__module__.startswith("sharedgrad.")}


@pytest.mark.parametrize(
    ("layer", "config"),
    [
        (sg.Conv2d(1, 2, 3), {"in_channels": 1, "out_channels": 2, "kernel_size": 3}),
        (sg.Conv1d(1, 2, 3, bias=False), {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "bias": False}),
        (sg.Linear(2, 3), {"in_features": 2, "out_features": 3}),
        (sg.RNN(2, 3, bias=True), {"input_size": 2, "hidden_size": 3}),
        (sg.MaxPool2d(2), {"kernel_size": 2}),
        (sg.Softmax(), {}),
    ],
)
def test_defaults_are_not_written(layer: sg.Layer, config: dict[str, Any]) -> None:
    assert layer.config() == config


def test_ties_reuses_several_inputs_and_outputs_come_back() -> None:
    encoder, decoder = sg.Linear(4, 4), sg.Linear(4, 4)
    decoder.tie("weight", encoder.weight)
    rnn = sg.RNN(4, 4)
    rnn.tie("bias_hh_l0", rnn.parameters()["bias_ih_l0"])
    norm = sg.BatchNorm2d(1)
    net = sg.Network(
        {
            "enc.left": (encoder, "left"),
            "enc.right": (encoder, "right"),
            "sum": (sg.Add(), "enc.left", "enc.right"),
            "decode": decoder,
            "map": (sg.Reshape([1, 2, 2]), "decode"),
            "norm": norm,
            "tanh": sg.Tanh(),
            "norm again": norm,
            "time": (sg.Reshape([1, 4]), "decode"),
            "rnn": rnn,
            "rnn again": rnn,
        },
        {"left": (4,), "right": (4,)},
        outputs=["norm again", "rnn again"],
        seed=3,
        dtype="float64",
    )
    config = net.to_config()
    assert config["nodes"][1] == {"name": "enc.right", "reuses": "enc.left", "inputs": ["right"]}
    assert config["ties"]["decode.weight"] == "enc.left.weight"
    assert config["ties"]["rnn.bias_hh_l0"] == "rnn.bias_ih_l0"
    assert not any(alias.startswith(("enc.right", "norm")) for alias in config["ties"])
    read = again(net)
    assert read["enc.left"] is read["enc.right"]
    assert read["rnn"] is read["rnn again"]
    assert len(read.parameters()) == len(net.parameters()) == 8
    left, right = np.random.default_rng(2).normal(size=(2, 3, 4))
    ups = {"norm again": np.ones((3, 1, 2, 2)), "rnn again": np.ones((3, 1, 4))}
    for p, q in zip(net.parameters(), read.parameters(), strict=True):
        expected = net.forward(left, right)[1].backward(ups)[p]
        np.testing.assert_array_equal(read.forward(left, right)[1].backward(ups)[q], expected)


def test_a_network_without_a_known_input_shape_comes_back() -> None:
    assert again(sg.Network([sg.Conv2d(1, 2, 3)])).inputs == {"input": None}


def test_shapes_of_numpy_integers_become_plain_numbers() -> None:
    again(sg.Network([sg.Tanh()], np.array([2, 3])))
    again(sg.Network([sg.Tanh()], 3))


def test_only_the_nodes_are_required() -> None:
    net = sg.Network.from_config(
        {"nodes": [{"layer": "Linear", "in_features": 2, "out_features": 3}, {"layer": "Tanh"}, {"reuses": "1"}]}
    )
    assert [(n.name, n.inputs) for n in net] == [("0", ("input",)), ("1", ("0",)), ("2", ("1",))]
    assert (net.outputs, net.seed, net.dtype, net.inputs) == (["2"], 0, np.float32, {"input": None})


TOML = """
dtype = "float64"
seed = 4
outputs = ["out"]

[inputs]
image = [1, 6, 6]

[[nodes]]
name = "conv"
layer = "Conv2d"
in_channels = 1
out_channels = 2
kernel_size = [3, 2]
padding = [[1, 0], [0, 1]]

[[nodes]]
layer = "Flatten"

[[nodes]]
name = "out"
layer = "Linear"
in_features = 60
out_features = 3
"""


def test_toml_and_json_files_say_the_same(tmp_path: Path) -> None:
    toml_file, json_file = tmp_path / "net.toml", tmp_path / "net.json"
    toml_file.write_text(TOML)
    net = sg.Network.from_config(configuration.read(toml_file))
    assert net.shapes() == {"image": (1, 6, 6), "conv": (2, 5, 6), "1": (60,), "out": (3,)}
    json_file.write_text(json.dumps(net.to_config()))
    assert configuration.read(str(json_file)) == net.to_config()
    again(net)


def linear(**more: Any) -> dict[str, Any]:
    return {"name": "fc", "layer": "Linear", "in_features": 2, "out_features": 3, **more}


BAD: list[tuple[Any, str]] = [
    ([], 'network configuration: expected an object with a list "nodes"'),
    ({}, 'network configuration: expected an object with a list "nodes"'),
    ({"nodes": {"a": "Tanh"}}, 'network configuration: expected an object with a list "nodes"'),
    ({"nodes": []}, "network: expected at least one layer, got none"),
    (
        {"nodes": [linear()], "format": "onnx"},
        "network configuration: expected 'sharedgrad network' version 1, got 'onnx'",
    ),
    ({"nodes": [linear()], "version": 2}, "network configuration: expected 'sharedgrad network' version 1, got None"),
    ({"nodes": [linear()], "output": ["fc"]}, "network configuration: unknown key 'output', did you mean 'outputs'?"),
    ({"nodes": ["Linear"]}, 'node 0: expected an object with "layer" or "reuses", got \'Linear\''),
    ({"nodes": [{"name": "fc"}]}, 'node 0: expected an object with "layer" or "reuses", got {'),
    ({"nodes": [linear(reuses="fc")]}, 'node 0: expected an object with "layer" or "reuses", got {'),
    ({"nodes": [{"layer": "Conv2D"}]}, "node '0': there is no layer 'Conv2D', did you mean 'Conv2d'?"),
    ({"nodes": [{"layer": ["Conv2d"]}]}, "node '0': there is no layer "),
    ({"nodes": [linear(), linear()]}, "node 'fc': there is another node of this name"),
    ({"nodes": [{"reuses": "fc"}]}, "node '0': reuses 'fc', which is no earlier node"),
    ({"nodes": [{"reuses": ["fc"]}]}, "node '0': reuses ['fc'], which is no earlier node"),
    ({"nodes": [linear(in_features="many")]}, "node 'fc': Linear: in_features: expected a whole number"),
    ({"nodes": [linear(init="zero")]}, "node 'fc': Linear: init: expected 'he' or 'glorot', got 'zero'"),
    ({"nodes": [linear(units=3)]}, "node 'fc' (Linear): "),
    ({"nodes": [{"layer": "Linear"}]}, "node '0' (Linear): "),
    ({"nodes": [{"layer": "Dropout", "p": "often"}]}, "node '0' (Dropout): "),
    (
        {"nodes": [{"layer": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": {}}]},
        "node '0': Conv2d: kernel_size",
    ),
    ({"nodes": [linear(inputs="input")]}, "node 'fc': inputs: expected a list of names, got 'input'"),
    ({"nodes": [linear(inputs=[["input"]])]}, "node 'fc': inputs: expected a list of names, got [['input']]"),
    ({"nodes": [linear(inputs=["image"])]}, "node 'fc': reads 'image', which is no node or input"),
    ({"nodes": [linear(inputs=["fc"])]}, "network: expected no circles, got fc -> fc"),
    ({"nodes": [linear()], "inputs": [2]}, "network configuration: inputs: expected name -> shape, got [2]"),
    ({"nodes": [linear()], "inputs": {}}, "network configuration: inputs: expected name -> shape, got {}"),
    ({"nodes": [linear()], "inputs": {"x": [0]}}, "input_shape of 'x': expected positive whole numbers, got [0]"),
    ({"nodes": [linear()], "inputs": {"x": "wide"}}, "input_shape of 'x': expected positive whole numbers, got 'wide'"),
    ({"nodes": [linear()], "outputs": 5}, "network configuration: outputs: expected names of nodes, got 5"),
    ({"nodes": [linear()], "outputs": ["fd"]}, "outputs: there is no node 'fd'; choose from fc"),
    ({"nodes": [linear()], "dtype": "int8"}, "dtype: expected float32 or float64, got 'int8'"),
    ({"nodes": [linear()], "seed": "x"}, "seed: expected a whole number of at least 0, got 'x'"),
    (
        {"nodes": [linear()], "ties": ["fc.weight"]},
        "network configuration: ties: expected alias -> name, got ['fc.weight']",
    ),
    (
        {"nodes": [linear()], "ties": {"fc.weight": "f.weight"}},
        "network configuration: ties: there is no parameter 'f.weight'",
    ),
    (
        {"nodes": [linear()], "ties": {"fc.wait": "fc.weight"}},
        "network configuration: ties: there is no parameter 'fc.wait'",
    ),
]


@pytest.mark.parametrize(("config", "message"), BAD)
def test_a_bad_configuration_gets_one_line(config: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sg.Network.from_config(config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_named_by_their_node() -> None:
    with pytest.raises(ShapeError, match=r"layer 'fc' \(Linear\): expected 2 features"):
        sg.Network.from_config({"nodes": [linear()], "inputs": {"x": [5]}})
    two = [linear(), {"name": "b", "layer": "Linear", "in_features": 3, "out_features": 2}]
    with pytest.raises(ShapeError, match="expected a weight of shape"):
        sg.Network.from_config({"nodes": two, "ties": {"b.weight": "fc.weight"}})


def test_a_configuration_is_not_changed_by_reading_it() -> None:
    config = MODELS["lenet5"]((1, 12, 12), 3).to_config()
    before = json.dumps(config)
    sg.Network.from_config(config)
    assert json.dumps(config) == before


def test_random_damage_never_ends_in_anything_but_one_clear_error() -> None:
    """Every value of a configuration replaced by things that do not belong there, one at a time."""
    config = sg.Network(
        {
            "conv": sg.Conv2d(1, 2, 3, padding=[[1, 0], [0, 1]]),
            "pool": sg.MaxPool2d(2),
            "norm": sg.BatchNorm2d(2, eps=1e-3),
            "flat": sg.Flatten(),
            "drop": sg.Dropout(0.25),
            "fc": sg.Linear(8, 3),
        },
        (1, 5, 5),
    ).to_config()
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        places.append(path)
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            walk(value[key], (*path, key))

    walk(config, ())
    messages = []
    for path in places[1:]:
        for wrong in (None, -1, 0, 2.5, "x", [], {}, [[]], 10**15):
            damaged = json.loads(json.dumps(config))
            target = damaged
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = wrong
            try:
                sg.Network.from_config(damaged)
            except SharedgradError as error:
                messages.append(str(error))
    assert len(messages) > 200
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.json", b"{", "is not valid JSON (Expecting property name"),
        ("net.json", b"", "is not valid JSON (Expecting value"),
        ("net.json", b"\xff\xfe", "is not a text in UTF-8; give a .json or .toml file"),
        ("net.json", b"[" * 100_000, "is not valid JSON ("),
        ("net.toml", b"nodes = [", "is not valid TOML ("),
        ("net.toml", b"\xff", "is not a text in UTF-8"),
    ],
)
def test_a_file_that_is_neither_json_nor_toml(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        configuration.read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        configuration.read(tmp_path / "net.json")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        configuration.read(tmp_path)


def test_numpy_numbers_are_written_as_plain_ones() -> None:
    two = np.int64(2)
    net = sg.Network([sg.Conv2d(two, 2, two, padding=((two, 0), (0, two))), sg.Dropout(np.float32(0.5))])
    config = json.loads(json.dumps(net.to_config()))
    assert config["nodes"][0]["kernel_size"] == 2
    assert sg.Network.from_config(config).to_config() == config


def test_a_layer_that_forgets_its_argument_is_named() -> None:
    class Forgetful(sg.Tanh):
        def __init__(self, factor: float) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Forgetful\): does not keep its argument 'factor'; set self.factor"):
        sg.Network([Forgetful(2)]).to_config()


def test_an_argument_that_is_no_plain_data_is_refused() -> None:
    class Odd(sg.Tanh):
        def __init__(self, thing: object) -> None:
            self.thing = thing

    with pytest.raises(ConfigError, match=r"Odd\): has an argument that JSON cannot hold"):
        sg.Network([Odd(object())]).to_config()


def test_a_class_with_the_name_of_a_built_in_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="class Tanh: is the name of a layer of sharedgrad"):

        class Tanh(sg.Layer):
            pass

    assert sg.Layer.registry["Tanh"] is sg.Tanh
