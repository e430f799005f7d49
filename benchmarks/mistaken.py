"""Where libraries for per-sample gradients are wrong without a word: their error beside ours, and what they are asked.

The truth is autograd's, one sample after the other. Errors are those of the per-sample norms of all parameters, the
largest over the samples: |found − true| / true.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

import sharedgrad as sg
from benchmarks.options import Options
from benchmarks.tables import Case, Row, Table

Norms = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
SAMPLES = 6


def _tied() -> nn.Module:
    a, b = nn.Linear(48, 48), nn.Linear(48, 48)
    b.weight = a.weight
    return nn.Sequential(nn.Flatten(), a, nn.Tanh(), b, nn.Tanh(), nn.Linear(48, 3))


def _convolution(**settings: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, **settings), nn.Tanh(), nn.Flatten(), nn.Linear(96, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "a plain convolution": _convolution,
    "grouped, 2 groups": partial(_convolution, groups=2),
    "grouped, 4 groups": partial(_convolution, groups=4),
    "padding_mode reflect": partial(_convolution, padding_mode="reflect"),
    "padding_mode circular": partial(_convolution, padding_mode="circular"),
    "padding_mode replicate": partial(_convolution, padding_mode="replicate"),
    "a weight tied into two modules": _tied,
}


def section(options: Options) -> list[Table]:
    """One table; none without PyTorch."""
    note = (
        "Error of the per-sample gradient norms of all parameters against autograd, one sample after the other: the "
        "largest over 6 samples, relative. A library that refuses says why."
    )
    if not options.rivals:
        return []
    cases = tuple(Case(name, partial(_row, name)) for name in MODELS)
    return [Table("mistaken", "Per-sample norms that are wrong", note, ("model", *LIBRARIES), cases)]


def _row(name: str) -> Row:
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 4, 4, 3).double(), torch.randint(3, (SAMPLES,))
    state = MODELS[name]().double().state_dict()
    row: Row = {}
    for library, norms in LIBRARIES.items():
        model = MODELS[name]().double()
        model.load_state_dict(state)
        truth = _truth(model, x, y)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row[library] = _written(float(((norms(model, x, y) - truth).abs() / truth).max()))
        except ImportError:
            row[library] = "not installed"
        except Exception as error:  # a library may refuse in any way that it likes
            row[library] = f"refused: {type(error).__name__}: {' '.join(str(error).split())[:80]}".replace("|", "/")
    return row


def _written(error: float) -> str:
    """A large error in percent; a small one in powers of ten, as it says how many digits agree."""
    return f"**{error:.0%}**" if error > 1e-3 else f"{error:.0e}" if error else "0"


def _truth(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    rows = []
    for n in range(len(x)):
        loss = functional.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm())
    return torch.stack(rows)


def _ours(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with sg.trace(model, strict=True) as t:
        functional.cross_entropy(model(x), y, reduction="sum").backward()
    return _length(list(t.per_sample(loss_reduction="sum").values()))


def _backpack(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    from backpack.extensions import BatchGrad

    _backward(model, x, y, BatchGrad())
    return _length([p.grad_batch for p in model.parameters()])


def _backpack_norms(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    from backpack.extensions import BatchL2Grad

    _backward(model, x, y, BatchL2Grad())
    return torch.stack([p.batch_l2 for p in model.parameters()]).sum(0).sqrt()


def _backward(model: nn.Module, x: torch.Tensor, y: torch.Tensor, extension: object) -> None:
    from backpack import backpack, extend

    model, loss = extend(model), extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack(extension):
        loss(model(x), y).backward()


def _opacus(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    from opacus import GradSampleModule

    sampled = GradSampleModule(model, loss_reduction="sum")
    functional.cross_entropy(sampled(x), y, reduction="sum").backward()
    return _length([p.grad_sample for p in model.parameters()])


def _length(apart: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten(1) for g in apart], 1).norm(dim=1)


LIBRARIES: dict[str, Norms] = {
    "sg.trace": _ours,
    "BackPACK BatchGrad": _backpack,
    "BackPACK BatchL2Grad": _backpack_norms,
    "Opacus": _opacus,
}
