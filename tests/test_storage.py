from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sharedgrad import RNN, SGD, BatchNorm2d, Conv2d, Flatten, Linear, Network, ReLU, models
from sharedgrad.errors import CheckpointError, OutputError
from sharedgrad.storage import (
    ensure_writable,
    load,
    load_arrays,
    save,
    save_arrays,
    write_bytes,
    write_text,
)
from tests.helpers import same_bits


def tied() -> Network:
    """A layer used twice, two layers with one weight, running statistics, and no two values the same."""
    conv, first, second = Conv2d(2, 2, 3, padding=1), Linear(32, 32), Linear(32, 32)
    second.weight = first.weight
    layers = {
        "conv": conv,
        "bn": BatchNorm2d(2),
        "again": conv,
        "relu": ReLU(),
        "flatten": Flatten(),
        "first": first,
        "second": second,
    }
    net = Network(layers, (2, 4, 4), seed=3, dtype="float64")
    rng = np.random.default_rng(0)
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    net.forward(rng.normal(size=(5, 2, 4, 4)))
    return net


def test_a_network_comes_back_whole(tmp_path: Path) -> None:
    net = tied()
    save(net, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.to_config() == net.to_config()
    assert again.aliases() == net.aliases()
    assert again.parameter("first.weight") is again.parameter("second.weight")
    state = again.state_dict()
    assert list(state) == list(net.state_dict())
    for name, array in net.state_dict().items():
        same_bits(state[name], array)
    x = np.random.default_rng(1).normal(size=(3, 2, 4, 4))
    same_bits(again.predict(x), net.predict(x))


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_comes_back(tmp_path: Path, name: str) -> None:
    net = models.MODELS[name]((3, 16, 16), 5, seed=2)
    save(net, tmp_path / "m")
    again = load(tmp_path / "m").state_dict()
    assert all(np.array_equal(array, again[key]) for key, array in net.state_dict().items())


def test_shared_parameters_are_stored_once_and_their_aliases_recorded(tmp_path: Path) -> None:
    save(tied(), tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == {
        "conv.weight",
        "conv.bias",
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
        "first.weight",
        "first.bias",
        "second.bias",
    }
    aliases = {"again.weight": "conv.weight", "again.bias": "conv.bias", "second.weight": "first.weight"}
    assert json.loads(metadata["aliases"]) == aliases
    assert json.loads(metadata["config"]) == tied().to_config()


def test_pytorch_takes_the_file_as_it_is(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    net = Network([Conv2d(1, 3, 3), BatchNorm2d(3), Flatten(), Linear(12, 2)], (1, 4, 4))
    save(net, tmp_path / "m")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(12, 2)
    )
    module.load_state_dict(load_file(tmp_path / "m"))
    x = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    expected = module.eval()(torch.tensor(x)).detach().numpy()
    assert np.abs(net.predict(x) - expected).max() < 1e-5


def test_arrays_of_every_kind_come_back(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 2)),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "every other": np.arange(10, dtype=np.float32)[::2],
        "read-only": np.broadcast_to(np.float32(1.5), (2, 2)),
    }
    save_arrays(tmp_path / "a", arrays, {"name": "größe"})
    loaded, metadata = load_arrays(tmp_path / "a")
    assert metadata == {"name": "größe"}
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        same_bits(loaded[name], array)


# ---- writing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_text(path, "erste Größe")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises((OutputError, KeyboardInterrupt)) as raised:
            write_text(path, "new")
    if isinstance(error, OSError):
        problem = f"{path}: cannot be written (No space left on device)"
        assert str(raised.value) == f"{problem}; choose a folder that is writable and has room"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_bytes(tmp_path / "file", b"x")
    assert order == ["fsync", "replace"]


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f"key {i}": "ä" * i for i in range(9)}
    for name in ("a", "b"):
        save_arrays(tmp_path / name, {"x": np.arange(3.0), "y": np.zeros((2, 0), np.float32)}, metadata)
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", tmp_path, Path("/proc/none/x")):
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(path, "")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        ensure_writable(tmp_path / "file")
    ensure_writable(tmp_path / "deep" / "folder")
    assert os.listdir(tmp_path / "deep" / "folder") == []
    for name in (".model.safetensors.4711.tmp", ".another.program.tmp"):
        (tmp_path / name).touch()
    ensure_writable(tmp_path)
    assert not (tmp_path / ".model.safetensors.4711.tmp").exists()
    assert (tmp_path / ".another.program.tmp").exists()


# ---- reading what is no model


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return error.value.problem


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert refused(path) == "there is no such file"
    assert refused(tmp_path) == "is not a file"
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    assert refused(tmp_path / "pipe") == "is not a file"
    save_arrays(path, {"x": np.zeros(2)}, {})
    assert refused(path) == "is not a model file"
    torch.save({"x": torch.zeros(2)}, path)
    assert "no safetensors file" in refused(path)


def test_types_that_numpy_does_not_have(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "m")
    refused(tmp_path / "m")


