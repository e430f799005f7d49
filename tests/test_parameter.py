"""Parameters, buffers and the algebra of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.gradients import Gradients
from sharedgrad.parameter import Buffer, Parameter


def parameter(*shape: int, name: str = "p", dtype: Any = np.float64) -> Parameter:
    return Parameter(shape, lambda rng, size: rng.normal(size=size), name, dtype)


def test_the_first_value_is_drawn_once_and_follows_seed_and_name() -> None:
    first, again, other = parameter(3), parameter(3), parameter(3, name="q")
    np.testing.assert_array_equal(first.value, again.value)
    assert not np.array_equal(first.value, other.value)
    before = first.value
    first.initialize(5)
    assert first.value is before
    seeded = parameter(3)
    seeded.initialize(5)
    assert not np.array_equal(seeded.value, before)


def test_a_value_is_copied_in_read_only_and_counted() -> None:
    p = parameter(2, 2)
    old, version = p.value, p.version
    new = np.ones((2, 2))
    p.value = new
    new[:] = 5
    assert (p.value == 1).all()
    assert p.version == version + 1
    assert not (old == 1).any()
    with pytest.raises(ValueError, match="read-only"):
        p.value[0, 0] = 3
    with pytest.raises(ValueError, match="read-only"):
        old[0, 0] = 3


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_and_type_stay(shape: tuple[int, ...], dtype: Any) -> None:
    p = parameter(*shape, dtype=dtype)
    assert (p.value.shape, p.value.dtype) == (shape, dtype)
    p.value = np.zeros(shape[::-1], np.float64).T
    assert (p.value.shape, p.value.dtype, p.value.flags.c_contiguous) == (shape, dtype, True)
    p.cast(np.dtype(np.float64))
    assert p.value.dtype == np.float64
    with pytest.raises(ShapeError, match="p: expected a value of shape"):
        p.value = np.zeros((7, 7))


def test_casting_to_the_same_type_changes_no_version() -> None:
    p = parameter(2)
    p.initialize(0)
    version = p.version
    p.cast(np.dtype(np.float64))
    assert p.version == version
    p.cast(np.dtype(np.float32))
    assert p.version == version + 1


def test_representations() -> None:
    assert repr(parameter(2, 3, name="conv.weight")) == "Parameter(conv.weight, 2×3, float64)"
    assert repr(parameter(name="scale")) == "Parameter(scale, scalar, float64)"
    assert repr(Gradients({parameter(2, 3): np.ones((2, 3))})) == "Gradients(p: 2×3)"


def test_a_buffer_is_replaced_and_keeps_shape_and_type() -> None:
    buffer = Buffer(np.zeros(2, np.float32), "mean")
    old = buffer.value
    buffer.replace([1.0, 2.0])
    assert buffer.value.dtype == np.float32
    assert (old == 0).all()
    with pytest.raises(ShapeError, match=r"mean: expected a value of shape \(2,\), got \(3,\)"):
        buffer.replace(np.zeros(3))


def pair() -> tuple[Parameter, Parameter, Gradients, Gradients]:
    rng = np.random.default_rng(94819)
    p, q = parameter(2, 3, name="a.p"), parameter(4, name="a.q")
    one = Gradients({p: rng.normal(size=(2, 3))}, {"x": rng.normal(size=(2, 2))})
    two = Gradients(
        {p: rng.normal(size=(2, 3)), q: rng.normal(size=4)}, {"x": rng.normal(size=(2, 2)), "z": rng.normal(size=3)}
    )
    return p, q, one, two


def test_gradients_add_like_losses() -> None:
    p, q, one, two = pair()
    before = one[p].copy()
    for total in (one + two, two + one):
        np.testing.assert_array_equal(total[p], one[p] + two[p])
        np.testing.assert_array_equal(total[q], two[q])
        np.testing.assert_array_equal(total.inputs["x"], one.inputs["x"] + two.inputs["x"])
        np.testing.assert_array_equal(total.inputs["z"], two.inputs["z"])
    np.testing.assert_array_equal(one[p], before)
    with pytest.raises(TypeError):
        one + 1


def test_gradients_scale() -> None:
    p, _, one, _ = pair()
    for scaled in (one * 0.25, 0.25 * one):
        np.testing.assert_array_equal(scaled[p], one[p] * 0.25)
        np.testing.assert_array_equal(scaled.inputs["x"], one.inputs["x"] * 0.25)
    single = Gradients({p: np.ones((2, 3), np.float32)}) * np.float64(0.1)
    assert single[p].dtype == np.float32


def test_gradients_are_found_by_parameter_or_name() -> None:
    p, q, one, two = pair()
    assert two["a.q"] is two[q]
    assert (len(two), list(two), q in two, q in one, "a.p" in one) == (2, [p, q], True, False, True)
    with pytest.raises(KeyError, match=r"no gradient named 'b'; there are a\.p, a\.q"):
        two["b"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("limit", [0.5, 2.0, 1000.0])
def test_clipping_agrees_with_pytorch(limit: float, dtype: Any) -> None:
    p, q, _, two = pair()
    two = Gradients({k: a.astype(dtype) for k, a in two.items()})
    tensors = [torch.nn.Parameter(torch.zeros(k.shape, dtype=torch.float64)) for k in (p, q)]
    for tensor, array in zip(tensors, two.values(), strict=True):
        tensor.grad = torch.tensor(array, dtype=torch.float64)
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit)
    assert two.norm() == pytest.approx(float(norm), rel=1e-6)
    clipped = two.clipped(limit)
    for tensor, key in zip(tensors, (p, q), strict=True):
        np.testing.assert_allclose(clipped[key], tensor.grad, rtol=3e-6)  # PyTorch adds 1e-6 to the norm
        assert clipped[key].dtype == dtype
    assert clipped.norm() == pytest.approx(min(limit, float(norm)), rel=1e-6)
    assert (clipped is two) == (limit == 1000)


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_senseless_limit(limit: float) -> None:
    with pytest.raises(ConfigError, match="max_norm: expected a positive number"):
        pair()[2].clipped(limit)


def test_the_norm_does_not_overflow_in_float32() -> None:
    p = parameter(2, dtype=np.float32)
    assert Gradients({p: np.array([3e30, 4e30], np.float32)}).norm() == pytest.approx(5e30)
