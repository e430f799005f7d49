"""Recurrent modules and cells: their steps add up to what autograd deposits, and apart they are autograd's too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import sharedgrad as sg
from sharedgrad.errors import ConfigError
from tests.tracing.cases import Of, scrambled

N, T, INPUT, H = 3, 5, 3, 4
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm with a projection": (nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}
SHAPES: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers both ways": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "three layers with dropout": {"num_layers": 3, "dropout": 0.4, "bias": False},
}


def made(kind: str, dtype: torch.dtype = torch.float64, **more: Any) -> nn.RNNBase:
    cls, settings = KINDS[kind]
    return scrambled(cls(INPUT, H, **settings, **more)).to(dtype)


def weighted(values: Any, seed: int = 7) -> torch.Tensor:
    """A sum of all tensors in nested tuples, with weights that are not uniform."""
    if isinstance(values, torch.Tensor):
        rng = torch.Generator().manual_seed(seed)
        return (values * torch.randn(values.shape, generator=rng, dtype=torch.float64).to(values.dtype)).sum()
    return sum((weighted(v, seed + i) for i, v in enumerate(values)), torch.zeros(()))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_add_up_to_what_autograd_deposits(kind: str, shape: str, dtype: torch.dtype) -> None:
    """And the caller's outputs, gradients and random numbers are what they are without a trace."""
    torch.manual_seed(1)
    model = made(kind, dtype, **SHAPES[shape])
    first = model.batch_first
    x = torch.randn(*((N, T) if first else (T, N)), INPUT, dtype=dtype)
    state = torch.get_rng_state()
    plain = model(x)
    weighted(plain).backward()
    grads, after = {n: p.grad for n, p in model.named_parameters()}, torch.get_rng_state()
    for keep in ("factors", ["norm:sample,time", "share:time"]):
        model.zero_grad()
        torch.set_rng_state(state)
        with sg.trace(model, batch_axis=0 if first else 1, keep=keep) as t:
            y = model(x)
            weighted(y).backward()
        assert torch.equal(y[0], plain[0])
        assert torch.equal(torch.get_rng_state(), after)
        assert not t.other
        for name, p in model.named_parameters():
            u = t[name]
            assert torch.equal(p.grad, grads[name])
            assert u.residual <= TOLERANCE[dtype]
            assert u.axes == {"sample": (N,), "time": (T,)}
            assert u.norm(("sample", "time")).shape == (N, T)
            assert abs(np.sum(np.asarray(u.share("time"))) - 1) < (1e-9 if dtype == torch.float64 else 1e-3)


def _by_hand(model: nn.GRU, x: torch.Tensor, biases: list[torch.Tensor]) -> torch.Tensor:
    """A GRU with a bias of its own at every step."""
    h, outputs = torch.zeros(len(x), H, dtype=x.dtype), []
    for t in range(x.shape[1]):
        gi = x[:, t] @ model.weight_ih_l0.T + model.bias_ih_l0
        gh = h @ model.weight_hh_l0.T + biases[t]
        (i_r, i_z, i_n), (h_r, h_z, h_n) = gi.chunk(3, -1), gh.chunk(3, -1)
        r, z = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
        h = (1 - z) * torch.tanh(i_n + r * h_n) + z * h
        outputs.append(h)
    return torch.stack(outputs, 1)


def test_a_steps_part_is_autograds_gradient_of_that_step() -> None:
    """The steps written out, each with a bias that is a tensor of its own."""
    torch.manual_seed(2)
    model, x = made("gru", batch_first=True), torch.randn(N, T, INPUT, dtype=torch.float64)
    biases = [model.bias_hh_l0.detach().clone().requires_grad_() for _ in range(T)]
    weighted(_by_hand(model, x, biases)).backward()
    with sg.trace(model) as t:
        weighted(model(x)[0]).backward()
    for step, bias in enumerate(biases):
        torch.testing.assert_close(t["bias_hh_l0"].sum("time")[step], bias.grad)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_sequences_of_several_lengths(kind: str) -> None:
    """Sorted or not, a sample's part is what it has alone; behind its end it has none. Also with dropout between."""
    torch.manual_seed(3)
    lengths = [2, 5, 3]
    rnn = made(kind, num_layers=2, bidirectional=True, batch_first=True)

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, h = m.rnn(packed)
        return pad_packed_sequence(y, batch_first=True)[0], h

    model, x = Of(run, rnn=rnn), torch.randn(N, T, INPUT, dtype=torch.float64)
    upstream = torch.randn(N, T, 2 * H, dtype=torch.float64)
    with sg.trace(model) as t:
        y, _ = model(x)
        (y * upstream).sum().backward()
    apart = t.per_sample("sum")
    for n, length in enumerate(lengths):
        rnn.zero_grad()
        (rnn(x[n : n + 1, :length])[0] * upstream[n : n + 1, :length]).sum().backward()
        for name, p in rnn.named_parameters():
            torch.testing.assert_close(apart[f"rnn.{name}"][n], p.grad)
            norms = np.asarray(t[f"rnn.{name}"].norm(("sample", "time")))[n]
            assert (norms[length:] == 0).all()
    rnn.dropout = 0.5
    with sg.trace(model, strict=True) as t:
        weighted(model(x)).backward()