def test_no_flipped_bit_passes(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save(Network([Linear(9, 9), Linear(9, 2)], (9,)), path)
    data = path.read_bytes()
    for place in range(0, len(data), 9):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert "damaged" in refused(path) or "not written by sharedgrad" in refused(path)


def change(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config.update({key: value})


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda config: config["nodes"][0].update(layer="Conv9d"), "there is no layer 'Conv9d'"),
        (lambda config: config["nodes"][0].update(in_features=10**9, out_features=10**9), "holds no weight of"),
        (lambda config: config.update(nodes=config["nodes"][:1], outputs=["0"]), "no place for 1.bias"),
        (
            lambda config: config["nodes"].append(
                {"name": "2", "layer": "Linear", "in_features": 2, "out_features": 9}
            ),
            "",
        ),
        (lambda config: config["nodes"].append({"layer": "ReLU", "surprise": 1}), ""),
        (change("nodes", 5), ""),
        (change("nodes", []), ""),
        (change("inputs", {"input": 5}), ""),
        (change("inputs", {"input": ["a"]}), ""),
        (change("outputs", 5), ""),
        (change("outputs", ["9"]), ""),
        (change("ties", {"0.weight": "1.weight"}), ""),
        (change("dtype", "int8"), ""),
        (change("seed", "x"), ""),
        (change("version", 2), "version 2"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, forge: Callable[[dict[str, Any]], object], said: str) -> None:
    path = tmp_path / "m"
    save(Network([Linear(9, 9), Linear(9, 2)], (9,)), path)
    arrays, metadata = load_arrays(path)
    config = json.loads(metadata["config"])
    forge(config)
    save_arrays(path, arrays, {**metadata, "config": json.dumps(config)})
    problem = refused(path)
    assert problem.startswith("does not describe a network (")
    assert said in problem


@pytest.mark.parametrize("config", ["", "null", "[", "[" * 100_000])
def test_configurations_that_are_none(tmp_path: Path, config: str) -> None:
    path = tmp_path / "m"
    save_arrays(path, {}, {"format": "sharedgrad model", "config": config})
    assert refused(path).startswith("does not describe a network (")


def test_recurrent_networks_come_back(tmp_path: Path) -> None:
    net = Network([RNN(3, 4, last=True), Linear(4, 2)], (5, 3))
    save(net, tmp_path / "m")
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    same_bits(load(tmp_path / "m").predict(x), net.predict(x))


def test_views_are_stored_with_their_parameter_and_come_back(tmp_path: Path) -> None:
    encoder, decoder, part = Linear(6, 4), Linear(4, 6), Linear(4, 3)
    decoder.tie("weight", encoder.weight.T)
    part.tie("weight", encoder.weight.T[1::2])
    net = Network({"part": part, "wide": Linear(3, 6), "encoder": encoder, "decoder": decoder}, (4,))
    save(net, tmp_path / "m")
    arrays, metadata = load_arrays(tmp_path / "m")
    assert {name for name in arrays if "weight" in name} == {"encoder.weight", "wide.weight"}
    assert json.loads(metadata["aliases"]) == {
        "decoder.weight": "encoder.weight (transposed)",
        "part.weight": "encoder.weight (transposed, [1:6:2, 0:4])",
    }
    again = load(tmp_path / "m")
    assert again.aliases() == net.aliases()
    for name, array in net.state_dict().items():
        same_bits(again.state_dict()[name], array)
    x = np.ones((2, 4), np.float32)
    same_bits(again.predict(x), net.predict(x))
    y, tape = again.forward(x)
    SGD(again.parameters(), lr=0.1).step(tape.backward(y))
    state = again.state_dict()
    same_bits(state["decoder.weight"], np.ascontiguousarray(state["encoder.weight"].T))
    same_bits(state["part.weight"], np.ascontiguousarray(state["encoder.weight"].T[1::2]))
    assert not np.array_equal(state["encoder.weight"], net.state_dict()["encoder.weight"])


def test_a_file_that_lacks_the_parameter_of_a_view_is_refused(tmp_path: Path) -> None:
    """Before anything large is made."""
    encoder, decoder = Linear(6, 4), Linear(4, 6)
    decoder.tie("weight", encoder.weight.T)
    save(Network({"encoder": encoder, "decoder": decoder}, (6,)), tmp_path / "m")
    arrays, metadata = load_arrays(tmp_path / "m")
    del arrays["encoder.weight"]
    save_arrays(tmp_path / "m", arrays, metadata)
    with pytest.raises(CheckpointError, match=r"the file holds no weight of shape \(4, 6\)"):
        load(tmp_path / "m")


@pytest.mark.parametrize("node", [{"layer": "ReLU"}, {"layer": "Linear", "in_features": 1, "out_features": 1}])
def test_a_file_that_promises_very_many_nodes_is_read_or_refused_soon(tmp_path: Path, node: dict[str, object]) -> None:
    config = {"inputs": {"input": [1]}, "nodes": [node] * 20_000}
    metadata = {"format": "sharedgrad model", "config": json.dumps(config), "aliases": "{}"}
    save_arrays(tmp_path / "m", {"0.weight": np.zeros((1, 1)), "0.bias": np.zeros(1)}, metadata)
    with pytest.raises(CheckpointError, match=r"expected an array for each|no place for"):
        load(tmp_path / "m")  # a search through all nodes for each would take minutes
