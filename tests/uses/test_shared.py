"""One shared weight: its elements and filters, the terms of its gradient, the largest parts, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.geometry import Geometry
from sharedgrad.uses import Direct, Lookup, Outer, SharedWeight, View, Window
from tests.helpers import close
from tests.uses.kinds import KINDS, Draw, Materialized, contributions, plain, weight
from tests.uses.test_closed_forms import check, shared

TOKENS = {"sample": (3,), "token": (2,)}


# ---- elements, filters, terms


@pytest.mark.parametrize("chosen", ["vectorized", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_products_of_an_element_multiply_out_and_add_to_the_gradient(kind: str, chosen: Any) -> None:
    u = shared(kind)
    with kernels.use(chosen):
        known = [contributions(call) for call in u.calls]
        gradient = u.gradient
    for element in np.ndindex(*u.shape):
        terms = u.products(*element)
        values = np.ones(len(terms))
        for factor in terms.factors.values():
            values *= factor.values
        close(terms.values, values)
        close(terms.total()[element], gradient[element])
        for number, (call, single) in enumerate(zip(u.calls, known, strict=True)):
            mine = terms.rows(terms.call == number)
            apart = np.zeros(call.shape)
            places = [mine.use[name][:, : len(lengths)] for name, lengths in call.axes.items()]
            if places:
                apart[tuple(np.concatenate(places, -1).T)] = mine.values
            else:
                apart += mine.values.sum()
            close(apart, single[(..., *element)])


@pytest.mark.parametrize(("library", "dtype"), [("numpy", "float64"), ("torch", "float32"), ("torch", "bfloat16")])
@pytest.mark.parametrize("kind", KINDS)
def test_an_element_and_a_filter_answer_the_same_questions(kind: str, library: str, dtype: str) -> None:
    u = shared(kind, library, dtype)
    singles = [contributions(call) for call in u.calls]
    last, rounding = tuple(n - 1 for n in u.shape), 1e-2 if dtype == "bfloat16" else 1e-5
    entry = u.entry(*last)
    assert (entry.name, entry.shape) == (f"w[{', '.join(map(str, last))}]", ())
    for call, single in zip(entry.calls, singles, strict=True):
        np.testing.assert_allclose(
            contributions(call), single[(..., *last)], rtol=1e-2 if dtype == "bfloat16" else 1e-6
        )
    check(entry, dtype)
    for index in range(u.shape[0] if u.shape else 0):
        part = u.filter(index)
        assert (part.name, part.shape) == (f"w[{index}]", u.shape[1:])
        np.testing.assert_array_equal(part.weight.value, u.weight.value[index])
        for call, single in zip(part.calls, singles, strict=True):
            at = single[(slice(None),) * len(call.shape) + (index,)]
            np.testing.assert_allclose(contributions(call), at, rounding, 1e-6)
        check(part, dtype)
    if u.shape:
        assert u.filter(-1).name == f"w[{u.shape[0] - 1}]"


def test_a_transposed_convolution_has_its_windows_as_upstream_gradients() -> None:
    """Compared with PyTorch: conv_transpose2d's weight gradient is the sum of x ⊗ window of dy."""
    rng = np.random.default_rng(3)
    w = weight(4, 3, 3, 2)
    x, y = rng.normal(size=(2, 4, 3, 4)), torch.tensor(w.value, requires_grad=True)
    out = torch.nn.functional.conv_transpose2d(torch.tensor(x), y, None, (2, 1), (1, 0), groups=2)
    dy = rng.normal(size=tuple(out.shape))
    out.backward(torch.tensor(dy))
    g = Geometry((3, 2), (2, 1), ((1, 1), (0, 0)), (1, 1), 2)
    u = Window(w, x, dy, g, upstream="big")
    close(u.gradient, y.grad.numpy())
    delta, patch = u.factors(sample=1, position=(2, 3))
    close(patch, x[1, :, 2, 3].reshape(2, 2))
    padded = np.pad(dy, ((0, 0), (0, 0), (1, 1), (0, 0)))
    close(delta, padded[1, :, 4:7, 3:5].reshape(2, -1))
    assert list(u.products(0, 0, 0, 0).factors) == ["dy", "x"]
    assert u.products(0, 0, 0, 0).factors["dy"].array.shape == dy.shape


# ---- the largest parts


