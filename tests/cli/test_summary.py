"""``sharedgrad summary``: of ready-made networks, files and runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sharedgrad as sg
from tests.cli.conftest import Cli


def rows(out: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in out.split("\n\n")[0].splitlines()}


def test_lenet5(cli: Cli) -> None:
    result = cli("summary", "lenet5")
    assert result.code == 0
    assert rows(result.out)["conv1"][:5] == ["6×28×28", "156", "784", "122,304", "3,692,640"]
    assert rows(result.out)["total"][0] == "61,706"


@pytest.mark.parametrize("model", ["cnn", "vgg", "resnet20"])
def test_ready_made_networks(cli: Cli, model: str) -> None:
    shape = (1, 28, 28) if model == "cnn" else (3, 32, 32)
    net = sg.models.MODELS[model](shape, 10)
    assert rows(cli("summary", model).out)["total"][0] == f"{sum(p.value.size for p in net.parameters()):,}"


def test_input_shape_and_classes(cli: Cli) -> None:
    table = rows(cli("summary", "resnet20", "--input-shape", "1,16,24", "--classes", 7).out)
    assert table["conv1"][:3] == ["16×16×24", "144", "384"]
    assert table["fc"][:2] == ["7", str(64 * 7 + 7)]


def test_a_kernel_on_32_by_32_from_a_configuration(cli: Cli) -> None:
    node = {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 3}
    Path("conv.json").write_text(json.dumps({"nodes": [node]}))
    assert rows(cli("summary", "conv.json", "--input-shape", "1,32,32").out)["conv"][:3] == ["1×30×30", "10", "900"]


def test_a_declared_shape_counts(cli: Cli) -> None:
    net = sg.Network({"conv": sg.Conv2d(2, 3, 3)}, (2, 9, 9))
    Path("net.json").write_text(json.dumps(net.to_config()))
    assert rows(cli("summary", "net.json").out)["conv"][0] == "3×7×7"
    assert rows(cli("summary", "net.json", "--input-shape", "2,5,5").out)["conv"][0] == "3×3×3"


def test_a_function(cli: Cli, tiny: str) -> None:
    assert rows(cli("summary", tiny, "--classes", 4).out)["fc"][0] == "4"


def test_a_run(cli: Cli, data: Path, tiny: str) -> None:
    cli("train", data, "--model", tiny, "--epochs", 1, "--out", "run")
    assert rows(cli("summary", "run").out)["conv"][:3] == ["3×4×4", "30", "16"]
