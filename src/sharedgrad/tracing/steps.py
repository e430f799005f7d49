"""The steps of a recurrent operation computed again, and the gradients at each step's gates.

PyTorch's formulas, with gi_t = W_ih · x_t + b_ih and gh_t = W_hh · h_{t−1} + b_hh, in parts for each gate:

    RNN     h_t = tanh(gi + gh), or relu
    GRU     r, z = σ(gi + gh)    n = tanh(gi + r · gh)                 h_t = (1 − z) · n + z · h_{t−1}
    LSTM    i, f, o = σ(gi + gh)    g = tanh(gi + gh)    c_t = f · c_{t−1} + i · g    m = o · tanh(c_t)
            h_t = m, or W_hr · m with a projection (Sak et al. 2014)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

State = tuple[torch.Tensor, ...]  # h, and c of an LSTM


class Pattern(NamedTuple):
    """What a recurrent operation does with its sequence.

    Attributes:
        kind: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        layers: How many.
        both: Whether each runs in both directions.
        dropout: Probability that a number between two layers is set to zero.
        first: Whether the batch is the first axis of the input and the output.
        random: State of the generator before the operation, where it drew masks.
        sizes: How many sequences there are at each step, where they have several lengths.
        through: Whether the gradient given at c has the part through h in it.
    """

    kind: str
    layers: int
    both: bool
    dropout: float
    first: bool
    random: torch.Tensor | None
    sizes: tuple[int, ...] | None
    through: bool = False


class Weights(NamedTuple):
    """The weights of one layer and direction; None for what it does not have."""

    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any
    w_hr: Any


class Steps(NamedTuple):
    """One layer and direction, (T, N, …) each: gradients at the gates, and what the weights were multiplied with."""

    gi: torch.Tensor
    gh: torch.Tensor
    x: torch.Tensor
    before: torch.Tensor
    projected: torch.Tensor | None
    unprojected: torch.Tensor | None


class _Run(NamedTuple):
    """One layer and direction forward, step by step in the order of time."""

    x: torch.Tensor
    gi: torch.Tensor
    gh: list[torch.Tensor]
    before: list[torch.Tensor]
    projected: list[torch.Tensor]
    unprojected: list[torch.Tensor]
    outputs: list[torch.Tensor]
    last: State


def steps(
    pattern: Pattern, x: torch.Tensor, states: Sequence[torch.Tensor], weights: Sequence[Weights], deltas: Any
) -> list[Steps]:
    """Every layer and direction of an operation.

    Args:
        pattern: What it does.
        x: Its input (T, N, I), (N, T, I) with the batch first, or (rows, I) of several lengths.
        states: Its first states (layers · directions, N, H): h, and c of an LSTM.
        weights: For each layer and direction.
        deltas: The gradients at its outputs, or None: y, h_n, c_n; at h and c of a cell's one step.
    """
    wide = torch.promote_types(weights[0].w_ih.dtype, torch.float32)
    weights = [Weights(*(None if w is None else w.detach().to(wide) for w in layer)) for layer in weights]
    given = [s.detach().to(wide) for s in states]
    device = [] if x.device.type == "cpu" else [x.device]
    enabled = torch.autocast(x.device.type, enabled=False)
    with torch.enable_grad(), enabled, torch.random.fork_rng(device, enabled=pattern.random is not None):
        if pattern.random is not None:
            torch.set_rng_state(pattern.random)
        outputs, runs = _forward(pattern, x.detach().to(wide), given, weights)
        return _gradients(runs, outputs, [None if d is None else d.to(wide) for d in _as_outputs(deltas, outputs)])


def _as_outputs(deltas: Any, outputs: Sequence[torch.Tensor]) -> list[Any]:
    """The gradients in the shapes of y, h_n, c_n; a cell has no y."""
    if len(deltas) == len(outputs):
        return list(deltas)
    return [None, *(None if d is None else d[None] for d in deltas)]


def _forward(
    pattern: Pattern, x: torch.Tensor, states: Sequence[torch.Tensor], weights: Sequence[Weights]
) -> tuple[list[torch.Tensor], list[_Run]]:
    """The outputs, as the operation gives them, and each layer and direction."""
    mask = None if pattern.sizes is None else _mask(pattern.sizes, x.device)
    layer = _padded(x, mask) if mask is not None else x.transpose(0, 1) if pattern.first else x
    runs: list[_Run] = []
    for number in range(pattern.layers):
        if number and pattern.dropout:
            layer = _dropped(layer, mask, pattern.dropout)
        for back in range(1 + pattern.both):
            place = len(runs)
            start = tuple(s[place] for s in states)
            runs.append(_direction(pattern, layer, start, weights[place], mask, bool(back)))
        layer = torch.cat([torch.stack(run.outputs) for run in runs[-1 - pattern.both :]], -1)
    y = layer if mask is None else layer[mask]
    last = [torch.stack([run.last[i] for run in runs]) for i in range(len(states))]
    return [y.transpose(0, 1) if pattern.first else y, *last], runs


def _mask(sizes: Sequence[int], device: torch.device) -> torch.Tensor:
    """(T, N): which sequences have a step t."""
    return torch.arange(sizes[0], device=device) < torch.tensor(sizes, device=device)[:, None]


def _padded(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Rows of several lengths as (T, N, F), zeros behind the end of each sequence."""
    return rows.new_zeros(*mask.shape, rows.shape[-1]).masked_scatter(mask[..., None], rows)


