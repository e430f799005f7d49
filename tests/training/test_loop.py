from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad import (
    MSE,
    SGD,
    Adam,
    CrossEntropy,
    Flatten,
    Linear,
    Network,
    models,
    set_threads,
)
from sharedgrad.data import Augmentation, batches
from sharedgrad.errors import ConfigError, DataError, ShapeError
from sharedgrad.optimizers import cosine
from sharedgrad.training import Callback, State, evaluate, fit, loop
from tests.helpers import same_bits
from tests.training import job

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(30, 1, 8, 8)).astype(np.float32), RNG.integers(0, 4, 30)


def small(seed: int = 0) -> Network:
    return Network([Flatten(), Linear(64, 4)], (1, 8, 8), seed=seed)


def equal(a: Network, b: Network) -> None:
    for name, array in a.state_dict().items():
        same_bits(array, b.state_dict()[name])


def test_fit_is_the_loop_written_out() -> None:
    crop, steps = Augmentation(flip=True, crop=1), 3 * 4
    ours, own = small(), small()
    optimizer = SGD(ours.parameters(), lr=0.3, momentum=0.9)
    history = fit(
        ours, (X, Y), epochs=3, batch_size=8, optimizer=optimizer, schedule="cosine", augment=crop, max_norm=0.5, seed=5
    )
    optimizer, loss, step = SGD(own.parameters(), lr=0.3, momentum=0.9), CrossEntropy(), 0
    for epoch in range(3):
        total, hits = 0.0, 0
        for x, target in batches(X, Y, 8, seed=5, epoch=epoch, augment=crop):
            optimizer.lr = 0.3 * cosine(step / steps)
            y, tape = own.forward(x)
            value, upstream = loss(y, target)
            optimizer.step(tape.backward(upstream).clipped(0.5))
            total, hits, step = total + value * len(x), hits + int((y.argmax(1) == target).sum()), step + 1
        row = history.rows[epoch]
        assert row.epoch == epoch + 1
        assert row.train_loss == pytest.approx(total / 30, rel=1e-12)
        assert row.train_accuracy == hits / 30
        assert row.learning_rate == optimizer.lr
        assert row.val_loss is None
        assert row.val_accuracy is None
    equal(ours, own)


def test_defaults_are_adam_and_cross_entropy() -> None:
    ours, own = small(), small()
    fit(ours, (X, Y), epochs=1)
    optimizer = Adam(own.parameters())
    ((x, target),) = batches(X, Y, 64)
    y, tape = own.forward(x)
    optimizer.step(tape.backward(CrossEntropy()(y, target)[1]))
    equal(ours, own)


def test_validation_is_evaluated_after_every_epoch() -> None:
    net, other = small(), (RNG.normal(size=(9, 1, 8, 8)), RNG.integers(0, 4, 9))
    seen: list[tuple[float, float | None]] = []

    class Check(Callback):
        def on_epoch(self, state: State) -> None:
            seen.append(evaluate(net, *other)[:2])

    rows = fit(net, (X, Y), other, epochs=3, callbacks=[Check()]).rows
    assert [(row.val_loss, row.val_accuracy) for row in rows] == seen
    assert len(set(seen)) == 3


def test_learns_the_digits() -> None:
    from sharedgrad.data import Normalization, load

    digits = load("digits")
    train, held_out = digits.split(0.2, 0)
    net = models.cnn(digits.input_shape, 10)
    history = fit(net, train, held_out, epochs=2, normalize=Normalization.of(train.x), batch_size=16)
    assert (history.rows[-1].val_accuracy or 0) > 0.93


def test_the_number_of_threads_changes_no_bit() -> None:
    results = []
    for count in (1, 2, 3):
        set_threads(count)
        net = job.network()
        history = job.fit(net)
        results.append((net.state_dict(), [(row.train_loss, row.val_loss) for row in history.rows]))
    for weights, losses in results[1:]:
        assert losses == results[0][1]
        for name, array in weights.items():
            same_bits(array, results[0][0][name])


