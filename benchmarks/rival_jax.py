"""JAX with the same nets: our networks carried out by JAX, a whole training step jitted. Imported only where wanted.

``LAYOUTS`` are the memory orders of maps; JAX counts at its best. Batch normalization keeps no running averages here,
which is to JAX's advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import sharedgrad as sg
from benchmarks import nets
from benchmarks.timing import Call
from benchmarks.training import RATE

Weights = dict[str, dict[str, jax.Array]]
KERNELS = {"NCHW": "OIHW", "NHWC": "HWIO"}


class Model:
    """A network as a function of its weights, with maps in one layout."""

    def __init__(self, net: sg.Network, layout: str) -> None:
        self.net, self.layout = net, layout
        self.channel, self.spatial = layout.index("C"), (layout.index("H"), layout.index("W"))
        self.operations: dict[type[sg.Layer], Callable[..., jax.Array]] = {
            sg.Conv2d: self._conv,
            sg.MaxPool2d: self._max_pool,
            sg.BatchNorm2d: self._normalize,
            sg.Linear: lambda layer, own, x: x @ own["weight"].T + own["bias"],
            sg.ReLU: lambda layer, own, x: jax.nn.relu(x),
            sg.Sigmoid: lambda layer, own, x: jax.nn.sigmoid(x),
            sg.Add: lambda layer, own, x, y: x + y,
            sg.GlobalAvgPool: lambda layer, own, x: x.mean(self.spatial),
            sg.Flatten: lambda layer, own, x: self._nchw(x).reshape(len(x), -1),
        }

    def weights(self) -> Weights:
        """The network's, kernels in the order that JAX takes beside this layout."""
        order = [2, 3, 1, 0] if self.layout == "NHWC" else [0, 1, 2, 3]
        return {
            node.name: {
                name: jnp.array(p.value.transpose(order) if p.value.ndim == 4 else p.value)
                for name, p in node.layer.parameters().items()
            }
            for node in self.net
        }

    def images(self, x: np.ndarray) -> jax.Array:
        return jnp.array(x.transpose(0, 2, 3, 1) if self.layout == "NHWC" else x)

    def scores(self, weights: Weights, x: jax.Array) -> jax.Array:
        values = dict.fromkeys(self.net.inputs, x)
        for node in self.net:
            operation = self.operations[type(node.layer)]
            values[node.name] = operation(node.layer, weights[node.name], *(values[name] for name in node.inputs))
        return values[node.name]

    def loss(self, weights: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        """The mean cross-entropy."""
        chances = jax.nn.log_softmax(self.scores(weights, x))
        return -jnp.take_along_axis(chances, labels[:, None], 1).mean()

    def _nchw(self, x: jax.Array) -> jax.Array:
        return x.transpose(0, 3, 1, 2) if self.layout == "NHWC" and x.ndim == 4 else x

    def _broadcast(self, vector: jax.Array) -> jax.Array:
        return vector.reshape([-1 if axis == self.channel else 1 for axis in range(4)])

    def _conv(self, layer: Any, own: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        g = layer.geometry
        orders = (self.layout, KERNELS[self.layout], self.layout)
        y = lax.conv_general_dilated(
            x, own["weight"], g.stride, g.padding, None, g.dilation, orders, feature_group_count=layer.groups
        )
        return y + self._broadcast(own["bias"]) if "bias" in own else y

    def _max_pool(self, layer: Any, own: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        window, strides, padding = [1] * 4, [1] * 4, [(0, 0)] * 4
        g = layer.geometry
        for axis, k, s, p in zip(self.spatial, g.kernel, g.stride, g.padding, strict=True):
            window[axis], strides[axis], padding[axis] = k, s, p
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)

    def _normalize(self, layer: Any, own: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        axes = (0, *self.spatial)
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        scale = lax.rsqrt(variance + layer.eps) * self._broadcast(own["weight"])
        return (x - mean) * scale + self._broadcast(own["bias"])


def training_step(name: str, batch: int, layout: str) -> Call:
    """A call that makes one step: forward, cross-entropy, backward, plain SGD, all compiled as one."""
    model, (x, labels) = Model(nets.build(name), layout), nets.data(name, batch)
    check(model, name)
    images, target, weights = model.images(x), jnp.array(labels), model.weights()

    def step(weights: Weights, images: jax.Array, target: jax.Array) -> tuple[Weights, jax.Array]:
        value, gradients = jax.value_and_grad(model.loss)(weights, images, target)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, gradients), value

    compiled = jax.jit(step, donate_argnums=0)

    def run() -> None:
        nonlocal weights
        weights, value = compiled(weights, images, target)
        jax.block_until_ready((weights, value))

    return run


def check(model: Model, name: str) -> None:
    """See that both nets are the same.

    Raises:
        ValueError: They give other gradients, so a comparison would be of different work.
    """
    x, labels = nets.data(name, 4)
    y, tape = model.net.forward(x)
    _, upstream = sg.CrossEntropy()(y, labels)
    ours = tape.backward(upstream)
    theirs = jax.grad(model.loss)(model.weights(), model.images(x), jnp.array(labels))
    for node in model.net:
        for key, parameter in node.layer.parameters().items():
            found = np.array(theirs[node.name][key])
            if found.ndim == 4 and model.layout == "NHWC":
                found = found.transpose(3, 2, 0, 1)
            size = np.abs(ours[parameter]).max()
            if not np.allclose(found, ours[parameter], rtol=1e-2, atol=1e-3 * size):
                raise ValueError(f"{name} gives other gradients in JAX than in sharedgrad, at {node.name}.{key}")
