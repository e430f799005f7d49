"""Every fast kernel, NumPy's and compiled, computes what the reference loops compute: any geometry, type and order."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest
import torch

from sharedgrad import kernels
from sharedgrad.geometry import Geometry
from sharedgrad.kernels import reference, vectorized
from sharedgrad.kernels.vectorized import windows
from tests.helpers import Array, close, numbers, same_bits, sliding

Rng = np.random.Generator
Draw = Callable[[Rng, int], tuple[object, ...]]


def _normal(rng: Rng, *shape: int) -> Array:
    return rng.normal(size=shape)


def _grouped(rng: Rng, rank: int) -> tuple[Geometry, tuple[int, ...], tuple[int, int, int, int]]:
    """Geometry, spatial shape and (samples, channels, filters, channels of a group); up to depthwise."""
    groups, inside, outside, samples = (*numbers(rng, 1, 3, 1), *numbers(rng, 1, 2, 2), *numbers(rng, 1, 3, 1))
    window = sliding(rng, rank, spare=(9, 5, 3)[rank - 1])
    return window.geometry(groups), window.spatial, (samples, groups * inside, groups * outside, inside)


def _conv(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, c, f, inside) = _grouped(rng, rank)
    bias = _normal(rng, f) if rng.random() < 0.5 else None
    return _normal(rng, n, c, *spatial), _normal(rng, f, inside, *g.kernel), bias, g


def _conv_input_gradient(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, _, f, inside) = _grouped(rng, rank)
    return _normal(rng, n, f, *g.output(spatial)), _normal(rng, f, inside, *g.kernel), g, spatial


def _conv_kernel_gradients(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, c, f, _) = _grouped(rng, rank)
    return _normal(rng, n, f, *g.output(spatial)), _normal(rng, n, c, *spatial), g


def _patches(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, c, _, _) = _grouped(rng, rank)
    return _normal(rng, n, c, *spatial), g


def _patches_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, _, _, inside) = _grouped(rng, rank)
    return _normal(rng, n, *g.output(spatial), g.groups, inside * g.cells), g, spatial


def _mode(rng: Rng) -> str:
    return str(rng.choice(["reflect", "replicate", "circular"]))


def _pad(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, c, _, _) = _grouped(rng, rank)
    return _normal(rng, n, c, *spatial), g, _mode(rng)


def _pad_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    g, spatial, (n, c, _, _) = _grouped(rng, rank)
    return _normal(rng, n, c, *g.padded(spatial)), g, _mode(rng), spatial


def _pool(rng: Rng, rank: int) -> tuple[Geometry, tuple[int, ...]]:
    """A window that never lies in the padding alone."""
    kernel = numbers(rng, 1, 3, rank)
    pads = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel)
    spatial = tuple(k + int(rng.integers(0, 3)) for k in kernel)
    return Geometry(kernel, numbers(rng, 1, 3, rank), pads, (1,) * rank), (*numbers(rng, 1, 3, 2), *spatial)


def _max_pool(rng: Rng, rank: int) -> tuple[object, ...]:
    g, shape = _pool(rng, rank)
    return rng.integers(-3, 1, shape).astype(float), g  # few different values: ties; none positive: padding shows


def _max_pool_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    x, g = _max_pool(rng, rank)
    assert isinstance(x, np.ndarray)
    assert isinstance(g, Geometry)
    y = reference.max_pool(x, g)
    return _normal(rng, *y.shape), x, y, g, str(rng.choice(["first", "last", "share"]))


def _avg_pool(rng: Rng, rank: int) -> tuple[object, ...]:
    g, shape = _pool(rng, rank)
    return _normal(rng, *shape), g, bool(rng.integers(2))


def _avg_pool_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    g, (n, c, *spatial) = _pool(rng, rank)
    return _normal(rng, n, c, *g.output(spatial)), g, tuple(spatial), bool(rng.integers(2))


def _blocks(rng: Rng, rank: int) -> tuple[object, ...]:
    b, o, i = numbers(rng, 1, 4, 3)
    return _normal(rng, *numbers(rng, 1, 3, rank), b, i), _normal(rng, b, o, i)


def _blocks_input_gradient(rng: Rng, rank: int) -> tuple[object, ...]:
    b, o, i = numbers(rng, 1, 4, 3)
    return _normal(rng, *numbers(rng, 1, 3, rank), b, o), _normal(rng, b, o, i)


def _outer_sum(rng: Rng, rank: int) -> tuple[object, ...]:
    uses, (b, o, i) = numbers(rng, 1, 3, rank), numbers(rng, 1, 4, 3)
    return _normal(rng, *uses, b, o), _normal(rng, *uses, b, i), int(rng.integers(0, rank + 1))


def _uses(rng: Rng, groups: int, rank: int) -> tuple[Array, Array]:
    """δ (K, R, B, O) and p (K, R, B, I), with as many numbers in a use as the seed of their sizes says."""
    uses = int(rng.integers(1, 4))
    sizes = np.random.default_rng(rank).integers(1, 5, 3)
    return _normal(rng, groups, uses, *sizes[:2]), _normal(rng, groups, uses, *sizes[::2])


def _outer_products(rng: Rng, rank: int) -> tuple[object, ...]:
    groups = int(rng.integers(1, 4))
    return *_uses(rng, groups, rank), *_uses(rng, groups, rank)


def _row_sums(rng: Rng, rank: int) -> tuple[object, ...]:
    uses, width, rows = numbers(rng, 1, 6, 3)
    return rng.integers(0, rows, uses), _normal(rng, uses, width), rows


def _row_dots(rng: Rng, rank: int) -> tuple[object, ...]:
    *uses, width = numbers(rng, 1, 5, rank + 1)
    return _normal(rng, *uses, width), _normal(rng, *(n if rng.integers(2) else 1 for n in uses), width)


def _row_products(rng: Rng, rank: int) -> tuple[object, ...]:
    lead, (k, j, width) = numbers(rng, 1, 3, rank - 1), numbers(rng, 1, 5, 3)
    return _normal(rng, *lead, k, width), _normal(rng, *lead, j, width)


def _cells(rng: Rng, rank: int) -> int:
    return int(rng.integers(1, (9, 40, 300)[rank - 1]))


def _along_directions(rng: Rng, rank: int) -> tuple[object, ...]:
    n, groups, channels = numbers(rng, 1, 7, 3)
    return _normal(rng, n, groups, channels, _cells(rng, rank)), _normal(rng, groups, channels, 8)


def _channel_uses(rng: Rng, rank: int) -> tuple[object, ...]:
    shape = (*numbers(rng, 1, 5, 2), _cells(rng, rank))
    x = _normal(rng, *shape) if rng.random() < 0.7 else None
    return _normal(rng, *shape), x, _normal(rng, 3, shape[1])


def _elementwise(rng: Rng, rank: int) -> tuple[object, ...]:
    return (_normal(rng, *numbers(rng, 1, 5, rank)) * 10,)


def _activation_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    shape = numbers(rng, 1, 5, rank)
    return _normal(rng, *shape), rng.uniform(-1, 1, shape).round(1)  # an output of exactly 0 occurs


def _softmax(rng: Rng, rank: int) -> tuple[object, ...]:
    return _normal(rng, *numbers(rng, 1, 5, rank)) * 10, int(rng.integers(-rank, rank))


def _softmax_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    x, axis = _softmax(rng, rank)
    assert isinstance(x, np.ndarray)
    assert isinstance(axis, int)
    return _normal(rng, *x.shape), reference.softmax(x, axis), axis


def _maps(rng: Rng, rank: int) -> tuple[int, ...]:
    return numbers(rng, 2, 5, 2 + rank)


def _batch_statistics(rng: Rng, rank: int) -> tuple[object, ...]:
    return (_normal(rng, *_maps(rng, rank)) + 5,)


def _by_channel(rng: Rng, rank: int) -> tuple[object, ...]:
    shape = _maps(rng, rank)
    return _normal(rng, *shape), _normal(rng, shape[1]), rng.uniform(0.5, 2, shape[1])


def _normalize_backward(rng: Rng, rank: int) -> tuple[object, ...]:
    shape = _maps(rng, rank)
    return _normal(rng, *shape), _normal(rng, *shape), rng.uniform(0.5, 2, shape[1])


def _cross_entropy(rng: Rng, rank: int) -> tuple[object, ...]:
    n, c, *positions = numbers(rng, 1, 5, 1 + rank)
    if rank == 1:
        n, c, positions = n, int(rng.integers(1, 40)), []
    smoothing = float(rng.choice([0, 0.1, 0.7]))
    return _normal(rng, n, c, *positions) * 5, rng.integers(0, c, (n, *positions)), smoothing, float(rng.integers(1, 9))


def _parameters(rng: Rng, rank: int) -> list[tuple[int, ...]]:
    return [numbers(rng, 1, 5, rank), (), (37,)][: int(rng.integers(1, 4))]


def _sgd(rng: Rng, rank: int) -> tuple[object, ...]:
    shapes, momentum = _parameters(rng, rank), float(rng.choice([0, 0.7]))
    values, gradients, velocities = ([_normal(rng, *shape) for shape in shapes] for _ in range(3))
    kept = velocities if momentum else []
    return values, gradients, kept, 0.3, momentum, bool(momentum and rng.integers(2)), float(rng.choice([0, 0.1]))


def _adam(rng: Rng, rank: int) -> tuple[object, ...]:
    shapes = _parameters(rng, rank)
    values, gradients, means = ([_normal(rng, *shape) for shape in shapes] for _ in range(3))
    squares = [np.asarray(np.square(_normal(rng, *shape))) for shape in shapes]
    steps, decay = [int(rng.integers(1, 9)) for _ in shapes], float(rng.choice([0, 0.1]))
    return values, gradients, means, squares, steps, 0.3, (0.8, 0.95), 1e-3, decay, bool(rng.integers(2))


pytestmark = pytest.mark.usefixtures("memory_of_nan")

WIDE = {"outer_products", "row_dots", "row_products", "window_squares", "conv_kernel_squares"}  # give float64
CHUNKS = {"all samples": windows.CHUNK_BYTES, "a few samples": 400, "single samples": 1}
FAST = [vectorized, *([kernels.native] if kernels.compiled() else [])]

ARGUMENTS: dict[str, Draw] = {
    "conv": _conv,
    "conv_input_gradient": _conv_input_gradient,
    "conv_kernel_gradients": _conv_kernel_gradients,
    "conv_kernel_gradient": _conv_kernel_gradients,
    "conv_kernel_squares": _conv_kernel_gradients,
    "patches": _patches,
    "patches_backward": _patches_backward,
    "pad": _pad,
    "pad_backward": _pad_backward,
    "blocks": _blocks,
    "blocks_input_gradient": _blocks_input_gradient,
    "outer_sum": _outer_sum,
    "outer_products": _outer_products,
    "row_sums": _row_sums,
    "row_dots": _row_dots,
    "row_products": _row_products,
    "along_directions": _along_directions,
    "channel_uses": _channel_uses,
    "window_squares": _patches,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "avg_pool": _avg_pool,
    "avg_pool_backward": _avg_pool_backward,
    "sigmoid": _elementwise,
    "sigmoid_backward": _activation_backward,
    "tanh": _elementwise,
    "tanh_backward": _activation_backward,
    "relu": _elementwise,
    "relu_backward": _activation_backward,
    "softmax": _softmax,
    "softmax_backward": _softmax_backward,
    "batch_statistics": _batch_statistics,
    "normalize": _by_channel,
    "scale_shift": _by_channel,
    "normalize_backward": _normalize_backward,
    "cross_entropy": _cross_entropy,
    "sgd": _sgd,
    "adam": _adam,
}


def _given(value: object, dtype: type, rng: Rng) -> object:
    """Arrays in the type, read-only, and sometimes in another memory order, as views between layers are."""
    if isinstance(value, list):
        return [_given(each, dtype, rng) for each in value]
    if not isinstance(value, np.ndarray):
        return value
    array = np.array(value, dtype if value.dtype.kind == "f" else None, order="F" if rng.random() < 0.3 else "C")
    array.flags.writeable = False
    return array


def _flat(result: object) -> list[Array]:
    """All arrays of a result; a number is one too."""
    if isinstance(result, tuple | list):
        return [array for part in result for array in _flat(part)]
    return [np.asarray(result)]


def arguments(name: str, rank: int, seed: int, dtype: type) -> list[object]:
    """Those of one drawing, for the kernel of this name."""
    rng = np.random.default_rng([crc32(name.encode()), rank, seed])
    return [_given(value, dtype, rng) for value in ARGUMENTS[name](rng, rank)]


def test_every_kernel_is_drawn_here() -> None:
    protocol = {name for name, value in vars(kernels.Kernels).items() if callable(value) and name[0] != "_"}
    assert set(ARGUMENTS) == protocol
    for module in (reference, *FAST):
        assert all(callable(getattr(module, name)) for name in protocol)


@pytest.mark.parametrize("chunk_bytes", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_equals_the_reference(
    name: str, rank: int, dtype: type, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "CHUNK_BYTES", chunk_bytes)
    for seed in range(4):
        given = arguments(name, rank, seed, dtype)
        expected = getattr(reference, name)(*given)
        for module in FAST:
            actual = getattr(module, name)(*given)
            for a, e in zip(_flat(actual), _flat(expected), strict=True):
                assert a.dtype == e.dtype
                loss = name == "cross_entropy" and e.shape == ()
                assert e.dtype == (np.float64 if name in WIDE or loss else dtype)
                close(a, e, 1e-4 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_convolution_in_three_dimensions_agrees_with_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, spatial, (n, c, f, inside) = _grouped(rng, 3)
    x, w, b = _normal(rng, n, c, *spatial), _normal(rng, f, inside, *g.kernel), _normal(rng, f)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    padded = torch.nn.functional.pad(tx, [p for pair in reversed(g.padding) for p in pair])
    ty = torch.nn.functional.conv3d(padded, tw, tb, g.stride, 0, g.dilation, g.groups)
    dy = _normal(rng, *ty.shape)
    ty.backward(torch.tensor(dy))
    assert tx.grad is not None
    assert tw.grad is not None
    close(vectorized.conv(x, w, b, g), ty.detach().numpy())
    close(vectorized.conv_input_gradient(dy, w, g, spatial), tx.grad.numpy())
    close(vectorized.conv_kernel_gradient(dy, x, g), tw.grad.numpy())


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softmax"])
def test_large_inputs_do_not_overflow(name: str) -> None:
    x = np.array([[-1e4, -80.0, 0.0, 80.0, 1e4]], np.float32)
    arguments = (x, 1) if name == "softmax" else (x,)
    for module in (reference, *FAST):
        close(getattr(module, name)(*arguments), getattr(torch, name)(*map(_tensor, arguments)).numpy())


def _tensor(value: object) -> object:
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def test_patches_are_what_the_windows_see() -> None:
    x = np.arange(8.0).reshape(1, 2, 4)
    g = Geometry((2,), (2,), ((1, 0),), (2,))
    rows = vectorized.patches(x, g)
    np.testing.assert_array_equal(rows[0, :, 0], [[0, 1, 0, 5], [1, 3, 5, 7]])
    back = vectorized.patches_backward(np.ones_like(rows), g, (4,))
    np.testing.assert_array_equal(back[0], [[0, 2, 0, 1]] * 2)


def test_chunks_cover_every_sample_once_in_order() -> None:
    for samples, each in [(1, 1), (7, 1 << 19), (5, 1 << 30), (64, 100_000)]:
        chunks = windows.sample_chunks(samples, each)
        assert [i for chunk in chunks for i in range(samples)[chunk]] == list(range(samples))
    assert len(windows.sample_chunks(7, 1 << 19)) == 4


@pytest.mark.parametrize("module", FAST)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_same_arguments_give_the_same_bits(name: str, module: object) -> None:
    given = arguments(name, 2, 0, np.float32)
    first, second = (getattr(module, name)(*given) for _ in range(2))
    for a, b in zip(_flat(first), _flat(second), strict=True):
        same_bits(a, b)
