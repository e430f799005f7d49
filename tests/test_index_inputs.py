"""Inputs that are indices: whole numbers from the network's door to the layer that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional

import sharedgrad as sg
from sharedgrad import errors
from sharedgrad.layers.layer import Shape
from sharedgrad.parameter import Array
from sharedgrad.uses import Lookup, Uses
from tests.helpers import close, same_bits

INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


class _Rows(sg.Layer):
    """Rows of a table: indices (N, *T) -> (N, *T, D)."""

    index_inputs: ClassVar[tuple[int, ...]] = (0,)

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.weight = sg.Parameter((rows, columns), lambda rng, shape: rng.normal(size=shape), "weight")

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        assert inputs[0].dtype == np.int64
        return self.weight.value[inputs[0]], inputs[0]

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        assert not any(needs)
        axes = {"sample": saved.shape[:1], "token": saved.shape[1:]}
        return (None,), [Lookup(self.weight, saved, upstream, axes)]

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0], self.columns)


class _Seen(sg.Layer):
    """Keeps what it has got."""

    index_inputs: ClassVar[tuple[int, ...]] = (1,)

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        self.got = inputs
        return inputs[0], None

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        return (upstream, None), []

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


def words(dtype: str = "float64", tied: bool = True) -> sg.Network:
    """Words, a hidden layer and scores for each word, from the words' own vectors if ``tied``."""
    rows, out = _Rows(11, 4), sg.Linear(4, 11, bias=False)
    if tied:
        out.tie("weight", rows.weight)
    layers = {"rows": rows, "hidden": sg.Linear(4, 4), "tanh": sg.Tanh(), "out": out}
    return sg.Network(layers, (5,), dtype=dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_indices_of_every_integer_type_arrive_as_int64(dtype: Any) -> None:
    layer = _Seen()
    net = sg.Network({"seen": (layer, "x", "at")}, {"x": (2,), "at": (3,)})
    largest = min(np.iinfo(dtype).max, np.iinfo(np.int64).max)
    given = np.array([[0, 1, largest]], dtype)
    net.forward(np.ones((1, 2)), given)
    x, got = layer.got
    assert (x.dtype, got.dtype) == (np.float32, np.int64)
    assert got.tolist() == [[0, 1, int(largest)]]
    given[:] = 7
    assert got[0, 0] == 0
    assert not np.shares_memory(given, got)


@pytest.mark.parametrize("index", [2**24 + 1, 2**53 + 1, 2**62 + 1, -3])
def test_large_indices_are_not_rounded(index: int) -> None:
    layer = _Seen()
    net = sg.Network({"seen": (layer, "x", "at")}, {"x": (1,), "at": (1,)})
    for given in (np.array([[index]]), [[index]], torch.tensor([[index]])):
        for run in (net.forward, net.predict):
            run([[1.0]], at=given)
            assert layer.got[1].tolist() == [[index]]
    single, _ = net.forward([1.0], [index])
    assert single.shape == (1,)
    assert layer.got[1].tolist() == [[index]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0.0, 1.0]], "is read as indices: expected whole numbers of an integer type, got float64 values; pass"),
        (np.ones((1, 2), np.float32), "got float32 values; pass integers, e.g. x.astype(int)"),
        ([[True, False]], "got bool values"),
        ([["a", "b"]], "got text"),
        (np.array([[0, 2**63]], np.uint64), "expected numbers that int64 holds, got 9223372036854775808"),
        ([[0, 2**70]], "got object values"),
        ([[0, 1], [2]], "expected an array of whole numbers, got "),
        (np.empty((0, 2), int), "expected at least one sample of 2, got an array of 0×2; leave out"),
    ],
)
def test_what_is_no_index_is_refused_at_the_door(given: Any, message: str) -> None:
    net = sg.Network({"rows": _Rows(3, 2)}, (2,))
    with pytest.raises(errors.ShapeError) as caught:
        net.forward(given)
    assert str(caught.value).startswith("network input 'input': ")
    assert message in str(caught.value)


