"""PyTorch models to be traced, their data, and steps with and without a trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import sharedgrad as sg
from benchmarks.timing import Call
from benchmarks.torch_nets import Block, vgg

BATCH = 32
NORMS = {False: ["norm:sample,position"], True: ["norm:sample,position", "share:sample,position"]}
TOKENS = {False: ["norm:sample,token"], True: ["norm:sample,token", "share:sample,token"]}


def resnet18() -> nn.Module:
    """ResNet-18 with a 3×3 stem, as it is used on 32×32 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for filters in (64, 128, 256, 512):
        layers += [Block(before, filters, 1 if filters == 64 else 2), Block(filters, filters, 1)]
        before = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class TransformerLayer(nn.Module):
    """A transformer layer with normalization first: 8 heads, 512 features."""

    def __init__(self, width: int = 512, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.mixed(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.second(x))))


MODELS: dict[str, Callable[[], nn.Module]] = {"vgg": vgg, "resnet18": resnet18, "transformer": TransformerLayer}


def made(name: str) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """The model, always with the same weights, and what computes its loss."""
    torch.manual_seed(0)
    model = MODELS[name]()
    if name == "transformer":
        x, weights = torch.randn(BATCH, 64, 512), torch.randn(BATCH, 64, 512)
        return model, lambda: (model(x) * weights).mean()
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    return model, lambda: functional.cross_entropy(model(x), y)


def step(name: str, kind: str) -> Call:
    """A call that computes all gradients; kind is "plain", "norms" or "norms and shares".

    Raises:
        ValueError: A parameter is not certified, so a figure would mean nothing.
    """
    model, loss = made(name)
    questions = (TOKENS if name == "transformer" else NORMS).get(kind == "norms and shares")

    def run() -> None:
        model.zero_grad()
        if kind == "plain":
            loss().backward()
            return
        with sg.trace(model, keep=questions or ()) as t:
            loss().backward()
        if t.other:
            raise ValueError(f"not certified: {', '.join(t.other)}")

    return run


def one_by_one(name: str) -> float:
    """Milliseconds that writing out every contribution of every convolution and dense weight would take.

    Measured on the uses of one sample, written out one after the other, at most 20 a weight; the rest is arithmetic.
    """
    from time import perf_counter

    model, loss = made(name)
    with sg.trace(model) as t:
        loss().backward()
    total = 0.0
    for weight in t.passes[0].values():
        if len(weight.shape) < 2:
            continue
        for call in weight.calls:
            some = call.taken([slice(0, 1)] + [slice(0, 4)] * (len(call.shape) - 1))
            begun = perf_counter()
            some.sum(tuple(some.axes))
            total += (perf_counter() - begun) * call.count / some.count
    return total * 1e3


def per_sample(name: str, batch: int) -> Call:
    """A call that gives the gradients of every sample's own loss, in the order of the parameters."""
    from benchmarks import nets, rival

    model = rival.module(name)
    x, y = (torch.tensor(array) for array in nets.data(name, batch))

    def run() -> list[torch.Tensor]:
        with sg.trace(model) as t:
            functional.cross_entropy(model(x), y, reduction="sum").backward()
        found = t.per_sample(loss_reduction="sum")
        return [found[key] for key, _ in model.named_parameters()]

    return run