def test_the_largest_parts_say_where_they_are() -> None:
    u = shared("embedding and head")
    shares = u.share(("call", "sample", "token"))
    for sign, order in ((1, np.argsort(-shares.ravel())), (-1, np.argsort(shares.ravel()))):
        found = u.top(3, sign=sign)
        assert [part.value for part in found] == [float(shares.ravel()[i]) for i in order[:3]]
        for part in found:
            assert shares[(part.call, *part.use["sample"], *part.use["token"])] == part.value
            assert u.contribution(part.call, **part.use).shape == u.shape
    norms = u.norm("sample")
    (largest,) = u.top(1, by="sample", key="norm")
    assert largest == (None, {"sample": (int(norms.argmax()),)}, norms.max())
    assert len(u.top(1000, by="token")) == u.axes["token"][0]
    assert [p.value for p in u.top(9, sign=0)] == sorted([p.value for p in u.top(9, sign=0)], key=lambda v: -abs(v))


def test_the_largest_parts_of_calls_with_other_lengths() -> None:
    u = shared("other lengths")
    norms = [call.squares() for call in u.calls[:2]]
    u = SharedWeight(u.calls[:2])
    for part in u.top(30, key="norm"):
        assert part.call is not None
        place = (*part.use["sample"], *part.use["token"])
        close(np.array(part.value), np.sqrt(norms[part.call][place]))


# ---- zero up to rounding


def test_where_uses_cancel_shares_are_undefined_and_the_reason_is_said() -> None:
    u = shared("zero")
    assert u.zero_up_to_rounding
    assert u.undefined == "zero up to rounding"
    assert np.isnan(u.share("sample")).all()
    assert (np.isnan(u.coherence().value), u.coherence().reason) == (True, "zero up to rounding")
    assert u.cancellation().value == 1
    with pytest.raises(ConfigError, match="shares are undefined: the gradient is zero up to rounding; use key='norm'"):
        u.top(1)
    assert len(u.top(1, key="norm")) == 1
    assert shared("outer").undefined == ""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bias_before_batch_normalization_has_no_gradient_but_rounding(dtype: Any) -> None:
    net = sg.Network([sg.Conv2d(2, 3, 3), sg.BatchNorm2d(3), sg.ReLU()], (2, 6, 6), dtype=dtype, seed=1)
    rng = np.random.default_rng(0)
    y, tape = net.forward(rng.normal(size=(8, 2, 6, 6)), training=True)
    trace = tape.trace(rng.normal(size=y.shape))
    assert trace["0.bias"].zero_up_to_rounding
    assert not trace["0.weight"].zero_up_to_rounding
    delta, local = trace["1.weight"].factors(sample=3, position=(1, 2))
    close(delta * local, trace["1.weight"].contribution(sample=3, position=(1, 2)))


# ---- what is refused