def test_the_seed_decides() -> None:
    nets = [small() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        fit(net, (X, Y), epochs=1, batch_size=8, seed=seed)
    equal(nets[0], nets[1])
    assert np.any(nets[0].parameter("1.weight").value != nets[2].parameter("1.weight").value)


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, state: State) -> None:
        self.calls.append(f"start {state.epoch}/{state.epochs} {state.batches}")

    def on_batch(self, state: State) -> None:
        assert np.isfinite(state.loss)
        assert state.accuracy is not None
        assert state.images_per_second > 0
        self.calls.append(f"batch {state.epoch}.{state.batch} step {state.step}")

    def on_epoch(self, state: State) -> None:
        assert state.history.rows[-1].epoch == state.epoch
        self.calls.append(f"epoch {state.epoch}.{state.batch}")

    def on_end(self, state: State) -> None:
        self.calls.append(f"end {state.finished}")


def test_callbacks_are_called_in_order() -> None:
    recorder = Recorder()
    fit(small(), (X, Y), epochs=2, batch_size=16, callbacks=[recorder])
    assert recorder.calls == [
        "start 0/2 2",
        "batch 0.1 step 1",
        "batch 0.2 step 2",
        "epoch 1.0",
        "batch 1.1 step 3",
        "batch 1.2 step 4",
        "epoch 2.0",
        "end True",
    ]


def test_an_error_of_a_callback_ends_the_run_and_tells_the_others() -> None:
    class Broken(Callback):
        def on_batch(self, state: State) -> None:
            raise LookupError

    recorder = Recorder()
    net = small()
    optimizer = SGD(net.parameters(), lr=0.5)
    with pytest.raises(LookupError):
        fit(net, (X, Y), optimizer=optimizer, schedule=lambda progress: 0.1, callbacks=[Broken(), recorder])
    assert recorder.calls[-1] == "end False"
    assert optimizer.lr == 0.5


def test_the_optimizer_gets_its_learning_rate_back() -> None:
    net = small()
    optimizer = SGD(net.parameters(), lr=0.5)
    rates: list[float] = []

    class Rates(Callback):
        def on_batch(self, state: State) -> None:
            assert state.learning_rate == optimizer.lr
            rates.append(optimizer.lr)

    fit(net, (X, Y), epochs=2, batch_size=16, optimizer=optimizer, schedule=lambda p: 1 - p, callbacks=[Rates()])
    assert rates == [0.5, 0.375, 0.25, 0.125]
    assert optimizer.lr == 0.5


def test_speed_counts_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(loop, "perf_counter", lambda: float(next(ticks)))  # a second from one look to the next

    class Slow(Callback):
        def on_batch(self, state: State) -> None:
            next(ticks)

        def on_epoch(self, state: State) -> None:
            next(ticks)

    rows = fit(small(), (X, Y), (X, Y), epochs=2, batch_size=10, callbacks=[Slow()]).rows
    assert [row.images_per_second for row in rows] == [10.0, 10.0]


def test_targets_that_are_no_classes() -> None:
    net = Network([Flatten(), Linear(64, 2)], (1, 8, 8))
    targets = RNG.normal(size=(30, 2)).astype(np.float32)
    history = fit(net, (X, targets), (X, targets), epochs=3, loss=MSE(), optimizer=SGD(net.parameters(), lr=0.1))
    assert history.rows[0].train_accuracy is None
    assert history.rows[0].val_accuracy is None
    assert history.rows[2].train_loss < history.rows[0].train_loss
    result = evaluate(net, X, targets, MSE(), batch_size=7)
    same_bits(result.predictions, np.concatenate([net.predict(X[i : i + 7]) for i in range(0, 30, 7)]))
    assert result.loss == pytest.approx(np.mean((net.predict(X) - targets) ** 2), rel=1e-5)


