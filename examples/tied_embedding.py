"""A language model whose embedding is its output layer, too: is that one weight moved by reading or by predicting?

    pip install "sharedgrad[torch,cli]"
    python examples/tied_embedding.py --out pictures

A small transformer learns the text of Python's own manual, which comes with Python. Its embedding (a row for each
word) is used twice: rows are looked up where words are read, and all rows are multiplied with the state where the next
word is predicted. Both uses have one gradient. Every few steps ``sg.trace`` takes it apart, in the very
training step.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional

import sharedgrad as sg

READ, PREDICT = "#1b7837", "#762a83"
Array = np.ndarray[Any, Any]


def words(size: int) -> tuple[torch.Tensor, list[str]]:
    """The manual as numbers, and the vocabulary: the most frequent words and signs; all others are <rare>."""
    text = re.findall(r"\w+|[^\w\s]", "\n".join(topics[name] for name in sorted(topics)))
    vocabulary = ["<rare>", *(word for word, _ in Counter(text).most_common(size - 1))]
    number = {word: i for i, word in enumerate(vocabulary)}
    return torch.tensor([number.get(word, 0) for word in text]), vocabulary


class Model(nn.Module):
    """One block of a transformer between an embedding and its transpose."""

    def __init__(self, vocabulary: int, width: int = 48, length: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.zeros(length, width))
        self.before, self.between, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.place[: tokens.shape[1]]
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in self.mix(self.before(x)).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.between(x))))
        return functional.linear(self.after(x), self.embed.weight)  # the same weight again


@dataclass
class Step:
    """The gradient of the embedding in one step, taken apart by its two calls: reading, predicting."""

    number: int
    loss: float
    shares: Array  # (2,) of the gradient; they add to 1
    norms: Array  # (2,)
    cosine: float  # between the gradients of the two calls
    cancelled: Array  # (2, 2) of each call's norms of single uses, the part that cancels; and that of random directions
    rows: Array  # (2, vocabulary): the share of each row's two halves in the whole gradient


def taken_apart(number: int, loss: float, u: Any) -> Step:
    products = np.asarray(u.inner("call"))
    norms = np.sqrt(np.diagonal(products))
    halves, total = np.asarray(u.sum("call")), np.asarray(u.gradient)
    rows = (halves * total).sum(axis=-1) / np.square(total).sum()
    cancelled = np.array([(c.value, c.random) for c in (sg.uses.SharedWeight([one]).cancellation() for one in u.calls)])
    return Step(number, loss, np.asarray(u.share("call")), norms, float(products[0, 1] / norms.prod()), cancelled, rows)


def train(steps: int, vocabulary: int, every: int, batch: int = 16, length: int = 64, seed: int = 0) -> Any:
    """Train; every so many steps the step that is made anyway is traced.

    Returns:
        The traced steps, the vocabulary, the model, the seconds of plain and of traced steps (medians).
    """
    torch.manual_seed(seed)
    text, names = words(vocabulary)
    model = Model(len(names), length=length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    found, seconds = [], ([], [])
    for number in range(steps):
        start = torch.randint(len(text) - length - 1, (batch, 1))
        window = text[start + torch.arange(length + 1)]
        traced = number % every == 0
        began = time.perf_counter()
        optimizer.zero_grad()
        with sg.trace(model, params=["embed.weight"]) if traced else nullcontext() as t:
            loss = functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
            loss.backward()
        if traced:
            u = t["embed.weight"]
            assert u.certified
            found.append(taken_apart(number, loss.item(), u))
        optimizer.step()
        schedule.step()
        seconds[traced].append(time.perf_counter() - began)
    return found, names, model, [float(np.median(s)) for s in seconds]


def draw(found: list[Step]) -> Figure:
    """Shares and norms of reading and predicting over training, and whether the two point the same way."""
    figure = Figure((7, 6.6), layout="constrained")
    shares, norms, cosine = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    steps = [step.number for step in found]
    for call, (name, color) in enumerate((("reading tokens", READ), ("predicting them", PREDICT))):
        shares.plot(steps, [100 * step.shares[call] for step in found], color=color, label=name)
        norms.plot(steps, [step.norms[call] for step in found], color=color, label=name)
    cosine.plot(steps, [step.cosine for step in found], color="0.3")
    shares.set_ylabel("share in the gradient (%)")
    norms.set_ylabel("norm of the part")
    norms.set_yscale("log")
    cosine.set_ylabel("cosine of the parts")
    cosine.set_xlabel("step")
    for axes in (shares, cosine):
        axes.axhline(0, color="0.7", linewidth=0.8)
    for axes in (shares, norms, cosine):
        axes.spines[["top", "right"]].set_visible(False)
    shares.legend(frameon=False)
    return figure


def largest_rows(found: list[Step], names: list[str], count: int = 6) -> dict[str, list[str]]:
    """The words whose rows hold most of each part of the gradient, over these steps."""
    mean = np.mean([step.rows for step in found], axis=0)
    return {
        call: [f"{names[i]} {100 * part[i]:.1f}" for i in np.argsort(-part)[:count]]
        for call, part in zip(("reading", "predicting"), mean, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture")
    given = parser.parse_args()
    torch.set_num_threads(1)  # more than one thread helps no model of this size
    found, names, model, seconds = train(given.steps, given.vocabulary, given.every, seed=given.seed)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights, {model.embed.weight.numel():,} of them tied; {given.steps} steps")
    print(f"a plain step takes {1000 * seconds[0]:.1f} ms, a traced one {1000 * seconds[1]:.1f} ms")
    print(f"{'steps':>12}{'loss':>8}{'reading':>10}{'predicting':>12}{'norms':>15}{'cosine':>8}{'cancelled':>14}")
    for part in np.array_split(np.arange(len(found)), min(8, len(found))):
        steps = [found[i] for i in part]
        read, predict = (100 * np.mean([s.shares[call] for s in steps]) for call in (0, 1))
        norms = ", ".join(f"{np.mean([s.norms[call] for s in steps]):.3f}" for call in (0, 1))
        span, loss = f"{steps[0].number}–{steps[-1].number}", np.mean([s.loss for s in steps])
        cosine = np.mean([s.cosine for s in steps])
        cancelled = ", ".join(f"{np.mean([s.cancelled[call, 0] for s in steps]):.3f}" for call in (0, 1))
        print(f"{span:>12}{loss:>8.2f}{read:>9.1f}%{predict:>11.1f}%{norms:>15}{cosine:>8.2f}{cancelled:>14}")
    print(f"random directions would cancel to {found[0].cancelled[0, 1]:.3f}")
    for when, steps in (("first", found[: len(found) // 8 or 1]), ("last", found[-(len(found) // 4 or 1) :])):
        for call, rows in largest_rows(steps, names).items():
            print(f"{when} steps, rows with the most of {call} (% of the gradient): {', '.join(rows)}")
    given.out.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(given.out / "tied_embedding.png", dpi=110)


if __name__ == "__main__":
    main()
