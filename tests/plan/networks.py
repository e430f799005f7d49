"""Networks drawn at random, of all layers that compiled programs know, joined in all ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad.errors import ShapeError
from tests.helpers import Array, numbers

Shape = tuple[int, ...]
PADDING = ("zeros", "zeros", "reflect", "replicate", "circular")
BATCHES = (1, 2, 3, 5, 8, 9, 16, 17, 33, 40)

# What a network computes with. Where rounding could turn a ReLU on or off or change a window's winner, two
# implementations may differ by more than rounding; so float32 either stays exact or has no such layers.
MODES = {
    "double": (np.float64, ("ReLU", "Sigmoid", "Tanh", "MaxPool", "AvgPool", "BatchNorm2d", "GlobalAvgPool")),
    "single": (np.float32, ("Sigmoid", "Tanh", "AvgPool", "BatchNorm2d", "GlobalAvgPool")),
    "whole": (np.float32, ("ReLU", "ReLU", "MaxPool")),
}


@dataclass
class Case:
    """A network and what to do with it.

    Attributes:
        net: The network; drawn with one seed twice, two networks with the same values.
        inputs: Its inputs, samples included.
        upstreams: Node -> gradient: at outputs and at inner nodes.
        training: The mode.
        want_inputs: Whether the inputs' gradients are asked for.
    """

    net: sg.Network
    inputs: list[Array]
    upstreams: dict[str, Array]
    training: bool
    want_inputs: bool


class Swish(sg.Layer):
    """A layer of somebody's own: y = x · sigmoid(x)."""

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        (x,) = inputs
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(self, saved: Any, upstream: Array, needs: Any) -> tuple[tuple[Array | None, ...], list[sg.uses.Uses]]:
        x, s = saved
        return (upstream * (s + x * s * (1 - s)),), []

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


