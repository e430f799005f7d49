"""Compiled matrix products: every tile and tail, both ways forward, every instruction set and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sharedgrad import kernels
from tests.helpers import Array, close, frozen, same_bits

pytestmark = pytest.mark.compiled


def _dense(rng: np.random.Generator, n: int, o: int, i: int, dtype: type) -> tuple[Array, Array, Array]:
    """p (N, 1, I), w (1, O, I) and δ (N, 1, O)."""
    p, w, delta = (frozen(rng.normal(size=size), dtype) for size in ((n, 1, i), (1, o, i), (n, 1, o)))
    return p, w, delta


def _products(p: Array, w: Array, delta: Array) -> tuple[Array, Array, Array]:
    native = kernels.native
    return native.blocks(p, w), native.blocks_input_gradient(delta, w), native.outer_sum(delta, p)


def _expected(p: Array, w: Array, delta: Array) -> tuple[Array, Array, Array]:
    """PyTorch's, in float64."""
    x, matrix, up = (torch.tensor(np.array(a), dtype=torch.float64) for a in (p, w, delta))
    y = torch.einsum("ubi,boi->ubo", x, matrix)
    dx = torch.einsum("ubo,boi->ubi", up, matrix)
    dw = torch.einsum("ubo,ubi->boi", up, x)
    return y.numpy(), dx.numpy(), dw.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(40))
def test_dense_layers_of_all_sizes(seed: int, dtype: type, instruction_set: str) -> None:
    rng = np.random.default_rng(seed)
    n, o, i = (int(rng.integers(1, most)) for most in rng.permutation([6, 40, 300]))
    arrays = _dense(rng, n, o, i, dtype)
    for actual, expected in zip(_products(*arrays), _expected(*arrays), strict=True):
        assert actual.dtype == dtype
        close(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "o", "i"),
    [
        (1, 10, 84),
        (1, 1, 1),
        (7, 70, 2100),
        (64, 128, 1500),
        (200, 33, 300),
        (3, 500, 40),
        (150, 9, 17),
        (16, 300, 129),
    ],
)
def test_long_sums_wide_layers_and_single_samples(
    n: int,
    o: int,
    i: int,
    dtype: type,
    instruction_set: str,
) -> None:
    arrays = _dense(np.random.default_rng(n + o + i), n, o, i, dtype)
    for actual, expected in zip(_products(*arrays), _expected(*arrays), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(20))
def test_blocks_side_by_side(seed: int, dtype: type, instruction_set: str) -> None:
    rng = np.random.default_rng(seed)
    u, b, o, i = (int(rng.integers(1, most)) for most in (40, 9, 40, 40))
    shapes = ((u, b, i), (b, o, i), (u, b, o))
    arrays = [frozen(rng.normal(size=shape), dtype) for shape in shapes]
    for actual, expected in zip(_products(*arrays), _expected(*arrays), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_sums_over_some_uses_alone(keep: int, instruction_set: str) -> None:
    rng = np.random.default_rng(keep)
    delta, p = (frozen(rng.normal(size=(5, 3, 7, 2, last))) for last in (4, 19))
    total = kernels.native.outer_sum(delta, p, keep)
    terms = delta[..., :, None] * p[..., None, :]
    close(total, terms.sum(axis=tuple(range(keep, 3))))


def test_views_between_layers_need_no_memory_order() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = rng.normal(size=(31, 20, 1)), rng.normal(size=(31, 17, 1)), rng.normal(size=(17, 1, 20))
    p, matrix, delta = x.T.swapaxes(0, 1), w.T, dy.T
    for actual, expected in zip(_products(p, matrix, delta), _expected(p, matrix, delta), strict=True):
        close(actual, expected)


@pytest.mark.parametrize(("n", "o", "i"), [(0, 3, 4), (64, 0, 4), (5, 0, 4), (64, 3, 0), (5, 3, 0), (0, 0, 0)])
def test_nothing_adds_up_to_nothing(n: int, o: int, i: int) -> None:
    arrays = _dense(np.random.default_rng(0), n, o, i, np.float32)
    for actual, expected in zip(_products(*arrays), _expected(*arrays), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "b", "o", "i"), [(64, 1, 128, 700), (5, 1, 400, 1100), (9, 30, 33, 220), (1, 1, 900, 1000), (300, 1, 70, 90)]
)
def test_the_number_of_threads_changes_no_bit(n: int, b: int, o: int, i: int, dtype: type) -> None:
    rng = np.random.default_rng(n)
    arrays = [frozen(rng.normal(size=shape), dtype) for shape in ((n, b, i), (b, o, i), (n, b, o))]
    kernels.set_threads(1)
    first = _products(*arrays)
    for count in (2, 3):
        kernels.set_threads(count)
        for actual, expected in zip(_products(*arrays), first, strict=True):
            same_bits(actual, expected)


