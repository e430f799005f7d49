"""``sharedgrad predict``: the same answers as the network gives in Python."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sharedgrad as sg
from sharedgrad.cli import main
from sharedgrad.layers import Layer
from sharedgrad.training import load_run
from tests.cli.conftest import Cli, blobs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; it is trained once."""
    folder = tmp_path_factory.mktemp("trained")
    x, y = blobs(60, 0)
    np.savez(folder / "rows.npz", x=x, y=y)
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(folder / "rows.npz"), "--epochs", "10", "--batch-size", "8", "--out", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def run(cli: Cli, trained: Path, tmp_path: Path) -> str:
    """A trained model of the test's own, and three images."""
    shutil.copytree(trained, tmp_path / "run")
    for image, label in zip(*blobs(3, 9), strict=True):
        Image.fromarray(image).save(f"{label}.png")
    return "run"


def test_class_and_probabilities(cli: Cli, run: str) -> None:
    result = cli("predict", run, "0.png", "1.png", "2.png")
    assert result.code == 0
    model = load_run(run)
    images, _ = blobs(3, 9)
    scores = model.network.predict(model.normalization(images[:, None])).astype(float)
    for number, line in enumerate(result.out.splitlines()):
        path, *fields = line.split("\t")
        assert path == f"{number}.png"
        assert fields[0] == str(number)
        p = np.exp(scores[number]) / np.exp(scores[number]).sum()
        assert [int(name) for name in fields[::2]] == list(np.argsort(-p))
        np.testing.assert_allclose([float(q) for q in fields[1::2]], np.sort(p)[::-1], atol=1e-6)


def test_an_image_is_brought_to_size_and_grey(cli: Cli, run: str) -> None:
    Image.open("2.png").convert("RGB").resize((60, 60), Image.Resampling.NEAREST).save("large.png")
    assert cli("predict", run, "large.png").out.split("\t")[:2] == ["large.png", "2"]


def test_five_classes_at_most(cli: Cli) -> None:
    cli("train", "digits", "--epochs", 1, "--out", "run")
    Image.new("L", (8, 8)).save("black.png")
    fields = cli("predict", "run", "black.png").out.rstrip("\n").split("\t")
    assert len(fields) == 11
    probabilities = [float(p) for p in fields[2::2]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) < 1


def test_columns_on_a_terminal(cli: Cli, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharedgrad.cli.predict.sys.stdout.isatty", lambda: True)
    Image.open("1.png").save("much_longer.png")
    lines = cli("predict", run, "0.png", "much_longer.png").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["0.png", "0"], ["much_longer.png", "1"]]
    assert len({line.index(" %") for line in lines}) == 1


def test_names_that_would_break_the_lines(cli: Cli, tiny: str) -> None:
    x, y = blobs(30, 0)
    np.savez("names.npz", x=x, y=np.array(["one\ntwo", "ta\tb", "ünï"])[y])
    cli("train", "names.npz", "--model", tiny, "--epochs", 1, "--out", "run")
    Image.fromarray(x[0]).save("\x1b[31m.png")
    [line] = cli("predict", "run", "\x1b[31m.png").out.splitlines()
    path, *fields = line.split("\t")
    assert path == r"\x1b[31m.png"
    assert set(fields[::2]) == {r"one\ntwo", r"ta\tb", "ünï"}


def test_a_bad_image_does_not_keep_the_others_back(cli: Cli, run: str) -> None:
    Path("bad.png").write_text("no image")
    result = cli("predict", run, "0.png", "bad.png", "absent.png", "1.png")
    assert result.code == 2
    assert [line.split("\t")[0] for line in result.out.splitlines()] == ["0.png", "1.png"]
    bad, absent = result.err.splitlines()
    assert bad.startswith("sharedgrad predict: bad.png: is not an image")
    assert absent == "sharedgrad predict: absent.png: no such image file"


def test_floats_are_refused_or_taken_alike_by_train_and_predict(cli: Cli, tiny: str) -> None:
    x, y = blobs(30, 0)
    Image.fromarray(x[0]).save("x.png")
    np.savez("floats.npz", x=x - 100.0, y=y)
    assert "floats outside [0, 1] and [0, 255]" in cli("train", "floats.npz", "--model", tiny, "--out", "no").error
    answers = []
    for number, images in enumerate((x, x.astype(np.float32), x / 255)):
        np.savez("floats.npz", x=images, y=y)
        assert cli("train", "floats.npz", "--model", tiny, "--epochs", 1, "--out", number).code == 0
        answers.append(cli("predict", number, "x.png").out.split("\t"))
    for answer in answers[1:]:
        assert [field[:5] for field in answer] == [field[:5] for field in answers[0]]


