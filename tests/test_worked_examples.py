"""Worked examples from public questions, courses and repositories: the numbers published there, recomputed.

cases/worked_examples.json holds the numbers: ``given``, ``published`` where a source printed the right ones, and
``right`` where it printed none, or less. Each test names its example and its source.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg

CASES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "cases/worked_examples.json").read_text())
NOT_COMPUTED = {"gomez-lstm": "there is no LSTM layer yet"}
COMPUTED: dict[str, Callable[[], None]] = {}


def example(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(test: Callable[[], None]) -> Callable[[], None]:
        COMPUTED[name] = test
        return test

    return register


def numbers(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What is given, published and right, as arrays."""

    def arrays(values: dict[str, Any]) -> dict[str, Any]:
        return {key: np.array(v, float) if isinstance(v, list) else v for key, v in values.items()}

    case = CASES[name]
    return arrays(case.get("given", {})), arrays(case.get("published", {})), arrays(case.get("right", {}))


def run(layer: sg.Layer, x: Any, upstream: Any, **values: Any) -> tuple[Any, sg.Gradients, Any]:
    """One layer on one sample: its output, the gradients of its parameters, and dx."""
    x = np.asarray(x, float)
    for name, value in values.items():
        parameter = layer.parameters()[name]
        parameter.cast(np.dtype(float))
        parameter.value = np.reshape(value, parameter.shape)
    net = sg.Network({"layer": layer}, x.shape, dtype="float64")
    y, tape = net.forward(x)
    gradients = tape.backward(np.broadcast_to(upstream, y.shape), inputs=True)
    return y, gradients, gradients.inputs["input"]


def close(actual: Any, expected: Any, decimals: int = 9) -> None:
    """Equal in all printed decimals (one unit more, for sources that cut instead of rounding)."""
    np.testing.assert_allclose(np.squeeze(actual), np.squeeze(expected), rtol=0, atol=1.01 * 10.0**-decimals)


@example("dsse26755-1d")
def test_the_smallest_shared_kernel() -> None:
    """https://datascience.stackexchange.com/questions/26755/cnn-how-does-backpropagation-with-weight-sharing-work-exactly"""
    given, published, right = numbers("dsse26755-1d")
    y, gradients, dx = run(
        sg.Conv1d(1, 1, 2), given["x"][None], given["upstream"], weight=given["w"], bias=given["bias"]
    )
    close(y, published["y"], 15)
    close(gradients["layer.weight"], published["dW"], 15)
    close(gradients["layer.bias"], right["db"], 15)
    close(dx, published["dX"], 15)
    uses = sg.kernel_uses(given["x"], given["w"], given["upstream"])
    close(uses.products(0, 0, 0).values, [-0.1, 0.4], 15)
    close(uses.products(0, 0, 1).values, [-0.2, 0.6], 15)


def asked_network(kernel: Any, dense: Any) -> sg.Network:
    net = sg.Network(
        {
            "conv": sg.Conv2d(1, 1, 2),
            "pool": sg.MaxPool2d(2),
            "sigmoid": sg.Sigmoid(),
            "flatten": sg.Flatten(),
            "dense": sg.Linear(4, 2, bias=False),
        },
        (1, 5, 5),
        dtype="float64",
    )
    net.load_state_dict({"conv.weight": kernel[None, None], "conv.bias": np.zeros(1), "dense.weight": dense})
    return net


@example("dsse27506-cnn")
def test_the_5x5_network_end_to_end_has_the_exact_values() -> None:
    """https://datascience.stackexchange.com/questions/27506/back-propagation-in-cnn (there with early rounding)"""
    given, published, right = numbers("dsse27506-cnn")
    net = asked_network(given["kernel"], given["fc_weights"])
    _, tape = net.forward(given["x"][None])
    trace = tape.trace(given["upstream_H"])
    gradients = trace.gradients()
    close(trace.calls["pool"].upstream, right["delta_sigmoid_exact"], 8)
    close(gradients["conv.weight"], right["dW_exact"], 8)
    close(gradients["conv.bias"], right["db_exact"], 15)
    close(gradients.inputs["input"], right["dX_exact"], 8)
    assert np.argwhere(trace.calls["conv"].upstream[0, 0]).tolist() == sorted(right["pool_winners"].tolist())
    close(gradients["conv.weight"], published["dW"], 3)  # the same but for the rounding on the way


