"""``sharedgrad train`` on small data: what it prints and what it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sharedgrad as sg
from sharedgrad.cli.recipe import default_epochs
from sharedgrad.storage import load
from sharedgrad.training.claim import claimed
from tests.cli.conftest import Cli, blobs

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = [sys.executable, "-m", "sharedgrad"]


def weights(folder: Path | str) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load(Path(folder) / "model.safetensors").state_dict().items()}


def test_everything_is_in_the_run_folder(cli: Cli, data: Path) -> None:
    result = cli("train", data, "--epochs", 4)
    assert result.code == 0
    assert result.err == ""
    run = Path("runs/rows-cnn")
    names = {
        *("model.safetensors", "model.json", "run.json", "metrics.csv", "checkpoint.safetensors"),
        *("curves.png", "confusion.png", "kernels.png"),
    }
    assert {path.name for path in run.iterdir()} == names
    assert all(name in result.out for name in names)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    described = json.loads((run / "run.json").read_text())
    assert described["classes"] == ["0", "1", "2"]
    assert described["settings"]["epochs"] == 4
    assert described["settings"]["lr"] == 0.003
    assert described["results"]["measured_on"] == "12 held-out images"
    assert described["results"]["accuracy"] == float(rows[-1]["val_accuracy"])
    assert f"accuracy on 12 held-out images, never trained on: {100 * described['results']['accuracy']:.2f} %" in (
        result.out
    )


def test_the_output_without_a_terminal_is_plain(cli: Cli, data: Path) -> None:
    lines = cli("train", data, "--epochs", 2, "--max-norm", 1, "--augment", "crop=1").out.splitlines()
    assert lines[0] == f"{data}: 48 training and 12 held-out images of 1×6×6, 3 classes"
    assert lines[1] == (
        "cnn (27,523 weights): 2 epochs, batches of 32, adam, lr 0.003 one-cycle, augment crop=1, max norm 1, seed 0"
    )
    assert lines[3].split() == ["epoch", "loss", "accuracy", "held-out", "loss", "accuracy", "images/s"]
    assert [line.split()[0] for line in lines[4:6]] == ["1/2", "2/2"]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, "epoch loss accuracy held-out loss accuracy images/s"),
        (60, "epoch loss accuracy held-out loss accuracy"),
        (40, "epoch held-out loss accuracy"),
        (20, "epoch accuracy"),
    ],
)
def test_the_table_of_epochs_gives_way_to_a_narrow_window(
    cli: Cli, data: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, width: int, heads: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli("train", data, "--model", tiny, "--epochs", 2).out.splitlines()
    table = lines[3:6]
    assert " ".join(table[0].split()) == heads
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= max(width, 20)


def test_a_narrow_terminal_breaks_between_words(data: Path, tiny: str, tmp_path: Path) -> None:
    """At 40 columns every line fits but for words that are longer, and no word is broken."""
    line = ["train", str(data), "--model", tiny, "--epochs", "2", "--max-norm", "1"]
    wide = on_a_terminal([*line, "--out", "a"], tmp_path, 200)
    narrow = on_a_terminal([*line, "--out", "b"], tmp_path, 40)
    words, plain = (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text) for text in (wide, narrow))
    after = plain[plain.index("accuracy on") :]
    assert max(len(line) for line in after.splitlines() if " " in line.strip()) <= 40
    shown = {word.rstrip(":") for word in after.split() if not word.startswith("b") and set(word) != {"-"}}
    assert shown <= {word.rstrip(":") for word in words.split()}


def on_a_terminal(arguments: list[str], folder: Path, width: int) -> str:
    """What a terminal of that width is sent."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(width), "LINES": "40"}
    with subprocess.Popen([*PROGRAM, *arguments], cwd=folder, stdout=slave, stderr=slave, env=environment):
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


def test_the_idea_is_shown_on_the_model(cli: Cli, data: Path) -> None:
    out = cli("train", data, "--epochs", 1).out
    assert "conv1.weight[" in out
    assert "used 576 times: 16 samples × 6×6 positions" in out
    assert "the sum of all 576 is the gradient" in out
    assert "tape.backward: the same" in out


def test_a_test_part_is_watched_and_measured_on(cli: Cli, tested: Path) -> None:
    out = cli("train", tested, "--epochs", 1).out
    assert "60 training and 30 test images" in out
    assert "test loss" in out
    assert "accuracy on 30 test images" in out


