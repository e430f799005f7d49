"""The worked examples of docs/, in a small form: what they compute is what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import sharedgrad as sg
from tests.helpers import close

ROOT = Path(__file__).parents[1]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wrong_labels() -> ModuleType:
    return example("wrong_labels")


@pytest.fixture(scope="module")
def tied() -> ModuleType:
    return example("tied_embedding")


def bars(count: int) -> tuple[Any, Any]:
    """Images of one bright row of four, and which it is."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, count)
    x = rng.normal(0, 0.3, (count, 1, 14, 14)).astype(np.float32)
    x[np.arange(count), 0, 2 + 3 * y] += 2
    return x, y


def test_so_many_labels_are_wrong(wrong_labels: ModuleType) -> None:
    y = np.arange(400) % 10
    given, wrong = wrong_labels.mislabelled(y, 0.05, 10, np.random.default_rng(0))
    assert wrong.sum() == 20
    assert ((given != y) == wrong).all()
    assert set(given) <= set(range(10))


def test_orders_are_what_they_are_called(wrong_labels: ModuleType) -> None:
    x, y = bars(30)
    net = wrong_labels.network((1, 14, 14), 4, 1)
    trusted = bars(12)
    score = wrong_labels.suspicion(net, x, y, trusted)
    assert tuple(score) == wrong_labels.ORDERS
    assert score["fights all weights"].sum() == pytest.approx(-1, abs=1e-5)  # shares add to 1
    assert score["fights conv1"].sum() == pytest.approx(-1, abs=1e-5)
    good = wrong_labels.whole_gradient(net, *trusted)
    for n in range(3):
        scores, tape = net.forward(x[n : n + 1], training=False)
        loss, upstream = sg.CrossEntropy()(scores, y[n : n + 1])
        gradients = tape.backward(upstream)
        assert score["loss"][n] == pytest.approx(loss, rel=1e-5)
        square = sum(float(np.square(gradients[p]).sum()) for p in net.parameters())
        assert score["gradient norm"][n] == pytest.approx(square**0.5, rel=1e-4)
        against = sum(float(np.vdot(gradients[p], good[p.name])) for p in net.parameters())
        assert score["fights trusted"][n] == pytest.approx(-against, rel=1e-3, abs=1e-4)


def test_precision(wrong_labels: ModuleType) -> None:
    wrong = np.array([False, True, False, True])
    score = np.array([0.1, 0.9, 0.8, 0.2])
    assert [wrong_labels.precision(score, wrong, k) for k in (1, 2, 3)] == [1.0, 0.5, pytest.approx(2 / 3)]


def test_wrong_labels_are_found_and_drawn(wrong_labels: ModuleType) -> None:
    x, y = bars(200)
    net, given, wrong, table = wrong_labels.run(x, y, bars(40), 4, 0.1, 3, 0)
    assert table.shape == (3, 5, 3)
    assert table[-1, 0, -1] > 0.8  # by loss, of which wrong labels have the most
    assert ((given != y) == wrong).all()
    assert len(wrong_labels.draw_precision(table[None], 0.1).axes[0].get_lines()) == 6
    number, figure = wrong_labels.draw_maps(net, x, given, y, x[:, 0])
    assert 0 <= number < 8
    assert f"conv1.weight[{number}]" in figure.get_supxlabel()


def test_reading_and_predicting_are_the_gradients_of_two_untied_weights(tied: ModuleType) -> None:
    torch.manual_seed(1)
    model = tied.Model(30, width=8, length=6, heads=2)
    tokens, target = torch.randint(30, (3, 6)), torch.randint(30, (18,))
    with sg.trace(model, params=["embed.weight"]) as t:
        functional.cross_entropy(model(tokens).flatten(0, 1), target).backward()
    found = tied.taken_apart(0, 1.0, t["embed.weight"])
    head = nn.Parameter(model.embed.weight.detach().clone())
    original = functional.linear
    try:
        functional.linear = lambda x, w, b=None: original(x, head if w is model.embed.weight else w, b)
        model.zero_grad()
        functional.cross_entropy(model(tokens).flatten(0, 1), target).backward()
    finally:
        functional.linear = original
    read, predict = (w.grad.double().numpy() for w in (model.embed.weight, head))
    total = read + predict
    square = np.square(total).sum()
    close(found.norms, np.array([np.linalg.norm(read), np.linalg.norm(predict)]), 1e-5)
    close(found.shares, np.array([(read * total).sum(), (predict * total).sum()]) / square, 1e-5)
    close(found.rows.astype(float), np.stack([(read * total).sum(1), (predict * total).sum(1)]) / square, 1e-5)
    assert found.cosine == pytest.approx((read * predict).sum() / found.norms.prod(), abs=1e-5)


def test_it_trains_while_it_is_traced(tied: ModuleType) -> None:
    found, names, model, _ = tied.train(7, 40, every=3, batch=2, length=8)
    assert [step.number for step in found] == [0, 3, 6]
    assert len(names) == len(model.embed.weight) == 40
    for step in found:
        assert step.shares.sum() == pytest.approx(1)
        close(step.rows.sum(axis=1), step.shares, 1e-5)
    assert set(tied.largest_rows(found, names)) == {"reading", "predicting"}
    assert len(tied.draw(found).axes) == 3


@pytest.mark.parametrize("page", ["trace.md", "tied_embedding.md", "wrong_labels.md"])
def test_the_pages_show_files_that_there_are(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    targets = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)
