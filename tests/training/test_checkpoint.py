from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad import MSE, SGD, BatchNorm2d, Conv2d, CrossEntropy, Flatten, Linear, Network, fit
from sharedgrad.data import Normalization
from sharedgrad.errors import CheckpointError, ConfigError, DivergedError, OutputError
from sharedgrad.storage import load_arrays, save
from sharedgrad.training import Callback, State, checkpoint, loop
from sharedgrad.training.files import CHECKPOINT, METRICS, MODEL
from sharedgrad.training.history import History
from tests.training import job
from tests.training.straight import finishes_with_the_same_bits, uninterrupted

SRC = Path(checkpoint.__file__).parents[2]


class Messages(Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def signalled(folder: Path, number: int, function: str, call: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, job.__file__, str(folder), str(int(number)), function, str(call)]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


# two checkpoints per epoch more than batches: each write calls fsync and replace, and so does metrics.csv
@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("fsync", 2),  # half written: the first checkpoint, where none was before
        ("fsync", 4),
        ("replace", 9),
        ("change", 6 + 6 * 2 + 3),  # between two of the six parameters of one update that is not in place
        ("step", 2),
        ("step", 3 * job.BATCHES - 1),  # one is explained, and so made line by line
        ("measure", 2),
        ("csv", 1),
        ("csv", job.EPOCHS),
    ],
)
def test_killed_at_any_moment(tmp_path: Path, function: str, call: int) -> None:
    assert signalled(tmp_path, signal.SIGKILL, function, call).returncode == -signal.SIGKILL
    finishes_with_the_same_bits(tmp_path)


def test_killed_again_and_again(tmp_path: Path) -> None:
    for function, call in (("change", 6 + 9), ("fsync", 6), ("measure", 1), ("step", 4)):
        assert signalled(tmp_path, signal.SIGKILL, function, call).returncode == -signal.SIGKILL
    finishes_with_the_same_bits(tmp_path)


@pytest.mark.parametrize(
    ("function", "call"), [("change", 6 + 10), ("replace", 3), ("measure", 2), ("close", 2), ("csv", 2)]
)
def test_interrupted_by_ctrl_c(tmp_path: Path, function: str, call: int) -> None:
    process = signalled(tmp_path, signal.SIGINT, function, call)
    assert process.stderr.rstrip().endswith("KeyboardInterrupt")
    finishes_with_the_same_bits(tmp_path)


def test_ctrl_c_saves_where_the_run_was_stopped(tmp_path: Path) -> None:
    class Interrupt(Callback):
        interrupted = ended = 0

        def on_batch(self, state: State) -> None:
            if state.step == 8:
                raise KeyboardInterrupt

        def on_interrupt(self, state: State) -> None:
            self.interrupted += 1

        def on_end(self, state: State) -> None:
            self.ended += 1
            assert not state.finished

    callback = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        job.fit(job.network(), out=tmp_path, callbacks=[callback])
    assert (callback.interrupted, callback.ended) == (1, 1)
    messages = Messages()
    job.fit(job.network(), out=tmp_path, resume=True, callbacks=[messages])
    assert messages.texts == [f"resuming the run in {tmp_path} after 1 of 3 epochs and 3 batches"]
    finishes_with_the_same_bits(tmp_path)


def test_optimizer_state_is_the_same_too(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch(self, state: State) -> None:
            raise KeyboardInterrupt

    net = job.network()
    expected = job.sgd(net)
    job.fit(net, optimizer=expected)
    with pytest.raises(KeyboardInterrupt):
        job.fit(job.network(), out=tmp_path, callbacks=[Stop()])
    again = job.network()
    optimizer = job.sgd(again)
    job.fit(again, optimizer=optimizer, out=tmp_path, resume=True)
    state = optimizer.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(state[name].tobytes() == array.tobytes() for name, array in expected.state_dict().items())


def test_nothing_to_resume(tmp_path: Path) -> None:
    messages = Messages()
    job.fit(job.network(), out=tmp_path / "new" / "run", resume=True, callbacks=[messages])
    assert messages.texts == [f"nothing to resume in {tmp_path / 'new' / 'run'}: starting afresh"]
    finishes_with_the_same_bits(tmp_path / "new" / "run")


def test_a_finished_run_says_so_and_gives_its_result(tmp_path: Path) -> None:
    first = job.fit(job.network(), out=tmp_path)
    messages, net = Messages(), job.network()
    assert job.fit(net, out=tmp_path, resume=True, callbacks=[messages]) == first
    assert messages.texts == [f"the run in {tmp_path} is finished: all 3 epochs are done"]
    assert all(a.tobytes() == uninterrupted()[0][n].tobytes() for n, a in net.state_dict().items())


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    job.fit(job.network(), out=tmp_path, epochs=1)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=r"holds a run already; --resume .* goes on with it"):
        job.fit(job.network(), out=tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_resume_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="give out="):
        job.fit(job.network(), resume=True)


def other_network() -> Network:
    return Network([Conv2d(2, 4, 3, padding=1), BatchNorm2d(4), Flatten(), Linear(144, 3)], (2, 6, 6))


