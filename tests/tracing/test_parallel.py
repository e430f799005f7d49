"""Data-parallel training: each rank certifies its own sum, before the gradients are averaged over the ranks."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import sharedgrad as sg

RANKS = 2


def batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(4, 2, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(5, (4,), generator=generator)


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


def work(rank: int, port: int, folder: str) -> None:
    """What one rank does: a step in a trace, and what it found in a file."""
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    model = DistributedDataParallel(made())
    x, y = batch(rank)
    found: dict[str, Any] = {}
    for keep in ("factors", ["norm:sample"]):
        model.zero_grad()
        with sg.trace(model, keep=keep, strict=True) as t:
            nn.functional.cross_entropy(model(x), y).backward()
        found[str(keep)] = {name: torch.as_tensor(t[name].norm("sample")) for name in t.passes[0]}
        if keep == "factors":
            found["own"] = {name: t[name].gradient for name in t.passes[0]}
    found["averaged"] = {f"{name}": p.grad for name, p in model.named_parameters()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="no gloo")
def test_each_rank_certifies_its_own_sum(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for rank, found in enumerate(ranks):
        alone = made()
        x, y = batch(rank)
        nn.functional.cross_entropy(alone(x), y).backward()
        for name, p in alone.named_parameters():
            torch.testing.assert_close(found["own"][f"module.{name}"], p.grad)
            torch.testing.assert_close(found["factors"][f"module.{name}"], found["['norm:sample']"][f"module.{name}"])
            mean = sum(one["own"][f"module.{name}"] for one in ranks) / RANKS
            torch.testing.assert_close(found["averaged"][f"module.{name}"], mean)
