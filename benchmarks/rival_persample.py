"""Per-sample gradients of PyTorch nets by torch.func, BackPACK and Opacus, all parameters at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks import nets, rival
from benchmarks.timing import Call

Gradients = Callable[[], list[torch.Tensor]]


def checked(library: str, name: str, batch: int, ours: Call) -> Call:
    """A call that gives the gradients in the order of the parameters, each (batch, *shape).

    Args:
        library: A key of ``LIBRARIES``.
        name: The net.
        batch: Number of samples.
        ours: Gives what it must give.

    Raises:
        ValueError: It gives something else.
        ImportError: The library is not installed.
    """
    x, labels = nets.data(name, batch)
    warnings.simplefilter("ignore")  # about hooks on inputs that need no gradient: these nets have such an input
    call = LIBRARIES[library](rival.module(name), torch.tensor(x), torch.tensor(labels))
    for theirs, expected in zip(call(), ours(), strict=True):
        expected = np.asarray(expected)
        # a norm, because rounding may let another input win a max pooling: a few large differences are right
        if np.linalg.norm(theirs.detach().numpy() - expected) > 1e-2 * np.linalg.norm(expected):
            raise ValueError("gives other gradients than sharedgrad")
    return call


def _functional(module: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Gradients:
    parameters = {key: p.detach() for key, p in module.named_parameters()}
    gradients = _vmapped(module)
    return lambda: list(gradients(parameters, x, target).values())


def _compiled(module: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Gradients:
    parameters = {key: p.detach() for key, p in module.named_parameters()}
    torch.compiler.reset()
    gradients = torch.compile(_vmapped(module), dynamic=False)
    return lambda: list(gradients(parameters, x, target).values())


def _vmapped(module: nn.Module) -> Callable[..., dict[str, torch.Tensor]]:
    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scores = torch.func.functional_call(module, parameters, (x[None],))
        return nn.functional.cross_entropy(scores, target[None])

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))


def _backpack(module: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Gradients:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    module, loss = extend(module), extend(nn.CrossEntropyLoss(reduction="sum"))

    def run() -> list[torch.Tensor]:
        module.zero_grad()
        with backpack(BatchGrad()):
            loss(module(x), target).backward()
        return [p.grad_batch for p in module.parameters()]

    return run


def _opacus(module: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Gradients:
    from opacus import GradSampleModule

    sampled = GradSampleModule(module, loss_reduction="sum")

    def run() -> list[torch.Tensor]:
        sampled.zero_grad()  # the per-sample gradients too
        nn.functional.cross_entropy(sampled(x), target, reduction="sum").backward()
        return [p.grad_sample for p in module.parameters()]

    return run


LIBRARIES = {
    "torch.func": _functional,
    "torch.func compiled": _compiled,
    "BackPACK": _backpack,
    "Opacus": _opacus,
}
