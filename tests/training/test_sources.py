"""What may be trained on: tensors, several inputs, batches of one's own; in parts, by groups, and shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad import MSE, SGD, Add, Combined, CrossEntropy, Flatten, Linear, Network, evaluate, fit
from sharedgrad.data import batches
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.training import Callback, State
from tests.helpers import same_bits
from tests.training import job

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(30, 1, 4, 4)).astype(np.float32), RNG.integers(0, 3, 30)


def small() -> Network:
    return Network([Flatten(), Linear(16, 3)], (1, 4, 4))


def two() -> Network:
    layers = {"p1": (Linear(4, 3), "p"), "q1": (Linear(5, 3), "q"), "sum": (Add(), "p1", "q1")}
    return Network(layers, {"p": (4,), "q": (5,)})


def equal(a: Network, b: Network) -> None:
    for name, array in a.state_dict().items():
        same_bits(array, b.state_dict()[name])


def test_tensors_are_arrays() -> None:
    a, b = small(), small()
    rows = fit(a, (X, Y), (X, Y), epochs=2).rows
    again = fit(b, (torch.tensor(X), torch.tensor(Y)), (torch.tensor(X), torch.tensor(Y)), epochs=2).rows
    equal(a, b)
    assert [row.val_loss for row in rows] == [row.val_loss for row in again]
    assert evaluate(b, torch.tensor(X), torch.tensor(Y)).loss == rows[-1].val_loss


class Own:
    """Batches in the order that fit itself would choose, so that the bits can be compared."""

    def __init__(self, count: int = 4) -> None:
        self.epoch, self.count = -1, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        self.epoch += 1
        return batches(X, Y, 8, seed=0, epoch=self.epoch)


@pytest.mark.parametrize("as_tensors", [False, True])
def test_batches_of_ones_own(as_tensors: bool) -> None:
    class Tensors(Own):
        def __iter__(self) -> Any:
            return (tuple(map(torch.tensor, batch)) for batch in super().__iter__())

    a, b = small(), small()
    fit(a, (X, Y), (X, Y), epochs=3, batch_size=8, schedule="cosine", normalize=lambda x: x / 2)
    own = Tensors() if as_tensors else Own()
    history = fit(b, own, [(X[:20], Y[:20]), (X[20:], Y[20:])], epochs=3, schedule="cosine", normalize=lambda x: x / 2)
    equal(a, b)
    assert history.rows[-1].val_accuracy is not None


def test_a_data_loader() -> None:
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    net = small()
    rows = fit(net, torch.utils.data.DataLoader(pairs, batch_size=8), epochs=2).rows
    assert [row.epoch for row in rows] == [1, 2]
    other = small()
    fit(other, [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 30, 8)], epochs=2)
    equal(net, other)


def test_batches_of_ones_own_resume(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_batch(self, state: State) -> None:
            if (state.epoch, state.batch) == (1, 2):
                raise KeyboardInterrupt

    fixed = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 30, 8)]
    a, b = small(), small()
    fit(a, fixed, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), fixed, epochs=3, out=tmp_path, callbacks=[Stops()])
    fit(b, fixed, epochs=3, out=tmp_path, resume=True)
    equal(a, b)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (iter([(X, Y)]), ConfigError, "batches with a length, got list_iterator"),
        ((batch for batch in [(X, Y)]), ConfigError, "batches with a length, got generator"),
        ("digits", ConfigError, "batches with a length, got str"),
        (7, ConfigError, "batches with a length, got int"),
        (torch.utils.data.TensorDataset(torch.tensor(X)), ConfigError, "put the data set into a DataLoader"),
        (torch.tensor(X), ConfigError, "expected a pair (images, labels), got Tensor"),
        ([], DataError, "there are no batches"),
        ([X, X, X], DataError, "expected batches (x, y), got ndarray"),
        (Own(5), DataError, "has a length of 5, but gave 4 batches"),
    ],
)
def test_what_cannot_be_trained_on(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        fit(small(), source, epochs=1)
    assert message in str(raised.value)


def test_several_inputs() -> None:
    p, q, y = RNG.normal(size=(20, 4)), RNG.normal(size=(20, 5)), RNG.integers(0, 3, 20)
    named, ordered, own = two(), two(), two()
    rows = fit(named, ({"p": p, "q": torch.tensor(q)}, y), ({"p": p, "q": q}, y), epochs=2, batch_size=8).rows
    fit(ordered, ((p, q), y), epochs=2, batch_size=8)
    equal(named, ordered)
    assert evaluate(named, {"p": p, "q": q}, y).loss == rows[-1].val_loss
    order = [places for places, _ in batches(np.arange(20), y, 8, epoch=0)]
    fit(own, [({"p": p[i], "q": q[i]}, y[i]) for i in order], epochs=1)
    once = two()
    fit(once, ((p, q), y), epochs=1, batch_size=8)
    equal(own, once)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"p": np.ones((4, 4))}, "expected inputs p, q, got p"),
        ({"p": np.ones((4, 4)), "q": np.ones((3, 5))}, "expected 4 samples, one for each label, got 4 of p, 3 of q"),
        ({"p": np.ones((4, 4)), "q": np.full((4, 5), np.nan)}, "train: q hold NaN"),
    ],
)
def test_several_inputs_that_do_not_fit(x: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        fit(two(), (x, np.zeros(4, int)))


def test_several_inputs_are_not_augmented() -> None:
    with pytest.raises(ConfigError, match="several inputs cannot be augmented"):
        fit(two(), ({"p": np.ones((4, 4)), "q": np.ones((4, 5))}, np.zeros(4, int)), normalize=lambda x: x)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(reduction="sum"), MSE("half_sum")])
def test_a_batch_in_parts_is_the_batch(loss: Any) -> None:
    whole, parts = small(), small()
    y = Y if isinstance(loss, CrossEntropy) else np.eye(3)[Y]
    for net, accumulate in ((whole, 1), (parts, 4)):
        optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9)
        fit(net, (X, y), epochs=2, batch_size=13, loss=loss, optimizer=optimizer, accumulate=accumulate, max_norm=5)
    for name, array in whole.state_dict().items():
        np.testing.assert_allclose(array, parts.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_batch_in_parts_resumes(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_batch(self, state: State) -> None:
            if state.batch == 2:
                raise KeyboardInterrupt

    straight, resumed = job.network(), job.network()
    job.fit(straight, accumulate=3)
    with pytest.raises(KeyboardInterrupt):
        job.fit(job.network(), accumulate=3, out=tmp_path, callbacks=[Stops()])
    job.fit(resumed, accumulate=3, out=tmp_path, resume=True)
    equal(straight, resumed)


def test_groups_have_rates_of_their_own_and_the_rest_is_frozen(tmp_path: Path) -> None:
    def net() -> Network:
        return Network([Flatten(), Linear(16, 5), Linear(5, 4), Linear(4, 3)], (1, 4, 4))

    def groups(net: Network) -> Combined:
        body, head = (list(net[name].parameters().values()) for name in ("2", "3"))
        return Combined(SGD(body, lr=0.01, weight_decay=0.1), SGD(head, lr=0.1, momentum=0.5))

    first = net()
    before = first.state_dict()
    optimizer = groups(first)
    y, tape = first.forward(X)
    upstream = CrossEntropy()(y, Y)[1]
    gradients = tape.backward(upstream)
    optimizer.lr = 0.5
    optimizer.step(gradients)
    after = first.state_dict()
    same_bits(after["1.weight"], before["1.weight"])
    for name, rate, decay in (("2.weight", 0.01, 0.1), ("3.weight", 0.1, 0.0)):
        expected = before[name] - 0.5 * rate * (gradients[name] + decay * before[name])
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-7)
    assert [part.lr for part in optimizer.optimizers] == [0.01, 0.1]

    straight, resumed = net(), net()
    fit(straight, (X, Y), epochs=3, schedule="cosine", optimizer=groups(straight))
    half = net()
    fit(half, (X, Y), epochs=2, optimizer=groups(half), out=tmp_path)
    fit(resumed, (X, Y), epochs=3, optimizer=groups(resumed), out=tmp_path, resume=True)
    constant = net()
    fit(constant, (X, Y), epochs=3, optimizer=groups(constant))
    equal(constant, resumed)


def test_groups_that_are_none() -> None:
    net = small()
    with pytest.raises(ConfigError, match="a parameter is in two groups"):
        Combined(SGD(net.parameters(), lr=1), SGD(net.parameters(), lr=2))
    with pytest.raises(ConfigError, match="expected optimizers"):
        Combined()
    with pytest.raises(ConfigError, match="expected gradients of its parameters"):
        Combined(SGD(net.parameters(), lr=1)).step({})


def test_progress_is_shown_where_somebody_looks_on(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    fit(small(), (X, Y), (X, Y), epochs=1)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit(small(), (X, Y), (X, Y), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert max(map(len, lines)) <= 80
    fit(small(), (X, Y), epochs=1, progress=False)
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    fit(small(), (X, Y), epochs=1, progress=True)
    assert capsys.readouterr().out.startswith("epoch 1/1  loss ")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    fit(small(), (X, Y), epochs=1)
    assert capsys.readouterr().out.startswith("epoch 1/1  loss ")
