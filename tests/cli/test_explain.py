"""``sharedgrad explain``: names, files, run folders, and everything a person can get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.cli import main
from sharedgrad.data import Normalization
from sharedgrad.explaining import gallery, templates
from sharedgrad.training.run import Run, save_run


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["explain", *arguments])
    return int(end.value.code or 0)


def test_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("filter-1d") == 0
    out, err = capsys.readouterr()
    assert "dw[0] = dy[0]·x[0] + dy[1]·x[1] = -0.1·1 + 0.2·2 = 0.3\n" in out
    assert not err
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_list_names_every_example_and_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    out = capsys.readouterr().out
    for entry in gallery.entries():
        assert f"\n{entry.name} " in f"\n{out}"
        for _, url in entry.calculation.sources:
            assert url in out.replace("\n" + " " * 22, "")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", templates.NAMES)
def test_a_template_is_a_file_that_can_be_explained(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--template", name) == 0
    text = capsys.readouterr().out
    path = tmp_path / "mine.json"
    path.write_text(text, "utf-8")
    assert run(str(path)) == 0
    assert json.loads(text)["title"] in " ".join(capsys.readouterr().out.split())


def test_one_weight_has_a_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stride-and-padding", "--weight", "conv.weight[0,0,0,0]") == 0
    out = capsys.readouterr().out
    assert "at 0,1     1  0        0           0  padding" in out
    assert "all uses                           8  = dw" in out
    assert "add up to 8; their sizes alone, |products|, to 8: 0 of it cancels" in " ".join(out.split())


@pytest.mark.parametrize("weight", ["conv.weight[0,0,1]", "conv.w[1]", "w[1]", "weight[1]", " conv.weight [ 1 ] "])
def test_a_weight_may_be_written_short(weight: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("filter-1d", "--weight", weight) == 0
    assert "One weight" in capsys.readouterr().out.replace("one weight", "One weight")


def test_one_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("network-5x5", "--layer", "pool") == 0
    out = capsys.readouterr().out
    assert "pool.y[0,0] = conv.y[1,1] = 0.3092" in out
    assert "sigmoid.y" not in out


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, tex = tmp_path / "new" / "page.html", tmp_path / "it.tex"
    assert run("filter-1d", "--html", str(page), "--latex", str(tex)) == 0
    assert capsys.readouterr().out == f"written: {page}\nwritten: {tex}\n"
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert tex.read_text("utf-8").startswith(r"\documentclass")


@pytest.fixture
def folder(tmp_path: Path) -> tuple[str, str]:
    """A run folder and an image."""
    image = pytest.importorskip("PIL.Image")
    layers = {"conv": sg.Conv2d(1, 2, 3), "relu": sg.ReLU(), "flatten": sg.Flatten(), "fc": sg.Linear(72, 2)}
    network = sg.Network(layers, (1, 8, 8), seed=3)
    normalization = Normalization((0.0,), (1.0,), scale=1 / 255)
    save_run(tmp_path / "run", Run(network, "images", ("zero", "one"), normalization, (1, 8, 8)))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "it.png")
    return str(tmp_path / "run"), str(tmp_path / "it.png")


def test_a_trained_model_on_an_image(
    folder: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, image = folder
    page = tmp_path / "page.html"
    assert run(run_folder, "--image", image, "--weight", "conv.weight[1,0,2,0]", "--html", str(page)) == 0
    assert 'src="data:image/png;base64,' in page.read_text()
    capsys.readouterr()
    assert run(run_folder, "--image", image, "--weight", "conv.weight[1,0,2,0]", "--label", "one") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What goes back is the gradient of the cross-entropy for the class one." in out
    assert "conv.w is one weight for 36 uses" in out
    assert "together they are the gradient" in out


def test_the_gradient_of_a_trained_model_is_the_engines(
    folder: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, path = folder
    assert run(run_folder, "--image", path, "--weight", "conv.weight[0,0,1,1]", "--label", "zero") == 0
    out = capsys.readouterr().out
    from PIL import Image

    network = sg.load(Path(run_folder) / "model.safetensors")
    x = np.asarray(Image.open(path), float)[None, None] / 255
    y, tape = network.forward(x, training=False)
    gradient = tape.backward(sg.CrossEntropy()(y, [0])[1])["conv.weight"][0, 0, 1, 1]
    printed = float(out.split("all uses")[1].split()[0])
    assert printed == pytest.approx(float(gradient), rel=1e-4)


MISTAKES = {
    (): "expected NAME, FILE or RUN; --list shows the worked examples",
    ("filtre-1d",): "there is no such example or file; did you mean filter-1d?",
    ("missing.json",): "missing.json: cannot be read (No such file or directory)",
    ("filter-1d", "--weight", "conv.weight[7]"): 'no such element; write e.g. "conv.weight[0,0,1]"',
    ("filter-1d", "--weight", "bias[["): "expected a name and an index",
    ("filter-1d", "--weight", "kernel[0]"): "there is no such parameter; choose from conv.weight, conv.bias",
    ("filter-1d", "--layer", "pool"): "there is no such node; choose from conv",
    ("filter-1d", "--layer", "conv", "--weight", "w[0]"): "expected a weight or a layer, got both",
    ("filter-1d", "--image", "x.png"): "--image and --label are for the folder of a trained model",
    ("--template", "lstm"): "there is no such template; choose from layer, conv1d",
    (".",): "is not a run folder",
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.items())
def test_one_line_says_what_is_wrong(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("sharedgrad explain: ")
    assert message in err
    assert err.count("\n") == 1


def test_mistakes_with_a_run_folder(folder: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, image = folder
    for arguments, message in {
        (): "add --image FILE",
        ("--image", image, "--label", "two"): "there is no such class; choose from zero, one",
        ("--image", image, "--weight", "fc.weight"): "fc.weight has shape 2×72, and no such element",
        ("--image", image, "--layer", "conv"): "leave out --layer",
        ("--image", run_folder): "no such image file",
    }.items():
        assert run(run_folder, *arguments) == 2
        assert message in capsys.readouterr().err


BROKEN = [
    "",
    "[]",
    "null",
    "3",
    '"text"',
    "{",
    '{"nodes": 3}',
    '{"nodes": [[]], "numbers": {}}',
    '{"layer": []}',
    '{"layer": "conv2d", "x": {}, "w": {}, "upstream": {}}',
    '{"layer": "conv2d", "x": [[1]], "w": "a", "upstream": 1}',
    '{"layer": "conv2d", "x": [[1]], "w": [[1, 1]], "upstream": 1}',
    '{"layer": "conv2d", "x": [[1]], "w": [[1]], "upstream": 1, "groups": 3}',
    '{"layer": "relu", "x": [1e999], "upstream": [1]}',
    '{"layer": "relu", "x": [1], "upstream": [1], "title": ["a"]}',
    '{"layer": "relu", "x": [1], "upstream": [1], "name": {"a": 1}}',
    '{"layer": "linear", "x": [1], "w": [[1]], "upstream": 1, "learning_rate": "fast"}',
    '{"layer": "linear", "x": [1], "w": [], "upstream": 1}',
    '{"layer": "rnn", "x": [1], "weight_ih_l0": [1], "weight_hh_l0": 1, "upstream": 1}',
    '{"layer": "embedding", "x": [0.5], "w": [[1]], "upstream": 1}',
    '{"layer": "maxpool2d", "kernel_size": 1000000000, "x": [[1]], "upstream": 1}',
    '{"layer": "linear", "x": [1], "w": [[1]], "upstream": 1, "loss": [[]]}',
    '{"layer": "linear", "x": [1], "w": [[1]], "loss": {"name": "CrossEntropy", "target": 0.5}}',
    '{"layer": "linear", "x": [1], "w": [[1]], "loss": {"name": "BinaryCrossEntropy", "target": 5}}',
    '{"layer": "linear", "x": [1], "w": [[1]], "loss": {"name": "MSE", "target": 0, "node": []}}',
    "[" * 100000,
    '{"layer": "conv2d", "x": ' + "[" * 70 + "1" + "]" * 70 + ', "w": [[1]], "upstream": 1}',
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert run(str(path)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"sharedgrad explain: {path}: ")
    assert err.count("\n") == 1


def test_in_a_pipe_there_is_no_colour() -> None:
    command = [sys.executable, "-m", "sharedgrad", "explain", "filter-1d"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert "\x1b" not in done.stdout