def _dropped(layer: torch.Tensor, mask: torch.Tensor | None, probability: float) -> torch.Tensor:
    """Between two layers; of sequences of several lengths masks are drawn for their rows alone."""
    rows = layer if mask is None else layer[mask]
    dropped = torch.dropout(rows, probability, True)
    return dropped if mask is None else _padded(dropped, mask)


def _direction(pattern: Pattern, x: torch.Tensor, state: State, w: Weights, mask: Any, back: bool) -> _Run:
    """One direction of one layer; x (T, N, I)."""
    gi = _leaf(linear(x, w.w_ih, w.b_ih))
    lists: list[list[torch.Tensor]] = [[], [], [], [], []]
    order = reversed(range(len(x))) if back else range(len(x))
    for t in order:
        gh = _leaf(linear(state[0], w.w_hh, w.b_hh))
        inner, *rest = CELLS[pattern.kind](gi[t], gh, state, pattern.through)
        h = inner if w.w_hr is None else _leaf(linear(inner, w.w_hr))
        for values, value in zip(lists, (gh, state[0], h, inner, h), strict=True):
            values.append(value)
        new = (h, *rest)
        if mask is None:
            state = new
        else:  # a sequence that has no step t keeps its state
            state = tuple(torch.where(mask[t, :, None], a, b) for a, b in zip(new, state, strict=True))
    gh_, before, projected, inner_, outputs = (values[::-1] if back else values for values in lists)
    none = w.w_hr is None
    return _Run(x, gi, gh_, before, [] if none else projected, [] if none else inner_, outputs, state)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that autograd gives the gradient of, also where nothing below it needs one."""
    return tensor if tensor.requires_grad else tensor.requires_grad_()


def _gradients(runs: Sequence[_Run], outputs: Sequence[torch.Tensor], deltas: Sequence[Any]) -> list[Steps]:
    reached = [(o, d) for o, d in zip(outputs, deltas, strict=True) if d is not None]
    wanted = [t for run in runs for t in (run.gi, *run.gh, *run.projected)]
    tensors, upstream = [o for o, _ in reached], [d for _, d in reached]
    found = torch.autograd.grad(tensors, wanted, upstream, allow_unused=True, materialize_grads=True)
    parts = iter(found)
    result = []
    for run in runs:
        gi, gh = next(parts), torch.stack([next(parts) for _ in run.gh])
        projected = torch.stack([next(parts) for _ in run.projected]) if run.projected else None
        inner = torch.stack(run.unprojected).detach() if run.projected else None
        result.append(Steps(gi, gh, run.x.detach(), torch.stack(run.before).detach(), projected, inner))
    return result


def _tanh(gi: torch.Tensor, gh: torch.Tensor, _: State, __: bool) -> State:
    return (torch.tanh(gi + gh),)


def _relu(gi: torch.Tensor, gh: torch.Tensor, _: State, __: bool) -> State:
    return (torch.relu(gi + gh),)


def _gru(gi: torch.Tensor, gh: torch.Tensor, state: State, _: bool) -> State:
    (i_r, i_z, i_n), (h_r, h_z, h_n) = gi.chunk(3, -1), gh.chunk(3, -1)
    r, z = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    n = torch.tanh(i_n + r * h_n)
    return ((1 - z) * n + z * state[0],)


def _lstm(gi: torch.Tensor, gh: torch.Tensor, state: State, through: bool) -> State:
    i, f, g, o = (gi + gh).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c.detach() if through else c), c


CELLS: dict[str, Callable[[torch.Tensor, torch.Tensor, State, bool], State]] = {
    "rnn_tanh": _tanh,
    "rnn_relu": _relu,
    "gru": _gru,
    "lstm": _lstm,
}