def test_the_5x5_network_forward_stage_by_stage() -> None:
    """https://datascience.stackexchange.com/questions/27506/back-propagation-in-cnn"""
    given, published, right = numbers("dsse27506-cnn")
    z, _, _ = run(sg.Conv2d(1, 1, 2), given["x"][None], 1, weight=given["kernel"], bias=0)
    close(z, right["z"], 12)
    pooled, _, _ = run(sg.MaxPool2d(2), right["z"][None], 1)
    close(pooled, right["pooled"], 15)
    y, _, _ = run(sg.Sigmoid(), right["pooled"][None], 1)
    close(y, right["sigmoid"], 6)
    close(y, published["sigmoid_out"], 2)


def test_the_5x5_network_deltas_from_the_published_sigmoids() -> None:
    """https://datascience.stackexchange.com/questions/27506/back-propagation-in-cnn"""
    given, published, right = numbers("dsse27506-cnn")
    back = run(sg.Linear(4, 2, bias=False), np.zeros(4), given["upstream_H"], weight=given["fc_weights"])[2]
    rounded = published["sigmoid_out"]
    y, _, delta = run(sg.Sigmoid(), np.log(rounded / (1 - rounded)), back.reshape(2, 2))
    close(y, rounded, 15)
    close(delta, published["delta_sigmoid"], 15)
    _, _, delta_map = run(sg.MaxPool2d(2), right["z"][None], delta)
    close(delta_map, published["delta_map"], 4)
    _, gradients, dx = run(sg.Conv2d(1, 1, 2), given["x"][None], delta_map, weight=given["kernel"], bias=0)
    close(gradients["layer.weight"], right["dW_from_2dp_sigmoid"], 8)
    close(gradients["layer.bias"], right["db_from_2dp"], 12)
    close(dx, right["dX_from_2dp"], 8)


def test_the_5x5_network_kernel_gradient_from_the_published_delta_map() -> None:
    """https://datascience.stackexchange.com/questions/27506/back-propagation-in-cnn"""
    given, published, _ = numbers("dsse27506-cnn")
    _, gradients, _ = run(sg.Conv2d(1, 1, 2), given["x"][None], published["delta_map"], weight=given["kernel"], bias=0)
    close(gradients["layer.weight"], published["dW"], 6)


@example("dsse28593-multichannel")
def test_a_convolution_of_two_channels_and_three_filters() -> None:
    """https://github.com/koryakinp/cnn/blob/master/Cnn.Tests/ConvolutionalLayerTests.cs"""
    given, published, right = numbers("dsse28593-multichannel")
    y, gradients, dx = run(sg.Conv2d(2, 3, 3), given["x"], given["upstream"], weight=given["w"], bias=given["bias"])
    close(y, published["y"])
    close(dx, published["dX"])
    close(gradients["layer.weight"], right["dW"])
    close(gradients["layer.bias"], right["db"])


@example("koryakinp-pool")
def test_max_pooling_with_a_tie() -> None:
    """https://github.com/koryakinp/cnn/blob/master/Cnn.Tests/PoolingLayerTests.cs"""
    given, published, _ = numbers("koryakinp-pool")
    y, _, dx = run(sg.MaxPool2d(2), given["x"], 9.0)
    close(y, published["y"])
    close(dx, published["dX"])


@example("koryakinp-fc")
def test_a_dense_layer_with_sigmoid() -> None:
    """https://github.com/koryakinp/cnn/blob/master/Cnn.Tests/FullyConnectedLayerTests.cs"""
    given, published, right = numbers("koryakinp-fc")
    net = sg.Network({"dense": sg.Linear(5, 3), "sigmoid": sg.Sigmoid()}, (5,), dtype="float64")
    net.load_state_dict({"dense.weight": given["W"], "dense.bias": given["bias"]})
    y, tape = net.forward(given["x"])
    gradients = tape.backward(given["upstream"], inputs=True)
    close(y, published["y"])
    close(gradients.inputs["input"], published["dX"])
    close(gradients["dense.weight"], right["dW"])
    close(gradients["dense.bias"], right["db"])


