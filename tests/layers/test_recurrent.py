"""The recurrent layer through time: one weight, one use for each step."""

from __future__ import annotations

import numpy as np
import pytest

import sharedgrad as sg
from tests.helpers import close


@pytest.mark.parametrize("last", [False, True])
def test_a_weights_gradient_adds_its_time_steps(last: bool) -> None:
    """By the chain written out step by step, with a copy of the weights at every step."""
    rng = np.random.default_rng(0)
    layer = sg.RNN(2, 3, last=last)
    net = sg.Network([layer], (4, 2), dtype="float64")
    for parameter in net.parameters():
        parameter.value = rng.normal(size=parameter.shape)
    x = rng.normal(size=(4, 2))
    y, tape = net.forward(x)
    upstream = rng.normal(size=y.shape)
    by_step = {u.weight.name: u.sum(by="time") for c in tape.trace(upstream).calls.values() for u in c.uses}

    w, u, b, c = (p.value for p in layer.parameters().values())
    h = [np.zeros(3)]
    for t in range(4):
        h.append(np.tanh(w @ x[t] + u @ h[t] + b + c))
    reaching, expected = np.zeros(3), {}
    for t in reversed(range(4)):
        outside = upstream if last and t == 3 else np.zeros(3) if last else upstream[t]
        delta = (reaching + outside) * (1 - h[t + 1] ** 2)
        expected[t] = np.outer(delta, x[t]), np.outer(delta, h[t]), delta, delta
        reaching = u.T @ delta
    close(y, h[-1] if last else np.array(h[1:]))
    gradients = tape.backward(upstream)
    for i, (name, parameter) in enumerate(layer.parameters().items()):
        steps = np.array([expected[t][i] for t in range(4)])
        close(by_step[f"0.{name}"], steps)
        close(gradients[parameter], steps.sum(axis=0))


def test_names_are_pytorchs() -> None:
    assert list(sg.RNN(2, 3).parameters()) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert list(sg.RNN(2, 3, bias=False).parameters()) == ["weight_ih_l0", "weight_hh_l0"]
