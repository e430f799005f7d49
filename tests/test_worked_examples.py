"""Worked examples from public questions, courses and repositories: the numbers published there, recomputed.

cases/worked_examples.json holds the numbers: ``given``, ``published`` where a source printed the right ones, and
``right`` where it printed none, or less. Each test names its example and its source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import sharedgrad as sg
from tests.worked import close, example, numbers, run


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
