"""``sharedgrad trace``: the table, the page, and what a person may get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.layers import Layer
from sharedgrad.training import Run, load_run, save_run
from tests.cli.conftest import Cli, blobs


@pytest.fixture
def run(cli: Cli, data: Path) -> str:
    """A model that was trained on four fifths of rows.npz."""
    dataset = sg.data.load(str(data))
    train, _ = dataset.split(0.2, 0)
    normalize = sg.data.Normalization.of(train.x)
    net = sg.models.cnn(dataset.input_shape, 3)
    sg.fit(net, train, epochs=2, batch_size=8, optimizer=sg.Adam(net.parameters(), lr=0.003), normalize=normalize)
    settings = {"seed": 0, "val_fraction": None, "optimizer": "adam"}
    save_run("run", Run(net, "rows.npz", dataset.classes, normalize, dataset.input_shape, settings))
    return "run"


def test_the_table_fits_and_says_that_it_adds_up(cli: Cli, run: str) -> None:
    result = cli("trace", run, "rows.npz")
    assert result.code == 0
    assert "48 training images of rows.npz, in evaluation mode" in " ".join(result.out.split())
    assert "Adds up: " in result.out
    names = [p.name for p in load_run(run).network.parameters()]
    assert all(any(line.startswith(name) for line in result.out.splitlines()) for name in names)
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out
    assert result.err == ""


def test_the_numbers_are_those_of_the_part_that_was_trained_on(cli: Cli, run: str) -> None:
    found = json.loads(cli("trace", run, "rows.npz", "--json").out)
    trained = load_run(run)
    x, y = blobs(60, 0)
    dataset = sg.data.load("rows.npz")
    train, held_out = dataset.split(0.2, 0)
    output, tape = trained.network.forward(trained.normalization(train.x), training=False)
    loss, upstream = sg.CrossEntropy()(output, train.y)
    gradients = tape.backward(upstream)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    for row in found["parameters"]:
        assert row["norm"] == pytest.approx(float(np.linalg.norm(gradients[row["name"]])), rel=1e-4)
        assert row["adds_up"]
    for sample in (*found["pushing"]["with"], *found["pushing"]["against"]):
        assert sample["class"] == str(y[sample["sample"]])  # numbered as in the whole data set
        assert (x[sample["sample"]] == train.x[:, 0]).all(axis=(1, 2)).any()
    rest = json.loads(cli("trace", run, "rows.npz", "--json", "--part", "held-out").out)
    assert (rest["samples"], rest["data"]) == (len(held_out.x), "12 held-out images of rows.npz")
    everything = json.loads(cli("trace", run, "rows.npz", "--json", "--part", "all").out)
    assert (everything["samples"], everything["data"]) == (60, "60 images of rows.npz")


def test_test_images(cli: Cli, tested: Path) -> None:
    cli("train", tested, "--epochs", 1, "--out", "run")
    found = json.loads(cli("trace", "run", tested, "--json", "--part", "held-out").out)
    assert found["data"] == f"30 test images of {tested}"
    assert all(s["class"] == str(blobs(30, 1)[1][s["sample"]]) for s in found["pushing"]["with"])


def test_some_images_and_one_parameter(cli: Cli, run: str) -> None:
    first = cli("trace", run, "rows.npz", "--limit", 10, "--param", "conv1.weight", "--json")
    again = cli("trace", run, "rows.npz", "--limit", 10, "--param", "conv1.weight", "--json", "--batch-size", 3)
    found = json.loads(first.out)
    assert found["data"] == "10 training images of rows.npz, drawn from 48"
    assert [row["name"] for row in found["parameters"]] == ["conv1.weight"]
    assert json.loads(again.out)["pushing"]["with"][0]["sample"] == found["pushing"]["with"][0]["sample"]


def test_a_page(cli: Cli, run: str) -> None:
    result = cli("trace", run, "rows.npz", "--out", "report.html", "--param", "conv1.weight")
    assert result.out.endswith("written: report.html\n")
    page = Path("report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count('class="map"') >= 4


def test_layers_of_ones_own(cli: Cli, data: Path, tiny: str) -> None:
    text = Path("tiny.py").read_text() + "\n\nclass Own(sg.ReLU):\n    pass\n"
    Path("tiny.py").write_text(text.replace("sg.ReLU(),", "Own(),"))
    cli("train", data, "--model", tiny, "--epochs", 1, "--out", "own")
    Layer.registry.pop("Own")
    refused = cli("trace", "own", "rows.npz")
    assert "--model" in refused.error
    result = cli("trace", "own", "rows.npz", "--model", tiny)
    assert result.code == 0
    assert "dropout drops nothing" in " ".join(result.out.split())


def test_training_mode_says_what_it_means(cli: Cli, run: str) -> None:
    trained = load_run(run)
    net = sg.Network(
        {"flat": sg.Flatten(), "row": sg.Reshape((1, 6, 6)), "norm": sg.BatchNorm2d(1), "cut": sg.Dropout(0.3),
         "again": sg.Flatten(), "scores": sg.Linear(36, 3)}, (1, 6, 6)
    )  # fmt: skip
    save_run("normal", Run(net, "rows.npz", trained.classes, trained.normalization, (1, 6, 6), {"seed": 0}))
    plain, training = (
        " ".join(cli("trace", "normal", "rows.npz", *mode).out.split()) for mode in ([], ["--mode", "training"])
    )
    assert "in evaluation mode (batch norm uses its running statistics" in plain
    assert "in training mode (batch norm uses each batch's own statistics: images depend on one another" in training
    assert "dropout drops at random" in training
    assert "Adds up: " in training


def test_uses_that_do_not_add_up_end_with_1(cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharedgrad.tracing.tally.Tally.residual", 0.5)
    result = cli("trace", run, "rows.npz")
    assert result.code == 1
    assert "DOES NOT ADD UP" in result.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "rows.npz"], "there is no such run folder"),
        (["rows.npz", "rows.npz"], "is not a run folder"),
        (["run", "nothing"], "there is no such file or folder"),
        (["run", "digits"], "images of 1×8×8, but the model takes 1×6×6"),
        (["run", "other.npz"], "class '3' is none of the model's; it knows 0, 1, 2"),
        (["run", "floats.npz"], "pixels from 0 to 1, but the model was trained on 0 to 255"),
        (["run", "rows.npz", "--out", "nowhere.html/page.html"], "nowhere.html"),
        (["run", "rows.npz", "--param", "conv1.wieght"], "did you mean conv1.weight?"),
        (["run", "rows.npz", "--limit", "0"], "'--limit'"),
        (["run", "rows.npz", "--batch-size", "many"], "'--batch-size'"),
        (["run", "rows.npz", "--part", "test"], "'--part'"),
        (["run", "rows.npz", "--size", "6"], "resizes a folder of images"),
        (["run", "rows.npz", "--out", "rows.npz/page.html"], "rows.npz"),
        (["run"], "Missing argument 'DATA'"),
    ],
)
def test_what_people_get_wrong(cli: Cli, run: str, arguments: list[str], words: str) -> None:
    x, _ = blobs(60, 0)
    np.savez("other.npz", x=x, y=np.arange(60) % 4)
    np.savez("floats.npz", x=x / 255, y=np.arange(60) % 3)
    Path("nowhere.html").write_text("a file")
    assert words in cli("trace", *arguments).error


def test_a_page_that_cannot_be_written_is_refused_before_the_work(cli: Cli, run: str) -> None:
    Path("file").write_text("a file")
    found = cli("trace", "run", "rows.npz", "--out", "file/page.html")
    assert "file" in found.error
    assert found.out == ""


def test_too_few_images_to_be_divided(cli: Cli, run: str) -> None:
    x, _ = blobs(60, 0)
    np.savez("few.npz", x=x[:3], y=np.arange(3))
    assert "take --part all" in cli("trace", "run", "few.npz").error


def test_a_run_that_held_nothing_out(cli: Cli, data: Path) -> None:
    cli("train", data, "--epochs", 1, "--val-fraction", 0, "--out", "run")
    assert "the run held nothing out" in cli("trace", "run", data, "--part", "held-out").error
    assert "60 training images" in cli("trace", "run", data).out
