"""Verdicts on one layer: conventions, readings, false alarms, several mistakes, what numbers cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.right import of_layer, right, total

X = [[1.0, 2.0, 0.0], [3.0, -1.0, 4.0], [2.0, 5.0, 1.0]]
W = [[1.0, -2.0], [3.0, 0.5]]
UP = [[0.5, -1.0], [2.0, 1.5]]
CONV: dict[str, Any] = {"layer": "conv2d", "x": X, "w": W, "b": [0.25], "upstream": UP}


def arrays(exercise: dict[str, Any] = CONV, **layer: Any) -> dict[str, np.ndarray]:
    """The right answers, by the engine."""
    net = sg.Network([sg.Conv2d(1, 1, 2, **layer)], (1, 3, 3), dtype="float64")
    net.load_state_dict({"0.weight": np.reshape(exercise["w"], (1, 1, 2, 2)), "0.bias": exercise["b"]})
    y, _ = net.forward(np.reshape(exercise["x"], (1, 1, 3, 3)))
    given = of_layer(net["0"], np.reshape(exercise["x"], (1, 1, 3, 3)), np.resize(exercise["upstream"], y.shape))
    return {name: total(right(given, name)) for name in ("y", "dw", "db", "dx")}


def check(exercise: dict[str, Any], **answers: Any) -> Any:
    plain = {n: np.asarray(a).tolist() for n, a in answers.items()}
    return sg.check_numbers({**exercise, "answers": plain})


def test_right_numbers_are_right() -> None:
    report = check(CONV, **arrays())
    assert (report.verdict, report.exit_code, report.ids) == ("right", 0, [])


def test_a_turned_gradient_beside_a_correlation_is_a_mistake() -> None:
    good = arrays()
    report = check(CONV, y=good["y"], dw=good["dw"][..., ::-1, ::-1])
    assert (report.verdict, report.ids[0], report.exit_code) == ("wrong", "dw_flipped", 1)
    assert "turned by 180 degrees" in report.arrays[1].structure[0]


def test_a_turned_gradient_alone_allows_two_readings() -> None:
    report = check(CONV, dw=arrays()["dw"][..., ::-1, ::-1])
    assert (report.verdict, report.exit_code) == ("cannot tell", 3)
    assert [r.sort for r in report.readings] == ["convention", "mistake"]
    assert report.remarks == ("With y as well, the readings could be told apart.",)


def test_a_true_convolution_with_its_own_y_is_right() -> None:
    turned = arrays({**CONV, "w": np.flip(W).tolist()})
    report = check(CONV, y=turned["y"], dw=turned["dw"][..., ::-1, ::-1], dx=turned["dx"], db=turned["db"])
    assert (report.verdict, report.ids) == ("right under a convention", ["true_convolution"])


def test_channels_last_is_a_convention() -> None:
    rng = np.random.default_rng(0)
    net = sg.Network([sg.Conv2d(2, 3, (2, 3))], (2, 4, 5), dtype="float64")
    x = rng.normal(size=(2, 2, 4, 5))
    y, tape = net.forward(x)
    dy = rng.normal(size=y.shape)
    g = tape.backward(dy, inputs=True)

    def last(array: Any) -> Any:
        return np.asarray(array).transpose(0, 2, 3, 1).tolist()

    w, b = net.state_dict().values()
    exercise = {"layer": "conv2d", "x": last(x), "w": w.transpose(2, 3, 1, 0).tolist(), "b": b, "upstream": last(dy)}
    answers = {
        "y": last(y),
        "dx": last(g.inputs["input"]),
        "dw": g["0.weight"].transpose(2, 3, 1, 0),
        "db": g["0.bias"],
    }
    declared = check({**exercise, "layout": "NHWC"}, **answers)
    assert (declared.verdict, declared.ids) == ("right", [])
    mistake = check({**exercise, "layout": "NHWC"}, db=dy.sum((0, 1, 2)))
    assert (mistake.verdict, mistake.ids[0]) == ("wrong", "db_wrong_axis_layout")


def test_what_is_right_is_said_beside_what_is_wrong() -> None:
    good = arrays()
    report = check(CONV, y=good["y"], dw=good["dw"] / 4, db=good["db"], dx=good["dx"])
    assert (report.verdict, report.ids) == ("wrong", ["mean_over_positions"])
    assert report.remarks[0] == "y, db and dx: right."
    assert report.arrays[1].structure == ("every number is 1/4 times the right one",)
    assert report.explanations[0].verified


def test_mistakes_in_two_arrays_are_both_named() -> None:
    good = arrays()
    report = check(CONV, y=good["y"], dw=good["dw"][..., ::-1, ::-1], db=good["db"] / 4)
    assert {(e.id, e.arrays) for e in report.explanations[:2]} == {
        ("dw_flipped", ("dw",)),
        ("db_mean_over_positions", ("db",)),
    }


def test_one_mistake_in_several_arrays_is_named_once() -> None:
    good = arrays()
    report = check(CONV, y=good["y"], dw=-good["dw"], db=-good["db"], dx=-good["dx"])
    assert report.explanations[0].id == "sign_flipped"
    assert report.explanations[0].arrays == ("dw", "db", "dx")


def test_two_mistakes_in_one_array() -> None:
    good = arrays()
    report = check(CONV, y=good["y"], dw=-good["dw"][..., ::-1, ::-1])
    assert report.verdict == "wrong"
    assert report.explanations
    assert all(len(e.id.split(" + ")) == 2 for e in report.explanations)


def test_numbers_that_nothing_explains_say_so() -> None:
    good = arrays()
    dw = good["dw"].copy()
    dw[0, 0, 1, 0] += 0.777
    report = sg.check_numbers({**CONV, "answers": {"y": good["y"].tolist(), "dw": dw.tolist()}}, seconds=5)
    assert (report.verdict, report.ids) == ("wrong", [])
    assert report.arrays[1].first_wrong == (0, 0, 1, 0)
    assert "no known mistake gives these numbers" in report.remarks[-1]


def test_another_upstream_gradient_is_no_mistake_of_this_layer() -> None:
    good = arrays({**CONV, "upstream": [[0.1, 0.9], [-2.0, 0.7]]})
    report = check(CONV, y=good["y"], dw=good["dw"], db=good["db"], dx=good["dx"])
    assert (report.verdict, report.ids) == ("not a mistake", ["upstream_already_wrong"])


def test_a_saturated_unit_is_no_mistake() -> None:
    report = check({"layer": "sigmoid", "x": [50.0, 1.0], "upstream": [1.0, 1.0]}, dx=[0.0, 0.1966])
    assert (report.verdict, report.ids) == ("not a mistake", ["saturation_underflow"])


def test_an_integer_array_cannot_be_moved_by_a_small_step() -> None:
    exercise = {**CONV, "step": 1e-5, "dtype": "uint8"}
    report = check(exercise, dx=np.zeros((3, 3)))
    assert (report.verdict, report.ids) == ("not a mistake", ["integer_input_gradcheck"])
    assert check(CONV, dx=np.zeros((3, 3))).verdict == "wrong"


def test_early_rounding_of_products_is_no_mistake() -> None:
    x, up = np.array([0.117, 0.256, 0.384, 0.518, 0.661]), np.array([0.213, 0.847, 0.419, 0.731])
    products = np.array([[np.round(x[o + k] * up[o], 3) for o in range(4)] for k in range(2)])
    exercise = {"layer": "conv1d", "x": x.tolist(), "w": [0.5, 0.25], "upstream": up.tolist()}
    exact = np.array([x[k : k + 4] @ up for k in range(2)])
    rounded = products.sum(1)
    assert np.abs(rounded - exact).max() > 0.0005
    assert check(exercise, dw=np.round(rounded, 3)).verdict == "not a mistake"


@pytest.mark.parametrize(("digits", "verdict"), [(2, "right"), (3, "right")])
def test_rounded_answers_are_right(digits: int, verdict: str) -> None:
    good = arrays(padding=1)
    exercise = {**CONV, "padding": 1, "upstream": np.resize(UP, (4, 4)).tolist()}
    assert check(exercise, **{n: np.round(a / 1, digits) for n, a in good.items()}).verdict == verdict


def test_what_cannot_be_told_apart_comes_with_numbers_that_can() -> None:
    exercise = {**CONV, "upstream": [[1.0, 1.0], [1.0, 1.0]]}
    good = arrays(exercise)
    windows = np.lib.stride_tricks.sliding_window_view(np.array(X), (2, 2))
    report = check(exercise, y=good["y"], dw=windows.sum((0, 1)) / 4)
    assert report.verdict == "wrong"
    (remark,) = [r for r in report.remarks if "cannot tell" in r][:1] or [""]
    assert "mean_over_positions" in report.ids[0] or remark


def test_the_report_is_plain_data() -> None:
    good = arrays()
    data = check(CONV, y=good["y"], dw=good["dw"] / 4).to_json()
    assert data["verdict"] == "wrong"
    assert data["explanations"][0]["id"] == "mean_over_positions"
    assert data["arrays"][1]["first_wrong"]["index"] == [0, 0, 0, 0]