@example("koryakinp-sigmoid")
def test_a_sigmoid_layer() -> None:
    """https://github.com/koryakinp/cnn/blob/master/Cnn.Tests/DetectorLayerTests.cs"""
    given, published, _ = numbers("koryakinp-sigmoid")
    _, _, dx = run(sg.Sigmoid(), given["z"], given["upstream"])
    close(dx, published["dZ"], 8)


@example("vzhou-rnn-transpose")
def test_a_recurrent_layer_goes_back_through_the_transposed_weights() -> None:
    """https://github.com/vzhou842/rnn-from-scratch/blob/master/rnn.py"""
    given, _, right = numbers("vzhou-rnn-transpose")
    net = sg.Network({"rnn": sg.RNN(1, 2, last=True), "out": sg.Linear(2, 1, bias=False)}, (3, 1), dtype="float64")
    net.load_state_dict(
        {
            "rnn.weight_ih_l0": given["Wxh"],
            "rnn.weight_hh_l0": given["Whh"],
            "rnn.bias_ih_l0": given["bh"],
            "rnn.bias_hh_l0": np.zeros(2),
            "out.weight": given["Why"],
        }
    )
    _, tape = net.forward(given["x"][:, None])
    gradients = tape.backward([given["dL_dy"]])
    close(gradients["rnn.weight_hh_l0"], right["dWhh"])
    close(gradients["rnn.weight_ih_l0"], right["dWxh"])
    close(gradients["rnn.bias_ih_l0"], right["dbh"])
    close(gradients["rnn.bias_hh_l0"], right["dbh"])


@example("stats414301-maxpool")
def test_max_pooling_over_two_channels() -> None:
    """https://stats.stackexchange.com/questions/414301/2d-max-pool-gradient-propagation"""
    given, published, _ = numbers("stats414301-maxpool")
    x = np.moveaxis(given["x_channel_last"], -1, 0)
    y, _, dx = run(sg.MaxPool2d(2), x, given["upstream"][:, None, None])
    close(y, published["y"])
    close(np.moveaxis(dx, 0, -1), published["dX"])


@example("tf4886-ties")
def test_ties_under_each_convention() -> None:
    """https://github.com/tensorflow/tensorflow/issues/4886"""
    given, _, right = numbers("tf4886-ties")
    for ties in ("first", "last", "share"):
        _, _, dx = run(sg.MaxPool2d(2, ties=ties), given["x"][None], given["upstream"])
        close(dx.ravel(), right[ties], 15)


@example("flux1197-overlap")
def test_overlapping_max_pooling_adds() -> None:
    """https://github.com/FluxML/Flux.jl/issues/1197"""
    given, _, right = numbers("flux1197-overlap")
    pool = given["pool"]
    y, _, dx = run(sg.MaxPool2d(pool["size"], pool["stride"], pool["padding"]), given["x"][None], 1.0)
    close(y, right["y"])
    close(dx, right["dX"])


@example("cs231n-issue19")
def test_max_pooling_of_stride_1_tells_adding_from_overwriting() -> None:
    """https://github.com/0809zheng/CS231n-assignment2019/issues/19"""
    given, _, _ = numbers("cs231n-issue19")
    random = np.random.RandomState(231)
    x, upstream = random.randn(3, 2, 8, 8), random.randn(3, 2, 6, 6)
    added, overwritten = np.zeros_like(x), np.zeros_like(x)
    for n, c, i, j in np.ndindex(upstream.shape):
        window = x[n, c, i : i + 3, j : j + 3]
        k, m = np.unravel_index(window.argmax(), window.shape)
        added[n, c, i + k, j + m] += upstream[n, c, i, j]
        overwritten[n, c, i + k, j + m] = upstream[n, c, i, j]
    net = sg.Network([sg.MaxPool2d(given["pool"]["size"], given["pool"]["stride"])], dtype="float64")
    dx = net.forward(x)[1].backward(upstream, inputs=True).inputs["input"]
    close(dx, added, 12)
    assert np.abs(dx - overwritten).max() > 1


