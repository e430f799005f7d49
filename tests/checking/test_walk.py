"""Networks step by step: the first wrong number is named, later ones are judged given it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.calculation import Calculation
from sharedgrad.checking.network import Chain
from sharedgrad.checking.right import right, total
from sharedgrad.errors import SharedgradError

RNG = np.random.default_rng(3)
NET: dict[str, Any] = {
    "nodes": [
        {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 2},
        {"name": "act", "layer": "Tanh"},
        {"name": "pool", "layer": "MaxPool2d", "kernel_size": 2, "stride": 1},
        {"name": "flat", "layer": "Flatten"},
        {"name": "fc", "layer": "Linear", "in_features": 8, "out_features": 3},
    ],
    "numbers": {
        "x": RNG.normal(size=(4, 4)).round(2).tolist(),
        "weights": {
            "conv.weight": RNG.normal(size=(2, 1, 2, 2)).round(2).tolist(),
            "conv.bias": [0.1, -0.2],
            "fc.weight": RNG.normal(size=(3, 8)).round(2).tolist(),
            "fc.bias": [0.0, 0.1, 0.2],
        },
        "loss": {"name": "CrossEntropy", "target": [1]},
    },
}


def chain() -> Chain:
    return Chain(Calculation.of(NET))


def right_answers() -> dict[str, np.ndarray]:
    c = chain()
    names = {n: total(right(c.given(n), "y")) for n in c.order}
    answers = {f"{n}.y": y for n, y in names.items()} | {f"{n}.dy": c.dy(n) for n in c.order}
    for node in ("conv", "fc"):
        answers |= {f"{node}.{t}": total(right(c.given(node), t)) for t in ("dw", "db")}
    return answers | {"dx": c.dy("input")}


def check(**answers: Any) -> Any:
    return sg.check_numbers({**NET, "answers": {n: np.asarray(a).tolist() for n, a in answers.items()}})


def test_the_chain_agrees_with_the_engine() -> None:
    result, answers = Calculation.of(NET).run(), right_answers()
    np.testing.assert_allclose(answers["conv.dw"], result.gradients["conv.weight"], atol=1e-12)
    np.testing.assert_allclose(answers["fc.db"], result.gradients["fc.bias"], atol=1e-12)
    np.testing.assert_allclose(answers["dx"], result.gradients.inputs["input"], atol=1e-12)


@pytest.mark.parametrize("digits", [3, 4, 15])
def test_right_numbers_are_right(digits: int) -> None:
    assert check(**{n: np.round(a, digits) for n, a in right_answers().items()}).verdict == "right"


def test_later_numbers_are_judged_given_the_wrong_one() -> None:
    answers, c = right_answers(), chain()
    delta = c.dy("act")  # the derivative of tanh is left out
    wrong = {"conv.dy": delta, "conv.db": delta.sum((0, 2, 3)), "fc.dw": answers["fc.dw"]}
    report = check(**wrong)
    assert (report.verdict, report.ids) == ("wrong", ["activation_derivative_missing"])
    assert report.remarks[0] == "conv.dy is the first wrong number on the way."
    assert "conv.db: right for your conv.dy." in report.remarks
    assert [a.name for a in report.arrays if a.wrong.any()] == ["conv.dy"]


def test_a_mistake_that_was_not_written_down_is_found() -> None:
    c = chain()
    delta = c.dy("act")
    dw = total(right(c.given("conv", delta), "dw"))
    report = check(**{"conv.dw": dw})
    assert report.verdict == "wrong"
    assert report.ids[0] == "activation_derivative_missing"
    assert "at conv" in report.explanations[0].notes


def test_two_mistakes_on_one_way_are_found() -> None:
    c = chain()
    dw = total(right(c.given("conv", c.dy("act")), "dw"))
    report = check(**{"conv.dw": dw[..., ::-1, ::-1]})
    assert report.verdict == "wrong"
    assert "activation_derivative_missing + dw_flipped" in report.ids


def test_the_derivative_of_softmax_applied_twice() -> None:
    answers, c = right_answers(), chain()
    p = np.exp(c.value("fc")) / np.exp(c.value("fc")).sum()
    report = check(**{"fc.y": answers["fc.y"], "fc.dy": answers["fc.dy"] * p * (1 - p)})
    assert (report.verdict, report.ids[0]) == ("wrong", "activation_derivative_twice")


def test_a_branch_that_was_left_out() -> None:
    net = {
        "nodes": [
            {"name": "a", "layer": "Linear", "in_features": 2, "out_features": 2, "bias": False},
            {"name": "b", "layer": "Tanh"},
            {"name": "sum", "layer": "Add", "inputs": ["a", "b"]},
        ],
        "numbers": {"x": [0.5, -0.25], "weights": {"a.weight": [[1, 2], [3, -1]]}, "upstream": [1.0, -2.0]},
    }
    c = Chain(Calculation.of(net))
    parts = [total(right(s.given, s.target)) for s in c.senders("a")]
    assert len(parts) == 2
    good = sg.check_numbers({**net, "answers": {"a.dy": sum(parts).tolist()}})
    assert good.verdict == "right"
    report = sg.check_numbers({**net, "answers": {"a.dy": parts[1].tolist()}})
    assert (report.verdict, report.ids[0]) == ("wrong", "residual_not_summed")


def test_another_convention_in_one_node() -> None:
    net = {
        "nodes": [
            {"name": "act", "layer": "ReLU"},
            {"name": "fc", "layer": "Linear", "in_features": 3, "out_features": 2},
        ],
        "numbers": {
            "x": [0.0, 1.5, -0.5],
            "weights": {"fc.weight": [[1, 2, 3], [0.5, -1, 1]], "fc.bias": [0, 0]},
            "upstream": [1.0, 2.0],
        },
    }
    report = sg.check_numbers({**net, "answers": {"dx": [2.0, 0.0, 0.0]}})
    assert (report.verdict, report.ids) == ("right under a convention", ["relu_at_zero_1"])


def test_a_mean_loss_where_a_sum_is_given() -> None:
    net = {
        "nodes": [{"name": "fc", "layer": "Linear", "in_features": 1, "out_features": 2, "bias": False}],
        "numbers": {
            "x": [[1.0], [2.0]],
            "weights": {"fc.weight": [[0.5], [-1.0]]},
            "loss": {"name": "MSE", "reduction": "sum", "target": [[0, 0], [1, 1]]},
        },
    }
    c = Chain(Calculation.of(net))
    good = c.dy("fc")
    assert sg.check_numbers({**net, "answers": {"fc.dy": good.tolist()}}).verdict == "right"
    report = sg.check_numbers({**net, "answers": {"fc.dy": (good / 4).tolist()}})
    assert report.ids


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere.dw", "there is no node"), ("act.dw", "there is no such array"), ("dw", "the network has several nodes")],
)
def test_an_answer_to_nothing_gets_one_line(name: str, words: str) -> None:
    with pytest.raises(SharedgradError, match=words):
        check(**{name: [1.0]})
