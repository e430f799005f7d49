"""The blocks that well-known models are made of, small, in PyTorch alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

V, C, HEADS, T, N = 11, 8, 2, 5, 3


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight stands the other way round, and the batch is flattened into rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.shape[:-1], self.weight.shape[1])


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:2], -1, C // HEADS).transpose(1, 2)


class Gpt2(nn.Module):
    """One block between an embedding and the same table as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe, self.drop = nn.Embedding(V, C), nn.Embedding(16, C), nn.Dropout(0.1)
        self.ln_1, self.ln_2, self.ln_f = nn.LayerNorm(C), nn.LayerNorm(C), nn.LayerNorm(C)
        self.c_attn, self.c_proj = Conv1D(C, 3 * C), Conv1D(C, C)
        self.c_fc, self.c_out = Conv1D(C, 4 * C), Conv1D(4 * C, C)
        self.head = nn.Linear(C, V, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        position = torch.arange(0, index.shape[1]).unsqueeze(0)
        x = self.drop(self.wte(index) + self.wpe(position))
        q, k, v = (heads(part) for part in self.c_attn(self.ln_1(x)).split(C, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(x.shape))
        h = self.c_fc(self.ln_2(x))
        h = 0.5 * h * (1.0 + torch.tanh(0.8 * (h + 0.044715 * torch.pow(h, 3.0))))
        return self.head(self.ln_f(x + self.c_out(h)))


class Bert(nn.Module):
    """Embeddings of words, kinds and positions, one encoder layer, a pooled token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds, self.positions = nn.Embedding(V, C), nn.Embedding(2, C), nn.Embedding(16, C)
        self.norm, self.norm_1, self.norm_2 = nn.LayerNorm(C), nn.LayerNorm(C), nn.LayerNorm(C)
        self.query, self.key, self.value, self.dense = (nn.Linear(C, C) for _ in range(4))
        self.intermediate, self.output, self.pooler = nn.Linear(C, 16), nn.Linear(16, C), nn.Linear(C, C)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        kinds = torch.zeros(index.shape, dtype=torch.long)
        x = self.words(index) + self.kinds(kinds)
        x += self.positions(torch.arange(index.shape[1]).expand((1, -1)))
        x = self.norm(x)
        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(-1, -2) / 2
        y = (scores.softmax(-1) @ heads(self.value(x))).permute(0, 2, 1, 3).contiguous()
        x = self.norm_1(x + self.dense(y.view(x.shape)))
        x = self.norm_2(x + self.output(functional.gelu(self.intermediate(x))))
        return torch.tanh(self.pooler(x[:, 0])) + x.mean(1)


class Llama(nn.Module):
    """Root mean square normalization, rotary positions, grouped queries, a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.scale = nn.Embedding(V, C), nn.Parameter(torch.randn(C))
        self.q, self.k, self.v, self.o = (nn.Linear(C, n, bias=False) for n in (C, C // 2, C // 2, C))
        self.gate, self.up, self.down = nn.Linear(C, 12), nn.Linear(C, 12), nn.Linear(12, C)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    @staticmethod
    def rotated(x: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=x.dtype)
        turned = torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), dim=-1)
        return x * angle.cos() + turned * angle.sin()

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        x = self.table(index)
        y = self.norm(x)
        q, k, v = (heads(part(y)) for part in (self.q, self.k, self.v))
        k, v = (m[:, :, None].expand(-1, -1, 2, -1, -1).reshape(q.shape) for m in (k, v))
        y = functional.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        y = self.norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Vit(nn.Module):
    """Patches, a class token before them, positions added, attention, a head on the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, C, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, C)), nn.Parameter(torch.randn(1, 5, C))
        self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, 4)
        self.attention = nn.MultiheadAttention(C, HEADS, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n = images.shape[0]
        x = self.patches(images).reshape(n, C, 4).permute(0, 2, 1)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.positions
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0])[:, 0])


class ConvNext(nn.Module):
    """A depthwise convolution, layers over the channels, a scale for each of them, depth that is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(C, C, 3, padding=1, groups=C), nn.LayerNorm(C)
        self.wide, self.narrow = nn.Linear(C, 16), nn.Linear(16, C)
        self.scale, self.down = nn.Parameter(torch.randn(C, 1, 1)), nn.Conv2d(C, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype).bernoulli_(0.8).div_(0.8)
        return self.down(x + y * kept)


class MobileNet(nn.Module):
    """Hard activations, and channels that are squeezed and excited."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, C, 1, bias=False), nn.BatchNorm2d(C, 0.001)
        self.depthwise = nn.Conv2d(C, C, 3, 2, 1, groups=C, bias=False)
        self.squeeze, self.excite, self.head = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1), nn.Linear(C, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(nn.Hardswish(inplace=True)(self.norm(self.expand(x))))
        scale = functional.hardsigmoid(self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))))
        return self.head(functional.hardswish((scale * x).mean((2, 3))))


BLOCKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "gpt2": (Gpt2, lambda: torch.randint(V, (N, T))),
    "bert": (Bert, lambda: torch.randint(V, (N, T))),
    "llama": (Llama, lambda: torch.randint(V, (N, T))),
    "vit": (Vit, lambda: torch.randn(N, 3, 8, 8)),
    "convnext": (ConvNext, lambda: torch.randn(N, C, 6, 6)),
    "mobilenet": (MobileNet, lambda: torch.randn(N, 3, 6, 6)),
}
