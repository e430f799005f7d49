"""What is said of a network's compiled parts is what its tapes are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.compilation import Compilation, Part
from tests.plan.networks import Swish, draw


def net(*layers: sg.Layer, shape: tuple[int, ...] = (2, 8, 8)) -> sg.Network:
    return sg.Network(list(layers), shape)


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_way_that_a_pass_takes(seed: int) -> None:
    case = draw(seed, "double", foreign=0.4)
    _, tape = case.net.forward(*case.inputs, training=case.training)
    ways = [[*piece.names] if piece in tape._recordings else [piece[0].name] for piece in tape._done]
    told = case.net.compilation(samples=len(case.inputs[0]))
    expected = [names for part in told.parts for names in ([[n] for n in part.nodes] if part.why else [part.nodes])]
    assert [set(names) for names in ways] == [set(names) for names in expected]


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (Swish(), (3,), "a layer of your own, in Python"),
        (sg.Softmax(), (3,), "no compiled operation for this layer"),
        (sg.MaxPool2d(2, ties="share"), (2, 8, 8), "ties='share'"),
        (sg.Linear(3, 2), (5, 3), "tokens: samples of more than one axis"),
        (sg.Conv2d(1, 2, (1, 65)), (1, 70, 70), "windows or maps too large for the compiled code"),
        (sg.Flatten(), (2, 3, 4, 5), "samples of 4 axes"),
        (sg.ReLU(), (2, 3, 4, 5), "samples of 4 axes"),
    ],
)
def test_the_reasons(layer: sg.Layer, shape: tuple[int, ...], why: str) -> None:
    made = net(layer, shape=shape)
    assert made.compilation().in_python == {"0": why}
    y, tape = made.forward(np.ones((2, *shape)))
    assert not tape._recordings
    tape.backward(np.ones_like(y))


@pytest.mark.compiled
def test_concat_along_another_axis_than_the_channels() -> None:
    for axis, compiled in ((1, True), (-3, True), (2, False), (-1, False)):
        made = sg.Network({"both": (sg.Concat(axis), "a", "b")}, {"a": (2, 3, 3), "b": (2, 3, 3)})
        assert bool(made.compilation().in_python) is not compiled


@pytest.mark.compiled
def test_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plain, mixed = net(sg.Conv2d(2, 3, 3), sg.ReLU()), net(sg.Conv2d(2, 3, 3), Swish(), sg.AvgPool2d(2), sg.Softmax())
    assert plain.compilation() == Compilation((Part(("0", "1"), ""),))
    assert plain.compilation().sentence == "runs compiled: all 2 nodes, as one program."
    sentence = "runs compiled: 2 of 4 nodes. In Python: 1 (a layer of your own, in Python); "
    assert mixed.compilation().sentence == sentence + "3 (no compiled operation for this layer)."
    lines = str(mixed.compilation()).splitlines()
    assert [line.split()[0] for line in lines] == ["nodes", "0", "1", "2", "3"]
    assert max(map(len, lines)) <= 80


@pytest.mark.compiled
def test_what_is_not_worth_a_change_of_memory_order_stays_in_python() -> None:
    layers = [
        Swish(),
        sg.ReLU(),
        Swish(),
        sg.Tanh(),
        sg.Flatten(),
        sg.Linear(128, 9),
        Swish(),
        sg.ReLU(),
        sg.Linear(9, 2),
    ]
    told = net(*layers).compilation()
    assert [part.nodes for part in told.parts if not part.why] == [("5",), ("7", "8")]
    assert {told.in_python[name] for name in "134"} == {"too little work between layers in Python"}
    assert net(sg.Tanh(), sg.Flatten()).compilation().in_python == {}  # a whole network, whatever it is


def test_without_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = net(sg.Conv2d(2, 3, 3))
    with kernels.use("vectorized"):
        assert "chosen" in made.compilation().in_python["0"] or not kernels.compiled()
    monkeypatch.setattr(kernels, "compiled", lambda: False)
    assert "no kernels were compiled" in made.compilation().sentence