def test_a_samples_output_does_not_depend_on_its_place_in_the_batch() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 70):
        p, w, delta = _dense(rng, n, 50, 2500, np.float32)
        y, dx, _ = _products(p, w, delta)
        turned, dx_turned, _ = _products(p[::-1], w, delta[::-1])
        same_bits(turned[::-1].copy(), y)
        same_bits(dx_turned[::-1].copy(), dx)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bias_is_added_and_its_gradient_is_the_sum(n: int, dtype: type, instruction_set: str) -> None:
    from sharedgrad.kernels.native.program import Builder

    rng = np.random.default_rng(n)
    for o, i in ((20, 1500), (70, 9)):
        (p, w, delta), bias = _dense(rng, n, o, i, dtype), frozen(rng.normal(size=o), dtype)
        y, dx, dw, db = (np.full(shape, np.nan, dtype) for shape in ((n, 1, o), (n, 1, i), (1, o, i), (o,)))
        b = Builder(n, np.dtype(dtype))
        y_map, x_map, dx_map, dy_map = (b.array(size, samples=n) for size in (o, i, i, o))
        w_map, bias_map, dw_map, db_map = (b.array(size) for size in (o * i, o, o * i, o))
        b.emit("linear", (y_map, x_map, w_map, bias_map), 0)
        b.emit("linear_input_gradient", (dx_map, dy_map, w_map))
        b.emit("linear_weight_gradient", (dw_map, db_map, dy_map, x_map), 0)
        b.build().run(np.empty(0, dtype), [y, p, dx, delta, w, bias, dw, db])
        expected = _expected(p, w, delta)
        close(y, expected[0] + bias)
        close(dx, expected[1])
        close(dw, expected[2])
        close(db, delta.astype(np.float64).sum(axis=(0, 1)))


def test_arrays_of_wrong_size_are_refused() -> None:
    native, p, w, delta = kernels.native, np.ones((5, 2, 3)), np.ones((2, 4, 3)), np.ones((5, 2, 4))
    for call in (
        lambda: native.blocks(p[:, :1], w),
        lambda: native.blocks(p, w[..., :2]),
        lambda: native.blocks_input_gradient(delta, w[:, :2]),
        lambda: native.outer_sum(delta, p[:4]),
        lambda: native.outer_sum(delta[:, :1], p),
    ):
        with pytest.raises(ValueError, match="another size"):
            call()


def test_more_rows_than_are_packed_at_a_time() -> None:
    """Some four million numbers of the first factor are."""
    rng = np.random.default_rng(11)
    x, w = rng.standard_normal((300, 1, 20_000), np.float32), rng.standard_normal((1, 3, 20_000), np.float32)
    y = kernels.native.blocks(x, w)
    exact = x[:, 0].astype(np.float64) @ w[0].astype(np.float64).T
    np.testing.assert_allclose(y[:, 0], exact, rtol=0, atol=1e-4 * np.abs(exact).max())
