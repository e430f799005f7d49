"""PyTorch with the same nets, the same weights and the same data; imported only where PyTorch is wanted.

A net runs in one of several kinds: eager, channels_last, compiled, compiled channels_last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import nn

from benchmarks import nets
from benchmarks.timing import Call
from benchmarks.torch_nets import MODULES
from benchmarks.training import RATE


def module(name: str, training: bool = True) -> nn.Module:
    """The net with sharedgrad's first weights."""
    made = MODULES[name]()
    with torch.no_grad():
        for theirs, ours in zip(made.parameters(), nets.build(name).parameters(), strict=True):
            theirs.copy_(torch.tensor(ours.value))
    return made.train(training)


@cache
def check(name: str) -> None:
    """See that both nets are the same.

    Raises:
        ValueError: They give different scores, so a comparison would be of different work.
    """
    x, _ = nets.data(name, 4)
    ours, _ = nets.build(name).forward(x)
    if not np.allclose(module(name)(torch.tensor(x)).detach().numpy(), ours, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{name} gives other scores in PyTorch than in sharedgrad")


def prepared(made: nn.Module, x: np.ndarray, kind: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    """The model to call and its input, in the memory format of the kind; compiled for this one shape."""
    tensor = torch.tensor(x)
    if kind == "compiled":
        torch.compiler.reset()  # else what was compiled for the row before counts as this one's recompilation
    if kind.endswith("channels_last"):
        made.to(memory_format=torch.channels_last)
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return (torch.compile(made, dynamic=False) if kind.startswith("compiled") else made), tensor


def training_step(name: str, batch: int, kind: str) -> Call:
    """A call that makes one step: forward, cross-entropy, backward, plain SGD."""
    made, (x, labels) = module(name), nets.data(name, batch)
    model, tensor = prepared(made, x, kind)
    target, optimizer = torch.tensor(labels), torch.optim.SGD(made.parameters(), lr=RATE)

    def step() -> None:
        nn.functional.cross_entropy(model(tensor), target).backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that between steps no gradient takes memory: ours do not either

    return step


def inference(name: str, batch: int, kind: str) -> Call:
    """A call that gives the scores of a batch, in evaluation and inference mode."""
    model, tensor = prepared(module(name, training=False), nets.data(name, batch)[0], kind)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(tensor)

    return run
