"""Whatever a person gets wrong: exactly one line on stderr, exit code 2, and the line says what and how to mend it."""

from __future__ import annotations

import builtins
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Cli, blobs

X, Y = blobs(30, 0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trian digits", "sharedgrad: No such command 'trian'"),
        ("--nonsense", "sharedgrad: No such option '--nonsense'"),
        ("train", "sharedgrad train: Missing argument 'DATA'; see sharedgrad train --help"),
        ("train digits more", "unexpected extra argument"),
        ("train digits --epohcs 3", "--epochs"),
        ("train digits --epochs 0", "'--epochs': 0 is not in the range"),
        ("train digits --epochs two", "'--epochs'"),
        ("train digits --batch-size 0", "'--batch-size'"),
        ("train digits --threads 0", "'--threads'"),
        ("train digits --seed -1", "'--seed'"),
        ("train digits --lr 0", "'--lr': '0' is not a finite number above 0"),
        ("train digits --lr nan", "'--lr'"),
        ("train digits --lr inf", "'--lr'"),
        ("train digits --lr fast", "'--lr'"),
        ("train digits --max-norm -1", "'--max-norm'"),
        ("train digits --val-fraction 1", "'--val-fraction': '1' is not a number from 0 to below 1"),
        ("train digits --val-fraction 0.0001", "holds out none"),
        ("train digits --optimizer rmsprop", "'--optimizer': 'rmsprop' is not one of"),
        ("train digits --schedule warp", "'--schedule'"),
        ("train digits --augment spin", "--augment: 'spin' is not understood"),
        ("train digits --augment crop=9", "can empty images of 8×8"),
        ("train digits --threads 1000", "'--threads': 1000 is not in the range"),
        ("train digits --size 0", "'--size': '0' is no size"),
        ("train digits --size 8x", "'--size'"),
        ("train digits --size 16", "--size: resizes a folder of images, and digits is none"),
        ("train nowhere", "nowhere: there is no such file or folder"),
        ("train empty", "empty: the folder is empty"),
        ("train text.txt", "text.txt: is not understood"),
        ("train damaged.npz", "damaged.npz: is not a readable .npz archive"),
        ("train pickled.npz", "pickles are never read"),
        ("train one_class.npz", "of one class ('5'), expected two or more"),
        ("train nan.npz", "NaN or infinite pixels"),
        ("train lengths.npz", "30 training images, but 29 training labels"),
        ("train digits --model lenet", "model lenet: there is no such model; did you mean lenet5?"),
        ("train digits --model transformer", "choose from lenet5, cnn, vgg, resnet20"),
        ("train digits --model lenet5", "expected images (channels, height, width) of at least 12×12, got 1×8×8"),
        ("train digits --out text.txt", "text.txt: is a file, expected a folder"),
        ("predict", "sharedgrad predict: Missing argument 'RUN'"),
        ("predict empty", "Missing argument 'IMAGE...'"),
        ("predict nowhere x.png", "nowhere: there is no such run folder"),
        ("predict empty x.png", "empty: is not a run folder (no run.json)"),
        ("summary", "sharedgrad summary: Missing argument 'MODEL|RUN'"),
        ("summary empty", "empty: is not a run folder"),
        ("summary lenet6", "did you mean lenet5?"),
        ("summary cnn --input-shape 3x3", "'--input-shape': '3x3' is no shape, expected e.g. 3,32,32"),
        ("summary cnn --input-shape 9", "expected images"),
        ("summary cnn --classes 0", "'--classes'"),
    ],
)
def test_one_line(cli: Cli, line: str, expected: str) -> None:
    Path("empty").mkdir()
    Path("text.txt").write_text("no data")
    Path("damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez("pickled.npz", x=np.array([{}] * 30, dtype=object), y=Y)
    np.savez("one_class.npz", x=X, y=np.full(30, 5))
    np.savez("nan.npz", x=np.where(X > 200, np.nan, X), y=Y)
    np.savez("lengths.npz", x=X, y=Y[:-1])
    result = cli(*line.split())
    assert expected in result.error
    assert not any(path.is_file() for path in Path("runs").rglob("*"))


MODELS = {
    "syntax": "def net(a, b)\n    pass",
    "raises": "import sharedgrad\n\n1 / 0",
    "missing": "import no_such_module_anywhere",
    "leaves": "raise SystemExit(0)",
    "one": "def net(shape): return None",
    "none": "def net(shape, classes): return None",
    "fails": "def net(shape, classes):\n    x = 1\n    raise ValueError('two\\nlines')",
    "channels": "import sharedgrad as sg\ndef net(s, c): return sg.Network([sg.Conv2d(3, 4, 3)], s)",
    "features": "import sharedgrad as sg\ndef net(s, c): return sg.Network([sg.Flatten(), sg.Linear(9, c)])",
    "classes": "import sharedgrad as sg\ndef net(s, c): return sg.Network({'out': sg.Flatten()}, s)",
    "other": "import sharedgrad as sg\ndef net(s, c): return sg.Network([sg.Flatten(), sg.Linear(9, c)], (1, 3, 3))",
    "inputs": "import sharedgrad as sg\ndef net(s, c): return sg.Network({'a': (sg.Add(), 'p', 'q')}, dict(p=s, q=s))",
    "thing": "net = 3",
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("syntax.py:net", "syntax.py: does not import: SyntaxError in line 1: expected ':'"),
        ("raises.py:net", "raises.py: does not import: ZeroDivisionError in line 3: division by zero"),
        ("missing.py:net", "missing.py: does not import: ModuleNotFoundError in line 1"),
        ("leaves.py:net", "leaves.py: does not import: SystemExit in line 1"),
        ("one.py:net", "one.py:net: cannot be called with (input_shape, classes)"),
        ("none.py:net", "none.py:net: expected a Network, got NoneType"),
        ("fails.py:net", "fails.py:net: ValueError in line 3: two lines"),
        ("channels.py:net", "(Conv2d): expected samples of shape 3×height×width (in_channels=3), got 1×6×6"),
        ("features.py:net", "(Linear): expected 9 features"),
        ("classes.py:net", "layer 'out' (Flatten): expected one score for each of 3 classes, got an output of 36"),
        ("other.py:net", "takes samples of 1×3×3, the data have 1×6×6"),
        ("inputs.py:net", "expected one input and one output, got 2 inputs and 1 outputs"),
        ("thing.py:net", "thing.py: 'net' is no function"),
        ("one.py:nat", "one.py: has no function 'nat'; did you mean 'net'?"),
        ("one.py", "model one.py: names no function; write one.py:FUNCTION"),
        ("absent.py:net", "absent.py: there is no such model file"),
        ("absent.json", "absent.json: cannot be read (No such file or directory)"),
        ("half.json", "half.json: is not valid JSON"),
        ("half.toml", "half.toml: is not valid TOML"),
        ("list.json", "list.json: network configuration: expected an object"),
        ("layer.json", "layer.json: node '0': there is no layer 'Conv4d'"),
        ("shape.json", "shape.json: layer '1' (Linear): expected 9 features"),
    ],
)
def test_models(cli: Cli, data: Path, model: str, expected: str) -> None:
    for name, text in MODELS.items():
        Path(f"{name}.py").write_text(text)
    Path("half.json").write_text('{"nodes": ')
    Path("half.toml").write_text("nodes = [")
    Path("list.json").write_text("[1]")
    Path("layer.json").write_text('{"nodes": [{"layer": "Conv4d"}]}')
    Path("shape.json").write_text(
        '{"inputs": {"x": [1, 6, 6]}, "nodes": [{"layer": "Flatten"},'
        ' {"layer": "Linear", "in_features": 9, "out_features": 3}]}'
    )
    assert expected in cli("train", data, "--model", model).error
    assert not Path("runs").exists()


