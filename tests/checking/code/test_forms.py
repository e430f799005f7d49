"""Every way to write a backward pass: read rightly where it is right, and its fault named where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.checking.code.helpers import RIGHT, check

RNN = """
    import numpy as np
    def backward(dh, x, Wx, Wh, b):
        N, T, H = dh.shape
        h = np.zeros((N, T + 1, H))
        for t in range(T):
            h[:, t + 1] = np.tanh(x[:, t] @ Wx.T + h[:, t] @ Wh.T + b)
        dx, dWx, dWh, db, after = np.zeros_like(x), 0 * Wx, 0 * Wh, 0 * b, 0
        for t in reversed(range(T)):
            d = (dh[:, t] + after) * (1 - h[:, t + 1] ** 2)
            after = d @ Wh
            dx[:, t] = d @ Wx
            dWx += d.T @ x[:, t]
            dWh += d.T @ h[:, t]
            db += d.sum(0)
        return dx, dWx, dWh, db
"""
NORM = """
    import numpy as np
    def backward(dout, x, gamma, beta, eps):
        axes = (0, 2, 3)
        h = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
        d = dout * gamma[None, :, None, None]
        dx = d - d.mean(axes, keepdims=True) - h * (d * h).mean(axes, keepdims=True)
        return dx / np.sqrt(x.var(axes, keepdims=True) + eps), (dout * h).sum(axes), dout.sum(axes)
"""
LAYERS = {
    "relu": "return dout * (x > 0)",
    "sigmoid": "a = 1 / (1 + np.exp(-x)); return dout * a * (1 - a)",
    "tanh": "return dout * (1 - np.tanh(x) ** 2)",
    "softmax": "e = np.exp(x); p = e / e.sum(-1, keepdims=True); return p * (dout - (dout * p).sum(-1, keepdims=True))",
    "flatten": "return dout.reshape(x.shape)",
    "globalavgpool": "return np.broadcast_to(dout[:, :, None, None] / (x.shape[2] * x.shape[3]), x.shape)",
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_without_parameters(layer: str, tmp_path: Path) -> None:
    text = f"import numpy as np\ndef backward(dout, x):\n    {LAYERS[layer]}\n"
    assert check(tmp_path, text, layer).verdict == "right"
    assert check(tmp_path, text.replace("return ", "return -", 1), layer).verdict == "wrong"


@pytest.mark.parametrize(
    ("layer", "text"),
    [("rnn", RNN), ("batchnorm2d", NORM),
     ("linear", "def backward(dout, x, w, b): return dout @ w, dout.T @ x, dout.sum(0)"),
     ("linear", "def backward(dout, x, w, b): return dout @ w.T, x.T @ dout, dout.sum(0)"),
     ("linear", "def backward(dout, cache):\n    x, w, b = cache\n    return dout @ w.T, x.T @ dout, dout.sum(0)"),
     ("linear", "def backward(dZ, cache):\n    x, w, b = cache\n    m = x.shape[1]\n"
                "    return w.T @ dZ, dZ @ x.T / m, dZ.sum(1, keepdims=True) / m"),
     ("add", "def backward(dout, x, x2): return dout, dout"),
     ("concat", "def backward(dout, x, x2): return dout[:, :x.shape[1]], dout[:, x.shape[1]:]"),
     ("dropout", "def backward(dout, mask): return dout * mask")],
)  # fmt: skip
def test_layers_with_more_than_one_array(layer: str, text: str, tmp_path: Path) -> None:
    assert check(tmp_path, text, layer).verdict == "right"


def test_the_order_of_results_is_read_off_the_return_statement(tmp_path: Path) -> None:
    text = "def backward(dout, x, w, b):\n    dw, db, dx = dout.T @ x, dout.sum(0), dout @ w\n    return dw, db, dx\n"
    assert check(tmp_path, text, "linear").verdict == "right"


def test_a_dict_of_results(tmp_path: Path) -> None:
    text = "def backward(dout, x, w, b): return {'dW': dout.T @ x, 'db': dout.sum(0), 'dx': dout @ w}\n"
    assert check(tmp_path, text, "linear").verdict == "right"


def test_a_signature_names_what_has_other_names(tmp_path: Path) -> None:
    text = "def backward(apple, pear, plum):\n    return apple.T @ pear, apple @ plum\n"
    with pytest.raises(ConfigError, match="nobody knows what the argument 'apple'"):
        check(tmp_path, text, "linear")
    assert check(tmp_path, text, "linear:bias=false", signature="dout, x, w -> dw, dx").verdict == "right"


CLASS = """
    import numpy as np
    class Layer:
        def __init__(self, in_features, out_features):
            self.W, self.b = np.zeros((out_features, in_features)), np.zeros(out_features)
        def forward(self, x):
            self.x = x
            return x @ self.W.T + self.b
        def backward(self, grad):
            self.dW, self.db = grad.T @ self.x, grad.sum(0)
            return grad @ self.W
