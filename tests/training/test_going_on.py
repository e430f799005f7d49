"""Training that goes on: more epochs, from other weights, with the best epoch kept, and ended early."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sharedgrad import Conv2d, CrossEntropy, Flatten, Linear, Network, ReLU, Softmax, init_from
from sharedgrad.errors import CheckpointError, ConfigError
from sharedgrad.storage import save
from sharedgrad.training import Callback, Epoch, History, State
from sharedgrad.training.best import stalled
from sharedgrad.training.files import BEST, CHECKPOINT
from tests.helpers import same_bits
from tests.training import job


def equal(a: Network, b: Network) -> None:
    for name, array in a.state_dict().items():
        same_bits(array, b.state_dict()[name])


def test_four_epochs_and_six_more_are_ten(tmp_path: Path) -> None:
    straight, split = job.network(), job.network()
    job.fit(straight, epochs=10, schedule="constant")
    job.fit(split, epochs=4, schedule="constant", out=tmp_path)
    again = job.network()
    history = job.fit(again, epochs=10, schedule="constant", out=tmp_path, resume=True)
    assert [row.epoch for row in history.rows] == list(range(1, 11))
    equal(straight, again)


def test_another_span_of_the_schedule_is_said_and_fewer_epochs_are_refused(tmp_path: Path) -> None:
    said: list[str] = []

    class Listener(Callback):
        def on_message(self, text: str) -> None:
            said.append(text)

    job.fit(job.network(), epochs=2, out=tmp_path)
    job.fit(job.network(), epochs=3, out=tmp_path, resume=True, callbacks=[Listener()])
    assert said[1] == "its learning rate now follows a schedule over 3 epochs, no longer 2"
    with pytest.raises(CheckpointError, match=r"epochs 3 \(now 2\)"):
        job.fit(job.network(), epochs=2, out=tmp_path, resume=True)


class Validations(Callback):
    """Remembers the weights after each epoch."""

    def __init__(self, stop: tuple[int, int] | None = None) -> None:
        self.states: list[dict[str, np.ndarray]] = []
        self.stop = stop

    def on_epoch(self, state: State) -> None:
        self.states.append(state.network.state_dict())

    def on_batch(self, state: State) -> None:
        if (state.epoch, state.batch) == self.stop:
            raise KeyboardInterrupt


def test_the_best_epoch_is_kept_beside_the_last(tmp_path: Path) -> None:
    seen, net = Validations(), job.network()
    history = job.fit(net, epochs=8, schedule="constant", keep="best", out=tmp_path, callbacks=[seen])
    losses = [row.val_loss for row in history.rows]
    assert history.best is history.rows[int(np.argmin(losses))]
    assert history.best.epoch < 8  # or this test would show nothing
    for name, array in net.state_dict().items():
        same_bits(array, seen.states[history.best.epoch - 1][name])
    longer, straight = job.network(), job.network()
    job.fit(longer, epochs=9, schedule="constant", out=tmp_path, resume=True)
    job.fit(straight, epochs=9, schedule="constant")
    equal(longer, straight)  # the checkpoint goes on from the last


@pytest.mark.parametrize("place", [(2, 3), (5, 1), (7, 4)])
def test_the_best_epoch_survives_an_interrupt(tmp_path: Path, place: tuple[int, int]) -> None:
    straight, resumed = job.network(), job.network()
    job.fit(straight, epochs=8, keep="best")
    with contextlib.suppress(KeyboardInterrupt):
        job.fit(job.network(), epochs=8, keep="best", out=tmp_path, callbacks=[Validations(place)])
    job.fit(resumed, epochs=8, keep="best", out=tmp_path, resume=True)
    equal(straight, resumed)


def test_a_best_epoch_of_another_run_is_refused(tmp_path: Path) -> None:
    job.fit(job.network(), epochs=1, out=tmp_path)
    save(job.network(), tmp_path / BEST)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: does not belong to this run"):
        job.fit(job.network(), epochs=2, keep="best", out=tmp_path, resume=True)


def history(*losses: float) -> History:
    return History([Epoch(i + 1, 0.0, None, loss, None, 0.1, 1.0) for i, loss in enumerate(losses)])


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ((3, 2, 1), 1, False),
        ((3, 2, 2), 1, True),
        ((3, 2, 2.5), 2, False),
        ((3, 2, 2.5, 2.1), 2, True),
        ((3, 2, 2.5, 1.9), 2, False),
        ((3,), 1, False),
        ((3, 4, 5), None, False),
    ],
)
def test_patience(losses: tuple[float, ...], patience: int | None, over: bool) -> None:
    assert stalled(history(*losses), patience) is over


def test_a_run_without_progress_ends_early_and_is_finished(tmp_path: Path) -> None:
    rows = job.fit(job.network(), epochs=30, patience=2, out=tmp_path).rows
    assert len(rows) < 30
    again = job.fit(job.network(), epochs=30, patience=2, out=tmp_path, resume=True)
    assert again.rows == rows


@pytest.mark.parametrize(("name", "value"), [("keep", "best"), ("patience", 2)])
def test_what_needs_validation_data_says_so(name: str, value: Any) -> None:
    from sharedgrad import fit

    with pytest.raises(ConfigError, match=f"{name}: needs validation data"):
        fit(job.network(), job.TRAIN, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("keep", "first"), ("patience", 0), ("patience", 1.5)])
def test_senseless_arguments(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        job.fit(job.network(), **{name: value})


class Stop(Callback):
    def on_batch(self, state: State) -> None:
        if (state.epoch, state.batch) == (1, 3):
            state.stop()


def test_a_callback_stops_the_training_and_it_can_go_on(tmp_path: Path) -> None:
    net, straight = job.network(), job.network()
    stopped = job.fit(net, out=tmp_path, callbacks=[Stop()])
    assert len(stopped.rows) == 1
    assert (tmp_path / CHECKPOINT).exists()
    job.fit(straight)
    net = job.network()
    assert len(job.fit(net, out=tmp_path, resume=True).rows) == job.EPOCHS
    equal(straight, net)


@pytest.mark.parametrize(
    ("hook", "guess"),
    [
        ("on_epoch_end", "did you mean on_epoch?"),
        ("on_train_batch_end", "did you mean on_batch?"),
        ("on_epochs", "did you mean on_epoch?"),
        ("on_a_whim", "choose from on_start, "),
    ],
)
def test_a_misspelt_hook_is_an_error(hook: str, guess: str) -> None:
    with pytest.raises(ConfigError) as error:
        type("Mine", (Callback,), {hook: lambda self, state: None})
    assert str(error.value).startswith(f"class Mine: {hook} is no hook of a Callback; {guess}")


def test_two_softmaxes_are_a_warning() -> None:
    net = Network([Flatten(), Linear(72, 3), Softmax()], (2, 6, 6))
    with pytest.warns(UserWarning, match=r"layer '2' \(Softmax\) stands before CrossEntropy, which makes a softmax"):
        job.fit(net, epochs=1)
    assert isinstance(CrossEntropy(), CrossEntropy)


def body(classes: int, seed: int = 0) -> Network:
    return Network([Conv2d(2, 4, 3), ReLU(), Flatten(), Linear(64, classes)], (2, 6, 6), seed=seed)


def test_another_head_starts_anew(tmp_path: Path) -> None:
    save(trained := body(3, 5), tmp_path / "m.safetensors")
    same, other = body(3), body(7)
    assert init_from(same, tmp_path / "m.safetensors") == []
    equal(same, trained)
    head = other.state_dict()["3.weight"]
    assert init_from(other, tmp_path / "m.safetensors") == ["3.weight", "3.bias"]
    same_bits(other.state_dict()["0.weight"], trained.state_dict()["0.weight"])
    same_bits(other.state_dict()["3.weight"], head)


def test_weights_of_pytorch(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    save_file(module.state_dict(), tmp_path / "torch.safetensors")
    net, x = body(3), np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert init_from(net, tmp_path / "torch.safetensors") == []
    np.testing.assert_allclose(net.predict(x), module(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_weights_of_another_network_are_refused_whole(tmp_path: Path) -> None:
    save(Network([Conv2d(2, 5, 3), ReLU(), Flatten(), Linear(80, 3)], (2, 6, 6)), tmp_path / "m.safetensors")
    net = body(3)
    before = net.state_dict()
    with pytest.raises(CheckpointError, match=r"expected 0\.weight of shape \(4, 2, 3, 3\), got 0\.weight of shape"):
        init_from(net, tmp_path / "m.safetensors")
    for name, array in net.state_dict().items():
        same_bits(array, before[name])
    save(Network({"other": Linear(2, 2)}, (2,)), tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"got no 0\.weight"):
        init_from(net, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match="there is no such file"):
        init_from(net, tmp_path / "none")


def test_a_tied_weight_is_taken_from_either_name(tmp_path: Path) -> None:
    def tied() -> Network:
        first, second = Linear(3, 3), Linear(3, 3)
        second.tie("weight", first.weight)
        return Network([first, second, Linear(3, 2)], (3,))

    arrays = {name: torch.tensor(value + 1) for name, value in tied().state_dict().items() if name != "0.weight"}
    save_file(arrays, tmp_path / "m.safetensors")
    net = tied()
    assert init_from(net, tmp_path / "m.safetensors") == []
    same_bits(net.state_dict()["0.weight"], arrays["1.weight"].numpy())
