"""The networks of ``networks.py`` in evaluation mode, computed and differentiated by PyTorch in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import sharedgrad as sg
from tests.helpers import Array
from tests.plan.networks import Case, Scale, Swish


def gradients(case: Case) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Every node's value, and the gradients of parameters and of inputs, by name."""
    leaves = {p: torch.tensor(p.value, dtype=torch.float64, requires_grad=True) for p in case.net.parameters()}
    inputs = {name: torch.tensor(x, dtype=torch.float64) for name, x in zip(case.net.inputs, case.inputs, strict=True)}
    values = {name: x.requires_grad_() for name, x in inputs.items()}
    for node in case.net:
        weights = {name: leaves[p.base] for name, p in node.layer.parameters().items()}
        values[node.name] = _compute(node.layer, [values[source] for source in node.inputs], weights)
    loss = sum((values[name] * torch.tensor(up)).sum() for name, up in case.upstreams.items())
    loss.backward()
    found = {p.name: leaf.grad.numpy() for p, leaf in leaves.items() if leaf.grad is not None}
    flowed = {name: x.grad.numpy() for name, x in inputs.items() if x.grad is not None}
    return {name: value.detach().numpy() for name, value in values.items()}, found, flowed


def _compute(layer: Any, xs: Sequence[Tensor], w: dict[str, Tensor]) -> Tensor:
    x = xs[0]
    match layer:
        case sg.Conv1d() | sg.Conv2d():
            g, convolve = layer.geometry, functional.conv1d if layer.rank == 1 else functional.conv2d
            padded = _padded(x, g.padding, {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode))
            return convolve(padded, w["weight"], w.get("bias"), g.stride, 0, g.dilation, g.groups)
        case sg.Linear():
            return functional.linear(x, w["weight"], w.get("bias"))
        case sg.MaxPool1d() | sg.MaxPool2d():
            g, pool = layer.geometry, functional.max_pool1d if layer.geometry.rank == 1 else functional.max_pool2d
            return pool(_padded(x, g.padding, "constant", -np.inf), g.kernel, g.stride)
        case sg.AvgPool1d() | sg.AvgPool2d():
            g, pool = layer.geometry, functional.avg_pool1d if layer.geometry.rank == 1 else functional.avg_pool2d
            ones = torch.full_like(x, 1.0)
            counted = pool(_padded(ones, g.padding, "constant", float(layer.count_include_pad)), g.kernel, g.stride)
            return pool(_padded(x, g.padding, "constant"), g.kernel, g.stride) / counted
        case sg.BatchNorm2d():
            mean, variance = (torch.tensor(b.value) for b in (layer.running_mean, layer.running_var))
            return functional.batch_norm(x, mean, variance, w["weight"], w["bias"], eps=layer.eps)
        case sg.GlobalAvgPool():
            return x.flatten(2).mean(2)
        case sg.Concat():
            return torch.cat(list(xs), 1)
        case sg.Add():
            return torch.stack(list(xs)).sum(0)
        case Scale():
            return x * w["weight"].reshape(-1, *[1] * (x.ndim - 2))
    simple = {
        sg.ReLU: torch.relu,
        sg.Sigmoid: torch.sigmoid,
        sg.Tanh: torch.tanh,
        Swish: functional.silu,
        sg.Softmax: lambda x: torch.softmax(x, 1),
        sg.Flatten: lambda x: x.flatten(1),
        sg.Dropout: lambda x: x,
    }
    return simple[type(layer)](x)


def _padded(x: Tensor, padding: Any, mode: str, value: float = 0.0) -> Tensor:
    flat = [n for pair in reversed(padding) for n in pair]
    if mode == "constant" or not any(flat):
        return functional.pad(x, flat, "constant", value)
    return functional.pad(x, flat, mode)
