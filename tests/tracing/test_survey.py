"""The gradient over a data set, batch by batch: the same as in one pass, and it says so if it does not add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.tracing.survey import survey
from sharedgrad.tracing.tally import Tally
from sharedgrad.uses import SharedWeight
from tests.helpers import close

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(23, 2, 7, 6)), RNG.integers(0, 3, 23)


def network(dtype: str = "float64") -> sg.Network:
    """A grouped convolution with a stride, batch norm, one convolution used twice, dropout, and a recurrence."""
    twice = sg.Conv2d(4, 4, 3, padding=1, groups=2)
    layers = {
        "first": sg.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=1, groups=2, padding_mode="reflect"),
        "norm": sg.BatchNorm2d(4),
        "a": twice,
        "relu": sg.ReLU(),
        "b": twice,
        "drop": sg.Dropout(0.5),
        "steps": sg.Reshape((4, 28)),
        "rnn": sg.RNN(28, 5),
        "flat": sg.Flatten(),
        "scores": sg.Linear(20, 3),
    }
    net = sg.Network(layers, (2, 7, 6), seed=3, dtype=dtype)
    for parameter in net.parameters():
        parameter.value = RNG.normal(size=parameter.shape) * 0.7
    net.forward(X)  # running statistics that are not 0 and 1
    return net


def in_one_pass(net: sg.Network) -> Any:
    y, tape = net.forward(X, training=False)
    return tape.trace(sg.CrossEntropy(reduction="sum")(y, Y)[1])


@pytest.mark.parametrize("size", [4, 23, 100])
def test_batches_give_what_one_pass_gives(size: int) -> None:
    net = network()
    found, trace = survey(net, X, Y, np.asarray, batch_size=size), in_one_pass(net)
    assert list(found.weights) == [p.name for p in net.parameters()]
    for name, tally in found.weights.items():
        weight: SharedWeight = trace[name]
        close(tally.gradient, weight.gradient)
        assert tally.count == weight.count
        close(tally.shares, weight.share("sample"))
        assert tally.shares.sum() == pytest.approx(1)
        assert tally.coherence == pytest.approx(weight.coherence().value)
        assert tally.cancellation == pytest.approx(weight.cancellation().value)
        assert tally.random == pytest.approx(weight.cancellation().random)
        close(np.array(list(tally.calls.values())), weight.share("call"))
        if tally.axis:
            close(tally.places, weight.share(tally.axis))
        assert tally.adds_up
    assert (found.weights["first.weight"].axis, found.weights["rnn.weight_hh_l0"].axis) == ("position", "time")
    assert list(found.weights["a.weight"].calls) == ["a", "b"]


def test_the_samples_that_push_hardest_and_their_places() -> None:
    net = network()
    tally, trace = survey(net, X, Y, np.asarray, batch_size=5).weights["a.weight"], in_one_pass(net)
    apart = trace["a.weight"].share(("sample", "position"))
    shares = apart.sum(axis=(1, 2))
    for sign in (1, -1):
        best = [n for n in np.argsort(-sign * shares)[:4] if sign * shares[n] > 0]
        assert [p.sample for p in tally.hardest(sign)] == best
        for pushing in tally.hardest(sign):
            assert pushing.share == pytest.approx(shares[pushing.sample])
            assert pushing.places is not None
            close(pushing.places, apart[pushing.sample])


def test_filters() -> None:
    net = network()
    found, trace = survey(net, X, Y, np.asarray, batch_size=6), in_one_pass(net)
    assert {name for name, parts in found.filters.items() if parts} == {"first.weight", "a.weight"}
    for index, part in found.filters["first.weight"].items():
        alone = trace["first.weight"].filter(index)
        close(part.shares, alone.share("sample"))
        close(part.places, alone.share("position"))


def test_all_weights_together() -> None:
    net = network()
    found, trace = survey(net, X, Y, np.asarray), in_one_pass(net)
    products = sum(trace[p].share("sample") * np.sum(trace[p].gradient ** 2) for p in net.parameters())
    close(found.shares, products / sum(np.sum(trace[p].gradient ** 2) for p in net.parameters()))
    assert found.adapting == ("BatchNorm2d", "Dropout")


def test_what_the_network_made_of_the_samples() -> None:
    net = network("float32")
    found = survey(net, X, Y, lambda x: x.astype(np.float32), ["a.weight"], batch_size=7)
    assert list(found.weights) == ["a.weight"]
    scores = net.predict(X)
    losses = [sg.CrossEntropy()(scores[n : n + 1], Y[n : n + 1])[0] for n in range(len(Y))]
    np.testing.assert_allclose(found.seen.losses, losses, rtol=1e-4)
    assert found.seen.accuracy == np.mean(scores.argmax(axis=1) == Y)


def test_an_alias_names_the_weight() -> None:
    assert list(survey(network(), X, Y, np.asarray, ["b.weight"]).weights) == ["a.weight"]


@pytest.mark.parametrize("fault", ["drop a call", "scale", "drop a batch"])
def test_uses_that_do_not_add_up_are_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Tally.add

    def wrong(self: Tally, weight: SharedWeight, start: int) -> None:
        if fault == "drop a call":
            weight = SharedWeight(weight.calls[:1])
        if fault == "drop a batch" and start:
            return
        right(self, weight, start)
        if fault == "scale":
            self._sum *= 1.001

    monkeypatch.setattr(Tally, "add", wrong)
    found = survey(network(), X, Y, np.asarray, ["a.weight"], batch_size=6)
    assert not found.weights["a.weight"].adds_up


def test_a_gradient_of_zero_has_no_shares() -> None:
    net = sg.Network({"conv": sg.Conv2d(2, 3, 3), "flat": sg.Flatten(), "scores": sg.Linear(3 * 20, 3)}, (2, 7, 6))
    net.parameter("scores.weight").value = np.zeros((3, 60))
    found = survey(net, X, Y, lambda x: x.astype(np.float32))
    conv = found.weights["conv.weight"]
    assert conv.zero_up_to_rounding
    assert np.isnan(conv.coherence)
    assert conv.hardest(1) == conv.hardest(-1) == []
    assert np.isfinite(found.shares).all()


def test_progress_counts_every_sample_twice() -> None:
    seen: list[tuple[int, int]] = []
    survey(network(), X, Y, np.asarray, batch_size=10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 46), (20, 46), (23, 46), (33, 46), (43, 46), (46, 46)]


def test_what_cannot_be_done() -> None:
    with pytest.raises(ConfigError, match=r"first.wieght: there is no such parameter; did you mean first.weight\?"):
        survey(network(), X, Y, np.asarray, ["first.wieght"])
    with pytest.raises(DataError, match="the loss is not a finite number"):
        survey(network(), X, Y, lambda x: x * np.nan)
    with pytest.raises(ConfigError, match="no weights"):
        survey(sg.Network([sg.Flatten()], (2, 7, 6)), X, Y, np.asarray)


def test_it_changes_nothing() -> None:
    net = network()
    before = {name: value.tobytes() for name, value in net.state_dict().items()}
    survey(net, X, Y, np.asarray)
    assert {name: value.tobytes() for name, value in net.state_dict().items()} == before
