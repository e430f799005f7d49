"""What is asked of samples: the gradient of each one's own loss, and how much they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from sharedgrad.errors import ConfigError
from sharedgrad.tracing.answers import ChosenWeight, TracedWeight
from sharedgrad.tracing.passes import Pass


def per_sample(done: Pass, loss_reduction: str, mixing: str) -> dict[str, torch.Tensor]:
    """Name -> (N, *shape), of every parameter of the pass; see ``ModelTrace.per_sample``."""
    if loss_reduction not in ("mean", "sum"):
        raise ConfigError("per_sample", f"expected loss_reduction='mean' or 'sum', got {loss_reduction!r}")
    if mixing not in ("refuse", "allow"):
        raise ConfigError("per_sample", f"expected mixing='refuse' or 'allow', got {mixing!r}")
    if mixing == "refuse":
        _refuse_mixing(done, "per_sample")
    found = {}
    for name, weight in _weights(done, "per_sample"):
        if not isinstance(weight, TracedWeight):
            for every in done.names:
                _certified(done, every, "per_sample")
            raise ConfigError("per_sample", "it needs the factors, which were not kept", "trace with keep='factors'")
        apart = weight.by_sample()
        _certified(done, name, "per_sample")
        whole = weight.whole if isinstance(weight, ChosenWeight) else len(apart)
        found[name] = apart * whole if loss_reduction == "mean" else apart
    return found


def noise_scale(done: Pass) -> float:
    """tr(Σ) / ‖G‖² over samples, the same for a mean and a sum of losses.

    With the samples' contributions S_n, N of them: tr(Σ) = (N²·Σ‖S_n‖² − N·‖G‖²) / (N − 1) and ‖G‖² less the part
    tr(Σ)/N that the noise adds to it.
    """
    _refuse_mixing(done, "noise_scale")
    if done.partial:
        raise ConfigError("noise_scale", "it is about all samples, and some were looked at", "trace without samples=")
    squares, norm, count = 0.0, 0.0, set()
    for name, weight in _weights(done, "noise_scale"):
        _certified(done, name, "noise_scale")
        apart = np.asarray(weight.norm("sample"), np.float64)
        count.add(len(apart))
        squares += float((apart**2).sum())
        norm += weight.certificate.norm**2
        if len(count) > 1:
            raise ConfigError("noise_scale", f"{name} has another number of samples than the parameters before it")
    n = count.pop()
    if n < 2:
        raise ConfigError("noise_scale", f"expected at least two samples, got {n}")
    trace = (n * n * squares - n * norm) / (n - 1)
    signal = norm - trace / n
    return float(trace / signal) if signal > 0 else float("inf")


def _refuse_mixing(done: Pass, where: str) -> None:
    if done.mixing:
        problem = f"samples depend on one another: {', '.join(done.mixing)}"
        fix = "call model.eval(), or per_sample(mixing='allow') for the contributions of each sample"
        raise ConfigError(where, problem, fix)


def _weights(done: Pass, where: str) -> Iterator[tuple[str, Any]]:
    """Every parameter whose samples can be told apart."""
    if not done.names:
        raise ConfigError(where, "no parameter was given a gradient in this pass")
    for name in done.names:
        if name not in done:
            _certified(done, name, where)
        weight: Any = done.weight(name)
        if "sample" not in weight.axes:
            _certified(done, name, where)
            axes = ", ".join(weight.axes) or "none"
            problem = f"samples cannot be told apart in the uses of {name}; its axes are {axes}"
            raise ConfigError(where, problem, "give params=[…] without it, or batch_axis=")
        yield name, weight


def _certified(done: Pass, name: str, where: str) -> None:
    """Refuse a parameter whose uses do not add up."""
    if not done.certified(name):
        through = ", ".join(done.operations(name))
        raise ConfigError(where, f"the uses of {name} do not add up to its gradient: {through}", "see t.other")
