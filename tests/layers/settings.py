"""A table of all layers: for each, settings drawn at random and the same layer in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import sharedgrad as sg
from tests.helpers import PADDINGS, Array, Sliding, numbers, sliding

Rng = np.random.Generator
Shape = tuple[int, ...]
MODES = ("zeros", "reflect", "replicate", "circular")


def normal(rng: Rng, shape: Shape) -> Array:
    return rng.normal(size=shape)


def away_from_zero(rng: Rng, shape: Shape) -> Array:
    return rng.uniform(0.1, 2, shape) * rng.choice([-1, 1], shape)


def apart(rng: Rng, shape: Shape) -> Array:
    """No two values closer than 0.1, mostly negative: padding that took part as 0 would win."""
    count = int(np.prod(shape))
    return 0.1 * rng.permutation(count).reshape(shape) - 0.08 * count


def ties(rng: Rng, shape: Shape) -> Array:
    """Few different values, so that windows have several winners."""
    return rng.integers(-3, 1, shape).astype(float)


@dataclass
class Setting:
    """One layer, its twin in PyTorch, and what it is called with.

    Attributes:
        layer: The layer under test.
        twin: The same function of the same inputs, with the same parameter names.
        shapes: The inputs' shapes, samples included.
        draw: Draws an input.
        training: The mode.
        smooth: Whether the layer has a derivative at the inputs that ``draw`` gives.
    """

    layer: sg.Layer
    twin: nn.Module
    shapes: list[Shape]
    draw: Callable[[Rng, Shape], Array] = normal
    training: bool = True
    smooth: bool = True

    def __post_init__(self) -> None:
        """Give layer and twin the same random values: no scale stays 1, no bias 0."""
        rng = np.random.default_rng(crc32(repr((self.layer, self.shapes)).encode()))
        for parameter in self.layer.parameters().values():
            parameter.cast(np.dtype(np.float64))
            parameter.value = rng.normal(size=parameter.shape)
        for name, buffer in self.layer.buffers().items():
            buffer.replace(3 if name == "num_batches_tracked" else rng.uniform(0.5, 2, buffer.value.shape))
        self.twin.to(torch.float64).train(self.training)
        if self.layer.parameters():
            items = {**self.layer.parameters(), **self.layer.buffers()}
            self.twin.load_state_dict({name: torch.tensor(item.value) for name, item in items.items()})

    def to(self, dtype: type) -> Setting:
        for parameter in self.layer.parameters().values():
            parameter.cast(np.dtype(dtype))
        for buffer in self.layer.buffers().values():
            if buffer.value.dtype.kind == "f":
                buffer.cast(np.dtype(dtype))
        self.twin.to({np.float32: torch.float32, np.float64: torch.float64}[dtype])
        return self

    @property
    def output(self) -> Shape:
        return (self.shapes[0][0], *self.layer.output_shape(*(shape[1:] for shape in self.shapes)))

    @property
    def chains(self) -> bool:
        """Whether the layer can follow itself."""
        return self.shapes == [self.output]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _flat(pads: Any) -> list[int]:
    """Padding in PyTorch's order: last axis first."""
    return [p for pair in reversed(pads) for p in pair]


