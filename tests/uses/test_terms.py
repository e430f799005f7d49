"""Sums as lists of terms, against loops over the rows."""

from __future__ import annotations

import numpy as np
import pytest

from sharedgrad.errors import ConfigError
from sharedgrad.uses.terms import ABSENT, PADDING, Factor, Terms
from tests.helpers import Array, close


def drawn(dtype: type = np.float64, coefficient: bool = True) -> Terms:
    """Twelve terms of a target (2, 3): products of two numbers, with padding and terms that lack a factor."""
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(2, 2, 4)).astype(dtype).transpose(1, 0, 2), rng.normal(size=(5,)).astype(dtype)
    seen, weight = rng.integers(0, x.size, 12), rng.integers(0, w.size, 12)
    seen[[1, 7]], weight[[7, 9]] = PADDING, ABSENT
    seen[4] = ABSENT
    factors = {"x": Factor("x", x, seen), "w": Factor("w", w, weight)}
    scale = rng.uniform(0.5, 2, 12).astype(dtype) if coefficient else None
    return Terms("dx", (2, 3), rng.integers(0, 6, 12), factors, scale)


def by_hand(terms: Terms) -> Array:
    """Row by row, as one would on paper."""
    total = np.zeros(terms.shape)
    for m in range(len(terms)):
        value = 1.0 if terms.coefficient is None else float(terms.coefficient[m])
        for factor in terms.factors.values():
            i = factor.index[m]
            value *= 0.0 if i == PADDING else 1.0 if i == ABSENT else float(factor.array.flat[i])
        total[np.unravel_index(terms.cell[m], terms.shape)] += value
    return total


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("coefficient", [True, False])
def test_the_total_adds_the_products_row_by_row(dtype: type, coefficient: bool) -> None:
    terms = drawn(dtype, coefficient)
    assert (terms.values.dtype, terms.total().dtype) == (dtype, dtype)
    close(terms.total(), by_hand(terms))


def test_the_terms_of_one_cell_add_up_to_it() -> None:
    terms = drawn()
    total = terms.total()
    for cell in np.ndindex(2, 3):
        alone = terms.of(*cell)
        assert set(alone.cell) <= {np.ravel_multi_index(cell, (2, 3))}
        assert alone.values.sum() == pytest.approx(total[cell])
    assert sum(len(terms.of(*cell)) for cell in np.ndindex(2, 3)) == len(terms) == 12


def test_rows_take_everything_along() -> None:
    terms = drawn()
    terms = Terms(
        terms.target,
        terms.shape,
        terms.cell,
        terms.factors,
        terms.coefficient,
        np.arange(12) % 2,
        {"sample": np.arange(12)[:, None]},
    )
    chosen = terms.rows(np.array([5, 2]))
    assert (chosen.call is not None, list(chosen.use["sample"][:, 0])) == (True, [5, 2])
    assert list(chosen.values) == list(terms.values[[5, 2]])
    assert chosen.call is not None
    assert list(chosen.call) == [1, 0]


def test_places_are_indices_of_the_arrays_that_are_read() -> None:
    terms = drawn()
    x = terms.factors["x"]
    for m, place in enumerate(terms.places("x")):
        if x.index[m] >= 0:
            assert x.array[tuple(place)] == x.values[m]
        else:
            assert set(place) == {x.index[m]}
    for m, place in enumerate(terms.places("target")):
        assert np.ravel_multi_index(tuple(place), terms.shape) == terms.cell[m]
    assert terms.places("x").shape == (12, 3)


def test_no_terms_add_up_to_zero() -> None:
    nothing = drawn().rows(np.zeros(12, bool))
    assert (len(nothing), nothing.total().tolist()) == (0, [[0, 0, 0], [0, 0, 0]])
    assert nothing.places("w").shape == (0, 1)


def test_mistakes_are_said() -> None:
    terms = drawn()
    with pytest.raises(ConfigError, match=r"terms of dx: no cell \(2, 0\) in an array of shape 2×3"):
        terms.of(2, 0)
    with pytest.raises(ConfigError, match=r"no cell \(1,\)"):
        terms.of(1)
    with pytest.raises(ConfigError, match="there is no factor 'v'; choose from target, x, w"):
        terms.places("v")
    assert repr(terms) == "Terms(dx 2×3: 12 terms x · w)"
