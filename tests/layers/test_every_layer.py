"""Every layer against PyTorch, central differences and the reference loops, over randomly drawn settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.kernels.vectorized import windows
from sharedgrad.uses import SharedWeight
from tests.helpers import Array, close, frozen, same_bits
from tests.layers.settings import CALLS, LAYERS, Setting, all_settings, setting

ALL = list(all_settings())
CHAINS = [(name, seed) for name, seed in ALL if setting(name, seed).chains]
pytestmark = [
    # what PyTorch says of the way it computes "same" where the padding is odd
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


class Result(NamedTuple):
    """One pass through one layer."""

    y: Array
    inputs: list[Array]
    gradients: dict[str, Array]
    uses: list[sg.uses.Uses]


def layer_pass(case: Setting, inputs: list[Array], upstream: Array) -> Result:
    """Forward and backward of a layer on its own."""
    context = sg.Context(case.training).enter(CALLS[0])
    y, saved = case.layer.forward(*inputs, context=context)
    dx, uses = case.layer.backward(saved, upstream, [True] * len(inputs))
    context.commit()
    names = {parameter: name for name, parameter in case.layer.parameters().items()}
    return Result(y, [g for g in dx if g is not None], {names[u.weight]: u.gradient for u in uses}, uses)


def torch_pass(module: nn.Module, inputs: list[Array], upstream: Array) -> Result:
    """The same in PyTorch."""
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = module(*tensors)
    y.backward(torch.tensor(upstream))
    gradients = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    return Result(y.detach().numpy(), [t.grad.numpy() for t in tensors if t.grad is not None], gradients, [])


def drawn(case: Setting, seed: int, dtype: type = np.float64) -> tuple[list[Array], Array]:
    """Read-only inputs and an upstream gradient that differs everywhere."""
    rng = np.random.default_rng(seed)
    inputs = [frozen(case.draw(rng, shape), dtype) for shape in case.shapes]
    return inputs, frozen(rng.normal(size=case.output), dtype)


def test_every_layer_is_in_the_table() -> None:
    names = {name for name in sg.layers.__all__ if issubclass(getattr(sg, name), sg.Layer)} - {"Layer"}
    assert set(LAYERS) == names
    assert len(ALL) > 300
    assert {name for name, _ in CHAINS} >= names - {"Flatten", "Reshape", "Add", "Concat", "GlobalAvgPool"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "seed"), ALL)
def test_agrees_with_pytorch(name: str, seed: int, dtype: type) -> None:
    case = setting(name, seed).to(dtype)
    inputs, upstream = drawn(case, seed, dtype)
    ours, theirs = layer_pass(case, inputs, upstream), torch_pass(case.twin, inputs, upstream)
    assert ours.y.dtype == dtype
    assert {g.dtype for g in (*ours.inputs, *ours.gradients.values())} == {np.dtype(dtype)}
    close(ours.y, theirs.y)
    for mine, other in zip(ours.inputs, theirs.inputs, strict=True):
        close(mine, other)
    assert set(ours.gradients) == set(case.layer.parameters())
    for key, gradient in ours.gradients.items():
        close(gradient, theirs.gradients[key])
    for key, buffer in case.layer.buffers().items():
        close(buffer.value.astype(dtype), case.twin.get_buffer(key).numpy())


@pytest.mark.parametrize(("name", "seed"), [(n, s) for n, s in ALL if setting(n, s).smooth])
def test_agrees_with_central_differences(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    result = layer_pass(case, inputs, upstream)

    def loss(values: Mapping[Any, Array]) -> float:
        for key, parameter in case.layer.parameters().items():
            parameter.value = values[key]
        changed = [values[i] for i in range(len(inputs))]
        y, _ = case.layer.forward(*changed, context=sg.Context(case.training).enter(CALLS[0]))
        return float(np.sum(y * upstream))

    at = {**dict(enumerate(inputs)), **{key: p.value for key, p in case.layer.parameters().items()}}
    check_differences(loss, at, {**dict(enumerate(result.inputs)), **result.gradients}, seed)


def check_differences(loss: Any, at: Mapping[Any, Array], gradients: Mapping[Any, Array], seed: int) -> None:
    """The loss moves as each gradient says, along a random direction and along single elements."""
    rng = np.random.default_rng(seed)
    step = 1e-5
    for key, value in at.items():
        for direction in _directions(rng, value.shape):
            after, before = (loss({**at, key: value + sign * step * direction}) for sign in (1, -1))
            expected = (after - before) / (2 * step)
            actual = float(np.sum(gradients[key] * direction))
            assert actual == pytest.approx(expected, rel=1e-6, abs=1e-6), key


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Array]:
    everywhere = rng.normal(size=shape)
    yield everywhere / np.linalg.norm(everywhere)
    for _ in range(2):
        single = np.zeros(shape)
        single.flat[rng.integers(single.size)] = 1
        yield single


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_agrees_with_the_reference_and_is_the_sum_of_its_contributions(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    fast = layer_pass(case, inputs, upstream)
    case = setting(name, seed)
    with kernels.use("reference"):
        slow = layer_pass(case, inputs, upstream)
        close(fast.y, slow.y)
        for mine, other in zip(fast.inputs, slow.inputs, strict=True):
            close(mine, other)
        for uses in slow.uses:
            single = uses.sum(by=list(uses.axes))
            key = next(k for k, p in case.layer.parameters().items() if p is uses.weight)
            close(fast.gradients[key], single.reshape(-1, *uses.weight.shape).sum(axis=0))
            element = tuple(int(n) for n in np.random.default_rng(seed).integers(0, uses.weight.shape))
            products = SharedWeight([uses]).products(*element)
            assert len(products) == uses.count
            close(products.total()[element], fast.gradients[key][element])
            np.testing.assert_array_equal(products.values.reshape(uses.shape), single[(..., *element)])


class Twice(nn.Module):
    """A dense layer in front, and the module twice: one after the other, or on different inputs, which then meet."""

    def __init__(self, case: Setting, chain: bool) -> None:
        super().__init__()
        self.front = nn.ModuleList(nn.Linear(shape[-1], shape[-1]) for shape in case.shapes).double()
        self.module, self.chain = case.twin, chain

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        half = len(self.front)
        a, b = ([f(x) for f, x in zip(self.front, part, strict=False)] for part in (inputs[:half], inputs[half:]))
        if self.chain:
            return self.module(self.module(*a))
        one, two = self.module(*a), self.module(*b)
        return torch.tanh(one) + two + one


def twice(case: Setting, chain: bool) -> tuple[sg.Network, dict[str, str]]:
    """The same as a network, and the names that its parameters have in :class:`Twice`."""
    count = len(case.shapes)
    graph: dict[str, Any] = {}
    for i in range(count):
        front = sg.Linear(case.shapes[i][-1], case.shapes[i][-1])
        graph[f"front{i}"] = (front, f"a{i}")
        if not chain:
            graph[f"beside{i}"] = (front, f"b{i}")
    graph["one"] = (case.layer, *(f"front{i}" for i in range(count)))
    if chain:
        graph["two"] = case.layer
    else:
        graph["two"] = (case.layer, *(f"beside{i}" for i in range(count)))
        graph |= {"bent": (sg.Tanh(), "one"), "sum": (sg.Add(), "bent", "two", "one")}
    letters = "a" if chain else "ab"
    shapes = {f"{letter}{i}": case.shapes[i][1:] for letter in letters for i in range(count)}
    net = sg.Network(graph, shapes, dtype="float64")
    names = {f"front{i}.{key}": f"front.{i}.{key}" for i in range(count) for key in ("weight", "bias")}
    return net, names | {f"one.{key}": f"module.{key}" for key in case.layer.parameters()}


def check_twice(case: Setting, seed: int, chain: bool) -> None:
    net, names = twice(case, chain)
    twin = Twice(case, chain)
    rng = np.random.default_rng(seed)
    for name, other in names.items():
        if name.startswith("front"):
            value = rng.normal(size=net.parameter(name).shape)
            net.parameter(name).value = value
            twin.get_parameter(other).data = torch.tensor(value)
    inputs = [rng.normal(size=shape) for shape in case.shapes * (1 if chain else 2)]
    y, tape = net.forward(*inputs, training=case.training)
    upstream = rng.normal(size=y.shape)
    gradients = tape.backward(upstream, inputs=True)
    theirs = torch_pass(twin, inputs, upstream)
    close(y, theirs.y)
    assert len(gradients) == len(names)
    for name, other in names.items():
        close(gradients[net.parameter(name)], theirs.gradients[other])
    order = list(net.inputs)
    for name, expected in zip(order, theirs.inputs, strict=True):
        close(gradients.inputs[name], expected)
    for key, buffer in case.layer.buffers().items():
        close(buffer.value.astype(float), case.twin.get_buffer(key).numpy())

    def loss(values: Mapping[Any, Array]) -> float:
        for name in names:
            net.parameter(name).value = values[name]
        net.step = 0  # dropout's masks again
        y, _ = net.forward(*(values[name] for name in order), training=case.training)
        return float(np.sum(y * upstream))

    at = {**dict(zip(order, inputs, strict=True)), **{name: net.parameter(name).value for name in names}}
    if case.smooth:
        named = {name: gradients[net.parameter(name)] for name in names}
        check_differences(loss, at, {**gradients.inputs, **named}, seed)


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_used_twice_side_by_side(name: str, seed: int) -> None:
    check_twice(setting(name, seed), seed, chain=False)


@pytest.mark.parametrize(("name", "seed"), CHAINS)
def test_used_twice_in_a_chain(name: str, seed: int) -> None:
    check_twice(setting(name, seed), seed, chain=True)


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seed in ALL if seed < 4])
def test_backward_again_gives_the_same_bits_and_skips_what_nobody_needs(name: str, seed: int) -> None:
    case = setting(name, seed)
    inputs, upstream = drawn(case, seed)
    _, saved = case.layer.forward(*inputs, context=sg.Context(case.training))
    first, uses = case.layer.backward(saved, upstream, [True] * len(inputs))
    again, uses_again = case.layer.backward(saved, upstream, [True] * len(inputs))
    for a, b in zip(first, again, strict=True):
        assert a is not None
        assert b is not None
        same_bits(a, b)
    skipped, uses_alone = case.layer.backward(saved, upstream, [False] * len(inputs))
    assert len(skipped) == len(inputs)
    if case.layer.parameters() or name.startswith(("Max", "Avg")):
        assert skipped == (None,)
    for a, b, c in zip(uses, uses_again, uses_alone, strict=True):
        same_bits(a.gradient, b.gradient)
        same_bits(a.gradient, c.gradient)


@pytest.mark.parametrize("name", LAYERS)
def test_chunks_of_one_sample_give_what_one_chunk_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        case = setting(name, seed)
        inputs, upstream = drawn(case, seed)
        whole = layer_pass(case, inputs, upstream)
        monkeypatch.setattr(windows, "CHUNK_BYTES", 1)
        cut = layer_pass(setting(name, seed), inputs, upstream)
        monkeypatch.undo()
        for a, b in zip((cut.y, *cut.inputs), (whole.y, *whole.inputs), strict=True):
            close(a, b, 1e-12)
        for key, gradient in cut.gradients.items():
            close(gradient, whole.gradients[key], 1e-12)