@example("learn_dl-conv")
def test_stride_2_and_padding_1_with_an_update() -> None:
    """https://github.com/hanbt/learn_dl/blob/master/cnn.py"""
    given, _, right = numbers("learn_dl-conv")
    layer = sg.Conv2d(3, 2, 3, stride=given["stride"], padding=given["padding"])
    y, gradients, dx = run(layer, given["x"], given["upstream"], weight=given["w"], bias=given["bias"])
    close(y, right["y"])
    close(gradients["layer.weight"], right["dW"])
    close(gradients["layer.bias"], right["db"])
    close(dx, right["dX"])
    sg.SGD(layer.parameters().values(), lr=given["lr"]).step(gradients)
    close(layer.weight.value, right["w_updated"], 12)
    close(layer.parameters()["bias"].value, right["bias_updated"], 12)


@example("torch50042-depthwise")
def test_a_depthwise_kernel_gradient_keeps_the_last_row() -> None:
    """https://github.com/pytorch/pytorch/issues/50042"""
    given, published, right = numbers("torch50042-depthwise")
    layer = sg.Conv2d(24, 24, 3, given["stride"], given["padding"], groups=given["groups"], bias=False)
    _, gradients, _ = run(layer, np.ones((24, 6, 6)), 1.0, weight=np.ones((24, 1, 3, 3)))
    close(published["expected"], right["dW"])
    for dw in gradients["layer.weight"]:
        close(dw, right["dW"])


@example("burn1891-groups")
def test_a_grouped_convolution() -> None:
    """https://github.com/tracel-ai/burn/pull/1891"""
    given, published, right = numbers("burn1891-groups")
    layer = sg.Conv2d(4, 4, 3, given["stride"], given["padding"], groups=given["groups"])
    x, w = np.arange(64.0).reshape(4, 4, 4), np.arange(36.0).reshape(4, 1, 3, 3)
    _, gradients, dx = run(layer, x, 1.0, weight=w, bias=given["bias"])
    close(dx[0, :3], published["dX_channel0_first_rows"])
    close(dx, right["dX"])
    close(gradients["layer.weight"], right["dW"])
    close(gradients["layer.bias"], right["db"])


@example("mlpack2360-logsoftmax")
def test_the_gradient_of_a_log_softmax_is_that_of_cross_entropies() -> None:
    """https://github.com/mlpack/mlpack/issues/2360

    An upstream gradient of 1 at both outputs asks for the derivative of log p₀ + log p₁, which is minus the
    summed cross-entropy of the same scores against class 0 and against class 1.
    """
    given, published, right = numbers("mlpack2360-logsoftmax")
    _, upstream = sg.CrossEntropy(reduction="sum")(np.stack([given["x"]] * 2), [0, 1])
    close(-upstream.sum(axis=0), right["dX"], 6)
    close(-upstream.sum(axis=0), published["pytorch"], 4)
    p, _, dx = run(sg.Softmax(), given["x"], given["upstream"] / np.exp(given["x"]) * np.exp(given["x"]).sum())
    close(p.sum(), 1)
    close(dx, right["dX"], 6)  # dlog p / dp = 1 / p as the upstream gradient of the softmax


@example("lexai-one-hot")
def test_an_upstream_of_one_position_shows_one_use() -> None:
    """https://prof.lexailabs.com/practice/build-cnn-05-conv2d-backward"""
    given, published, right = numbers("lexai-one-hot")
    _, gradients, dx = run(sg.Conv2d(1, 1, 2, bias=False), given["x"][None], given["upstream"], weight=given["w"])
    close(gradients["layer.weight"], published["dW"])
    close(dx, right["dX"])


@example("cs231n-conv-forward")
def test_the_course_convolution() -> None:
    """https://cs231n.github.io/assignments2017/assignment2/"""
    given, published, _ = numbers("cs231n-conv-forward")
    net = sg.Network(
        {"conv": sg.Conv2d(3, 3, 4, stride=given["stride"], padding=given["padding"])}, (3, 4, 4), dtype="float64"
    )
    net.load_state_dict(
        {"conv.weight": np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4), "conv.bias": np.linspace(-0.1, 0.2, 3)}
    )
    close(net.predict(np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4)), published["y"], 8)


@example("cs231n-maxpool-forward")
def test_the_course_max_pooling() -> None:
    """https://cs231n.github.io/assignments2017/assignment2/"""
    given, published, right = numbers("cs231n-maxpool-forward")
    net = sg.Network([sg.MaxPool2d(given["pool"]["size"], given["pool"]["stride"])], (3, 4, 4), dtype="float64")
    y = net.predict(np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4))
    close(y, right["y"], 8)
    close(y[0, 0], published["y_first"], 8)