@pytest.mark.parametrize(
    ("net", "change", "named"),
    [
        (job.network, {"epochs": 2}, "epochs 3 (now 2)"),
        (job.network, {"batch_size": 4, "seed": 8}, "batch size 8 (now 4), seed 7 (now 8)"),
        (job.network, {"schedule": "cosine"}, "schedule one-cycle (now cosine)"),
        (job.network, {"schedule": lambda progress: 1.0}, "schedule one-cycle (now "),
        (job.network, {"augment": None}, "augmentation Augmentation(flip=True, crop=2) (now None)"),
        (job.network, {"normalize": None}, "normalization Normalization("),
        (job.network, {"max_norm": 2.0}, "max_norm 1.0 (now 2.0)"),
        (job.network, {"loss": CrossEntropy(label_smoothing=0.1)}, "label_smoothing=0.1"),
        (other_network, {}, "other model"),
        (lambda: job.network(seed=1), {}, "other model"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, net: Callable[[], Network], change: dict[str, Any], named: str
) -> None:
    job.fit(job.network(), out=tmp_path)
    with pytest.raises(CheckpointError) as error:
        job.fit(net(), out=tmp_path, resume=True, **change)
    assert "was written with other settings: " in str(error.value)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_another_learning_rate_or_optimizer_is_refused(tmp_path: Path) -> None:
    job.fit(job.network(), out=tmp_path)
    net = job.network()
    optimizer = job.sgd(net)
    optimizer.lr = 0.06
    with pytest.raises(CheckpointError, match=r"lr=0\.05.*now .*lr=0\.06"):
        job.fit(net, out=tmp_path, resume=True, optimizer=optimizer)


def test_another_choice_of_trained_parameters_is_refused(tmp_path: Path) -> None:
    job.fit(job.network(), out=tmp_path)
    net = job.network()
    optimizer = SGD(net.parameters()[:2], lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
    with pytest.raises(CheckpointError, match="was written with other settings: other trained parameters;"):
        job.fit(net, out=tmp_path, resume=True, optimizer=optimizer)


def test_a_run_whose_checkpoint_is_gone_is_not_overwritten(tmp_path: Path) -> None:
    job.fit(job.network(), out=tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(CheckpointError, match="holds a run already; take another --out"):
        job.fit(job.network(), out=tmp_path)


@pytest.mark.parametrize(("part", "named"), [("TRAIN", "other training data"), ("VALIDATION", "other validation data")])
def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, named: str) -> None:
    job.fit(job.network(), out=tmp_path)
    images, labels = getattr(job, part)
    images = images.copy()
    images[-1, -1, -1, -1] ^= 1
    normalize = Normalization.of(job.TRAIN[0])
    monkeypatch.setattr(job, part, (images, labels))
    with pytest.raises(CheckpointError, match=f"settings: {named};"):
        job.fit(job.network(), normalize=normalize, out=tmp_path, resume=True)


def test_the_checkpoint_is_there_before_a_callback_can_fail(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_epoch(self, state: State) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        job.fit(job.network(), out=tmp_path, callbacks=[Broken()])
    assert len(History.read(tmp_path / METRICS).rows) == 1
    finishes_with_the_same_bits(tmp_path)


def test_checkpoints_within_an_epoch_come_every_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saved = [0.0], []

    class Clock(Callback):
        def on_batch(self, state: State) -> None:
            now[0] += 12

    def record(_: Path, arrays: Any, metadata: dict[str, str]) -> None:
        progress = json.loads(metadata["progress"])
        saved.append((progress["epoch"], progress["batch"]))

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "save_arrays", record)
    job.fit(job.network(), out=tmp_path, callbacks=[Clock()])
    assert saved == [(0, 4), (1, 0), (1, 4), (2, 0), (2, 4), (3, 0)]


def test_the_speed_of_an_epoch_counts_all_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Callback):
        def on_batch(self, state: State) -> None:
            if state.step == 8:
                raise KeyboardInterrupt

    ticks = iter(range(10_000))
    monkeypatch.setattr(loop, "perf_counter", lambda: float(next(ticks)))  # every batch takes a second
    with pytest.raises(KeyboardInterrupt):
        job.fit(job.network(), out=tmp_path, callbacks=[Stop()])
    rows = job.fit(job.network(), out=tmp_path, resume=True).rows
    assert [row.images_per_second for row in rows] == [37 / 5] * 3


# ---- damage


# ---- a disk that takes nothing, and numbers that run away


def test_an_unwritable_folder_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Network, "forward", lambda *_: pytest.fail("training has begun"))
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)"):
        job.fit(job.network(), out=tmp_path / "file" / "run")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        job.fit(job.network(), out=tmp_path / "file")


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, [0]

    def full(number: int) -> None:
        calls[0] += 1
        if calls[0] == 4:  # the probe, the first epoch's checkpoint and metrics, the second's checkpoint
            raise OSError(28, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"checkpoint\.safetensors: cannot be written \(No space left"):
            job.fit(job.network(), out=tmp_path)
    _, metadata = load_arrays(tmp_path / CHECKPOINT)
    assert json.loads(metadata["progress"])["epoch"] == 1
    finishes_with_the_same_bits(tmp_path)