def _padded(module: nn.Module, pads: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    """The module behind a padding that may differ before and after."""
    module.register_forward_pre_hook(lambda _, args: functional.pad(args[0], _flat(pads), mode, value))
    return module


# ---- layers with a sliding kernel


def _channels(rng: Rng, alike: bool) -> tuple[int, int, int]:
    """(input channels, output channels, groups), up to depthwise with several filters for each channel."""
    groups = int(rng.choice([1, 1, 2, 3]))
    inside, outside = numbers(rng, 1, 2, 2)
    return groups * inside, groups * (inside if alike else outside), groups


def _window(rng: Rng, rank: int) -> tuple[Sliding, tuple[int, int, int], str]:
    form = str(rng.choice(PADDINGS))
    return sliding(rng, rank, form), _channels(rng, form == "same"), str(rng.choice(MODES))


def _written(rng: Rng, values: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where it will do, sometimes."""
    return values[0] if len(set(values)) == 1 and rng.random() < 0.5 else values


def _conv(rng: Rng, rank: int) -> Setting:
    window, (channels, filters, groups), mode = _window(rng, rank)
    bias, samples = bool(rng.integers(2)), int(rng.integers(1, 5))
    layer = (sg.Conv1d, sg.Conv2d)[rank - 1](
        channels,
        filters,
        _written(rng, window.kernel),
        _written(rng, window.stride),
        window.padding,
        _written(rng, window.dilation),
        groups,
        bias,
        mode,
    )
    arguments = (window.dilation, groups, bias)
    kind = (nn.Conv1d, nn.Conv2d)[rank - 1]
    twin: nn.Module
    if isinstance(window.padding, tuple) and isinstance(window.padding[0], tuple):
        twin = kind(channels, filters, window.kernel, window.stride, 0, *arguments)
        _padded(twin, window.pads, "constant" if mode == "zeros" else mode)
    else:
        twin = kind(channels, filters, window.kernel, window.stride, window.padding, *arguments, padding_mode=mode)
    return Setting(layer, twin, [(samples, channels, *window.spatial)])


class Unshared(nn.Module):
    """A convolution of one window for each position, with that position's weights."""

    def __init__(self, layer: sg.Layer, window: Sliding, groups: int, mode: str) -> None:
        super().__init__()
        for name, parameter in layer.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(parameter.shape)))
        self.window, self.groups, self.mode = window, groups, "constant" if mode == "zeros" else mode

    def forward(self, x: Tensor) -> Tensor:
        rank = len(self.window.kernel)
        convolve = (functional.conv1d, functional.conv2d)[rank - 1]
        x = functional.pad(x, _flat(self.window.pads), self.mode)
        positions = tuple(self.weight.shape[:rank])
        columns = []
        for position in np.ndindex(*positions):
            each = zip(position, self.window.stride, self.window.dilation, self.window.kernel, strict=True)
            seen = (slice(o * s, o * s + d * (k - 1) + 1, d) for o, s, d, k in each)
            y = convolve(x[(..., *seen)], self.weight[position], groups=self.groups).flatten(1)
            bias = getattr(self, "bias", None)
            columns.append(y if bias is None else y + bias[(slice(None), *position)])
        return torch.stack(columns, -1).unflatten(-1, positions)


def _locally_connected(rng: Rng, rank: int) -> Setting:
    window, (channels, filters, groups), mode = _window(rng, rank)
    layer = (sg.LocallyConnected1d, sg.LocallyConnected2d)[rank - 1](
        channels,
        filters,
        window.spatial,
        window.kernel,
        window.stride,
        window.padding,
        window.dilation,
        groups,
        bool(rng.integers(2)),
        mode,
    )
    shape = (int(rng.integers(1, 4)), channels, *window.spatial)
    return Setting(layer, Unshared(layer, window, groups, mode), [shape])


# ---- pooling


