"""A pass computed again, node by node: the same bits as at first, and no more than what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.graph import Node
from sharedgrad.replay import Pass, Replay, run
from tests.helpers import Array, close, same_bits

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 4))


class Counted(sg.Linear):
    """A dense layer that counts its calls."""

    forwards = backwards = 0

    def forward(self, *inputs: Array, context: Any) -> Any:
        type(self).forwards += 1
        return super().forward(*inputs, context=context)

    def backward(self, *arguments: Any) -> Any:
        type(self).backwards += 1
        return super().backward(*arguments)


@pytest.fixture
def nodes() -> list[Node]:
    """x -> a -> (b, c) -> b + c, with a dropout on one of the paths; b and c are one layer."""
    Counted.forwards = Counted.backwards = 0
    net = sg.Network(
        {
            "a": Counted(4, 4),
            "b": (both := Counted(4, 4)),
            "c": (both, "a"),
            "d": sg.Dropout(0.4),
            "e": (sg.Add(), "b", "d"),
        },
        (4,),
        dtype="float64",
        seed=2,
    )
    return list(net.nodes)


def passed(x: Array = X) -> Pass:
    return Pass({"input": x}, training=True, seed=7, step=3, buffers={})


def test_a_whole_pass_is_computed_again_to_the_same_bits(nodes: list[Node]) -> None:
    origin = passed()
    values, records = run(nodes, origin.inputs, origin.context())
    assert [node.name for node, _ in records] == ["a", "b", "c", "d", "e"]
    replay = Replay(nodes, origin, {})
    for name, value in values.items():
        same_bits(replay.value(name), value)


def test_nothing_is_computed_that_is_not_asked_for(nodes: list[Node]) -> None:
    replay = Replay(nodes, passed(), {"e": np.ones((3, 4))})
    assert Counted.forwards == 0
    replay.value("b")
    assert Counted.forwards == 2
    replay.value("b")
    assert Counted.forwards == 2
    same_bits(np.asarray(replay.upstream("b")), np.ones((3, 4)))
    assert Counted.backwards == 0
    replay.upstream("a")
    assert Counted.backwards == 2


def test_what_is_known_is_not_computed_again(nodes: list[Node]) -> None:
    replay, known = Replay(nodes, passed(), {"e": np.ones((3, 4))}), RNG.normal(size=(3, 4))
    replay.know({"a": known}, {"b": known}, {})
    assert replay.value("a") is known
    assert replay.upstream("b") is known
    assert Counted.forwards == 0
    by_hand = known @ nodes[1].layer.parameters()["weight"].value.T + nodes[1].layer.parameters()["bias"].value
    close(replay.value("b"), by_hand)


def test_gradients_of_several_readers_and_given_ones_are_added(nodes: list[Node]) -> None:
    given = {"e": RNG.normal(size=(3, 4)), "a": RNG.normal(size=(3, 4))}
    replay = Replay(nodes, passed(), given)
    w = nodes[1].layer.parameters()["weight"].value
    b, c = (np.asarray(replay.upstream(name)) for name in ("b", "c"))
    close(np.asarray(replay.upstream("a")), given["a"] + b @ w + c @ w)
    assert replay.upstream("input") is not None


def test_no_gradient_arrives_where_none_was_given(nodes: list[Node]) -> None:
    replay = Replay(nodes, passed(), {"a": np.ones((3, 4))})
    assert replay.upstream("e") is None
    assert replay.upstream("c") is None


def test_the_layers_are_copies_with_the_values_of_the_pass(nodes: list[Node]) -> None:
    origin = passed()
    values, _ = run(nodes, origin.inputs, origin.context())
    replay = Replay(nodes, origin, {})
    weight: sg.Parameter = nodes[1].layer.weight
    weight.value = np.zeros(weight.shape)
    same_bits(replay.value("e"), values["e"])
    assert replay.nodes[1].layer is replay.nodes[2].layer  # used twice, copied once
    assert replay.weights[weight].value.any()
