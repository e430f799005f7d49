"""Published answers of public questions, courses and repositories: each wrong one is named, each right one passes.

The numbers are those of cases/worked_examples.json (sources there); wrong answers that were published, or that follow
from a published procedure, are written here beside their source's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.checking.answers import read
from sharedgrad.checking.diagnosis import Trial, diagnose
from sharedgrad.checking.given import Given

CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "cases/worked_examples.json").read_text())
NOT_CHECKED = {
    "gomez-lstm": "needs the LSTM's own table",
    "cs231n-issue19": "its code is checked by running it",
    "cs231n-rnn-step": "a forward pass with an h_0 that is not 0, which the layer has not",
    "dlai-rot180": "its code is checked by running it",
    "dlai-pool-backward": "only slices were published",
    "micrograd53-idempotence": "a fault of state: a second call gives another result",
}


def part(name: str, which: str = "given") -> dict[str, Any]:
    return CASES[name].get(which, {})


def check(exercise: dict[str, Any], **answers: Any) -> sg.checking.report.Report:
    return sg.check_numbers({**exercise, "answers": answers})


def conv(name: str, **more: Any) -> dict[str, Any]:
    given = part(name)
    fields = {"layer": "conv2d", "x": given["x"], "w": given["w"], "upstream": given["upstream"], **more}
    for key in ("stride", "padding"):
        if key in given:
            fields[key] = given[key]
    return fields | ({"b": given["bias"]} if "bias" in given else {})


def test_the_smallest_kernel() -> None:
    exercise = {**conv("dsse26755-1d"), "layer": "conv1d", "b": 0.0}
    published, right = part("dsse26755-1d", "published"), part("dsse26755-1d", "right")
    answers = {"y": published["y"], "dw": published["dW"], "dx": published["dX"], "db": right["db"]}
    assert check(exercise, **answers).verdict == "right"
    assert check(exercise, **{**answers, "dw": [0.15, 0.2]}).ids == ["mean_over_positions"]
    assert "only_one_use_counted" in check(exercise, **{**answers, "dw": [-0.1, -0.2]}).ids


ASKED = {
    "nodes": [
        {"name": "conv", "layer": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 2, "bias": False},
        {"name": "pool", "layer": "MaxPool2d", "kernel_size": 2},
        {"name": "sigmoid", "layer": "Sigmoid"},
        {"name": "flatten", "layer": "Flatten"},
        {"name": "fc", "layer": "Linear", "in_features": 4, "out_features": 2, "bias": False},
    ]
}


def asked() -> dict[str, Any]:
    given = part("dsse27506-cnn")
    weights = {"conv.weight": given["kernel"], "fc.weight": given["fc_weights"]}
    return {**ASKED, "numbers": {"x": given["x"], "weights": weights, "upstream": given["upstream_H"]}}


def test_the_question_s_network_is_right_step_by_step() -> None:
    published = part("dsse27506-cnn", "published")
    report = check(
        asked(),
        **{
            "sigmoid.y": published["sigmoid_out"],
            "pool.dy": published["delta_sigmoid"],
            "conv.dy": published["delta_map"],
            "conv.dw": published["dW"],
        },
    )
    assert report.verdict == "right"


def test_the_question_s_kernel_gradient_alone_is_early_rounding() -> None:
    report = check(asked(), **{"conv.dw": part("dsse27506-cnn", "published")["dW"]})
    assert report.verdict == "not a mistake"
    assert report.ids == ["rounding_propagated"]
    exact = part("dsse27506-cnn", "right")["dW_exact"]
    assert check(asked(), **{"conv.dw": exact}).verdict == "right"


def test_the_first_version_of_the_answer_turns_dy() -> None:
    published = part("dsse27506-cnn", "published")
    wrong = [[0.003165, 0.036585], [0.051292, 0.048061]]  # convolve2d without turning the deltas first
    report = check(asked(), **{"conv.dy": published["delta_map"], "conv.dw": wrong})
    assert (report.verdict, report.ids[0]) == ("wrong", "dw_true_convolution")


def test_several_channels_and_filters() -> None:
    exercise = conv("dsse28593-multichannel")
    published, right = part("dsse28593-multichannel", "published"), part("dsse28593-multichannel", "right")
    answers = {"y": published["y"], "dx": published["dX"], "dw": right["dW"], "db": right["db"]}
    assert check(exercise, **answers).verdict == "right"


def test_pooling_with_a_tie() -> None:
    given, published = part("koryakinp-pool"), part("koryakinp-pool", "published")
    exercise = {
        "layer": "maxpool2d", "kernel_size": given["pool"]["size"], "stride": given["pool"]["stride"],
        "x": given["x"], "upstream": np.full((2, 2, 2), 9).tolist(),
    }  # fmt: skip
    assert check(exercise, y=published["y"], dx=published["dX"]).verdict == "right"
    every_tie = np.array(published["dX"], float)
    every_tie[0, 1, 3] = 9
    report = check(exercise, dx=every_tie.tolist())
    assert (report.verdict, report.ids) == ("wrong", ["pool_all_ties"])


def test_a_dense_layer_and_its_sigmoid() -> None:
    given, published = part("koryakinp-fc"), part("koryakinp-fc", "published")
    right = part("koryakinp-fc", "right")
    exercise = {
        "nodes": [{"name": "fc", "layer": "Linear", "in_features": 5, "out_features": 3},
                  {"name": "sigmoid", "layer": "Sigmoid"}],
        "numbers": {"x": given["x"], "weights": {"fc.weight": given["W"], "fc.bias": given["bias"]},
                    "upstream": given["upstream"]},
    }  # fmt: skip
    answers = {"sigmoid.y": published["y"], "dx": published["dX"], "fc.dw": right["dW"], "fc.db": right["db"]}
    assert check(exercise, **answers).verdict == "right"
    without = np.array(given["upstream"])
    report = check(exercise, **{"fc.dw": np.outer(without, given["x"]).tolist(), "fc.db": without.tolist()})
    assert (report.verdict, report.ids[0]) == ("wrong", "activation_derivative_missing")


def test_a_sigmoid_applied_twice() -> None:
    given = part("koryakinp-sigmoid")
    exercise = {"layer": "sigmoid", "x": given["z"], "upstream": given["upstream"]}
    assert check(exercise, dx=part("koryakinp-sigmoid", "published")["dZ"]).verdict == "right"
    wrong = [
        [[-0.396480572, 0.394438466, 0.0], [1.227666746, -0.991201429, 0.249859477],
         [-1.657249836, -1.645025985, 1.999996943]],
        [[1.749999999, 0.589927201, 2.209800143], [1.179854402, -0.749999997, -2.249999533],
         [0.786569602, -0.786778779, -1.499997707]],
    ]  # fmt: skip
    report = check(exercise, dx=wrong)
    assert (report.verdict, report.ids[0]) == ("wrong", "sigmoid_prime_of_activation")


def test_the_recurrent_tutorial_without_its_transpose() -> None:
    given, right = part("vzhou-rnn-transpose"), part("vzhou-rnn-transpose", "right")
    weights = {
        "rnn.weight_ih_l0": given["Wxh"], "rnn.weight_hh_l0": given["Whh"], "fc.weight": given["Why"],
        "rnn.bias_ih_l0": [0, 0], "rnn.bias_hh_l0": given["bh"],
    }  # fmt: skip
    exercise = {
        "nodes": [{"name": "rnn", "layer": "RNN", "input_size": 1, "hidden_size": 2, "last": True},
                  {"name": "fc", "layer": "Linear", "in_features": 2, "out_features": 1, "bias": False}],
        "numbers": {"x": [[v] for v in given["x"]], "weights": weights, "upstream": [1.0]},
    }  # fmt: skip
    answers = {"rnn.dWhh": right["dWhh"], "rnn.dWxh": right["dWxh"], "rnn.dbh": np.ravel(right["dbh"]).tolist()}
    assert check(exercise, **answers).verdict == "right"
    published = {
        "rnn.dWhh": [[0.869928743, -0.05680741], [-1.338500046, 0.024819622]],
        "rnn.dWxh": [[-0.146909642], [1.530516911]],
        "rnn.dbh": [2.00543977, -2.584095152],
    }
    report = check(exercise, **published)
    assert (report.verdict, report.ids[0]) == ("wrong", "transpose_missing")


def test_pooling_of_two_channels() -> None:
    given, published = part("stats414301-maxpool"), part("stats414301-maxpool", "published")
    exercise = {"layer": "maxpool2d", "kernel_size": 2, "layout": "NHWC", "x": [given["x_channel_last"]],
                "upstream": [[[given["upstream"]]]]}  # fmt: skip
    assert check(exercise, y=[[[published["y"]]]], dx=[published["dX"]]).verdict == "right"


@pytest.mark.parametrize(
    ("dx", "verdict", "id"),
    [
        ([0, 1, 0, 0], "right", None),
        ([0, 0, 0, 1], "right under a convention", "ties_last"),
        ([0, 0.3333, 0.3333, 0.3333], "right under a convention", "ties_share"),
        ([0, 1, 1, 1], "wrong", "pool_all_ties"),
    ],
)
def test_ties_under_each_convention(dx: list[float], verdict: str, id: str | None) -> None:
    exercise = {"layer": "maxpool2d", "kernel_size": 2, "x": part("tf4886-ties")["x"], "upstream": [[1]]}
    report = check(exercise, dx=np.reshape(dx, (2, 2)).tolist())
    assert report.verdict == verdict
    assert id is None or report.ids[0] == id


def test_overlapping_windows() -> None:
    given, right = part("flux1197-overlap"), part("flux1197-overlap", "right")
    pool = given["pool"]
    exercise = {"layer": "maxpool2d", "kernel_size": pool["size"], "stride": pool["stride"],
                "padding": pool["padding"], "x": given["x"], "upstream": np.ones((2, 3)).tolist()}  # fmt: skip
    assert check(exercise, y=right["y"], dx=right["dX"]).verdict == "right"
    overwritten = np.minimum(right["dX"], 1)
    report = check(exercise, y=right["y"], dx=overwritten.tolist())
    assert (report.verdict, report.ids[0]) == ("wrong", "pool_overwrite")


def test_stride_and_padding_with_updates() -> None:
    exercise = {**conv("learn_dl-conv"), "learning_rate": part("learn_dl-conv")["lr"]}
    right = part("learn_dl-conv", "right")
    answers = {"y": right["y"], "dw": right["dW"], "db": right["db"], "dx": right["dX"],
               "w_updated": right["w_updated"], "b_updated": right["bias_updated"]}  # fmt: skip
    assert check(exercise, **answers).verdict == "right"
    not_updated = check(exercise, **{**answers, "b_updated": exercise["b"]})
    assert (not_updated.verdict, not_updated.ids[0]) == ("wrong", "bias_not_updated")


def test_a_lost_row_in_a_framework() -> None:
    exercise = {"layer": "conv2d", "groups": 24, "stride": 2, "padding": 1, "x": np.ones((24, 6, 6)).tolist(),
                "w": np.ones((24, 1, 3, 3)).tolist(), "upstream": np.ones((24, 3, 3)).tolist()}  # fmt: skip
    assert (
        check(exercise, dw=np.tile(part("torch50042-depthwise", "right")["dW"], (24, 1, 1, 1)).tolist()).exit_code == 0
    )
    got = np.tile([[4, 6, 6], [6, 9, 9], [4, 6, 6]], (24, 1, 1, 1))
    report = check(exercise, dw=got.tolist())
    assert (report.verdict, report.ids[0]) == ("wrong", "stride_edge_row_dropped")


def test_groups_of_a_framework() -> None:
    given, right = part("burn1891-groups"), part("burn1891-groups", "right")
    exercise = {"layer": "conv2d", "groups": 4, "stride": 2, "padding": 1,
                "x": np.arange(64.0).reshape(4, 4, 4).tolist(),
                "w": np.arange(36.0).reshape(4, 1, 3, 3).tolist(), "b": given["bias"],
                "upstream": np.ones((4, 2, 2)).tolist()}  # fmt: skip
    dw = np.array(right["dW"])[:, None].tolist()
    assert check(exercise, dw=dw, dx=right["dX"], db=right["db"]).verdict == "right"


def test_a_log_softmax_without_its_sum() -> None:
    numbers = part("mlpack2360-logsoftmax")
    given = Given("log_softmax", {"x": np.array([numbers["x"]]), "dy": np.array([numbers["upstream"]], float)})
    right = diagnose([Trial(given, {"dx": read(part("mlpack2360-logsoftmax", "published")["pytorch"], "dx")})])
    assert right.verdict == "right"
    wrong = diagnose([Trial(given, {"dx": read([1.31003, 1.68997], "dx")})])
    assert (wrong.verdict, wrong.ids[0]) == ("wrong", "log_softmax_sum_missing")


def test_one_upstream_gradient() -> None:
    published, right = part("lexai-one-hot", "published"), part("lexai-one-hot", "right")
    assert check(conv("lexai-one-hot"), dw=published["dW"], dx=right["dX"]).verdict == "right"


def test_the_course_s_forward_pass_under_both_readings_of_padding() -> None:
    exercise = {
        "layer": "conv2d", "stride": 2, "padding": 1, "x": np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4).tolist(),
        "w": np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4).tolist(), "b": np.linspace(-0.1, 0.2, 3).tolist(),
    }  # fmt: skip
    y = part("cs231n-conv-forward", "published")["y"]
    assert check(exercise, y=y).verdict == "right"
    report = check({**exercise, "padding": 2}, y=y)
    assert (report.verdict, report.ids) == ("right under a convention", ["padding_total"])


def test_the_course_s_max_pooling() -> None:
    exercise = {"layer": "maxpool2d", "kernel_size": 2, "stride": 2,
                "x": np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4).tolist()}  # fmt: skip
    assert check(exercise, y=part("cs231n-maxpool-forward", "right")["y"]).verdict == "right"


def test_the_two_layer_network_and_its_biases() -> None:
    given, published = part("mazur"), part("mazur", "published")
    right = part("mazur", "right")
    exercise = {
        "nodes": [
            {"name": "hidden", "layer": "Linear", "in_features": 2, "out_features": 2},
            {"name": "a", "layer": "Sigmoid"},
            {"name": "out", "layer": "Linear", "in_features": 2, "out_features": 2},
            {"name": "y", "layer": "Sigmoid"},
        ],
        "numbers": {
            "x": given["x"],
            "weights": {"hidden.weight": given["W1"], "hidden.bias": [given["b1"]] * 2, "out.weight": given["W2"],
                        "out.bias": [given["b2"]] * 2},
            "loss": {"name": "MSE", "reduction": "half_sum", "target": given["target"]},
            "learning_rate": given["lr"],
        },
    }  # fmt: skip
    answers = {"y.y": published["out"], "loss": published["E"], "out.dw": right["dW2"], "hidden.dw": right["dW1"],
               "hidden.w_updated": published["W1_new"], "out.w_updated": published["W2_new"]}  # fmt: skip
    assert check(exercise, **answers).verdict == "right"
    stale = check(exercise, **{**answers, "hidden.b_updated": [given["b1"]] * 2})
    assert (stale.verdict, stale.ids[0]) == ("wrong", "bias_not_updated")
    wrong = [[0.000364722878, 0.000729445755], [0.000423629604, 0.000847259209]]  # with W2 updated already
    report = check(exercise, **{"out.dw": right["dW2"], "hidden.dw": wrong})
    assert (report.verdict, report.ids[0]) == ("wrong", "upstream_from_updated_weights")


def test_finite_differences_in_float32_are_no_mistake() -> None:
    given = part("jvkersch-float32")
    w, x, step = np.array(given["w"], np.float32), np.array(given["x"], np.float32), np.float32(given["eps"])

    def loss(x: np.ndarray) -> np.float32:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3))
        return (windows * w).sum((2, 3), dtype=np.float32)[1, 1]

    numeric = np.zeros((5, 5), np.float32)
    for cell in np.ndindex(5, 5):
        moved = x.copy()
        moved[cell] += step
        numeric[cell] = (loss(moved) - loss(x)) / step
    upstream = np.zeros((3, 3))
    upstream[1, 1] = 1
    exercise = {"layer": "conv2d", "x": x.tolist(), "w": w.tolist(), "upstream": upstream.tolist()}
    assert check(exercise, dx=numeric).verdict != "right"
    report = check({**exercise, "step": float(step), "dtype": "float32"}, dx=numeric)
    assert (report.verdict, report.ids) == ("not a mistake", ["float32_gradcheck"])


def test_a_finite_difference_across_a_kink_is_no_mistake() -> None:
    given, published = part("mxnet12377-kink"), part("mxnet12377-kink", "published")
    exercise = {"layer": "relu", "x": given["x"], "upstream": given["upstream"]}
    assert check(exercise, dx=published["analytic"]).verdict == "right"
    report = check(exercise, dx=published["numeric"])
    assert (report.verdict, report.ids) == ("not a mistake", ["kink_gradcheck"])


def test_every_example_has_a_test_or_a_reason() -> None:
    text = Path(__file__).read_text()
    for name in CASES:
        assert text.count(f'"{name}"') >= 1, name
    assert set(NOT_CHECKED) <= set(CASES)