def _pooling(rng: Rng, rank: int) -> tuple[Sliding, Shape]:
    """Windows that overlap, touch or leave gaps; padding smaller than the window."""
    kernel = numbers(rng, 1, 4, rank)
    stride = numbers(rng, 1, 4, rank)
    form = str(rng.choice(["number", "numbers", "pairs"]))
    padding: Any = {
        "number": int(rng.integers(0, min(kernel) // 2 + 1)),
        "numbers": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
        "pairs": tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel),
    }[form]
    if rng.random() < 0.25:  # as large as the input
        stride, padding = (1,) * rank, tuple(((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel)
    spatial = tuple(k + int(rng.integers(0, 4)) for k in kernel)
    return Sliding(kernel, stride, padding, (1,) * rank, spatial), (*numbers(rng, 1, 3, 2), *spatial)


def _max_pool(rng: Rng, rank: int) -> Setting:
    window, shape = _pooling(rng, rank)
    convention = str(rng.choice(["first", "first", "last", "share"]))
    layer = (sg.MaxPool1d, sg.MaxPool2d)[rank - 1](window.kernel, window.stride, window.padding, convention)
    twin: nn.Module = Function(lambda x: _largest(x, window, convention))
    if convention == "first":  # PyTorch's own
        twin = _padded((nn.MaxPool1d, nn.MaxPool2d)[rank - 1](window.kernel, window.stride), window.pads, value=-np.inf)
    tied = bool(rng.integers(2))
    return Setting(layer, twin, [shape], ties if tied else apart, smooth=not tied)


def _largest(x: Tensor, window: Sliding, convention: str) -> Tensor:
    """Max pooling whose gradient goes to the last winner, or in equal shares to all."""
    cells = functional.pad(x, _flat(window.pads), value=-np.inf)
    for axis, (size, step) in enumerate(zip(window.kernel, window.stride, strict=True)):
        cells = cells.unfold(2 + axis, size, step)
    cells = cells.flatten(-len(window.kernel))
    if convention == "share":
        return cells.amax(-1)  # its backward divides by the number of winners
    last = cells.shape[-1] - 1 - np.argmax(cells.detach().numpy()[..., ::-1], -1)
    return cells.gather(-1, torch.tensor(last)[..., None])[..., 0]


def _avg_pool(rng: Rng, rank: int) -> Setting:
    window, shape = _pooling(rng, rank)
    count = bool(rng.integers(2))
    layer = (sg.AvgPool1d, sg.AvgPool2d)[rank - 1](window.kernel, window.stride, window.padding, count)
    kind = (nn.AvgPool1d, nn.AvgPool2d)[rank - 1]
    symmetric = isinstance(window.padding, int) or isinstance(window.padding[0], int)
    if symmetric:
        return Setting(layer, kind(window.kernel, window.stride, window.padding, count_include_pad=count), [shape])
    mean = _padded(kind(window.kernel, window.stride), window.pads)
    return Setting(layer, mean if count else Function(lambda x: mean(x) / mean(torch.ones_like(x))), [shape])


def _global_avg_pool(rng: Rng) -> Setting:
    shape = numbers(rng, 1, 5, int(rng.integers(3, 5)))
    return Setting(sg.GlobalAvgPool(), Function(lambda x: x.flatten(2).mean(-1)), [shape])


# ---- dense, recurrent, normalization


def _linear(rng: Rng) -> Setting:
    features, tokens, bias = numbers(rng, 1, 5, 2), numbers(rng, 1, 4, int(rng.integers(0, 3))), bool(rng.integers(2))
    if rng.random() < 0.25:
        features = (features[0],) * 2
    shape = (int(rng.integers(1, 5)), *tokens, features[0])
    return Setting(sg.Linear(*features, bias), nn.Linear(*features, bias), [shape])


def _rnn(rng: Rng) -> Setting:
    sizes, bias, last = numbers(rng, 1, 4, 2), bool(rng.integers(2)), bool(rng.integers(2))
    if rng.random() < 0.25:
        sizes, last = (sizes[0],) * 2, False
    twin = nn.RNN(*sizes, bias=bias, batch_first=True)
    twin.register_forward_hook(lambda _, __, result: result[0][:, -1] if last else result[0])
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 7)), sizes[0])
    return Setting(sg.RNN(*sizes, bias, last), twin, [shape])


def _batch_norm(rng: Rng) -> Setting:
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 4)), *numbers(rng, 2, 5, 2))
    arguments = (shape[1], float(rng.choice([1e-5, 1e-2])), float(rng.choice([0.1, 0.3])))
    layer, twin = sg.BatchNorm2d(*arguments), nn.BatchNorm2d(*arguments)
    return Setting(layer, twin, [shape], training=bool(rng.integers(2)))


# ---- the others


def _softmax(rng: Rng) -> Setting:
    shape = numbers(rng, 1, 5, int(rng.integers(2, 5)))
    axis = int(rng.choice([a for a in range(-len(shape) + 1, len(shape)) if a != 0]))
    return Setting(sg.Softmax(axis), nn.Softmax(axis), [shape])