@example("cs231n-rnn-step")
def test_one_recurrent_step_from_a_given_state() -> None:
    """https://cs231n.github.io/assignments2017/assignment3/"""
    _, published, _ = numbers("cs231n-rnn-step")
    net = sg.Network(
        {
            "from x": (sg.Linear(10, 4), "x"),
            "from h": (sg.Linear(4, 4, bias=False), "h"),
            "sum": (sg.Add(), "from x", "from h"),
            "next": sg.Tanh(),
        },
        {"x": (10,), "h": (4,)},
        dtype="float64",
    )
    net.load_state_dict(
        {
            "from x.weight": np.linspace(-0.1, 0.9, 40).reshape(10, 4).T,
            "from x.bias": np.linspace(-0.2, 0.4, 4),
            "from h.weight": np.linspace(-0.3, 0.7, 16).reshape(4, 4).T,
        }
    )
    x, h = np.linspace(-0.4, 0.7, 30).reshape(3, 10), np.linspace(-0.2, 0.5, 12).reshape(3, 4)
    close(net.predict(x, h), published["next_h"], 8)


@example("dlai-rot180")
def test_scattering_the_kernel_equals_gathering_with_the_rotated_kernel() -> None:
    """https://community.deeplearning.ai/t/should-it-have-a-rot180-on-filter-to-calculate-da-prev/121204"""
    random = np.random.default_rng(180)
    w, upstream = random.normal(size=(3, 2)), random.normal(size=(3, 4))
    scattered = np.zeros((5, 5))
    for i, j in np.ndindex(upstream.shape):
        scattered[i : i + 3, j : j + 2] += w * upstream[i, j]
    gathered = sg.Network([sg.Conv2d(1, 1, (3, 2), bias=False, padding=(2, 1))], (1, 3, 4), dtype="float64")
    gathered.load_state_dict({"0.weight": np.rot90(w, 2)[None, None]})
    _, _, dx = run(sg.Conv2d(1, 1, (3, 2), bias=False), random.normal(size=(1, 5, 5)), upstream, weight=w)
    close(dx, scattered, 14)
    close(gathered.predict(upstream[None]), scattered, 14)


@example("dlai-pool-backward")
def test_the_course_pooling_backward() -> None:
    """https://github.com/ramakris/coursera-deeplearning"""
    given, published, _ = numbers("dlai-pool-backward")
    random = np.random.RandomState(1)
    x, upstream = random.randn(5, 5, 3, 2), random.randn(5, 4, 2, 2)
    for layer, kind in ((sg.MaxPool2d, "max"), (sg.AvgPool2d, "average")):
        net = sg.Network([layer(given["f"], given["stride"])], dtype="float64")
        _, tape = net.forward(np.moveaxis(x, -1, 1))
        dx = tape.backward(np.moveaxis(upstream, -1, 1), inputs=True).inputs["input"]
        close(np.moveaxis(dx, 1, -1)[1, 1], published[kind], 8)


def shared_bias_network(given: dict[str, Any]) -> sg.Network:
    """Two dense layers whose neurons share one bias each: a 1×1 layer on a constant 1, called for every neuron."""
    layers: dict[str, Any] = {}
    before = "x"
    for stage in "12":
        bias = sg.Linear(1, 1, bias=False)
        layers |= {
            f"W{stage}": (sg.Linear(2, 2, bias=False), before),
            f"b{stage}": (bias, "one"),
            f"b{stage} again": (bias, "one"),
            f"b{stage} both": (sg.Concat(), f"b{stage}", f"b{stage} again"),
            f"z{stage}": (sg.Add(), f"W{stage}", f"b{stage} both"),
            f"h{stage}": sg.Sigmoid(),
        }
        before = f"h{stage}"
    net = sg.Network(layers, {"x": (2,), "one": (1,)}, dtype="float64")
    net.load_state_dict(
        {f"{name}.weight": np.reshape(given[name], (-1, 2 if "W" in name else 1)) for name in ("W1", "b1", "W2", "b2")}
    )
    return net


