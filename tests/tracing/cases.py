"""Small models of every first-class operation, with random settings that are nobody's defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Case = tuple[nn.Module, tuple[torch.Tensor, ...]]
MODES = ("zeros", "reflect", "replicate", "circular")


class Of(nn.Module):
    """A model whose forward is a function of it and its inputs."""

    def __init__(self, run: Callable[..., torch.Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = run

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(self, *inputs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def scrambled(model: nn.Module) -> nn.Module:
    """Scales and shifts away from 1 and 0, running statistics too."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


def convolution(rng: np.random.Generator, rank: int) -> Case:
    groups = int(rng.choice([1, 2, 4]))
    kernel, stride, dilation = (tuple(int(n) for n in rng.integers(1, 4, rank)) for _ in range(3))
    mode = MODES[int(rng.integers(4))]
    padding: Any = tuple(int(n) for n in rng.integers(0, 3, rank))
    if rng.random() < 0.2:
        padding, stride, mode = "same", (1,) * rank, "zeros"
        kernel = tuple(2 * (k // 2) + 1 for k in kernel)  # PyTorch warns about even ones
    layer = getattr(nn, f"Conv{rank}d")
    conv = layer(4, 8, kernel, stride, padding, dilation, groups, bool(rng.random() < 0.7), mode)
    return conv, (torch.randn(3, 4, *(int(n) for n in rng.integers(7, 10, rank))),)


def transposed(rng: np.random.Generator, rank: int) -> Case:
    groups = int(rng.choice([1, 2]))
    kernel, stride, dilation = (tuple(int(n) for n in rng.integers(1, 4, rank)) for _ in range(3))
    padding = tuple(int(rng.integers(0, d * (k - 1) + 1)) for k, d in zip(kernel, dilation, strict=True))
    extra = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
    layer = getattr(nn, f"ConvTranspose{rank}d")
    conv = layer(4, 6, kernel, stride, padding, extra, groups, bool(rng.random() < 0.7), dilation)
    return conv, (torch.randn(3, 4, *(int(n) for n in rng.integers(3, 6, rank))),)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 7, shape)


def plain(make: Callable[[], Case]) -> Callable[[np.random.Generator], Case]:
    return lambda _: make()


def _tied(m: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(torch.tanh(m.encoder(x)), m.encoder.weight.T)


def _language(m: Any, index: torch.Tensor) -> torch.Tensor:
    return functional.linear(torch.tanh(m.table(index)), m.table.weight)


def _sliced(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = m.w.chunk(3)
    return functional.linear(x, q) * functional.linear(x, k) + x @ v.t() + functional.linear(x, m.w[2:6], m.b[:4])


def _stacked(m: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(functional.conv2d(x, m.w.view(4, 3, 2, 2)), m.w.permute(1, 0, 2).reshape(2, 4, 3, 2))


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    **{f"conv{rank}d": lambda rng, rank=rank: convolution(rng, rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": lambda rng, rank=rank: transposed(rng, rank) for rank in (1, 2, 3)},
    "linear": plain(lambda: (nn.Linear(5, 4), (torch.randn(3, 5),))),
    "linear on tokens": plain(lambda: (nn.Linear(5, 4), (torch.randn(3, 6, 5),))),
    "linear on maps": plain(lambda: (nn.Linear(5, 4, bias=False), (torch.randn(3, 2, 4, 5),))),
    "embedding": plain(lambda: (nn.Embedding(7, 4), (tokens(3, 5),))),
    "embedding with padding": plain(lambda: (nn.Embedding(7, 4, padding_idx=2), (tokens(3, 9),))),
    "embedding by frequency": plain(lambda: (nn.Embedding(7, 4, scale_grad_by_freq=True), (tokens(3, 9),))),
    "sparse embedding": plain(lambda: (nn.Embedding(7, 4, sparse=True), (tokens(3, 9),))),
    "rows of a table": plain(lambda: (Of(lambda m, index: m.w[index], w=weight(7, 4)), (tokens(3, 5) - 7,))),
    "rows by number": plain(
        lambda: (
            Of(lambda m, x: x @ m.w[[0, 2, -1, 0]].T + m.w.index_select(0, torch.tensor([1, 1])).sum(), w=weight(6, 4)),
            (torch.randn(3, 5, 4),),
        )
    ),
    "relative positions": plain(
        lambda: (
            Of(lambda m, x: x + m.w[torch.arange(20) % 7].view(4, 5, -1).permute(2, 0, 1)[None], w=weight(7, 2)),
            (torch.randn(3, 2, 4, 5),),
        )
    ),
    "layer norm": plain(lambda: (nn.LayerNorm(5), (torch.randn(3, 6, 5),))),
    "layer norm on maps": plain(lambda: (nn.LayerNorm((4, 5)), (torch.randn(3, 4, 5),))),
    "rms norm": plain(lambda: (nn.RMSNorm(5), (torch.randn(3, 6, 5),))),
    "group norm": plain(lambda: (nn.GroupNorm(2, 6), (torch.randn(3, 6, 5, 4),))),
    "instance norm": plain(lambda: (nn.InstanceNorm2d(4, affine=True), (torch.randn(3, 4, 5, 4),))),
    "running instance norm": plain(
        lambda: (nn.InstanceNorm1d(4, affine=True, track_running_stats=True).eval(), (torch.randn(3, 4, 5),))
    ),
    "batch norm": plain(lambda: (nn.BatchNorm2d(4).eval(), (torch.randn(3, 4, 5, 4),))),
    "batch norm on vectors": plain(lambda: (nn.BatchNorm1d(4).eval(), (torch.randn(3, 4),))),
    "x @ w.T": plain(lambda: (Of(lambda m, x: x @ m.w.T, w=weight(4, 5)), (torch.randn(3, 6, 5),))),
    "x @ w": plain(lambda: (Of(lambda m, x: x @ m.w, w=weight(5, 4)), (torch.randn(3, 5),))),
    "w @ x": plain(lambda: (Of(lambda m, x: m.w @ x, w=weight(4, 5)), (torch.randn(3, 5, 6),))),
    "vectors": plain(
        lambda: (Of(lambda m, x: torch.stack([m.w @ v for v in x]), w=weight(4, 5)), (torch.randn(3, 5),))
    ),
    "addmm": plain(
        lambda: (
            Of(lambda m, x: torch.addmm(m.b, x, m.w, beta=0.5, alpha=-2), w=weight(5, 4), b=weight(4)),
            (torch.randn(3, 5),),
        )
    ),
    "mm": plain(lambda: (Of(lambda m, x: torch.mm(x, m.w.t()), w=weight(4, 5)), (torch.randn(3, 5),))),
    "scale and shift": plain(
        lambda: (
            Of(lambda m, x: (m.a * x + m.b) / 2 - m.c, a=weight(4, 1), b=weight(1, 4, 5), c=weight()),
            (torch.randn(3, 4, 5),),
        )
    ),
    "one more": plain(
        lambda: (
            Of(lambda m, x: x * (1.0 + m.a) @ (m.w - 0.5), a=weight(5), w=weight(5, 4)),
            (torch.randn(3, 4, 5),),
        )
    ),
    "expanded": plain(
        lambda: (
            Of(lambda m, x: torch.cat([m.a.expand(len(x), -1, -1), x], 1), a=weight(1, 1, 5)),
            (torch.randn(3, 4, 5),),
        )
    ),
    "slices": plain(lambda: (Of(_sliced, w=weight(12, 4), b=weight(6)), (torch.randn(3, 4, 4),))),
    "reshaped": plain(lambda: (Of(_stacked, w=weight(4, 2, 6)), (torch.randn(3, 3, 8, 8),))),
    "used twice": plain(
        lambda: (Of(lambda m, x: m.a(torch.tanh(m.a(x))), a=nn.Conv2d(4, 4, 3, padding=1)), (torch.randn(3, 4, 5, 5),))
    ),
    "autoencoder": plain(lambda: (Of(_tied, encoder=nn.Linear(5, 3)), (torch.randn(4, 5),))),
    "embedding and head": plain(lambda: (Of(_language, table=nn.Embedding(7, 4)), (tokens(3, 5),))),
    "in place": plain(
        lambda: (
            nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.SiLU(inplace=True)),
            (torch.randn(3, 4, 5),),
        )
    ),
}


def build(name: str, seed: int, dtype: torch.dtype = torch.float64) -> Case:
    """A case with scrambled parameters, its inputs not beginning a lineage of gradients."""
    torch.manual_seed(seed)
    model, inputs = CASES[name](np.random.default_rng(seed))
    model = scrambled(model).to(dtype)
    return model, tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def upstream(model: nn.Module, inputs: tuple[torch.Tensor, ...], seed: int) -> torch.Tensor:
    """Something that is not uniform, in the shape of the output."""
    with torch.no_grad():
        shape = model(*inputs).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