def test_a_fraction_is_held_out_and_the_test_part_kept_for_the_end(cli: Cli, tested: Path) -> None:
    out = cli("train", tested, "--epochs", 1, "--val-fraction", 0.25).out
    assert "45 training and 30 test images" in out
    assert "held-out loss" in out
    assert "accuracy on 30 test images" in out


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--schedule", "cosine"),
        ("--optimizer", "adamw", "--schedule", "step", "--lr", "0.001"),
        ("--schedule", "constant", "--augment", "flip,crop=1"),
        ("--batch-size", "1"),
    ],
)
def test_settings(cli: Cli, data: Path, tiny: str, options: tuple[str, ...]) -> None:
    assert cli("train", data, "--model", tiny, "--epochs", 2, *options).code == 0


def test_every_option_reaches_the_training(cli: Cli, tested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def stopped(network: sg.Network, train: Any, validation: Any, **options: Any) -> None:
        given.update(options, network=network, images=len(train[0]), held_out=len(validation[0]))
        given["threads"] = sg.get_threads()
        raise KeyboardInterrupt

    monkeypatch.setattr("sharedgrad.cli.train.fit", stopped)
    line = "--epochs 7 --batch-size 5 --lr 0.25 --optimizer sgd --schedule step --augment flip,crop=2 --max-norm 3"
    more = "--val-fraction 0.25 --seed 11 --threads 3 --out here --resume"
    assert cli("train", tested, *line.split(), *more.split()).code == 130
    sgd = given["optimizer"]
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.25, 0.9, True, 1e-4)
    assert sgd.parameters == given["network"].parameters()
    assert given["network"].seed == 11
    assert given["augment"] == sg.data.Augmentation(flip=True, crop=2)
    assert given["normalize"].mean[0] > 0
    expected = {
        "epochs": 7,
        "batch_size": 5,
        "schedule": "step",
        "max_norm": 3.0,
        "seed": 11,
        "threads": 3,
        "out": Path("here"),
        "resume": True,
        "images": 45,
        "held_out": 15,
    }
    assert {name: given[name] for name in expected} == expected


def test_it_learns(cli: Cli, data: Path) -> None:
    cli("train", data, "--epochs", 15, "--batch-size", 8, "--out", "run")
    assert json.loads(Path("run/run.json").read_text())["results"]["accuracy"] == 1.0


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(cli: Cli, data: Path, tiny: str) -> None:
    for name, options in {"a": ("--threads", 1), "b": ("--threads", 2), "c": ("--seed", 1)}.items():
        assert cli("train", data, "--epochs", 2, *options, "--out", name).code == 0
    assert weights("a") == weights("b") != weights("c")


def test_each_run_gets_a_folder_of_its_own(cli: Cli, data: Path, tiny: str) -> None:
    for _ in range(3):
        cli("train", data, "--model", tiny, "--epochs", 1)
    assert sorted(os.listdir("runs")) == ["rows-tiny", "rows-tiny-2", "rows-tiny-3"]


