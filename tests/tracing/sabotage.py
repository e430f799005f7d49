"""Ways to spoil the uses of a parameter, each of which a certificate must notice.

``python -m tests.tracing.sabotage [SEEDS]`` tries each on so many seeds (1000), exactly and by random probes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.tracing import certify
from sharedgrad.uses import Uses

Calls = list[Uses]


def drop_a_call(calls: Calls, rng: np.random.Generator) -> Calls:
    gone = int(rng.integers(len(calls)))
    return calls[:gone] + calls[gone + 1 :]


def flip_a_delta(calls: Calls, rng: np.random.Generator) -> Calls:
    return _changed(calls, rng, lambda factor, place: factor.__setitem__(place, -factor[place]), "delta")


def swap_two_patches(calls: Calls, rng: np.random.Generator) -> Calls:
    number = int(rng.integers(len(calls)))
    call = copy(calls[number])
    name = "patch" if hasattr(call, "patch") else "big"
    samples = np.array(getattr(call, name))
    a, b = rng.choice(len(samples), 2, replace=False)
    samples[[a, b]] = samples[[b, a]]
    setattr(call, name, samples)
    return [*calls[:number], call, *calls[number + 1 :]]


def change_a_use_by_one_percent(calls: Calls, rng: np.random.Generator) -> Calls:
    return _changed(calls, rng, lambda factor, place: factor.__setitem__(place, factor[place] * 1.01), "delta")


def ignore_groups(calls: Calls, rng: np.random.Generator) -> Calls:
    """Every group reads the first group's channels, as a tool does that forgets them."""
    number = int(rng.integers(len(calls)))
    call: Any = copy(calls[number])
    channels = call.kernel[1]
    big = np.array(call.big)
    for group in range(1, call.geometry.groups):
        big[:, group * channels : (group + 1) * channels] = big[:, :channels]
    call.big = big
    return [*calls[:number], call, *calls[number + 1 :]]


def _changed(calls: Calls, rng: np.random.Generator, change: Callable[[Any, Any], None], name: str) -> Calls:
    number = int(rng.integers(len(calls)))
    call = copy(calls[number])
    name = name if hasattr(call, name) else "small"
    factor = np.array(getattr(call, name))
    place: Any = tuple(int(rng.integers(n)) for n in call.shape)
    change(factor, place if name == "delta" else (place[0], slice(None), *place[1:]))
    setattr(call, name, factor)
    return [*calls[:number], call, *calls[number + 1 :]]


WAYS = (drop_a_call, flip_a_delta, swap_two_patches, change_a_use_by_one_percent, ignore_groups)


class Model(nn.Module):
    """A grouped convolution and a dense layer, both used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(24, 24, 3, padding=1, groups=2, padding_mode="reflect")
        self.dense = nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.conv(torch.tanh(self.conv(x)))).flatten(2).mT
        return self.dense(torch.relu_(self.dense(x)))


def spoilt(seed: int, way: Callable[[Calls, np.random.Generator], Calls]) -> Sequence[tuple[str, Any, Any]]:
    """(name, honest certificates, spoilt certificates) for each weight that this can be done to; exact, then probed."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Model().double()
    with sg.trace(model) as t:
        y = model(torch.randn(3, 24, 4, 4).double())
        (y * torch.randn_like(y)).sum().backward()
    found = []
    for name in ("conv.weight",) if way is ignore_groups else ("conv.weight", "dense.weight"):
        u: Any = t[name]
        both = [[*u.calls], way([*u.calls], rng)]
        exact, probed = [], []
        for calls in both:
            own = sum(call.sum() for call in calls)
            exact.append(certify.exact(calls, u.deposit, own, u.types))
            probed.append(certify.probed(calls, u.deposit, u.types, seed))
        found.append((name, (exact[0], probed[0]), (exact[1], probed[1])))
    return found


def noticed(seed: int, way: Callable[[Calls, np.random.Generator], Calls]) -> bool:
    """Whether honest uses are certified and spoilt ones are not, exactly and by probes, and the probes bound."""
    return all(
        all(c.certified for c in honest)
        and not any(c.certified for c in bad)
        and bad[1].bound
        and bad[1].residual >= bad[0].residual
        for _, honest, bad in spoilt(seed, way)
    )


def main(seeds: int) -> None:
    for way in WAYS:
        count = sum(noticed(seed, way) for seed in range(seeds))
        print(f"{way.__name__.replace('_', ' '):30} noticed in {count} of {seeds}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