def test_evaluation_weighs_batches_by_their_samples_and_changes_nothing() -> None:
    net = job.network()
    before, step = net.state_dict(), net.step
    x, y = job.VALIDATION
    result = evaluate(net, x, y, batch_size=4, normalize=lambda images: images / 255)
    scores = net.predict(x / 255)
    assert result.loss == pytest.approx(CrossEntropy()(scores, y)[0], rel=1e-5)
    assert result.accuracy == np.mean(scores.argmax(1) == y)
    assert np.array_equal(result.predictions, scores.argmax(1))
    assert net.step == step
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ConfigError, "epochs: expected a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, ConfigError, "epochs: expected a whole number of at least 1, got 1.5"),
        ({"batch_size": 0}, ConfigError, "expected a whole number of at least 1, got 0"),
        ({"seed": -1}, ConfigError, "seed: expected a whole number of at least 0, got -1"),
        ({"schedule": "sine"}, ConfigError, "schedule: there is no 'sine'; choose from constant, step"),
        ({"max_norm": 0.0}, ConfigError, "max_norm: expected a positive number, got 0.0"),
        ({"optimizer": SGD(small().parameters(), 0.1)}, ConfigError, "it holds no parameter of this network"),
        ({"max_norm": "1"}, ConfigError, "max_norm: expected a positive number, got '1'"),
        ({"network": [Flatten()]}, ConfigError, "fit: expected a Network, got list"),
        ({"optimizer": SGD}, ConfigError, "optimizer: expected an Optimizer, got the class SGD"),
        ({"loss": CrossEntropy}, ConfigError, "can be called, got the class CrossEntropy"),
        ({"loss": "mse"}, ConfigError, "loss: expected"),
        ({"schedule": 0.1}, ConfigError, "schedule: expected"),
        ({"augment": "flip"}, ConfigError, "augment: expected"),
        ({"normalize": True}, ConfigError, "normalize: expected"),
        ({"augment": Augmentation(crop=8)}, ConfigError, "can empty images of 8×8"),
        ({"callbacks": [print]}, ConfigError, "callbacks: expected"),
        ({"train": X}, ConfigError, "train: expected a pair (images, labels), got ndarray"),
        ({"validation": X}, ConfigError, "validation: expected a pair (images, labels), got ndarray"),
        ({"train": (X, Y[:-1])}, DataError, "30 images, but 29 labels"),
        ({"validation": (X[:-1], Y)}, DataError, "29 images, but 30 labels"),
        ({"train": (X[:, :, :4], Y)}, ShapeError, "expected"),
        ({"train": (X, Y + 1)}, DataError, "expected classes from 0 to 3"),
    ],
)
def test_senseless_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    own: dict[str, Any] = {"network": small(), "train": (X, Y)}
    with pytest.raises(error) as raised:
        fit(**{**own, **arguments})
    assert message in str(raised.value)


def test_an_augmentation_that_does_not_fit_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can empty images of 8×8"):
        fit(small(), (X, Y), augment=Augmentation(crop=8), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_with_several_outputs_are_refused() -> None:
    net = Network({"flat": Flatten(), "a": (Linear(64, 2), "flat"), "b": (Linear(64, 2), "flat")}, outputs=["a", "b"])
    with pytest.raises(ConfigError, match="one input and one output"):
        fit(net, (X, Y))


def test_soft_targets_have_an_accuracy() -> None:
    classes, soft = small(), small()
    rows = fit(classes, (X, Y), (X, Y), epochs=1).rows
    assert fit(soft, (X, np.eye(4)[Y]), (X, np.eye(4)[Y]), epochs=1).rows[0].train_accuracy == rows[0].train_accuracy
    assert evaluate(soft, X, np.eye(4)[Y]).accuracy == evaluate(soft, X, Y).accuracy
    assert evaluate(soft, X, np.eye(4)[Y], MSE()).accuracy is None


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_the_datas_fault(part: str, number: float) -> None:
    x = X.copy()
    x[7, 0, 2, 3] = x[9] = number
    with pytest.raises(DataError, match=rf"{part}: images hold NaN or infinite numbers \(first in sample 7\)"):
        fit(small(), **{"train": (X, Y), "validation": (X, Y), part: (x, Y)})
    y = np.where(np.arange(30) == 4, number, 1.0)
    with pytest.raises(DataError, match=rf"{part}: labels hold NaN or infinite numbers \(first in sample 4\)"):
        fit(small(), **{"train": (X, Y), "validation": (X, Y), part: (X, y)})


def test_an_augmentation_that_makes_nan_is_not_the_learning_rates_fault() -> None:
    with pytest.raises(DataError, match="check augment and normalize"):
        fit(small(), (X, Y), normalize=lambda x: x + np.float32(np.nan))
