from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharedgrad import Network, configuration
from sharedgrad.data import Normalization
from sharedgrad.errors import CheckpointError, OutputError
from sharedgrad.training import Run, load_run, save_run
from tests.helpers import same_bits
from tests.training import job


def run() -> Run:
    normalization = Normalization((1 / 3, 2.0), (0.1, 7.0), None)
    settings, results = {"epochs": 3, "augment": None}, {"accuracy": 0.5}
    return Run(job.network(), "größe", ("a", "b", "ç"), normalization, (2, 6, 6), settings, results)


def test_a_run_comes_back(tmp_path: Path) -> None:
    saved = run()
    save_run(tmp_path / "runs" / "x", saved)
    loaded = load_run(tmp_path / "runs" / "x")
    for name in ("data", "classes", "normalization", "input_shape", "settings", "results"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name, array in saved.network.state_dict().items():
        same_bits(loaded.network.state_dict()[name], array)


def test_the_configuration_is_a_file_that_makes_the_network(tmp_path: Path) -> None:
    save_run(tmp_path, run())
    again = Network.from_config(configuration.read(tmp_path / "model.json"))
    assert again.to_config() == job.network().to_config()
    assert (tmp_path / "model.json").read_text().count("\n") > 20  # for people


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such run folder"):
        load_run(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"is not a run folder \(no run\.json\)"):
        load_run(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="training has not come to its end; go on with --resume"):
        load_run(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_run(tmp_path / "file", run())


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("classes"),
        lambda found: found.update(format="other"),
        lambda found: found.update(version=2),
        lambda found: found.update(input_shape=[1, 2]),
        lambda found: found.update(input_shape="abc"),
        lambda found: found.update(normalization={"mean": [0], "std": [0], "scale": 1}),
        lambda found: found.update(normalization=None),
        lambda found: found.update(settings=3),
        lambda found: found.update(classes=7),
        lambda found: found.update(classes=["a", "b"]),
        lambda found: found.update(input_shape=[2, 7, 6]),
        lambda found: found.update(input_shape=[2, 10**6, 10**6]),
    ],
)
def test_descriptions_that_are_damaged(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    save_run(tmp_path, run())
    path = tmp_path / "run.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=r"run\.json: is not the description of a run"):
        load_run(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"\xff", b"[" * 100_000])
def test_descriptions_that_are_none(tmp_path: Path, text: bytes) -> None:
    save_run(tmp_path, run())
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"run\.json: is not the description of a run"):
        load_run(tmp_path)


def test_a_model_that_is_missing_or_damaged(tmp_path: Path) -> None:
    save_run(tmp_path, run())
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: there is no such file"):
        load_run(tmp_path)
