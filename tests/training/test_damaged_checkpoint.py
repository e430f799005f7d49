"""Checkpoints that are damaged, foreign or forged are refused in one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad.errors import CheckpointError
from sharedgrad.storage import load_arrays, save, save_arrays
from sharedgrad.training import Callback, State
from sharedgrad.training.files import CHECKPOINT
from tests.training import job
from tests.training.straight import finishes_with_the_same_bits


def damaged(data: bytes) -> dict[str, bytes]:
    header = int.from_bytes(data[:8], "little")
    flipped = bytearray(data)
    flipped[-3] ^= 4
    renamed = data.replace(b"network/0.weight", b"network/9.weight")
    return {
        "empty": b"",
        "cut in the length": data[:5],
        "cut in the header": data[: header // 2],
        "cut in the arrays": data[:-1],
        "longer": data + b"\0",
        "zeros": bytes(len(data)),
        "absurd length": (2**63 + 5).to_bytes(8, "little") + data[8:],
        "long length": (2**33).to_bytes(8, "little") + data[8:],
        "a flipped bit": bytes(flipped),
        "a renamed array": renamed,
        "text": b"epoch,train_loss\n" * 100,
        "pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR." * 20,
        "deep header": (100_008).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 8,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("finished")
    job.fit(job.network(), out=folder)
    return (folder / CHECKPOINT).read_bytes()


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        job.fit(job.network(), out=folder, resume=True)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(folder / CHECKPOINT))
    return str(error.value)


@pytest.mark.parametrize("kind", damaged(bytes(100)))
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, finished: bytes, kind: str) -> None:
    (tmp_path / CHECKPOINT).write_bytes(damaged(finished)[kind])
    assert "is damaged" in refused(tmp_path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / CHECKPOINT)
    assert "was not written by sharedgrad" in refused(tmp_path)
    save(job.network(), tmp_path / CHECKPOINT)
    assert "is not a checkpoint of a training run" in refused(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / CHECKPOINT).mkdir()
    assert "is not a file" in refused(tmp_path)


@pytest.mark.parametrize(
    "forge",
    [
        lambda arrays, metadata: metadata.pop("settings"),
        lambda arrays, metadata: metadata.update(settings="[]"),
        lambda arrays, metadata: metadata.update(settings="{}"),
        lambda arrays, metadata: metadata.update(progress="{"),
        lambda arrays, metadata: metadata.update(progress="null"),
        lambda arrays, metadata: metadata.update(
            progress=json.dumps(json.loads(metadata["progress"]) | {"metrics": {"hits": 3}})
        ),
        lambda arrays, metadata: metadata.update(
            progress=json.dumps(json.loads(metadata["progress"]) | {"history": [{"epoch": 1}]})
        ),
        lambda arrays, metadata: arrays.pop("network/0.weight"),
        lambda arrays, metadata: arrays.update({"network/0.bias": np.zeros(9, np.float32)}),
        lambda arrays, metadata: arrays.update({"optimizer/0.bias/momentum": np.zeros(9, np.float32)}),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(
    tmp_path: Path, finished: bytes, forge: Callable[[dict[str, Any], dict[str, str]], object]
) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(finished)
    arrays, metadata = load_arrays(path)
    forge(arrays, metadata)
    save_arrays(path, arrays, metadata)
    with pytest.raises(CheckpointError) as error:
        job.fit(job.network(), out=tmp_path, resume=True)
    assert "\n" not in str(error.value)


def forged(folder: Path, **numbers: Any) -> None:
    """A checkpoint after one epoch that says something else of its progress."""
    with contextlib.suppress(KeyboardInterrupt):
        job.fit(job.network(), out=folder, callbacks=[Stops(epoch=1, batch=2)])
    arrays, metadata = load_arrays(folder / CHECKPOINT)
    progress = {**json.loads(metadata["progress"]), **numbers}
    save_arrays(folder / CHECKPOINT, arrays, {**metadata, "progress": json.dumps(progress)})


class Stops(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.place = epoch, batch

    def on_batch(self, state: State) -> None:
        if (state.epoch, state.batch) == self.place:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "numbers",
    [
        {"epoch": 10**9},
        {"epoch": -1},
        {"epoch": 1.0},
        {"epoch": True},
        {"epoch": 2},
        {"batch": 10**9},
        {"batch": -1},
        {"batch": 0},
        {"batch": "2"},
        {"history": []},
        {"history": [{"epoch": 2}]},
        {"history": 7},
        {"metrics": {}},
        {"metrics": {"samples": 0, "loss_sum": 0.0, "labels": 0, "correct": 0}},
        {"step": float("inf")},
    ],
)
def test_forged_progress_is_no_checkpoint(tmp_path: Path, numbers: dict[str, Any]) -> None:
    forged(tmp_path, **numbers)
    with pytest.raises(CheckpointError, match="is not a checkpoint of a training run"):
        job.fit(job.network(), out=tmp_path, resume=True)


def test_unforged_progress_is_one(tmp_path: Path) -> None:
    forged(tmp_path)
    finishes_with_the_same_bits(tmp_path)