def test_packed_sequences_given_to_the_model() -> None:
    torch.manual_seed(4)
    rnn = made("gru")
    sequences = [torch.randn(n, INPUT, dtype=torch.float64) for n in (2, 4, 3)]
    for enforced, packed in (
        (False, pack_sequence(sequences, enforce_sorted=False)),
        (True, pack_sequence(sorted(sequences, key=len, reverse=True))),
    ):
        with sg.trace(rnn) as t:
            weighted(rnn(packed)[1]).backward()
        assert t["weight_ih_l0"].certified
        assert t["weight_ih_l0"].axes == {"sample": (3,), "time": (4,)}
        steps = (np.asarray(t["bias_ih_l0"].norm(("sample", "time"))) > 0).sum(1)
        assert steps.tolist() == ([4, 3, 2] if enforced else [2, 4, 3])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("kind", "used"),
    [("LSTMCell", "hc"), ("LSTMCell", "h"), ("LSTMCell", "c"), ("GRUCell", "h"), ("RNNCell", "h")],
)
def test_cells(kind: str, used: str, dtype: torch.dtype) -> None:
    """A call for each step; c of an LSTM's cell has a gradient of its own, and one through h."""
    torch.manual_seed(5)

    def run(m: Any, x: torch.Tensor) -> list[torch.Tensor]:
        state, seen = None, []
        for step in x.unbind(1):
            state = m.cell(step, state)
            both = state if isinstance(state, tuple) else (state,)
            seen += [both["hc".index(name)] for name in used]
        return seen

    model = Of(run, cell=scrambled(getattr(nn, kind)(INPUT, H))).to(dtype)
    with sg.trace(model, strict=True) as t:
        weighted(model(torch.randn(N, T, INPUT, dtype=dtype))).backward()
    for name in ("cell.weight_ih", "cell.weight_hh", "cell.bias_ih", "cell.bias_hh"):
        u = t[name]
        assert len(u.calls) == T
        assert u.residual <= TOLERANCE[dtype]
        assert u.axes == {"sample": (N,)}
        assert len(u.norm(("call", "sample"))) == T


def test_a_sequence_without_a_batch_and_states_given() -> None:
    torch.manual_seed(6)
    for kind in KINDS:
        model = made(kind)
        size = model.proj_size or H
        h = torch.randn(1, size, dtype=torch.float64)
        states = (h, torch.randn(1, H, dtype=torch.float64)) if isinstance(model, nn.LSTM) else h
        with sg.trace(model, batch_axis=None, strict=True) as t:
            weighted(model(torch.randn(T, INPUT, dtype=torch.float64), states)).backward()
        assert t["weight_hh_l0"].axes == {"row": (1,), "time": (T,)}
        assert t["weight_hh_l0"].norm("time")[0] > 0


def test_states_carried_across_passes_and_a_loss_on_the_last_state_alone() -> None:
    torch.manual_seed(7)
    model, states = made("lstm", batch_first=True), None
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with sg.trace(model) as t:
        for _ in range(2):
            _, states = model(torch.randn(N, T, INPUT, dtype=torch.float64), states)
            weighted(states[0]).backward()
            optimizer.step()
            states = tuple(s.detach() for s in states)
    assert all(one.certified(name) for one in t.passes for name in one)
    assert len(t.total["weight_hh_l0"].calls) == 2


def test_two_passes_through_one_graph_and_a_layer_used_twice() -> None:
    torch.manual_seed(8)
    rnn = scrambled(nn.GRU(H, H, batch_first=True)).double()
    model = Of(lambda m, x: m.rnn(m.rnn(x)[0]), rnn=rnn)
    with sg.trace(model) as t:
        y, h = model(torch.randn(N, T, H, dtype=torch.float64))
        weighted(y).backward(retain_graph=True)
        weighted(h).backward()
    for one in t.passes:
        assert one.certified("rnn.weight_hh_l0")
        assert len(one["rnn.weight_hh_l0"].calls) == 2


def test_frozen_weights_and_time_taken_for_samples() -> None:
    torch.manual_seed(9)
    model = made("tanh")
    model.weight_ih_l0.requires_grad_(False)
    with sg.trace(model) as t:  # the first axis of the input is time
        weighted(model(torch.randn(T, N, INPUT, dtype=torch.float64))[0]).backward()
    assert set(t.passes[0]) == {"weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert t["weight_hh_l0"].axes == {"row": (N,), "time": (T,)}
    with pytest.raises(ConfigError, match="samples depend on one another: recurrence over the samples"):
        t.per_sample()


def test_autocast_computes_in_bfloat16() -> None:
    torch.manual_seed(10)
    for kind in ("gru", "tanh"):  # oneDNN's LSTM has no bfloat16 on every processor
        model = made(kind, torch.float32, num_layers=2, batch_first=True)
        with sg.trace(model) as t:
            with torch.autocast("cpu", torch.bfloat16):
                y, _ = model(torch.randn(N, T, INPUT))
            weighted(y.float()).backward()
        for name in t.passes[0]:
            assert t[name].certified
            assert t[name].certificate.tolerance == 2**-6


def test_a_spoilt_step_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharedgrad.tracing import steps

    def spoilt(gi: Any, gh: Any, state: Any, through: bool) -> Any:
        return steps._gru(gi, gh * 1.01, state, through)

    monkeypatch.setitem(steps.CELLS, "gru", spoilt)
    model = made("gru", batch_first=True)
    with sg.trace(model) as t:
        weighted(model(torch.randn(N, T, INPUT, dtype=torch.float64))[0]).backward()
    assert set(t.other) == {name for name, _ in model.named_parameters()}
