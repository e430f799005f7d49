"""Batch normalization over several steps, and when its running statistics change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import ShapeError
from tests.helpers import close, same_bits

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize(("dtype", "momentum"), [("float64", 0.1), ("float64", 1.0), ("float32", 0.25)])
def test_running_statistics_follow_pytorchs_over_several_steps(dtype: str, momentum: float) -> None:
    rng = np.random.default_rng(0)
    layer = sg.BatchNorm2d(3, 1e-3, momentum)
    net = sg.Network([layer], (3, 4, 2), dtype=dtype)
    twin = torch.nn.BatchNorm2d(3, 1e-3, momentum).to(getattr(torch, dtype))
    for step in range(6):
        x = rng.normal(step, 1 + step, (2 + step, 3, 4, 2)).astype(dtype)
        y, _ = net.forward(x)
        close(y, twin(torch.tensor(x)).detach().numpy())
    assert layer.num_batches_tracked.value == 6
    for name in STATISTICS:
        close(layer.buffers()[name].value.astype(dtype), twin.get_buffer(name).numpy())
    x = rng.normal(size=(1, 3, 4, 2)).astype(dtype)
    close(net.predict(x), twin.eval()(torch.tensor(x)).detach().numpy())


def test_evaluation_changes_no_statistics() -> None:
    net = sg.Network([sg.BatchNorm2d(2)], (2, 3, 3))
    before = net.state_dict()
    net.forward(np.random.default_rng(0).normal(size=(4, 2, 3, 3)), training=False)
    for name, value in net.state_dict().items():
        same_bits(value, before[name])


def test_a_pass_that_fails_changes_no_statistics() -> None:
    class _Failing(sg.ReLU):
        def forward(self, *inputs: Any, context: sg.Context) -> Any:
            raise RuntimeError

    net = sg.Network([sg.BatchNorm2d(2), _Failing()], (2, 3, 3))
    before = net.state_dict()
    with pytest.raises(RuntimeError):
        net.forward(np.random.default_rng(0).normal(size=(4, 2, 3, 3)))
    for name, value in net.state_dict().items():
        same_bits(value, before[name])


def test_a_single_value_per_channel_cannot_be_normalized() -> None:
    net = sg.Network([sg.BatchNorm2d(2)], (2, 1, 1))
    with pytest.raises(ShapeError, match="expected more than one value per channel in training mode, got 1; use a"):
        net.forward(np.ones((1, 2, 1, 1)))
    assert net.forward(np.ones((1, 2, 1, 1)), training=False)[0].shape == (1, 2, 1, 1)


def samples_touched(training: bool) -> list[int]:
    """Samples whose input gradient is not zero when the loss sees sample 0 alone."""
    net = sg.Network([sg.BatchNorm2d(2)], (2, 3, 3), dtype="float64")
    rng = np.random.default_rng(0)
    _, tape = net.forward(rng.normal(size=(4, 2, 3, 3)), training=training)
    upstream = np.zeros((4, 2, 3, 3))
    upstream[0] = rng.normal(size=(2, 3, 3))
    dx = tape.backward(upstream, inputs=True).inputs["input"]
    return list(np.flatnonzero(np.abs(dx).max(axis=(1, 2, 3))))


def test_samples_touch_each_other_in_training_alone() -> None:
    assert samples_touched(training=True) == [0, 1, 2, 3]
    assert samples_touched(training=False) == [0]