class Scale(sg.Layer):
    """Another with a weight for each channel, y = w · x, whose arrays lie in memory in another order."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.weight = sg.Parameter((channels,), lambda rng, shape: rng.normal(1, 0.3, shape), "weight")

    def forward(self, *inputs: Array, context: sg.Context) -> tuple[Array, Any]:
        last = np.moveaxis(inputs[0], 1, -1)
        return np.asfortranarray(np.moveaxis(last * self.weight.value, -1, 1)), last

    def backward(self, saved: Any, upstream: Array, needs: Any) -> tuple[tuple[Array | None, ...], list[sg.uses.Uses]]:
        delta = np.moveaxis(upstream, 1, -1)
        axes = {"sample": delta.shape[:1], "position": delta.shape[1:-1]}
        dx = np.asfortranarray(np.moveaxis(delta * self.weight.value, -1, 1)) if needs[0] else None
        return (dx,), [sg.uses.Direct(self.weight, delta, axes, local=saved)]

    def output_shape(self, *shapes: Shape) -> Shape:
        self.expect(shapes[0][0] == self.channels, f"{self.channels} channels", shapes[0])
        return shapes[0]


class _Drawing:
    """A graph that grows node by node.

    Args:
        rng, samples, training, choices: Where numbers come from, and what to draw.
        foreign: How often a layer in Python follows a node.
    """

    def __init__(
        self, rng: np.random.Generator, samples: int, training: bool, choices: tuple[str, ...], foreign: float
    ) -> None:
        self.rng, self.samples, self.training, self.choices = rng, samples, training, choices
        self.foreign = foreign
        self.graph: dict[str, tuple[Any, ...]] = {}
        self.shapes: dict[str, Shape] = {}
        self.inputs: dict[str, Shape] = {}
        self.watched: list[str] = []  # nodes whose values a program may never write down, or not as they are

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, things: Any) -> Any:
        things = list(things)
        return things[self.rng.integers(len(things))]

    def input(self) -> str:
        rank = self.pick([1, 2, 2])
        name = f"in{len(self.inputs)}"
        self.inputs[name] = self.shapes[name] = (self.pick([1, 2, 3, 4, 6]), *numbers(self.rng, 3, 11, rank))
        return name

    def node(self, layer: sg.Layer, *sources: str) -> str:
        name = f"n{len(self.graph)}"
        self.shapes[name] = layer.output_shape(*(self.shapes[source] for source in sources))
        self.graph[name] = (layer, *sources)
        return name

    # ---- layers for a shape

    def conv(self, shape: Shape, same: bool = False) -> sg.Layer:
        rank, channels = len(shape) - 1, shape[0]
        groups = self.pick([g for g in (1, 1, 2, 3, channels) if channels % g == 0])
        filters = channels if same else groups * self.pick([1, 2, 3] if groups > 1 else [1, 2, 4, 5, 7, 9])
        kernel = tuple(min(k, n) for k, n in zip(numbers(self.rng, 1, 4, rank), shape[1:], strict=True))
        settings: dict[str, Any] = {"padding": "same"}
        if not same:
            room = [(n - 1) // max(1, k - 1) for n, k in zip(shape[1:], kernel, strict=True)]
            settings = {
                "stride": numbers(self.rng, 1, 3, rank) if self.chance(0.5) else 1,
                "padding": tuple(numbers(self.rng, 0, 2, 2) for _ in range(rank)),
                "dilation": tuple(int(self.rng.integers(1, max(1, min(2, r)) + 1)) for r in room),
            }
        kind = sg.Conv1d if rank == 1 else sg.Conv2d
        settings |= {"groups": groups, "bias": self.chance(0.7)}
        copying = kind(channels, filters, kernel, padding_mode=self.pick(PADDING), **settings)
        return copying if self.fits(copying, shape) else kind(channels, filters, kernel, **settings)

    def fits(self, layer: sg.Layer, shape: Shape) -> bool:
        try:
            layer.output_shape(shape)
        except ShapeError:
            return False
        return True

    def pool(self, name: str, shape: Shape) -> sg.Layer:
        rank = len(shape) - 1
        kernel = tuple(min(k, n) for k, n in zip(numbers(self.rng, 1, 3, rank), shape[1:], strict=True))
        stride = None if self.chance(0.4) else numbers(self.rng, 1, 3, rank)
        padding = tuple(tuple(int(n) for n in self.rng.integers(0, k, 2)) for k in kernel) if self.chance(0.5) else 0
        more = {"count_include_pad": self.chance(0.5)} if name == "AvgPool" else {}
        return getattr(sg, f"{name}{rank}d")(kernel, stride, padding, **more)

    def layer(self, shape: Shape) -> sg.Layer:
        maps = len(shape) > 1
        choices: list[Callable[[], sg.Layer]] = [lambda: sg.Dropout(0.5)]
        choices += 4 * [(lambda: self.conv(shape)) if maps else (lambda: self.linear(shape))]
        for name in self.choices:
            if name.endswith("Pool") and name != "GlobalAvgPool":
                choices += [lambda name=name: self.pool(name, shape)] * maps
            elif name == "GlobalAvgPool":
                choices += [sg.GlobalAvgPool] * maps
            elif name == "BatchNorm2d":
                enough = self.samples * int(np.prod(shape[1:])) > 2 or not self.training
                choices += [lambda: sg.BatchNorm2d(shape[0], eps=0.1)] * (2 * (len(shape) == 3 and enough))
            else:
                choices.append(getattr(sg, name))
        return self.pick(choices)() if len(shape) > 1 or not self.chance(0.5) else self.linear(shape)

    def linear(self, shape: Shape) -> sg.Layer:
        return sg.Linear(shape[0], self.pick([1, 3, 10, 17]), bias=self.chance(0.7))

    # ---- one step of growth

    def grow(self, source: str) -> str:
        shape = self.shapes[source]
        if self.chance(0.15) and (others := [n for n, s in self.shapes.items() if s == shape]):
            return self.fused(self.node(sg.Add(), source, *(self.pick(others) for _ in range(self.pick([1, 1, 2])))))
        if self.foreign and self.chance(self.foreign):
            return self.node(self.pick([Swish(), Scale(shape[0]), *[sg.Softmax()] * (len(shape) == 1)]), source)
        if self.chance(0.1):
            beside = [n for n, s in self.shapes.items() if len(s) == len(shape) and s[1:] == shape[1:]]
            return self.node(sg.Concat(self.pick([1, -len(shape)])), source, self.pick(beside))
        if self.chance(0.15) and (used := self._fitting(shape)):
            return self.node(self.pick(used), source)
        if len(shape) > 1 and self.chance(0.15):  # a residual block
            inner = self.node(self.conv(shape, same=True), source)
            if "ReLU" in self.choices and self.chance(0.6):
                inner = self.node(sg.ReLU(), inner)
            return self.node(sg.Add(), inner, source)
        if len(shape) > 1 and (self.chance(0.08) or np.prod(shape[1:]) == 1):
            return self.node(sg.Flatten(), source)
        layer = self.layer(shape)
        if isinstance(layer, sg.Conv1d | sg.Conv2d | sg.Linear) and self.chance(0.25):
            self._tie(layer)
        return self.fused(self.node(layer, source))

    def fused(self, name: str) -> str:
        """Perhaps a ReLU behind the node, and perhaps a pool behind that: what programs compute in one."""
        if "ReLU" not in self.choices or not self.chance(0.4):
            return name
        relu = self.node(sg.ReLU(), name)
        self.watched += [name, relu]
        shape = self.shapes[relu]
        if len(shape) == 1 or not self.chance(0.4):
            return relu
        pooled = self.node(self.pool("MaxPool", shape), relu)
        if self.chance(0.3):  # another node reads what is pooled, too
            return self.node(sg.Flatten(), relu)
        return pooled

    def _fitting(self, shape: Shape) -> list[sg.Layer]:
        """Layers of the graph that take this shape too."""
        found = []
        for layer, *sources in self.graph.values():
            if len(sources) == 1 and not (isinstance(layer, sg.BatchNorm2d) and np.prod(shape[1:]) == 1):
                found += [layer] * self.fits(layer, shape)
        return found

    def _tie(self, layer: Any) -> None:
        """Let it share the weight of another layer, if there is one of its shape."""
        for other, *_ in self.graph.values():
            weight = getattr(other, "weight", None)
            if type(other) is type(layer) and weight.shape == layer.weight.shape:
                layer.weight = weight
                return


def draw(seed: int, mode: str, training: bool | None = None, samples: int | None = None, foreign: float = 0.0) -> Case:
    """Network number ``seed``: called again, the same once more.

    Args:
        seed: Every number is another network.
        mode: One of MODES.
        training: The mode of the forward pass; drawn if None.
        samples: The size of the batch; one of BATCHES, in turn, if None.
        foreign: How many of the layers have no compiled operation.
    """
    rng = np.random.default_rng([seed, sorted(MODES).index(mode)])
    dtype, choices = MODES[mode]
    samples = samples or BATCHES[seed % len(BATCHES)]
    drawn = bool(rng.random() < 0.7)
    training = drawn if training is None else training
    d = _Drawing(rng, samples, training, choices, foreign)
    last = d.input()
    for _ in range(int(rng.integers(3, 9))):
        source = last if d.chance(0.8) else d.pick(d.shapes)
        last = d.grow(d.input() if d.chance(0.05) else source)
    outputs = list(dict.fromkeys([last, *([d.pick(d.graph)] if d.chance(0.3) else [])]))
    net = sg.Network(d.graph, d.inputs, outputs, seed=seed, dtype=np.dtype(dtype).name)
    values = _whole if mode == "whole" else _normal
    for parameter in net.parameters():
        fan = max(1, int(np.prod(parameter.shape[1:])))
        parameter.value = values(rng, parameter.shape, fan)
    for key, buffer in net._named_buffers().items():
        if not key.endswith("tracked"):
            buffer.replace(rng.uniform(0.5, 2, buffer.value.shape))
    inputs = [values(rng, (samples, *shape), 1).astype(dtype) for shape in d.inputs.values()]
    at = [last] if d.chance(0.9) else [d.pick(d.graph)]
    at += [d.pick(d.watched or d.graph) for _ in range(d.pick([0, 0, 1, 2]))]
    shapes = net.shapes()
    upstreams = {name: values(rng, (samples, *shapes[name]), 1) for name in at}
    return Case(net, inputs, upstreams, training, d.chance(0.5))


def _normal(rng: np.random.Generator, shape: Shape, fan: int) -> Array:
    return rng.normal(size=shape) / np.sqrt(fan)


def _whole(rng: np.random.Generator, shape: Shape, fan: int) -> Array:
    """Small whole numbers; of a kernel's, about three are not zero."""
    values = rng.integers(-2, 3, shape).astype(float)
    return values if fan == 1 else np.sign(values) * (rng.random(shape) < 3 / fan)