def _elementwise(layer: Callable[[], sg.Layer], twin: Callable[[], nn.Module]) -> Callable[[Rng], Setting]:
    def draw(rng: Rng) -> Setting:
        shape = numbers(rng, 1, 5, int(rng.integers(2, 5)))
        return Setting(layer(), twin(), [shape], away_from_zero)

    return draw


CALLS = ("one", "two")  # the nodes that call the one layer, in every test's network


def _dropout(rng: Rng) -> Setting:
    layer = sg.Dropout(float(rng.choice([0.0, 0.3, 0.8])))
    calls = iter(CALLS)

    def masked(x: Tensor) -> Tensor:
        """The mask of a call is what the call makes of ones."""
        ones = np.ones(tuple(x.shape), x.detach().numpy().dtype)
        context = sg.Context(training).enter(next(calls))
        return x * torch.tensor(layer.forward(ones, context=context)[0])

    training = bool(rng.integers(4))
    return Setting(layer, Function(masked), [numbers(rng, 1, 5, int(rng.integers(2, 5)))], training=training)


def _flatten(rng: Rng) -> Setting:
    return Setting(sg.Flatten(), nn.Flatten(), [numbers(rng, 1, 4, int(rng.integers(2, 5)))])


def _reshape(rng: Rng) -> Setting:
    samples, *shape = numbers(rng, 1, 4, int(rng.integers(2, 5)))
    new = tuple(int(n) for n in rng.permutation([*shape, 1]))
    return Setting(sg.Reshape(new), Function(lambda x: x.reshape(len(x), *new)), [(samples, *shape)])


def _add(rng: Rng) -> Setting:
    shape = numbers(rng, 1, 4, int(rng.integers(2, 5)))
    return Setting(sg.Add(), Function(lambda *inputs: sum(inputs)), [shape] * int(rng.integers(2, 5)))


def _concat(rng: Rng) -> Setting:
    shape = numbers(rng, 1, 4, int(rng.integers(2, 5)))
    axis = int(rng.choice([a for a in range(-len(shape) + 1, len(shape)) if a != 0]))
    shapes = []
    for length in numbers(rng, 1, 3, int(rng.integers(2, 4))):
        lengths = list(shape)
        lengths[axis] = length
        shapes.append(tuple(lengths))
    return Setting(sg.Concat(axis), Function(lambda *inputs: torch.cat(inputs, axis)), shapes)


LAYERS: dict[str, tuple[Callable[[Rng], Setting], int]] = {  # with the number of settings
    "Conv1d": (lambda rng: _conv(rng, 1), 40),
    "Conv2d": (lambda rng: _conv(rng, 2), 60),
    "LocallyConnected1d": (lambda rng: _locally_connected(rng, 1), 15),
    "LocallyConnected2d": (lambda rng: _locally_connected(rng, 2), 25),
    "MaxPool1d": (lambda rng: _max_pool(rng, 1), 20),
    "MaxPool2d": (lambda rng: _max_pool(rng, 2), 40),
    "AvgPool1d": (lambda rng: _avg_pool(rng, 1), 15),
    "AvgPool2d": (lambda rng: _avg_pool(rng, 2), 25),
    "GlobalAvgPool": (_global_avg_pool, 6),
    "Linear": (_linear, 20),
    "RNN": (_rnn, 20),
    "BatchNorm2d": (_batch_norm, 20),
    "Softmax": (_softmax, 12),
    "Sigmoid": (_elementwise(sg.Sigmoid, nn.Sigmoid), 4),
    "Tanh": (_elementwise(sg.Tanh, nn.Tanh), 4),
    "ReLU": (_elementwise(sg.ReLU, nn.ReLU), 4),
    "Dropout": (_dropout, 10),
    "Flatten": (_flatten, 4),
    "Reshape": (_reshape, 6),
    "Add": (_add, 6),
    "Concat": (_concat, 10),
}


def setting(name: str, seed: int) -> Setting:
    """The same setting for the same name and seed, with values of its own each time it is asked for."""
    return LAYERS[name][0](np.random.default_rng([crc32(name.encode()), seed]))


def all_settings() -> Iterator[tuple[str, int]]:
    for name, (_, count) in LAYERS.items():
        for seed in range(count):
            yield name, seed