OTHER = shared("other lengths")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: SharedWeight(OTHER.calls[::2]).sum("token"),
            r"call 1 \(3 uses, sample 3\) has no axis 'token'; choose from call, sample",
        ),
        (lambda: SharedWeight(OTHER.calls[:2]).sum("token"), "axis 'token' differs between calls: 5 and 2; keep the"),
        (lambda: SharedWeight(OTHER.calls[:2]).inner(("call", "token")), "axis 'token' differs between calls: 5 and 2"),
        (lambda: OTHER.sum("time"), "uses of w: there is no axis 'time'; choose from sample, token"),
        (lambda: OTHER.contribution(3, sample=0), "expected call=0 to 2, got call=3"),
        (lambda: OTHER.filter(4), r"no index 4 on the first axis of shape \(4, 3\)"),
        (lambda: OTHER.entry(1), r"no element \(1,\) in shape \(4, 3\)"),
        (lambda: OTHER.top(key="size"), "top: expected key='share' or 'norm' and sign=1, 0 or -1, got key='size'"),
        (lambda: OTHER.top(-1), "top: expected how many parts, got -1; top\\(10\\)"),
        (lambda: OTHER.top("a"), "top: expected how many parts, got 'a'"),
        (lambda: SharedWeight([]), "expected the uses of at least one call, got none"),
        (lambda: SharedWeight([*OTHER.calls, *shared("lookup").calls]), "expected uses of one weight"),
        (lambda: sg.uses.set_memory_limit(0), "set_memory_limit: expected a positive number of bytes, got 0"),
    ],
)
def test_what_cannot_be_answered_is_refused(ask: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ask()


def test_calls_with_other_lengths_are_one_array_each() -> None:
    u = SharedWeight(OTHER.calls[:2])
    for ask in (u.sum, u.norm, u.share):
        found = ask(("call", "token"))
        assert [a.shape[0] for a in found] == [5, 2]
    assert u.norm("call").shape == (2,)
    assert u.sum(("call", "sample")).shape == (2, 3, 4, 3)


def test_whole_tables_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    u = shared("lookup")
    known = Materialized(u)
    monkeypatch.setattr("sharedgrad.uses.limits._limit", 200)
    with pytest.raises(ConfigError, match=r"whole tables take 0 MiB, .*; ask for rows\(by\), norm or share"):
        u.sum("sample")
    (call,) = u.calls
    assert isinstance(call, Lookup)
    with pytest.raises(ConfigError, match="whole tables take"):
        call.sum("sample")
    for rows in (call.rows("sample"), u.rows("sample")):
        table = np.zeros((call.axes["sample"][0], *u.shape))
        table[rows.group, rows.row] = rows.values
        close(table, known.sums(("sample",))[0])
        assert len(rows.row) == len(set(zip(rows.group, rows.row, strict=True)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("by", [(), ("sample",), ("token", "sample"), ("call",), ("call", "token")])
def test_sums_of_lookups_are_sparse_by_row(by: tuple[str, ...], library: str) -> None:
    u = shared("tied lookups", library)
    rows, sums = u.rows(by), plain(u.sum(by))
    assert isinstance(rows.values, torch.Tensor) == (library == "torch")
    table = np.zeros((sums.size // np.prod(u.shape, dtype=int), *u.shape))
    table[rows.group, rows.row] = plain(rows.values)
    close(table.reshape(sums.shape), sums)
    with pytest.raises(ConfigError, match="sums are sparse by row only where all calls look rows up"):
        shared("embedding and head", library).rows("sample")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: Outer(weight(3, 4), d(3, 2, 1, 3), d(3, 2, 1, 5), TOKENS), "expected the blocks of a weight of 3×4"),
        (
            lambda d: Outer(weight(3, 4), d(3, 1, 3), d(3, 1, 4), TOKENS),
            "expected factors of 4 axes",
        ),
        (lambda d: Direct(weight(3), d(3, 2, 4), TOKENS), "expected contributions of shape 3, got 4"),
        (
            lambda d: Lookup(weight(4, 3), np.full((3, 2), 4), d(3, 2, 3), TOKENS),
            "expected rows from 0 to 3, got 4",
        ),
        (lambda d: Lookup(weight(4), d.index(4, 3, 2), d(3, 2, 3), TOKENS), r"expected a table \(V, D\), got 4"),
    ],
)
def test_factors_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make(Draw(0))


# ---- tensors


def test_tensors_are_looked_at_without_a_copy_and_answers_are_tensors() -> None:
    delta, patch = torch.randn(3, 2, 1, 3, requires_grad=True), torch.randn(3, 2, 1, 4)
    u = Outer(weight(3, 4), delta, patch, TOKENS)
    assert isinstance(u.delta, np.ndarray)
    assert np.shares_memory(u.delta, delta.detach().numpy())
    shared_weight = SharedWeight([u])
    for answer in (u.sum("sample"), u.squares(), u.projection(u.gradient), shared_weight.norm("sample")):
        assert isinstance(answer, torch.Tensor)
        assert not answer.requires_grad
    assert isinstance(shared_weight.inner("token"), torch.Tensor)
    assert all(isinstance(factor, torch.Tensor) for factor in u.factors(sample=0, token=1))


def test_calls_of_other_types_are_added() -> None:
    """Under autocast an embedding may be float32 and the head bfloat16."""
    draw, half = Draw(0, "torch", "float32"), Draw(1, "torch", "bfloat16")
    w = weight(5, 3)
    lookup = Lookup(w, draw.index(5, 3, 2), draw(3, 2, 3), TOKENS)
    head = Outer(w, half(3, 2, 1, 5), half(3, 2, 1, 3), TOKENS, View.cast("bfloat16"))
    for calls in ([lookup, head], [head, lookup]):
        check(SharedWeight(calls), "float32")
    mixed = Outer(w, half(3, 2, 1, 5), draw(3, 2, 1, 3), TOKENS)
    check(SharedWeight([mixed]), "float32")
    doubled = Outer(w, half(3, 2, 1, 5).double(), draw(3, 2, 1, 3), TOKENS)
    assert doubled.patch.dtype == np.float64
    close(plain(doubled.gradient), contributions(doubled).sum((0, 1)))


def test_half_precision_is_added_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""
    ones = torch.ones(600, 1, dtype=torch.bfloat16)
    u = SharedWeight([Direct(weight(1), ones, {"sample": (600,)})])
    assert u.gradient.item() == 600
    assert u.gradient.dtype == torch.float32
