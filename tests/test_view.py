"""Views: what a call sees of a weight, and the way back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.view import View

SHAPE = (4, 6, 5)
T, S, R, C = View.transpose, View.slice, View.reshape, View.cast
CHAINS = {
    "identity": lambda: View(),
    "transpose": lambda: T(SHAPE, (2, 0, 1)),
    "reverse": lambda: T(SHAPE),
    "slice": lambda: S(SHAPE, (slice(1, 4, 2), ..., 3)),
    "last": lambda: S(SHAPE, -1),
    "reshape": lambda: R(SHAPE, (8, -1)),
    "cast": lambda: C("float32"),
    "transpose, reshape": lambda: T(SHAPE, (1, 0, 2)).then(R((6, 4, 5), (3, 40))),
    "slice, slice": lambda: S(SHAPE, (slice(1, None), slice(0, 6, 2))).then(S((3, 3, 5), (0, slice(1, 3)))),
    "all": lambda: (
        S(SHAPE, (slice(None), slice(1, 5)))
        .then(T((4, 4, 5), (2, 1, 0)))
        .then(R((5, 4, 4), (5, 16)))
        .then(S((5, 16), (slice(0, 5, 3), slice(2, 14, 5))))
        .then(T((2, 3)))
    ),
}


@pytest.fixture(params=CHAINS, name="view")
def chain(request: pytest.FixtureRequest) -> View:
    return CHAINS[request.param]()


def test_back_is_the_transpose_of_apply(view: View) -> None:
    rng = np.random.default_rng(318)
    weight = rng.integers(-9, 10, SHAPE).astype(np.float64)
    seen = view.apply(weight)
    assert seen.shape == view.shape(SHAPE)
    contributions = rng.integers(-9, 10, (3, 2, *seen.shape)).astype(np.float64)
    own = view.back(contributions, 2, SHAPE)
    assert own.shape == (3, 2, *SHAPE)
    axes = tuple(range(2, own.ndim))
    inner = (contributions * seen).reshape(3, 2, -1).sum(2)
    np.testing.assert_array_equal((own * weight).sum(axes), inner)
    one = view.back(contributions[1, 1], 0, SHAPE)
    np.testing.assert_array_equal(one, own[1, 1])


def test_tensors_take_the_same_way(view: View) -> None:
    rng = np.random.default_rng(319)
    weight = rng.normal(size=SHAPE)
    tensor = torch.tensor(weight, requires_grad=True)
    seen = view.apply(tensor)
    np.testing.assert_array_equal(seen.detach().numpy(), view.apply(weight))
    contributions = torch.tensor(rng.normal(size=seen.shape), dtype=seen.dtype)
    (expected,) = torch.autograd.grad(seen, tensor, contributions)
    own = view.back(contributions, 0, SHAPE)
    assert isinstance(own, torch.Tensor)
    assert torch.equal(own.double(), expected)
    assert np.array_equal(view.back(contributions.numpy(), 0, SHAPE), own.numpy())


def test_cells_are_where_they_came_from(view: View) -> None:
    weight = np.random.default_rng(320).normal(size=SHAPE)
    seen = np.asarray(view.uncast.apply(weight))
    np.testing.assert_array_equal(weight.reshape(-1)[view.cells(SHAPE)], seen)


def test_a_view_survives_json(view: View) -> None:
    again = View.from_config(json.loads(json.dumps(view.config())), SHAPE)
    assert again == view
    assert hash(again) == hash(view)


def test_views_that_show_the_same_are_equal() -> None:
    assert T(SHAPE).then(T((5, 6, 4))) == View()
    assert T(SHAPE, (1, 2, 0)).then(T((6, 5, 4), (1, 2, 0))) == T(SHAPE, (2, 0, 1))
    assert S(SHAPE, slice(0, 3)).then(S((3, 6, 5), slice(1, 2))) == S(SHAPE, slice(1, 2))
    assert S(SHAPE, slice(0, 4, 3)).then(S((2, 6, 5), 1)) == S(SHAPE, 3)
    assert S(SHAPE, slice(1, 3, 9)) == S(SHAPE, slice(1, 2))
    assert R(SHAPE, (24, 5)).then(R((24, 5), (120,))) == R(SHAPE, (120,))
    assert S(SHAPE, (..., slice(0, 99))) == T(SHAPE, (0, 1, 2)) == R(SHAPE, SHAPE) == View()
    assert T(SHAPE) != T(SHAPE, (2, 0, 1))


def test_what_a_view_is() -> None:
    transposed, sliced = T(SHAPE, (2, 0, 1)), S(SHAPE, (slice(1, 4, 2), 0))
    assert (transposed.axes, transposed.parts, transposed.identity) == ((2, 0, 1), None, False)
    assert (sliced.axes, sliced.parts, sliced.identity) == (None, (range(1, 4, 2), 0, range(5)), False)
    assert View().identity
    assert (View().axes, View().parts) == (None, None)
    assert C(torch.bfloat16).then(transposed).axes == (2, 0, 1)
    assert transposed.then(sliced).axes is transposed.then(sliced).parts is None


def test_casts() -> None:
    weight = np.array([1 + 1e-12, 2.0])
    assert C("float32").apply(weight).dtype == np.float32
    assert C(np.float32) == C("float32") == C(torch.float32) == C(np.dtype("<f4"))
    assert C("float32").back(np.ones(2, np.float32), 0, (2,)).dtype == np.float32
    assert C("float32").then(C("float64")).apply(weight)[0] == 1
    assert C("bfloat16").apply(torch.tensor(weight)).dtype == torch.bfloat16


def test_views_in_words() -> None:
    assert str(View()) == ""
    assert str(T((2, 3))) == "transposed"
    assert str(T(SHAPE, (1, 2, 0))) == "transposed(1, 2, 0)"
    sliced = S(SHAPE, (slice(2), 3, slice(None, None, 2)))
    assert str(sliced.then(R((2, 3), (6,))).then(C("float32"))) == "[0:2, 3, 0:5:2], reshaped to 6, as float32"


@pytest.mark.parametrize(
    "make",
    [
        lambda: T(SHAPE, (0, 1)),
        lambda: T(SHAPE, (0, 1, 1)),
        lambda: T(SHAPE, (0, 1, 3)),
        lambda: S(SHAPE, 4),
        lambda: S(SHAPE, -5),
        lambda: S(SHAPE, (0, 0, 0, 0)),
        lambda: S(SHAPE, (..., ...)),
        lambda: S(SHAPE, slice(2, 2)),
        lambda: S(SHAPE, slice(None, None, -1)),
        lambda: S(SHAPE, slice(None, None, 0)),
        lambda: S(SHAPE, slice("a", None)),
        lambda: S(SHAPE, True),
        lambda: S(SHAPE, None),
        lambda: S(SHAPE, [0, 1]),
        lambda: R(SHAPE, (7, -1)),
        lambda: R(SHAPE, (-1, -1)),
        lambda: R(SHAPE, (0, -1)),
        lambda: R(SHAPE, (-120, -1)),
        lambda: R(SHAPE, (4, 6)),
        lambda: T(SHAPE).shape((2, 3)),
        lambda: S(SHAPE, 3).shape((3, 6, 5)),
        lambda: S(SHAPE, 3).shape((4, 6)),
        lambda: R(SHAPE, (120,)).shape((4, 5)),
    ],
)
def test_views_that_do_not_fit(make: Any) -> None:
    with pytest.raises(ShapeError, match=r"^view: "):
        make()


@pytest.mark.parametrize(
    "steps",
    [
        "transpose",
        5,
        ["transpose"],
        [{"turn": [1, 0]}],
        [{"transpose": [2, 0, 1], "slice": [0]}],
        [{"transpose": 3}],
        [{"transpose": ["a", "b", "c"]}],
        [{"slice": [["a", "b"]]}],
        [{"slice": [[]]}],
        [{"slice": 2}],
        [{"reshape": "120"}],
        [{"reshape": [1.5]}],
        [{"cast": "float17"}],
        [{"cast": None}],
    ],
)
def test_plain_data_that_is_no_view(steps: Any) -> None:
    with pytest.raises((ConfigError, ShapeError), match=r"^tie: "):
        View.from_config(steps, SHAPE, "tie")
