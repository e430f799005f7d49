"""The four kinds of uses: the gradient, its partial sums, its single terms, and what one use alone would give."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad import Parameter, kernel_uses, kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.uses import Direct, Lookup, Outer, Uses, Window, typed
from tests.helpers import Array, close, numbers, sliding

Rng = np.random.Generator


def parameter(*shape: int) -> Parameter:
    return Parameter(shape, lambda rng, s: rng.normal(size=s), "w", np.float64)


def outer(rng: Rng) -> Outer:
    blocks, outputs, inputs, samples, *tokens = numbers(rng, 1, 4, int(rng.integers(4, 7)))
    axes = {"sample": (samples,), **({"token": tuple(tokens)} if tokens else {})}
    lead = (samples, *tokens, blocks)
    delta, patch = rng.normal(size=(*lead, outputs)), rng.normal(size=(*lead, inputs))
    return Outer(parameter(blocks, outputs, inputs), delta, patch, axes)


def window(rng: Rng, rank: int = 0) -> Window:
    rank = rank or int(rng.integers(1, 4))
    sliding_window = sliding(rng, rank, spare=2)
    groups, inside, outside = numbers(rng, 1, 3, 3)
    g = sliding_window.geometry(groups)
    samples = int(rng.integers(1, 4))
    small = rng.normal(size=(samples, groups * outside, *g.output(sliding_window.spatial)))
    big = rng.normal(size=(samples, groups * inside, *sliding_window.spatial))
    return Window(parameter(groups * outside, inside, *g.kernel), small, big, g)


def direct(rng: Rng) -> Direct:
    shape, (samples, height, width) = numbers(rng, 1, 4, int(rng.integers(0, 3))), numbers(rng, 1, 4, 3)
    delta = rng.normal(size=(samples, height, width, *shape))
    return Direct(parameter(*shape), delta, {"sample": (samples,), "position": (height, width)})


def lookup(rng: Rng) -> Lookup:
    rows, width, samples, tokens = numbers(rng, 2, 5, 4)
    index = rng.integers(0, rows, (samples, tokens + 2))
    axes = {"sample": (samples,), "token": (tokens + 2,)}
    return Lookup(parameter(rows, width), index, rng.normal(size=(*index.shape, width)), axes)


KINDS: dict[str, Callable[[Rng], Uses]] = {"outer": outer, "window": window, "direct": direct, "lookup": lookup}


def named(u: Uses, index: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """An index over all use axes as keyword arguments."""
    use, start = {}, 0
    for name, lengths in u.axes.items():
        use[name] = index[start : start + len(lengths)]
        start += len(lengths)
    return use


def contributions(u: Uses) -> Array:
    """The single contributions, one call each: (*uses, *parameter)."""
    single = [u.contribution(**named(u, index)) for index in np.ndindex(*u.shape)]
    return np.array(single).reshape(*u.shape, *u.weight.shape)


@pytest.mark.parametrize("chosen", ["vectorized", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_the_gradient_is_the_sum_of_the_contributions(kind: str, seed: int, chosen: Any) -> None:
    u = KINDS[kind](np.random.default_rng(seed))
    with kernels.use(chosen):
        single = contributions(u)
        assert u.count == np.prod(u.shape)
        close(u.gradient, single.sum(axis=tuple(range(len(u.shape)))))
        for length in range(len(u.axes) + 1):
            for by in combinations(u.axes, length):
                close(u.sum(by), summed(u, single, by))
                close(u.sum(by[::-1]), summed(u, single, by))
        for element in np.ndindex(*u.weight.shape):
            terms = u.products(*element)
            apart = np.zeros(u.shape)
            apart[tuple(np.concatenate(list(terms.use.values()), -1).T)] = terms.values
            close(apart, single[(..., *element)])
            close(terms.total()[element], single.sum(axis=tuple(range(len(u.shape))))[element])


def summed(u: Uses, single: Array, by: tuple[str, ...]) -> Array:
    """The contributions added over every axis that is not in ``by``."""
    gone, start = [], 0
    for name, lengths in u.axes.items():
        if name not in by:
            gone += range(start, start + len(lengths))
        start += len(lengths)
    return single.sum(axis=tuple(gone))


@pytest.mark.parametrize("kind", KINDS)
def test_one_axis_may_be_given_as_a_plain_name_or_number(kind: str) -> None:
    u = KINDS[kind](np.random.default_rng(1))
    close(u.sum(by="sample"), u.sum(by=["sample"]))
    first = named(u, (0,) * len(u.shape))
    for number in (0, np.int64(0)):
        close(u.contribution(**{**first, "sample": number}), u.contribution(**first))


@pytest.mark.parametrize("kind", ["outer", "window"])
@pytest.mark.parametrize("seed", range(6))
def test_a_contribution_is_the_outer_product_of_its_factors(kind: str, seed: int) -> None:
    u = KINDS[kind](np.random.default_rng(seed))
    for index in np.ndindex(*u.shape):
        delta, patch = u.factors(**named(u, index))
        assert len(delta) == len(patch)  # one pair for each block
        product = np.stack([np.outer(d, p) for d, p in zip(delta, patch, strict=True)])
        close(product.reshape(u.weight.shape), u.contribution(**named(u, index)))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_contribution_of_a_window_is_pytorchs_gradient_of_that_use_alone(rank: int, seed: int) -> None:
    """With the upstream gradient zero but at one sample and position."""
    u = window(np.random.default_rng(seed), rank)
    g = u.geometry
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[rank - 1]
    w = torch.tensor(u.weight.value, requires_grad=True)
    padded = torch.tensor(np.pad(u.big, ((0, 0), (0, 0), *g.padding)))
    y = convolve(padded, w, None, g.stride, 0, g.dilation, g.groups)
    for n, *position in np.ndindex(*u.shape):
        alone = torch.zeros_like(y)
        here = (n, slice(None), *position)
        alone[here] = torch.tensor(u.small[here])
        (gradient,) = torch.autograd.grad(y, w, alone, retain_graph=True)
        close(u.contribution(sample=n, position=position), gradient.numpy())


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_padded_layers_uses_are_pytorchs_gradients_sample_by_sample(mode: str, groups: int) -> None:
    rng = np.random.default_rng(groups)
    layer = sg.Conv2d(4, 8, (3, 2), (1, 2), (2, 1), (2, 1), groups, padding_mode=mode)
    net = sg.Network([layer], (4, 6, 5), dtype="float64")
    twin = torch.nn.Conv2d(4, 8, (3, 2), (1, 2), (2, 1), (2, 1), groups, padding_mode=mode).double()
    twin.load_state_dict({name[2:]: torch.tensor(value) for name, value in net.state_dict().items()})
    x = rng.normal(size=(3, 4, 6, 5))
    y, tape = net.forward(x)
    upstream = rng.normal(size=y.shape)
    trace = tape.trace(upstream)
    (kernel,), (bias,) = trace[layer.weight].calls, trace[layer.bias].calls
    for n in range(3):
        twin.zero_grad()
        twin(torch.tensor(x[n : n + 1])).backward(torch.tensor(upstream[n : n + 1]))
        close(kernel.sum(by="sample")[n], twin.weight.grad.numpy())
        close(bias.sum(by="sample")[n], twin.bias.grad.numpy())
    close(trace.gradients()[layer.weight], contributions(kernel).sum(axis=(0, 1, 2)))


@pytest.mark.parametrize("seed", range(10))
def test_a_row_that_is_read_again_adds_as_in_pytorchs_embedding(seed: int) -> None:
    u = lookup(np.random.default_rng(seed))
    table = torch.tensor(u.weight.value, requires_grad=True)
    torch.nn.functional.embedding(torch.tensor(u.index), table).backward(torch.tensor(u.delta))
    close(u.gradient, table.grad.numpy())
    assert max(np.unique(u.index, return_counts=True)[1]) > 1
    for n in range(len(u.index)):
        table.grad = None
        torch.nn.functional.embedding(torch.tensor(u.index[n]), table).backward(torch.tensor(u.delta[n]))
        close(u.sum(by="sample")[n], table.grad.numpy())


def test_what_is_handed_out_is_a_copy() -> None:
    for draw in KINDS.values():
        u = draw(np.random.default_rng(0))
        before = u.gradient
        first = named(u, (0,) * len(u.shape))
        for array in (*u.factors(**first), u.contribution(**first), u.sum(), u.sum(by=tuple(u.axes))):
            array[...] = 99
        close(u.gradient, before)


SMALL = Outer(parameter(2, 3), np.ones((4, 5, 1, 2)), np.ones((4, 5, 1, 3)), {"sample": (4,), "token": (5,)})


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ({"sample": 0}, "uses of w: expected token=0 to 4, got token=None"),
        ({"sample": 4, "token": 0}, "expected sample=0 to 3, got sample=4"),
        ({"sample": -1, "token": 0}, "expected sample=0 to 3, got sample=-1"),
        ({"sample": 1.0, "token": 0}, r"expected sample=0 to 3, got sample=1\.0"),
        ({"sample": "1", "token": 0}, "expected sample=0 to 3, got sample='1'"),
        ({"sample": None, "token": 0}, "expected sample=0 to 3, got sample=None"),
        ({"sample": (0, 0), "token": 0}, r"expected sample=0 to 3, got sample=\(0, 0\)"),
        ({"sample": 0, "token": 0, "time": 1}, "there is no axis time"),
    ],
)
def test_a_use_that_does_not_exist_is_refused(use: dict[str, Any], message: str) -> None:
    for ask in (SMALL.factors, SMALL.contribution):
        with pytest.raises(ConfigError, match=message):
            ask(**use)


@pytest.mark.parametrize("by", ["position", ["sample", "position"]])
def test_an_unknown_axis_is_refused_with_those_there_are(by: Any) -> None:
    with pytest.raises(ConfigError, match="uses of w: there is no axis 'position'; choose from sample, token"):
        SMALL.sum(by=by)


@pytest.mark.parametrize("element", [(), (0,), (2, 0), (0, 3), (0, -4), (0, 0, 0), (0.5, 0)])
def test_an_unknown_element_is_refused(element: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"uses of w: no element \(.* in shape \(2, 3\)"):
        SMALL.products(*element)


# ---- as a person types it


def test_the_example_of_the_docstring() -> None:
    assert doctest.testmod(typed) == doctest.TestResults(failed=0, attempted=3)


def test_the_smallest_sum_is_printed_with_its_terms() -> None:
    u = kernel_uses([1, 2, 3], w=[0.3, 0.5], upstream=[-0.1, 0.2])
    assert str(u) == (
        "position 0  -0.1 × [1, 2] = [-0.1, -0.2]\n"
        "position 1  0.2 × [2, 3]  = [0.4, 0.6]\n"
        "gradient of w             = [0.3, 0.4]"
    )
    assert repr(u) == "SharedWeight(w 1×1×2: 2 uses, sample 1, position 2)"
    close(u.gradient, [[[0.3, 0.4]]])
    close(u.products(0, 0, 1).values, [-0.2, 0.6])


def test_an_image_is_printed_with_rows_and_columns() -> None:
    u = kernel_uses([[1, 2, 3], [4, 5, 6]], [[1, 0], [0, 1]], [[0.5, -1]])
    assert str(u) == (
        "position 0,0  0.5 × [1, 2, 4, 5] = [[0.5, 1], [2, 2.5]]\n"
        "position 0,1  -1 × [2, 3, 5, 6]  = [[-2, -3], [-5, -6]]\n"
        "gradient of w                    = [[-1.5, -2], [-3, -3.5]]"
    )


def test_rows_wider_than_a_terminal_are_printed_part_by_part() -> None:
    text = str(kernel_uses(np.arange(16).reshape(4, 4) / 7, np.ones((3, 3)), np.ones((2, 2))))
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("position 0,0\n  1 × [0, 0.142857, 0.285714, 0.571429, ")
    assert "\ngradient of w\n  = [[1.42857, 2, 2.57143], " in text


def test_a_long_sum_is_not_printed_term_by_term() -> None:
    u = kernel_uses(np.ones(300), np.ones(2), np.ones(299))
    assert str(u) == repr(u) == "SharedWeight(w 1×1×2: 299 uses, sample 1, position 299)"


def test_stride_padding_and_dilation_are_taken() -> None:
    """The windows are (0, 2) and (2, 4) of 0 1 2 3 4 0."""
    u = kernel_uses([1, 2, 3, 4], [1, 1], [10, 100], stride=2, padding=1, dilation=2)
    close(u.products(0, 0, 0).values, [10 * 0, 100 * 2])
    close(u.gradient, [[[10 * 0 + 100 * 2, 10 * 2 + 100 * 4]]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [[1]], [1]), "kernel_uses: expected the same number of axes everywhere, got x 1, w 2, upstream 1"),
        ((1, 2, 3), "expected the same number of axes everywhere, got x 0, w 0, upstream 0"),
        (([1, 2, 3], [1, 1], [1]), "kernel_uses: upstream: expected shape 2, got 1"),
        (([1, 2], [1, 1, 1], [1]), "kernel_uses: a window of 3 does not fit into the padded input of 2"),
        (([1, "a"], [1], [1, 1]), "kernel_uses: expected an array of numbers, got text"),
        (([[1, 2], [3]], [[1]], [[1]]), "kernel_uses: expected an array of numbers, got parts of different shapes"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        kernel_uses(*arguments)


def test_an_empty_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="kernel_uses: kernel_size: expected a whole number of at least 1"):
        kernel_uses([1, 2], [], [1])
