"""Every procedure of the library is executed on numbers of its own, and named by the checker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.answers import read
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.given import Given
from sharedgrad.checking.right import UPDATES, of_layer, right, targets, total
from sharedgrad.checking.rules import Outcome
from tests.checking.rates import single_outcomes
from tests.checking.test_catalogue import PROCEDURES


def layer(make: sg.Layer, shape: tuple[int, ...], rng: np.random.Generator, **options: object) -> Given:
    net = sg.Network({"layer": make}, shape[1:], dtype="float64")
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    x = np.round(rng.normal(size=shape), 1) if isinstance(make, sg.MaxPool2d) else rng.normal(size=shape)
    return of_layer(make, x, rng.normal(size=net.forward(x)[0].shape), **options)


def givens() -> Iterator[tuple[str, Given]]:
    rng = np.random.default_rng(5)
    yield "convolution", layer(sg.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 5, 5), rng, learning_rate=0.1)
    yield "groups", layer(sg.Conv2d(4, 6, (3, 2), padding=2, groups=2, dilation=(1, 2)), (2, 4, 4, 3), rng)
    yield "wide padding", layer(sg.Conv2d(2, 2, 2, padding=3), (1, 2, 4, 4), rng)
    yield "no padding", layer(sg.Conv1d(2, 3, 3), (2, 2, 8), rng)
    yield "dense", layer(sg.Linear(4, 4), (3, 4), rng, learning_rate=0.5)
    yield "tokens", layer(sg.Linear(4, 3), (2, 5, 4), rng)
    yield "max pooling", layer(sg.MaxPool2d((3, 2), 2, 1), (2, 2, 7, 6), rng)
    yield "overlapping pooling", layer(sg.MaxPool2d(3, 1), (2, 2, 6, 6), rng)
    yield "average pooling", layer(sg.AvgPool2d((3, 2), 2), (2, 2, 7, 6), rng)
    for curve in (sg.ReLU(), sg.Sigmoid(), sg.Tanh(), sg.Softmax()):
        yield type(curve).__name__, layer(curve, (3, 5), rng)
    yield "recurrent", layer(sg.RNN(3, 4), (2, 5, 3), rng)
    yield "flatten", layer(sg.Flatten(), (2, 3, 2, 4), rng)
    yield "log softmax", Given("log_softmax", {"x": rng.normal(size=(2, 4)), "dy": rng.normal(size=(2, 4))})
    scores, classes = rng.normal(size=(3, 4)), np.array([1.0, 3.0, 0.0])
    yield "cross-entropy", Given("cross_entropy", {"x": scores, "target": classes})
    yield "squared error", Given("mse", {"x": scores, "target": rng.normal(size=(3, 4))})
    yield "yes or no", Given("binary_cross_entropy", {"x": scores, "target": rng.integers(0, 2, (3, 4)).astype(float)})
    rows = np.array([[0.0, 2, 2], [1, 2, 0]])
    yield "embedding", Given("embedding", {"x": rows, "w": rng.normal(size=(4, 3)), "dy": rng.normal(size=(2, 3, 3))})
    yield "branch", Given("branch", {"x": scores, "dy": rng.normal(size=(2, 3, 4))})


GIVENS = dict(givens())


def asked(given: Given) -> list[str]:
    if given.kind == "branch":
        return ["dx"]
    if given.kind == "embedding":
        return ["y", "dw"]
    updates = [u for u in UPDATES if "learning_rate" in given.options and u[0] in given]
    return [*targets(given), *updates]


def outcomes(given: Given, target: str) -> list[Outcome]:
    return list(single_outcomes(given, target, variants=2))


@pytest.mark.parametrize("name", GIVENS)
def test_each_wrong_array_is_explained_by_its_own_mistake_first(name: str) -> None:
    given = GIVENS[name]
    for target in asked(given):
        others = {t: read(total(right(given, t)), t) for t in asked(given) if t != target}
        for outcome in outcomes(given, target):
            report = diagnose([Trial(given, {**others, target: read(outcome.array, target)})], seconds=0.0)
            assert report.verdict in ("wrong", "cannot tell"), (target, outcome.ids, outcome.notes, report.ids)
            explanation = next(e for e in report.explanations if e.sort == "mistake")
            first = {explanation.id, *explanation.same}
            assert outcome.ids[0] in first, (target, outcome.ids, outcome.notes, report.ids)


def test_every_procedure_makes_a_difference_somewhere() -> None:
    shown = {o.ids[0] for g in GIVENS.values() for t in asked(g) for o in single_outcomes(g, t)}
    assert set(PROCEDURES) - shown == {"crop_minus_zero"}  # its array is empty


def test_a_crop_by_minus_zero_leaves_an_empty_array() -> None:
    given = GIVENS["no padding"]
    report = diagnose([Trial(given, {"dx": read(np.zeros((2, 2, 0)), "dx")})])
    assert (report.verdict, report.ids) == ("wrong", ["crop_minus_zero"])
    text = str(report)
    assert "shape" in text
