"""Every closed form is what the single contributions, computed one by one, give."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from sharedgrad import kernels, uses
from sharedgrad.uses import Outer, SharedWeight
from tests.helpers import Array
from tests.uses.kinds import KINDS, Draw, Materialized, outer, plain, weight

TOLERANCE = {"float64": 1e-10, "float32": 3e-5, "bfloat16": 3e-5}
LIBRARIES = [
    ("numpy", "float64"),
    ("numpy", "float32"),
    ("torch", "float64"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
]


def shared(kind: str, library: str = "numpy", dtype: str = "float64", seed: int = 0) -> SharedWeight:
    return SharedWeight(KINDS[kind](Draw(seed + sum(map(ord, kind)), library, dtype)))


def near(actual: Any, expected: Array, dtype: str, scale: float) -> None:
    """Within rounding, beside ``scale``: what the numbers were made of, where they cancel."""
    actual = plain(actual)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max(initial=0) <= TOLERANCE[dtype] * max(scale, 1e-30)


def groupings(u: SharedWeight) -> list[tuple[str, ...]]:
    """All combinations of the axes that may be kept apart."""
    names = ["call", *u.axes]
    return [by for length in range(len(names) + 1) for by in combinations(names, length)]


def as_list(found: Any, by: tuple[str, ...]) -> list[Any]:
    return list(found) if "call" in by else [found]


@pytest.fixture(params=["plenty", "little"])
def memory(request: pytest.FixtureRequest) -> Any:
    """With a limit that lets everything be worked out at once, and one that lets only single groups."""
    before = uses.get_memory_limit()
    uses.set_memory_limit(before if request.param == "plenty" else 4000)
    yield
    uses.set_memory_limit(before)


def check(u: SharedWeight, dtype: str) -> None:
    """All questions, for all groupings."""
    known = Materialized(u)
    gradient = known.gradient()
    each = [np.sqrt(np.square(c.reshape(-1, gradient.size)).sum(1)) for _, c in known.calls]
    size = sum(float(e.sum()) for e in each)  # Σ‖g_u‖
    square = float(np.square(gradient).sum())
    near(u.gradient, gradient, dtype, size)
    near(u.norm(), np.sqrt(square), dtype, size)
    for call, norms in zip(u.calls, each, strict=True):
        near(call.squares(), np.square(norms).reshape(call.shape), dtype, size**2)
        near(
            call.projection(u.gradient),
            (known.calls[u.calls.index(call)][1] * gradient).reshape(*call.shape, -1).sum(-1),
            dtype,
            size**2,
        )
    for by in groupings(u):
        lead = len(u.calls[0].lengths([n for n in by if n != "call"]))
        sums = known.sums(by)
        flat = [s.reshape(*s.shape[:lead], -1) for s in sums]
        if u._gradient.itemsize * prod_of(sums) <= uses.get_memory_limit() or not any(
            isinstance(c, uses.Lookup) for c in u.calls
        ):
            for found, expected in zip(as_list(u.sum(by), by), sums, strict=True):
                near(found, expected, dtype, size)
        for found, expected in zip(as_list(u.norm(by), by), flat, strict=True):
            near(found, np.sqrt(np.square(expected).sum(-1)), dtype, size)
        rows = np.concatenate([f.reshape(-1, gradient.size) for f in flat])
        products = rows @ rows.T
        near(plain(u.inner(by)).reshape(products.shape), products, dtype, size**2)
        norms = np.sqrt(np.square(rows).sum(1))
        if size:
            cancelled = u.cancellation(by)
            if norms.sum():
                near(cancelled.value, np.array(1 - np.sqrt(square) / norms.sum()), dtype, size / norms.sum())
            else:
                assert np.isnan(cancelled.value)
            assert cancelled.count == len(rows)
            assert cancelled.random == 1 - 1 / np.sqrt(len(rows))
        if u.zero_up_to_rounding:
            for found in as_list(u.share(by), by):
                assert np.isnan(plain(found)).all()
            continue
        shares = [f @ gradient.reshape(-1) / square for f in flat]
        for found, expected in zip(as_list(u.share(by), by), shares, strict=True):
            near(found, expected, dtype, size**2 / square)
        near(sum(plain(f).sum() for f in as_list(u.share(by), by)), np.array(1.0), dtype, size**2 / square)
        coherence = u.coherence(by)
        assert (coherence.count, coherence.reason) == (len(rows), "")
        near(coherence.value, np.array(square / (norms**2).sum()), dtype, (size**2 / (norms**2).sum()) ** 2)


def prod_of(sums: list[Array]) -> int:
    return sum(s.size for s in sums)


@pytest.mark.parametrize(("library", "dtype"), LIBRARIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_question_is_answered_as_from_the_contributions(
    kind: str, library: str, dtype: str, memory: None
) -> None:
    check(shared(kind, library, dtype), dtype)


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("kind", KINDS)
def test_with_other_random_numbers(kind: str, seed: int, memory: None) -> None:
    check(shared(kind, seed=seed), "float64")


@pytest.mark.parametrize("chosen", ["vectorized", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_by_other_kernels(kind: str, chosen: Any) -> None:
    with kernels.use(chosen):
        check(shared(kind), "float64")


def test_what_nearly_cancels_is_not_lost_in_the_gram_form() -> None:
    """Two calls that differ by 1e-9: the squares of their inner products cancel to all of float64's digits."""
    draw, w, axes = Draw(4), weight(40, 50), {"sample": (3,), "token": (2,)}
    first = outer(draw, w, axes)
    second = Outer(w, -first.delta * (1 + 1e-9 * draw(*first.delta.shape)), first.patch, axes)
    u = SharedWeight([first, second])
    apart = u.sum("sample").reshape(3, -1)
    np.testing.assert_allclose(u.norm("sample"), np.sqrt(np.square(apart).sum(1)), rtol=1e-6)