OWN = """
import numpy as np
import sharedgrad as sg

class {name}(sg.Layer):
    def forward(self, x, *, context):
        return x * (x > 0), x > 0

    def backward(self, positive, upstream, needs):
        return (upstream * positive,), []

    def output_shape(self, shape):
        return shape

def net(shape, classes):
    return sg.Network([sg.Flatten(), sg.Linear(36, 8), {name}(), sg.Linear(8, classes)], shape)
"""


def forget(name: str) -> None:
    """As another process would know the layers."""
    del Layer.registry[name]


def test_a_model_with_a_layer_of_ones_own_needs_its_file_by_name(cli: Cli, data: Path) -> None:
    Path("my file.py").write_text(OWN.format(name="OwnGate"))
    assert cli("train", data, "--model", "my file.py:net", "--epochs", 2, "--out", "run").code == 0
    Image.fromarray(blobs(3, 9)[0][0]).save("0.png")
    straight = cli("predict", "run", "0.png").out
    forget("OwnGate")
    error = cli("predict", "run", "0.png").error
    path = Path("my file.py").resolve()
    assert "its network has layers of your own (OwnGate); no file is run unless you name it" in error
    command = error.split("; ")[-1]
    assert command == f"sharedgrad predict run 0.png --model '{path}:net'"
    named = cli(*shlex.split(command)[1:])
    assert (named.code, named.out, named.err) == (0, straight, "")
    forget("OwnGate")
    assert f"sharedgrad summary run --model '{path}:net'" in cli("summary", "run").error
    assert "OwnGate()" in cli("summary", "run", "--model", f"{path}:net").out


def test_a_file_that_has_changed_is_a_warning(cli: Cli, data: Path) -> None:
    Path("own.py").write_text(OWN.format(name="ChangedGate"))
    cli("train", data, "--model", "own.py:net", "--epochs", 1, "--out", "run")
    Image.fromarray(blobs(3, 9)[0][0]).save("0.png")
    with open("own.py", "a") as file:
        file.write("# another line")
    result = cli("predict", "run", "0.png", "--model", "own.py:net")
    assert result.code == 0
    assert result.err == "warning: own.py has changed since run was trained\n"


def test_a_file_that_only_the_run_names_is_not_run(cli: Cli, run: str) -> None:
    Path("evil.py").write_text("open('ran', 'w')")
    path = Path(run, "run.json")
    described = json.loads(path.read_text())
    described["model_file"] = {"path": "evil.py", "function": "net", "sha256": "", "layers": ["NoSuchLayer"]}
    path.write_text(json.dumps(described))
    assert "no file is run unless you name it" in cli("predict", run, "0.png").error
    described["model_file"]["layers"] = []
    path.write_text(json.dumps(described))
    assert cli("predict", run, "0.png").code == 0
    assert not Path("ran").exists()
    described["model_file"] = 7
    path.write_text(json.dumps(described))
    assert "run.json: is not the description of a run" in cli("predict", run, "0.png").error


def test_a_folder_of_images(cli: Cli, run: str) -> None:
    for place in ("many", "many/inner", "many/.hidden", "empty"):
        Path(place).mkdir()
    for number in (10, 2):
        Image.open("1.png").save(f"many/{number}.png")
    Image.open("2.png").save("many/inner/0.png")
    Image.open("2.png").save("many/.hidden/0.png")
    Path("many/notes.txt").write_text("no image")
    lines = [line.split("\t")[:2] for line in cli("predict", run, "0.png", "many").out.splitlines()]
    assert lines == [["0.png", "0"], ["many/2.png", "1"], ["many/10.png", "1"], ["many/inner/0.png", "2"]]
    assert "empty: the folder holds no images" in cli("predict", run, "empty").error


def test_black_on_white_digits_for_a_model_of_white_on_black_ones(cli: Cli) -> None:
    cli("train", "digits", "--epochs", 12, "--out", "run")
    digits = sg.data.load("digits")
    Path("paper").mkdir()
    Path("light").mkdir()
    for number in range(20):
        Image.fromarray(255 - digits.x[number, 0]).save(f"paper/{number}.png")
        Image.fromarray(digits.x[number, 0]).save(f"light/{number}.png")
    upright = cli("predict", "run", "light")
    assert upright.err == ""
    assert cli("predict", "run", "paper").err == (
        "warning: 20 of 20 images (paper/0.png, …): dark and light exchanged, compared with the training images; "
        "try --invert\n"
    )
    inverted = cli("predict", "run", "paper", "--invert")
    assert inverted.err == ""
    assert inverted.out == upright.out.replace("light/", "paper/")