def test_leftovers_of_killed_writers_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.safetensors.123.tmp").write_bytes(b"half")
    finishes_with_the_same_bits(tmp_path)


@pytest.mark.parametrize(
    ("call", "where"),  # of an epoch's 6 calls the last is the validation's
    [(9, "epoch 2, batch 3 of 5: the loss"), (12, "epoch 2, batch 5 of 5: the validation loss")],
)
def test_a_loss_that_becomes_nan_stops_with_the_last_good_checkpoint(tmp_path: Path, call: int, where: str) -> None:
    calls = [0]

    def loss(y: Any, target: Any) -> tuple[float, Any]:
        calls[0] += 1
        value, upstream = CrossEntropy()(y, target)
        return (float("nan") if calls[0] == call else value), upstream

    with pytest.raises(DivergedError) as error:
        job.fit(job.network(), out=tmp_path, loss=loss)
    assert str(error.value).startswith(f"{where} has become nan at learning rate ")
    assert "smaller learning rate" in error.value.fix
    assert "max_norm" in error.value.fix
    arrays, metadata = load_arrays(tmp_path / CHECKPOINT)
    assert json.loads(metadata["progress"])["epoch"] == 1
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    def schedule(progress: float) -> float:
        return 1.0 if progress < 0.6 else 1e45

    with pytest.raises(DivergedError, match=r"epoch 2, batch 5 of 5: 0\.weight has become"):
        job.fit(job.network(), out=tmp_path, schedule=schedule, loss=lambda y, t: (1.0, np.ones_like(y) * 1e3))
    arrays, _ = load_arrays(tmp_path / CHECKPOINT)
    assert all(np.isfinite(array).all() for array in arrays.values())

    class Spoil(Callback):
        def on_batch(self, state: State) -> None:
            parameter = state.network.parameters()[0]
            parameter.value = np.full(parameter.shape, np.inf)
            raise KeyboardInterrupt

    with pytest.raises((DivergedError, KeyboardInterrupt)) as error:
        job.fit(job.network(), out=tmp_path / "other", callbacks=[Spoil()])
    assert "0.weight has become NaN or infinite" in str(error.value)
    assert not (tmp_path / "other" / CHECKPOINT).exists()


def test_a_resumed_run_with_a_transposed_tie_gives_the_same_bits(tmp_path: Path) -> None:
    def run(epochs: int, resume: bool, out: Path | None) -> Network:
        encoder, decoder = Linear(6, 4), Linear(4, 6)
        decoder.tie("weight", encoder.weight.T)
        net = Network({"encoder": encoder, "decoder": decoder}, (6,), seed=2)
        x = np.random.default_rng(3).normal(size=(20, 6)).astype(np.float32)
        stop = Stop() if epochs == 1 else Callback()
        with contextlib.suppress(KeyboardInterrupt):
            fit(net, (x, x), epochs=3, batch_size=8, loss=MSE(), out=out, resume=resume, callbacks=[stop])
        return net

    class Stop(Callback):
        def on_epoch(self, state: State) -> None:
            raise KeyboardInterrupt

    expected = run(3, False, None).state_dict()
    assert not np.array_equal(run(1, False, tmp_path).state_dict()["encoder.weight"], expected["encoder.weight"])
    assert "network/decoder.weight" not in load_arrays(tmp_path / CHECKPOINT)[0]
    for name, array in run(3, True, tmp_path).state_dict().items():
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array], ids=["float32", "float64", "array"])
def test_a_loss_written_in_numpy_may_return_its_numbers(tmp_path: Path, kind: Any) -> None:
    def halved(y: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
        difference = y - np.eye(3, dtype=y.dtype)[target]
        return kind((difference**2).mean() / 2), difference / difference.size

    history = job.fit(job.network(), loss=halved, out=tmp_path / "run")
    assert all(type(row.train_loss) is float for row in history.rows)
    assert History.read(tmp_path / "run" / METRICS) == history


@pytest.mark.parametrize("found", [0.5, (0.5,), (np.zeros(3), None), ("low", None)])
def test_a_loss_that_returns_something_else_is_told(found: Any) -> None:
    with pytest.raises(ConfigError, match=r"loss: expected a pair \(value, upstream\)"):
        job.fit(job.network(), loss=lambda y, target: found)


@pytest.mark.parametrize("left", [METRICS, MODEL])
def test_a_finished_run_without_its_checkpoint_is_not_overwritten(tmp_path: Path, left: str) -> None:
    net = job.network()
    job.fit(net, out=tmp_path)
    save(net, tmp_path / MODEL)
    for name in {CHECKPOINT, METRICS, MODEL} - {left}:
        (tmp_path / name).unlink()
    before = (tmp_path / left).read_bytes()
    with pytest.raises(CheckpointError, match=r"holds a run \(.*\) but no checkpoint.safetensors to go on from"):
        job.fit(job.network(), out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="holds a run already"):
        job.fit(job.network(), out=tmp_path)
    assert (tmp_path / left).read_bytes() == before