@example("mazur")
def test_biases_that_two_neurons_share() -> None:
    """https://mattmazur.com/2015/03/17/a-step-by-step-backpropagation-example/"""
    given, published, right = numbers("mazur")
    net = shared_bias_network(given)
    y, tape = net.forward(given["x"], [1.0])
    close(y, published["out"], 8)
    value, upstream = sg.MSE("half_sum")(y, given["target"])
    close(value, published["E"])
    gradients = tape.backward(upstream)
    close(gradients["W1.weight"], right["dW1"], 12)
    close(gradients["W2.weight"], right["dW2"], 12)
    close(gradients["W1.weight"][0, 0], published["dE_dw1"])
    close(gradients["W2.weight"][0, 0], published["dE_dw5"])
    close(gradients["b1.weight"], right["db1_shared"], 15)
    close(gradients["b2.weight"], right["db2_shared"], 15)
    uses = tape.trace(upstream)[net.parameter("b1.weight")]
    close(sorted(uses.sum(by="call").ravel()), right["db1_per_neuron"], 12)
    sg.SGD(net.parameters(), lr=given["lr"]).step(gradients)
    close(net.parameter("W1.weight").value, published["W1_new"], 8)
    close(net.parameter("W2.weight").value, published["W2_new"], 8)
    close(net.parameter("b1 again.weight").value, given["b1"] - given["lr"] * right["db1_shared"], 15)


@example("jvkersch-float32")
def test_differences_in_float32_look_wrong_and_the_gradient_is_exact() -> None:
    """https://github.com/jvkersch/notebooks"""
    given, published, _ = numbers("jvkersch-float32")
    i, j = (int(n) for n in given["perturbed"])
    exact, numeric = np.empty((3, 3)), {}
    for dtype in ("float32", "float64"):
        net = sg.Network([sg.Conv2d(1, 1, 3, bias=False)], (1, 5, 5), dtype=dtype)
        net.load_state_dict({"0.weight": given["w"][None, None]})
        _, tape = net.forward(given["x"][None])
        for k, position in enumerate(np.eye(9).reshape(9, 1, 3, 3)):
            exact.flat[k] = tape.backward(position, inputs=True).inputs["input"][0, i, j]
        close(exact, published["exact"], 15)
        up, down = (
            given["x"] + sign * given["eps"] * (np.indices((5, 5)) == [[[i]], [[j]]]).all(0) for sign in (1, -1)
        )
        numeric[dtype] = (net.predict(up[None]) - net.predict(down[None]))[0] / (2 * given["eps"])
    close(numeric["float64"], published["exact"], 8)
    assert np.abs(numeric["float32"] - exact).max() > 0.01
    assert np.abs(numeric["float32"] - exact).max() < 0.25


@example("mxnet12377-kink")
def test_a_difference_across_the_kink_of_relu() -> None:
    """https://github.com/apache/mxnet/issues/12377"""
    given, published, _ = numbers("mxnet12377-kink")
    x, upstream, step = given["x"], given["upstream"], 0.005
    _, _, dx = run(sg.ReLU(), x, upstream)
    close(dx, published["analytic"], 15)
    net = sg.Network([sg.ReLU()], (2, 2), dtype="float64")
    difference = upstream * (net.predict(x + step) - net.predict(x - step)) / (2 * step)
    close(difference, published["numeric"], 5)


@example("micrograd53-idempotence")
def test_backward_twice_accumulates_nothing() -> None:
    """https://github.com/karpathy/micrograd/issues/53"""
    given, published, _ = numbers("micrograd53-idempotence")
    net = sg.Network({"c": sg.Linear(2, 1, bias=False), "e": sg.Linear(1, 1, bias=False)}, (2,), dtype="float64")
    net.load_state_dict({"c.weight": [[given["a"], given["b"]]], "e.weight": [[given["d"]]]})
    _, tape = net.forward([1.0, 1.0])
    right = published["first"]
    for _ in range(2):
        gradients = tape.backward([right["e"]])
        assert gradients["c.weight"].tolist() == [[right["a"], right["b"]]]
        assert gradients["e.weight"].item() == right["d"]
        assert tape.trace([right["e"]]).calls["c"].upstream.item() == right["c"]


def test_every_example_is_computed_or_has_a_reason_why_not() -> None:
    assert COMPUTED.keys() | NOT_COMPUTED.keys() == CASES.keys()
    assert not COMPUTED.keys() & NOT_COMPUTED.keys()
    for name, test in COMPUTED.items():
        assert (test.__doc__ or "").split()[0] == CASES[name]["source"]


