"""Worked examples of courses and of what goes wrong around a step: the numbers published there, recomputed.

cases/worked_examples.json holds the numbers: ``given``, ``published`` where a source printed the right ones, and
``right`` where it printed none, or less. Each test names its example and its source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import sharedgrad as sg
from tests.worked import close, example, numbers, run


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
