"""Compiled losses, activations and optimizers' steps: every instruction set, all sizes, the ends of the numbers."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("sharedgrad.kernels.native", reason="no kernels were compiled", exc_type=ImportError)

from sharedgrad import kernels
from sharedgrad.kernels import vectorized
from sharedgrad.kernels.native.losses import emit_cross_entropy
from sharedgrad.kernels.native.program import Builder, doubles
from sharedgrad.kernels.native.updates import Rule
from tests.helpers import Array, close, frozen, same_bits

pytestmark = pytest.mark.compiled

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def _scores(rng: np.random.Generator, n: int, c: int, dtype: type) -> tuple[Array, Array]:
    return frozen(rng.normal(size=(n, c)) * 5, dtype), frozen(rng.integers(0, c, n))


@BOTH
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("n", "c"), [(1, 1), (1, 10), (7, 16), (65, 17), (3, 1000), (2000, 33)])
def test_cross_entropy_of_all_sizes(n: int, c: int, smoothing: float, dtype: type, instruction_set: str) -> None:
    scores, labels = _scores(np.random.default_rng(n), n, c, dtype)
    value, upstream = kernels.native.cross_entropy(scores, labels, smoothing, n)
    expected, gradient = vectorized.cross_entropy(scores.astype(np.float64), labels, smoothing, n)
    assert value == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-12, abs=1e-12)
    assert upstream.dtype == dtype
    np.testing.assert_allclose(upstream * n, gradient * n, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-15)


@BOTH
def test_cross_entropy_at_the_ends_of_the_numbers(dtype: type, instruction_set: str) -> None:
    inf = np.inf
    rows = [[1e4, 0, -1e4], [-1e30, 1e30, 0], [0.5, -inf, 1.0], [-inf, -inf, 2.0]]
    scores, labels = np.array(rows, dtype), np.array([0, 1, 2, 2])
    value, upstream = kernels.native.cross_entropy(scores, labels, 0.0, 1)
    assert value == pytest.approx(np.log1p(np.exp(-0.5)))
    assert upstream[2, 1] == 0
    np.testing.assert_array_equal(upstream[[0, 1, 3]], 0)
    assert kernels.native.cross_entropy(scores[2:3], np.array([1]), 0.0, 1)[0] == inf
    assert kernels.native.cross_entropy(scores[2:3], np.array([0]), 0.1, 1)[0] == inf
    for broken in (np.nan, inf):
        value, upstream = kernels.native.cross_entropy(np.array([[0, broken, 1]], dtype), labels[:1], 0.0, 1)
        assert np.isnan(value)
        assert np.isnan(upstream).all()


@BOTH
@pytest.mark.parametrize("classes", [3, 17, 40])
def test_the_largest_score_may_stand_anywhere(classes: int, dtype: type, instruction_set: str) -> None:
    scores = np.where(np.eye(classes), 1e4, 0).astype(dtype)
    np.testing.assert_array_equal(kernels.native.softmax(scores, 1), np.eye(classes))


def test_a_label_that_is_no_class_is_refused_and_nothing_is_read_beyond_a_row() -> None:
    for module in (kernels.native, vectorized, *([kernels._named("reference")])):
        for label in (-1, 3, 2**40):
            with pytest.raises(IndexError):
                module.cross_entropy(np.zeros((2, 3)), np.array([0, label]), 0.0, 1.0)
    for labels in (np.zeros(3, np.int64), np.zeros(1, np.int64)):
        with pytest.raises(ValueError, match="another size"):
            kernels.native.cross_entropy(np.zeros((2, 3)), labels, 0.0, 1.0)


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (5, 16), (3, 4, 31), (300, 500), (0, 4)])
def test_softmax_along_the_last_axis(shape: tuple[int, ...], dtype: type, instruction_set: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = (frozen(rng.normal(size=shape) * 8, dtype) for _ in range(2))
    y = kernels.native.softmax(x, -1)
    close(y, vectorized.softmax(x.astype(np.float64), -1), 1e-6 if dtype == np.float32 else 1e-14)
    close(kernels.native.softmax_backward(dy, y, -1), vectorized.softmax_backward(dy, y, -1))


def test_tanh_is_right_to_the_last_places(instruction_set: str) -> None:
    x = np.concatenate([np.linspace(-10, 10, 100_001), np.logspace(-30, 1, 999), [0.0, -0.0, 1e30, -np.inf, np.inf]])
    for dtype, units in ((np.float32, 3), (np.float64, 3)):
        given = x.astype(dtype)
        exact = np.tanh(given.astype(np.longdouble))
        error = np.abs(kernels.native.tanh(given) - exact) / np.spacing(np.abs(exact).astype(dtype))
        assert error.max() <= units
        assert np.isnan(kernels.native.tanh(np.array([np.nan, 1], dtype))[0])
        assert kernels.native.tanh(-given[given > 0]).max() < 0


@BOTH
@pytest.mark.parametrize("decoupled", [False, True])
def test_steps_of_small_and_large_parameters(decoupled: bool, dtype: type, instruction_set: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [(), (3, 5), (70_000,), (0, 2), (1,)]

    def draw() -> list[Array]:
        return [frozen(rng.normal(size=shape), dtype) for shape in shapes]

    values, gradients, means, velocities = draw(), draw(), draw(), draw()
    squares = [frozen(np.square(v), dtype) for v in draw()]
    adam = (values, gradients, means, squares, [1, 2, 7, 1, 3], 0.1, (0.8, 0.99), 1e-3, 0.2, decoupled)
    results = [(kernels.native.adam(*adam), vectorized.adam(*adam))]
    for kept, settings in (([], (0.1, 0.0, False, 0.2)), (velocities, (0.1, 0.7, decoupled, 0.2))):
        sgd = (values, gradients, kept, *settings)
        results.append((kernels.native.sgd(*sgd), vectorized.sgd(*sgd)))
    for actual, expected in results:
        for ours, theirs in zip(actual, expected, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert a.dtype == dtype
                close(a, b, 1e-6 if dtype == np.float32 else 1e-14)


def test_types_may_differ_from_parameter_to_parameter_and_gradients_from_both() -> None:
    values = [np.ones(3, np.float32), np.ones((2, 2))]
    gradients = [np.full(3, 0.5), np.asfortranarray(np.array([[1, 2], [3, 4]], np.float32))]
    new, _ = kernels.native.sgd(values, gradients, [], 0.5, 0.0, False, 0.0)
    np.testing.assert_array_equal(new[0], np.full(3, 0.75, np.float32))
    np.testing.assert_array_equal(new[1], [[0.5, 0], [-0.5, -1]])
    assert [a.dtype for a in new] == [np.float32, np.float64]


def test_updates_that_do_not_belong_together_are_refused() -> None:
    one, two = np.ones(3), np.ones(4)
    for gradients, kept, message in (
        ([two], [], "cannot reshape array of size 4"),
        ([one, one], [], "argument 2 is longer"),
        ([one], [two], "cannot reshape array of size 4"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.native.sgd([one], gradients, kept, 0.1, 0.9, False, 0.0)
    with pytest.raises(ValueError, match="argument 5 is shorter"):
        kernels.native.adam([one], [one], [one], [], [1], 0.1, (0.9, 0.99), 1e-8, 0.0, False)


@BOTH
def test_the_number_of_threads_changes_no_bit(dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores, labels = _scores(rng, 777, 301, dtype)
    long = [frozen(rng.normal(size=size), dtype) for size in (300_000, 5)]

    def results() -> list[Array]:
        value, upstream = kernels.native.cross_entropy(scores, labels, 0.1, 1.0)
        updated = kernels.native.adam(
            long, long, long, [a * a for a in long], [1, 2], 0.1, (0.9, 0.99), 1e-8, 0.1, True
        )
        softmax = kernels.native.softmax(scores, 1)
        return [np.float64(value), upstream, softmax, kernels.native.tanh(scores), updated[0][0], updated[0][1]]

    kernels.set_threads(1)
    first = results()
    for count in (2, 3):
        kernels.set_threads(count)
        for actual, expected in zip(results(), first, strict=True):
            same_bits(np.asarray(actual), np.asarray(expected))


def test_an_update_writes_over_arrays_that_nobody_else_holds() -> None:
    b = Builder(1, np.dtype(np.float64))
    settings, gradient, w = b.array(3), b.array(3), b.array(3)
    Rule("sgd", 0, False).emit(b, [w], [w], gradient, settings, 0, 0)
    program, owner = b.build(), [np.ones(3)]
    owned = [owner[0]]
    arrays = [np.array([0.5, 0.0, 0.0]), np.ones(3), owned[0]]
    assert program.run(None, arrays, owned)
    assert owner[0].tolist() == [0.5] * 3
    for hold in (lambda: owner[0], lambda: owner[0][1:], lambda: memoryview(owner[0])):
        held = hold()
        assert not program.run(None, arrays, owned)
        del held
    assert owner[0].tolist() == [0.5] * 3
    assert program.run(None, arrays, owned)
    assert owner[0].tolist() == [0.0] * 3
    with pytest.raises(TypeError, match="a list of arrays"):
        program.run(None, arrays, tuple(owned))


@BOTH
def test_a_loss_that_must_be_finite_ends_its_program(dtype: type) -> None:
    b = Builder(2, np.dtype(dtype))
    upstream, scores = b.array(3, samples=2), b.array(3, samples=2)
    labels, settings, behind = (b.array(doubles(n, b.dtype.itemsize)) for n in (2, 3, 1))
    emit_cross_entropy(b, upstream, scores, labels, settings, 0, True)
    b.emit("zero", (behind,))
    program = b.build()
    for last, label, error in ((1.0, 2, None), (np.nan, 2, FloatingPointError), (1.0, 3, IndexError)):
        x = np.array([[1, 2, 3], [0, 1, last]], dtype)
        given = np.array([0, label]), np.array([0.0, 1.0, 0.0]), np.ones(1)
        arrays = [np.empty_like(x), x, *(a.view(dtype) for a in given)]
        with pytest.raises(error) if error else nullcontext():
            program.run(None, arrays)
        assert given[2].item() == (1 if error else 0)