def test_the_numbers_are_those_of_the_collection_they_came_from() -> None:
    collection = Path(__file__).resolve().parents[2] / "shared/cases/worked_examples.json"
    if not collection.exists():
        pytest.skip("the collection is not here")
    originals = {entry["id"]: entry for entry in json.loads(collection.read_text())["examples"]}
    assert originals.keys() == CASES.keys()
    for name, case in CASES.items():
        assert case["source"] == originals[name]["source_url"]
        for part, original in (("given", "given"), ("published", "published_answer"), ("right", "right_answer")):
            for key, value in case.get(part, {}).items():
                assert value == originals[name][original][key], f"{name}: {key}"


# ---- two 1-D convolutions in a chain: one weight of the first occurs three times in one output of the second


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "sigmoid": (sg.Sigmoid, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh": (sg.Tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}
Y0 = np.array([0.7, -1.3, 0.4, 2.1, -0.6, 1.2, 0.9, -0.2])
W0, W = 0.8, np.array([0.5, -1.1, 0.9])


def chain(activation: str, *rest: tuple[str, sg.Layer], values: dict[str, Any]) -> tuple[sg.Network, Any, sg.Tape]:
    """[w0, 0, 0] and an activation, then the rest."""
    layers = [("conv1", sg.Conv1d(1, 1, 3, bias=False)), ("h1", ACTIVATIONS[activation][0]()), *rest]
    net = sg.Network(layers, (1, len(Y0)), dtype="float64")
    net.load_state_dict({"conv1.weight": [[[W0, 0, 0]]], **values})
    y, tape = net.forward(Y0[None])
    return net, y, tape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_in_a_chain_of_two_convolutions_the_first_weight_sums_its_three_occurrences(activation: str) -> None:
    layer, h, slope = ACTIVATIONS[activation]
    rest = (("conv2", sg.Conv1d(1, 1, 3, bias=False)), ("h2", layer()))
    _, y2, tape = chain(activation, *rest, values={"conv2.weight": W[None, None]})
    j, error = 1, -0.35  # the error depends on the node j alone
    x2 = sum(w * h(W0 * y0) for w, y0 in zip(W, Y0[j : j + 3], strict=True))
    close(y2[0, j], h(x2), 15)
    occurrences = [error * slope(x2) * w * slope(W0 * y0) * y0 for w, y0 in zip(W, Y0[j : j + 3], strict=True)]
    upstream = np.zeros((1, 4))
    upstream[0, j] = error
    close(tape.backward(upstream)["conv1.weight"][0, 0, 0], sum(occurrences), 15)
    uses = tape.trace(upstream)["conv1.weight"]
    close(uses.products(0, 0, 0).values, [0, *occurrences, 0, 0], 15)
    assert min(map(abs, occurrences)) > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_max_pooling_sums_the_paths_of_its_winners(activation: str) -> None:
    _, h, slope = ACTIVATIONS[activation]
    _, y, tape = chain(activation, ("pool", sg.MaxPool1d(3, 2)), values={})
    y1 = h(W0 * Y0[:6])
    winners = [int(2 * o + np.argmax(y1[2 * o : 2 * o + 3])) for o in range(2)]
    close(y, y1[winners], 15)
    upstream = np.array([0.3, -0.8])
    expected = sum(u * slope(W0 * Y0[i]) * Y0[i] for u, i in zip(upstream, winners, strict=True))
    close(tape.backward(upstream[None])["conv1.weight"][0, 0, 0], expected, 15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_dense_layer_sums_all_paths(activation: str) -> None:
    _, h, slope = ACTIVATIONS[activation]
    dense = np.random.default_rng(2).normal(size=(2, 6))
    rest = (("flatten", sg.Flatten()), ("dense", sg.Linear(6, 2, bias=False)))
    _, y, tape = chain(activation, *rest, values={"dense.weight": dense})
    close(y, dense @ h(W0 * Y0[:6]), 15)
    upstream = np.array([0.3, -0.8])
    expected = sum(upstream[o] * dense[o, i] * slope(W0 * Y0[i]) * Y0[i] for o in range(2) for i in range(6))
    close(tape.backward(upstream)["conv1.weight"][0, 0, 0], expected, 14)