def test_indices_come_from_the_networks_inputs() -> None:
    with pytest.raises(errors.ConfigError, match=r"node 'rows': reads 'flat' as indices, which is a node: .*input"):
        sg.Network({"flat": sg.Flatten(), "rows": _Rows(3, 2)}, (2,))
    with pytest.raises(errors.ConfigError, match=r"network input 'input': 'rows' reads it as indices, 'relu' as num"):
        sg.Network({"rows": _Rows(3, 2), "relu": (sg.ReLU(), "input")}, (2,))


@pytest.mark.parametrize("tied", [True, False])
def test_training_with_rows_agrees_with_pytorch(tied: bool) -> None:
    net = words(tied=tied)
    tensors = {name: torch.tensor(value) for name, value in net.state_dict().items()}
    leaves = [tensors[p.name].requires_grad_() for p in net.parameters()]
    if tied:
        tensors["out.weight"] = tensors["rows.weight"]
    mine, theirs = sg.Adam(net.parameters(), lr=0.01), torch.optim.Adam(leaves, lr=0.01)
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, target = rng.integers(0, 11, (6, 5)), rng.integers(0, 11, (6, 5))
        y, tape = net.forward(x)
        upstream = sg.CrossEntropy()(np.moveaxis(y, -1, 1), target)[1]
        hidden = functional.embedding(torch.tensor(x), tensors["rows.weight"])
        hidden = torch.tanh(functional.linear(hidden, tensors["hidden.weight"], tensors["hidden.bias"]))
        scores = functional.linear(hidden, tensors["out.weight"])
        theirs.zero_grad()
        functional.cross_entropy(scores.movedim(-1, 1), torch.tensor(target)).backward()
        gradients = tape.backward(np.moveaxis(upstream, 1, -1), inputs=True)
        assert gradients.inputs == {}
        close(y, scores.detach().numpy())
        for parameter, leaf in zip(net.parameters(), leaves, strict=True):
            close(gradients[parameter], leaf.grad.numpy())
        mine.step(gradients)
        theirs.step()


def test_gradients_of_rows_by_sample() -> None:
    net = words()
    rng = np.random.default_rng(4)
    x = rng.integers(0, 11, (3, 5))
    y, tape = net.forward(x)
    upstream = rng.normal(size=y.shape)
    apart, whole = tape.backward(upstream, by_sample=["rows.weight"]), tape.backward(upstream)
    for n in range(3):
        _, single = net.forward(x[n : n + 1])
        close(apart["out.weight"][n], single.backward(upstream[n : n + 1])["rows.weight"])
    close(apart["rows.weight"].sum(0), whole["rows.weight"])
    close(tape.trace(upstream).gradients()["rows.weight"], whole["rows.weight"])
    clipped, norms = tape.clipped_by_sample(upstream, 1e9)
    close(clipped["rows.weight"], whole["rows.weight"])
    assert (norms > 0).all()


class _Classifier(_Rows):
    """The mean of a sample's rows."""

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        y, saved = super().forward(*inputs, context=context)
        return y.mean(1), saved

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        spread = np.repeat(upstream[:, None] / saved.shape[1], saved.shape[1], 1)
        return super().backward(saved, spread, needs)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (self.columns,)


def test_fit_evaluate_and_predict_take_indices(tmp_path: Path) -> None:
    """A sample is of class 1 if it holds the last of many words: its index would be rounded in float32."""
    last = 2**24 + 1
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 3, (40, 4)), rng.integers(0, 2, 40)
    x[:, 0] = np.where(y == 1, last, last - 1)

    class _Folded(_Classifier):
        def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
            return super().forward(np.where(inputs[0] == last, 4, np.minimum(inputs[0], 3)), context=context)

    def network() -> sg.Network:
        return sg.Network({"rows": _Folded(5, 2)}, (4,))

    once, kept = network(), network()
    sg.fit(once, (x, y), (x, y), epochs=6, batch_size=8, optimizer=sg.Adam(once.parameters(), lr=0.2))
    assert sg.evaluate(once, x, y).accuracy == 1
    assert (once.predict(x, batch_size=7).argmax(1) == y).all()
    optimizer = sg.Adam(kept.parameters(), lr=0.2)
    history = sg.fit(kept, (x, y), (x, y), epochs=6, batch_size=8, optimizer=optimizer, out=tmp_path)
    same_bits(kept.parameter("rows.weight").value, once.parameter("rows.weight").value)
    assert len(history.rows) == 6