"""


def test_a_class_with_forward_and_backward(tmp_path: Path) -> None:
    layer = "linear"
    right = CLASS.replace("in_features, out_features", "w, b").replace(
        "np.zeros((out_features, in_features)), np.zeros(out_features)", "w, b"
    )
    assert check(tmp_path, right, layer, "Layer").verdict == "right"
    wrong = check(tmp_path, right.replace("grad.sum(0)", "grad.mean(0)"), layer, "Layer")
    assert wrong.ids == ["db_batch_mean"]
    assert check(tmp_path, right.replace("+ self.b", "- self.b"), layer, "Layer").verdict == "wrong"


def test_a_class_that_updates_inside_backward(tmp_path: Path) -> None:
    text = """
        class Layer:
            def __init__(self, w, b): self.w, self.b = w, b
            def forward(self, x):
                self.x = x
                return x @ self.w.T + self.b
            def backprop(self, grad, learn_rate):
                dx = grad @ self.w
                self.w = self.w - learn_rate * grad.T @ self.x
                self.b = self.b - learn_rate * grad.sum(0)
                return dx
    """
    assert check(tmp_path, text, "linear", "Layer").verdict == "right"


class Right(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return torch.nn.functional.conv2d(x, w, b, padding=1)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        dx = torch.nn.grad.conv2d_input(x.shape, w, grad, padding=1)
        return dx, torch.nn.grad.conv2d_weight(x, w.shape, grad, padding=1), grad.sum((0, 2, 3))


class Flipped(Right):
    @staticmethod
    def backward(ctx, grad):
        dx, dw, db = Right.backward(ctx, grad)
        return dx, dw.flip(2, 3), db


@pytest.mark.slow
def test_an_autograd_function_of_pytorch() -> None:
    layer = sg.Conv2d(3, 2, 3, padding=1)
    assert sg.check_backward(Right, layer).verdict == "right"
    report = sg.check_backward(Flipped, layer)
    assert report.ids[0] == "dw_flipped"


def test_a_forward_pass_by_name(tmp_path: Path) -> None:
    text = """
        import numpy as np
        def ahead(x, w, b): return x @ w.T + b, {"x": x, "w": w}
        def backward(dout, cache): return dout @ cache["w"], dout.T @ cache["x"], dout.sum(0)
    """
    assert check(tmp_path, text, "linear", forward="ahead").verdict == "right"
    wrong = check(tmp_path, text.replace("+ b,", ","), "linear", forward="ahead")
    assert [(e.id, e.arrays) for e in wrong.explanations] == [("bias_missing_forward", ("y",))]


def test_a_true_convolution_in_both_directions_is_a_convention(tmp_path: Path) -> None:
    text = (
        RIGHT
        + """

def conv_forward_naive(x, w, b, conv_param):
    s, p = conv_param["stride"], conv_param["pad"]
    xp, kh, kw = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))), *w.shape[2:]
    y = np.zeros((len(x), len(w), (xp.shape[2] - kh) // s + 1, (xp.shape[3] - kw) // s + 1))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = xp[:, :, i * s : i * s + kh, j * s : j * s + kw]
            y[:, :, i, j] = np.tensordot(window, w[:, :, ::-1, ::-1], ((1, 2, 3), (1, 2, 3))) + b
    return y, (x, w, b, conv_param)
"""
    )
    both = text.replace(
        "dw[k] += xp[a, :, rows, cols] * dout[a, k, i, j]",
        "dw[k] += xp[a, :, rows, cols][:, ::-1, ::-1] * dout[a, k, i, j]",
    )
    both = both.replace("+= w[k] * dout", "+= w[k][:, ::-1, ::-1] * dout")
    report = check(tmp_path, both, "conv2d", "conv_backward_naive")
    assert report.verdict == "right under a convention"
    assert report.ids == ["true_convolution"]
    differ = check(tmp_path, text, "conv2d", "conv_backward_naive")
    assert differ.verdict == "wrong"
    assert "conventions_differ" in differ.ids


def test_settings_of_a_layer_hold_where_the_code_is_told_none() -> None:
    def backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
        dx = np.zeros_like(x)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                dx[:, :, 3 * i : 3 * i + 2, 3 * j : 3 * j + 2] += dout[:, :, i, j][:, :, None, None] / 4
        return dx

    assert sg.check_backward(backward, sg.AvgPool2d(2, stride=3)).verdict == "right"
    assert sg.check_backward(backward, "avgpool2d:kernel_size=2,stride=3").verdict == "right"
    assert sg.check_backward(backward, sg.AvgPool2d(2, stride=2)).verdict == "wrong"