def test_a_word_of_two_lines_is_one_line(cli: Cli) -> None:
    assert cli("train", "digits", "two\nlines").error.endswith("(two lines); see sharedgrad train --help")


def test_a_folder_that_holds_a_run(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--epochs", 1, "--out", "run")
    cli(*line)
    assert "run: holds a run already; --resume" in cli(*line).error
    assert "batch size 32 (now 8)" in cli(*line, "--resume", "--batch-size", 8).error
    Path("run/checkpoint.safetensors").write_bytes(b"no checkpoint")
    assert "run/checkpoint.safetensors: " in cli(*line, "--resume").error


def test_a_damaged_model(cli: Cli, data: Path, tiny: str) -> None:
    cli("train", data, "--model", tiny, "--epochs", 1, "--out", "run")
    Image.fromarray(X[0]).save("x.png")
    model = Path("run/model.safetensors")
    model.write_bytes(model.read_bytes()[:-9])
    assert "run/model.safetensors: " in cli("predict", "run", "x.png").error
    assert "run/model.safetensors: " in cli("summary", "run").error


def test_a_loss_that_runs_away(cli: Cli, data: Path) -> None:
    error = cli("train", data, "--optimizer", "sgd", "--lr", 1e9, "--out", "run").error
    assert error.startswith("sharedgrad train: epoch 1, batch ")
    assert "loss has become " in error
    assert "take a smaller --lr than 1e+09" in error
    assert set(os.listdir("run")) == {"model.json", "run.json"}  # no weights: the same line starts afresh


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(cli: Cli, data: Path, tiny: str) -> None:
    Path("locked").mkdir(mode=0o555)
    assert "cannot be written (Permission denied)" in cli("train", data, "--model", tiny, "--out", "locked/run").error


def test_a_full_disk(cli: Cli, data: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in cli("train", data, "--model", tiny, "--out", "run").error


def test_too_little_memory(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sharedgrad.cli.train.load", exhausted)
    assert cli("train", data).error.startswith("sharedgrad train: not enough memory; take a smaller --batch-size")


def test_other_errors_of_the_system_name_their_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "disk")

    monkeypatch.setattr("sharedgrad.cli.train.load", broken)
    assert cli("train", "digits").error == "sharedgrad train: disk: Input/output error"


def test_ctrl_c_outside_of_training(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sharedgrad.cli.train.load", interrupted)
    result = cli("train", "digits")
    assert (result.code, result.err) == (130, "sharedgrad train: interrupted\n")


@pytest.mark.parametrize(("module", "package"), [("click", "click"), ("sklearn", "scikit-learn")])
def test_a_missing_library(cli: Cli, monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    found = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == module:
            raise ImportError(name)
        return found(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", without)
    error = cli("train", "digits").error
    assert f"needs {package}, which is not installed; pip install 'sharedgrad[cli]'" in error


def test_photographs_as_cameras_make_them(cli: Cli) -> None:
    for name in ("a", "b"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (4000, 3000)).save(f"photos/{name}/1.png", compress_level=1)
    error = cli("train", "photos").error
    assert "photos: images of 3000×4000 are too large to train on; shrink them with --size 64" in error


def test_names_that_would_steer_a_terminal(cli: Cli) -> None:
    """A file name may hold escapes; on stderr, too, they are shown and not obeyed."""
    name = "\x1b[2J\x1b]0;title\x07.npz"
    for line in (("train", name), ("predict", name, "x.png"), ("summary", name), (name,), ("train", "digits", name)):
        error = cli(*line).error
        assert "\x1b" not in error
        assert "\x07" not in error
        assert r"\x1b[2J\x1b]0;title\x07.npz" in error
    Path("train", "a").mkdir(parents=True)
    Path("train/a/\x1b[31m.png").write_text("no image")
    assert r"a/\x1b[31m.png: is not an image" in cli("train", "train").error


def test_a_data_set_that_can_be_fetched_is_offered(cli: Cli) -> None:
    assert cli("train", "mnist").error.endswith("no such file or folder; sharedgrad data mnist mnist fetches it")


def test_a_class_that_has_not_answered_yet(cli: Cli) -> None:
    assert cli("check", "--exercise", "relu", "--students", 2, "--out", "sheets").code == 0
    assert "No student has answered yet" in cli("check", "sheets", "--class", "sheets/answers-template.csv").out
