"""What newcomers from other libraries type first is answered with what it is called here."""

from __future__ import annotations

from copy import deepcopy
from pickle import dumps, loads
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.document import terminal
from sharedgrad.errors import ConfigError
from sharedgrad.training import Epoch, History
from sharedgrad.training.report import step_report

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3


def net() -> sg.Network:
    return sg.Network([sg.Linear(4, 3)], (4,))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("validation_split", "split before: train, held_out = data.split"),
        ("validation_data", r"validation=\(x, y\)"),
        ("class_weight", r"loss=sg.CrossEntropy\(weight="),
        ("lr", r"optimizer=sg.SGD\(net.parameters\(\), lr=0.1\)"),
        ("callback", "callbacks="),
        ("batchsize", "did you mean 'batch_size'"),
        ("max_epochs", "epochs=10"),
        ("zzz", "known are accumulate, augment"),
    ],
)
def test_arguments_of_other_libraries(name: str, hint: str) -> None:
    wrong: dict[str, Any] = {name: 1}
    with pytest.raises(ConfigError, match=f"^fit: there is no argument '{name}'.*{hint}"):
        sg.fit(net(), (X, Y), **wrong)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda n: sg.fit(n, X, Y), r"train: expected a pair .* got ndarray; put both into one argument: \(x, y\)"),
        (lambda n: sg.fit(n, (X, Y), optimizer="adam"), r"got str; e.g. sg.Adam\(net.parameters"),
        (lambda n: sg.fit(n, (X, Y), loss=sg.CrossEntropy), r"got the class CrossEntropy; e.g. sg.CrossEntropy\(\)"),
    ],
)
def test_values_of_other_libraries(call: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        call(net())


def test_methods_of_other_libraries() -> None:
    with pytest.raises(AttributeError, match=r"a Network has no attribute 'fit': sg.fit\(net, \(x, y\), epochs=10\)"):
        net().fit(X, Y)
    with pytest.raises(AttributeError, match=r"a Network has no attribute 'nothing'$"):
        _ = net().nothing
    assert not hasattr(net(), "detach")
    for copy in (deepcopy(net()), loads(dumps(net()))):
        assert copy.predict(X).shape == (12, 3)


def test_a_column_of_the_history() -> None:
    history = sg.fit(net(), (X, Y), (X, Y), epochs=3)
    assert history["loss"] == [row.train_loss for row in history.rows]
    assert history["val_accuracy"] == [row.val_accuracy for row in history.rows]
    with pytest.raises(ConfigError, match="history: there is no column 'f1'; choose from epoch, train_loss"):
        history["f1"]
    with pytest.raises(AttributeError, match=r"no attribute 'history': history\[\"val_loss\"\] is a column"):
        history.history["loss"]
    assert deepcopy(history) == history


def test_groups_write_their_own_rates(tmp_path: Any) -> None:
    network = sg.Network([sg.Linear(4, 5), sg.Linear(5, 3)], (4,))
    groups = [list(network[name].parameters().values()) for name in ("0", "1")]

    def optimizer() -> sg.Combined:
        return sg.Combined(sg.SGD(groups[0], lr=0.001), sg.SGD(groups[1], lr=0.1))

    history = sg.fit(network, (X, Y), epochs=2, optimizer=optimizer(), schedule="step", out=tmp_path)
    assert history["lr"] == [(0.001, 0.1), (0.0001, 0.010000000000000002)]
    assert History.read(tmp_path / "metrics.csv") == history
    assert "0.001, 0.1" in history._repr_html_()
    again = sg.fit(network, (X, Y), epochs=3, optimizer=optimizer(), schedule="step", out=tmp_path, resume=True)
    assert again.rows[:2] == history.rows
    assert History([Epoch(1, 1.0, None, None, None, 0.5, 1.0)])["lr"] == [0.5]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_of_a_batch_in_parts_is_kept_whole(reduction: Any) -> None:
    x = np.random.default_rng(1).normal(size=(14, 1, 5, 5))
    steps = []
    for accumulate in (1, 3):
        network = sg.Network([sg.Conv2d(1, 2, 3), sg.Flatten(), sg.Linear(18, 3)], (1, 5, 5), dtype="float64")
        loss = sg.CrossEntropy(reduction=reduction)
        optimizer = sg.SGD(network.parameters(), lr=0.01)
        y = np.arange(14) % 3
        history = sg.fit(
            network, (x, y), epochs=1, batch_size=14, loss=loss, optimizer=optimizer, accumulate=accumulate
        )
        assert history.step is not None
        steps.append(history.step)
    whole, parts = steps
    assert (
        (parts.weight, parts.calls)
        == (whole.weight, whole.calls)
        == ("0.weight", ({"sample": (14,), "position": (3, 3)},))
    )
    np.testing.assert_allclose(parts.terms.values.sum(), parts.gradient, rtol=1e-9)
    assert sorted(set(parts.terms.use["sample"][:, 0])) == list(range(14))
    if parts.element == whole.element:
        np.testing.assert_allclose(parts.terms.values, whole.terms.values, rtol=1e-9)
        np.testing.assert_allclose(parts.after, whole.after, rtol=1e-9)
    assert "which does not agree" not in terminal.text([step_report(parts)], 80)