def test_runs_started_at_once_get_a_folder_each(data: Path, tiny: str, tmp_path: Path) -> None:
    line = [*PROGRAM, "train", str(data), "--model", tiny, "--epochs", "1", "--seed"]
    runs = [subprocess.Popen([*line, str(seed)], cwd=tmp_path, stdout=subprocess.DEVNULL) for seed in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json")]
    assert sorted(run["settings"]["seed"] for run in found) == [0, 1, 2, 3]


def test_a_folder_that_is_being_claimed_is_left_out(cli: Cli, data: Path, tiny: str) -> None:
    thread = threading.Thread(target=lambda: claim.enter_context(claimed("runs/rows-tiny")))
    with ExitStack() as claim:
        thread.start()
        thread.join()
        assert cli("train", data, "--model", tiny, "--epochs", 1).code == 0
        assert "another run is writing to it" in cli("train", data, "--model", tiny, "--out", "runs/rows-tiny").error
    assert os.listdir("runs/rows-tiny") == []
    assert Path("runs/rows-tiny-2/model.safetensors").exists()


def test_an_empty_folder_is_free(cli: Cli, data: Path, tiny: str) -> None:
    Path("runs/rows-tiny").mkdir(parents=True)
    cli("train", data, "--model", tiny, "--epochs", 1)
    assert os.listdir("runs") == ["rows-tiny"]


def test_images_in_class_folders(cli: Cli, tiny: str) -> None:
    x, y = blobs(30, 2)
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = Path("photos", "abc"[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((12 + label, 12)).save(folder / f"{number}.png")
    assert "--size" in cli("train", "photos", "--model", tiny).error
    result = cli("train", "photos", "--model", tiny, "--size", "6x7", "--epochs", 1)
    assert result.code == 0
    assert "1×6×7, 3 classes" in result.out


def test_transparent_drawings(cli: Cli) -> None:
    """Black on nothing: without a background every image would be the same."""
    rng = np.random.default_rng(3)
    for number in range(120):
        alpha = np.zeros((12, 12), np.uint8)
        row, column = rng.integers(0, 4, 2)
        alpha[row : row + 8, column : column + 8] = 255
        if number % 2:
            alpha[row + 1 : row + 7, column + 1 : column + 7] = 0
        folder = Path("shapes", ("full", "hollow")[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.merge("LA", (Image.new("L", (12, 12)), Image.fromarray(alpha))).save(folder / f"{number}.png")
    result = cli("train", "shapes", "--epochs", 8, "--out", "run")
    assert "120 of 120 images are transparent: laid on white (--background black for the other)\n" in result.out
    assert json.loads(Path("run/run.json").read_text())["results"]["accuracy"] == 1
    answers = cli("predict", "run", "shapes/full/0.png", "shapes/hollow/1.png").out.splitlines()
    assert [line.split("\t")[1] for line in answers] == ["full", "hollow"]


@pytest.mark.parametrize("model", ["tiny_cnn.py:tiny_cnn", "mlp.toml"])
def test_the_examples(cli: Cli, model: str) -> None:
    result = cli("train", "digits", "--model", EXAMPLES / model, "--epochs", 1)
    assert result.code == 0
    assert ("no kernels.png: the first layer" in result.out) == (model == "mlp.toml")


def test_a_run_can_be_trained_again_from_its_configuration(cli: Cli, data: Path, tiny: str) -> None:
    cli("train", data, "--epochs", 1, "--out", "a")
    cli("train", data, "--epochs", 1, "--model", "a/model.json", "--out", "b")
    assert weights("a") == weights("b")


def test_the_seed_draws_the_weights_of_a_configuration_that_names_none(cli: Cli, data: Path) -> None:
    network = sg.Network([sg.Flatten(), sg.Linear(36, 3)], (1, 6, 6)).to_config()
    Path("net.json").write_text(json.dumps({"nodes": network["nodes"]}))
    for seed in (0, 1):
        cli("train", data, "--epochs", 1, "--model", "net.json", "--seed", seed, "--out", seed)
        assert json.loads(Path(str(seed), "model.json").read_text())["seed"] == seed


def test_a_bar_on_a_terminal(data: Path, tiny: str, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    line = [*PROGRAM, "train", str(data), "--model", tiny, "--epochs", "20"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(line, cwd=tmp_path, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
    os.close(master)
    screen = shown.decode()
    assert process.returncode == 0
    assert "epoch 1/20" in screen
    assert "images/s" in screen
    assert " left" in screen
    assert re.search(r" 7/20 +\d\.\d{4} ", screen)  # the line of an epoch, above the bar
    assert "accuracy on 12 held-out images" in screen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal says that the other side has gone
        return b""


def test_a_reader_that_has_gone_is_no_error(data: Path, tiny: str, tmp_path: Path) -> None:
    line = [*PROGRAM, "train", str(data), "--model", tiny, "--epochs", "3"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("images", "epochs"), [(10, 30), (1438, 30), (3334, 30), (10_000, 10), (20_000, 5), (50_000, 3), (10**6, 3)]
)
def test_default_epochs(images: int, epochs: int) -> None:
    assert default_epochs(images) == epochs


def test_the_default_of_the_epochs_is_taken(cli: Cli, data: Path, tiny: str) -> None:
    cli("train", data, "--model", tiny, "--out", "run")
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 31


def test_float_images_and_named_classes(cli: Cli, tiny: str) -> None:
    x, y = blobs(30, 3)
    np.savez("named.npz", x=(x / 255).astype(np.float32), y=np.array(["ox", "cat", "bee"])[y])
    cli("train", "named.npz", "--model", tiny, "--epochs", 1, "--out", "run")
    assert json.loads(Path("run/run.json").read_text())["classes"] == ["bee", "cat", "ox"]


def test_more_epochs(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--schedule", "constant", "--out", "run")
    cli(*line, "--epochs", 2)
    assert "all 2 epochs are done" in cli(*line, "--resume").out  # no --epochs: those it was started with
    result = cli(*line, "--epochs", 5, "--resume")
    assert "resuming the run in run after 2 of 5 epochs" in result.out
    cli(*line[:-1], "straight", "--epochs", 5)
    assert weights("run") == weights("straight")
    assert json.loads(Path("run/run.json").read_text())["settings"]["epochs"] == 5


def test_another_head_on_the_weights_of_a_run(cli: Cli, data: Path, tiny: str) -> None:
    cli("train", data, "--model", tiny, "--epochs", 1, "--out", "first")
    x, y = blobs(40, 5)
    np.savez("two.npz", x=x, y=y % 2)
    result = cli("train", "two.npz", "--model", tiny, "--epochs", 1, "--init", "first", "--lr", 1e-9, "--out", "second")
    assert "weights of first; new: fc.weight, fc.bias\n" in result.out
    assert "not trained on in this run" in result.out
    first, second = (load(f"{name}/model.safetensors").state_dict()["conv.weight"] for name in ("first", "second"))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert "there is no such file" in cli("train", data, "--init", "nowhere").error


def test_the_best_epoch_and_patience(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--lr", 0.1, "--schedule", "constant")
    result = cli(*line, "--epochs", 40, "--keep", "best", "--patience", 3, "--out", "run")
    rows = list(csv.DictReader(Path("run/metrics.csv").read_text().splitlines()))
    assert len(rows) < 40
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert f"kept epoch {best['epoch']} of {len(rows)}, which has the lowest held-out loss" in result.out
    assert json.loads(Path("run/run.json").read_text())["results"]["loss"] == float(best["val_loss"])
    assert "needs images that are held out" in cli(*line, "--val-fraction", 0, "--keep", "best").error


def test_trained_on_everything(cli: Cli, data: Path, tested: Path, tiny: str) -> None:
    result = cli("train", data, "--model", tiny, "--epochs", 1, "--val-fraction", 0, "--out", "run")
    assert "60 training images of" in result.out
    assert "nothing was held out" in result.out
    assert not Path("run/confusion.png").exists()
    assert json.loads(Path("run/run.json").read_text())["results"] == {}
    Image.fromarray(blobs(1, 3)[0][0]).save("x.png")
    assert cli("predict", "run", "x.png").code == 0
    assert "60 training and 30 test" in cli("train", tested, "--model", tiny, "--epochs", 1, "--val-fraction", 0).out


def test_exact_is_kept_by_resume_and_predict(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minimal filtering is off while these commands run, and on again afterwards."""
    ways: list[bool] = []

    def noting(call: Any) -> Any:
        def noted(self: Any, *given: Any, **named: Any) -> Any:
            ways.append(sg.kernels.plain_sums())
            return call(self, *given, **named)

        return noted

    monkeypatch.setattr(sg.SGD, "step", noting(sg.SGD.step))
    monkeypatch.setattr(sg.Network, "predict", noting(sg.Network.predict))
    line = ("train", data, "--optimizer", "sgd", "--out", "run")
    assert ", exact, seed 0" in cli(*line, "--epochs", 1, "--exact").out
    assert json.loads(Path("run/run.json").read_text("utf-8"))["settings"]["exact"] is True
    assert ", exact, seed 0" in cli(*line, "--epochs", 2, "--resume").out
    Image.fromarray(np.zeros((6, 6), np.uint8)).save("one.png")
    assert cli("predict", "run", "one.png").code == 0
    assert all(ways)
    assert not sg.kernels.plain_sums()
    ways.clear()
    assert cli("train", data, "--optimizer", "sgd", "--epochs", 1, "--out", "other").code == 0
    assert not any(ways)
    refused = cli("train", data, "--optimizer", "sgd", "--epochs", 2, "--out", "other", "--resume", "--exact")
    assert "was written with other settings: exact False (now True)" in refused.error
    ways.clear()
    assert cli("predict", "other", "one.png", "--exact").code == 0
    assert ways == [True]


def test_the_images_that_chose_the_epoch_are_told(cli: Cli, data: Path, tiny: str) -> None:
    line = ("train", data, "--model", tiny, "--epochs", 2, "--keep")
    assert "never trained on: " in cli(*line, "last").out
    assert "never trained on but used to choose the epoch: " in " ".join(cli(*line, "best").out.split())


def test_an_optimizer_by_its_name_in_python(cli: Cli, data: Path, tiny: str) -> None:
    result = cli("train", data, "--model", tiny, "--epochs", 1, "--optimizer", "SGD", "--out", "run")
    assert result.code == 0
    assert json.loads(Path("run/run.json").read_text("utf-8"))["settings"]["optimizer"] == "sgd"
