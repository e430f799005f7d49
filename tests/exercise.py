"""``python -m tests.exercise``: every operation of the compiled kernels on shapes that take every way through them.

For sanitizers, which make everything many times slower: it loads NumPy and sharedgrad alone. Convolutions and networks
are held to the uncompiled kernels. It fails if an operation, or a function of the compiled module, was never called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.geometry import Geometry
from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.program import Builder, Program
from tests.helpers import Array, close, numbers
from tests.plan.networks import MODES, Case, draw

THREADS = 3
NETWORKS = range(12)
SMALL_WINDOWS = 40

# batch, channels, filters, height, width, kernel, stride, padding, groups, dilation; names say what they are to take
CONVOLUTIONS = {
    "first layer": (17, 1, 6, 14, 13, 5, 1, 2, 1, 1),
    "plain sums": (9, 5, 7, 12, 11, 3, 1, 1, 1, 1),
    "strided": (9, 6, 8, 13, 12, 3, 2, 1, 2, 1),
    "strided, one sample": (1, 6, 8, 13, 12, 3, 2, 1, 1, 1),
    "dilated": (3, 4, 5, 15, 12, 3, 1, 2, 1, 2),
    "minimal filtering": (17, 18, 20, 10, 9, 3, 1, 1, 1, 1),
    "minimal filtering, two chunks": (8, 136, 20, 5, 6, 3, 1, 0, 1, 1),
    "minimal filtering, few samples": (2, 52, 50, 12, 13, 3, 1, 1, 1, 1),
    "minimal filtering, few samples, few tiles": (1, 64, 50, 8, 9, 3, 1, 1, 1, 1),
    "small maps": (1, 20, 18, 5, 6, 3, 1, 1, 1, 1),
    "depthwise": (9, 10, 10, 9, 13, 3, 1, 1, 10, 1),
    "depthwise, 5×5": (17, 6, 6, 11, 9, 5, 1, 2, 6, 1),
    "depthwise, one sample": (1, 10, 10, 9, 13, 3, 1, 1, 10, 1),
    "depthwise, strided": (3, 10, 10, 9, 13, 3, 2, 1, 10, 1),
    "pointwise": (9, 33, 21, 6, 7, 1, 1, 0, 1, 1),
    "pointwise, one sample": (1, 33, 21, 9, 7, 1, 1, 0, 1, 1),
    "pointwise, strided": (3, 33, 21, 9, 31, 1, 2, 0, 1, 1),
    "signals": (5, 4, 6, 1, 40, 3, 1, 1, 1, 1),
}


def main() -> None:
    ran = watch()
    kernels.set_threads(THREADS)
    for name in ("avx512", "avx2", "baseline"):
        try:
            _native.choose(name)
        except ValueError:
            print(f"{name}: this processor does not have it", flush=True)
            continue
        for part in (convolutions, plainly, windows, networks, one_call, functions, at_once):
            part()
        print(f"{name}: fine", flush=True)
    if missed := sorted(entries() - ran):
        sys.exit(f"never carried out: {', '.join(missed)}")


def entries() -> set[str]:
    """Operations of programs, and functions of the module."""
    return {name for name in dir(_native) if callable(getattr(_native, name)) and name[0] != "_"} | set(OPERATIONS)


OPERATIONS = _native.OPERATIONS.split()


def watch() -> set[str]:
    """What is carried out from now on, by name."""
    ran = {"set_threads"}  # looked up when the package is loaded
    build = Builder.build

    def watched(self: Builder) -> Program:
        program = build(self)
        ran.update(name for name, *_ in self.operations)
        return program

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            ran.add(name)
            return function(*arguments)

        return call

    Builder.build = watched
    for name in entries() - set(OPERATIONS) - ran:
        setattr(_native, name, noting(name, getattr(_native, name)))
    return ran


def against(name: str, *arguments: Any) -> Array:
    """What a compiled kernel gives; it agrees with NumPy's."""
    found, expected = (getattr(k, name)(*arguments) for k in (kernels.native, kernels.vectorized))
    close(found, expected, 1e-3 if arguments[0].dtype == np.float32 else None)
    return np.asarray(found)


def passes(x: Array, w: Array, b: Array | None, g: Geometry, rng: np.random.Generator) -> None:
    dy = rng.normal(size=against("conv", x, w, b, g).shape).astype(x.dtype)
    against("conv_input_gradient", dy, w, g, x.shape[2:])
    against("conv_kernel_gradient", dy, x, g)
    against("conv_kernel_gradients", dy, x, g)
    against("conv_kernel_squares", dy, x, g)


def convolutions() -> None:
    """Each of the shapes above."""
    for seed, (samples, channels, filters, h, w, kernel, stride, padding, groups, dilation) in enumerate(
        CONVOLUTIONS.values()
    ):
        rng = np.random.default_rng(seed)
        k = (1 if h == 1 else kernel, kernel)
        g = Geometry(k, (stride,) * 2, ((0 if h == 1 else padding,) * 2, (padding,) * 2), (dilation,) * 2, groups)
        for dtype in (np.float32, np.float64):
            x = rng.normal(size=(samples, channels, h, w)).astype(dtype)
            weights = rng.normal(size=(filters, channels // groups, *k)).astype(dtype)
            passes(x, weights, rng.normal(size=filters).astype(dtype), g, rng)
            if kernel == 3 and dtype == np.float32:  # what minimal filtering must leave to the definition
                x[-1, -1, -1, -1] = np.inf
                with np.errstate(invalid="ignore"):
                    kernels.native.conv(x, weights, None, g)
                    kernels.native.conv_kernel_gradient(kernels.native.conv(x, weights, None, g), x, g)


def plainly() -> None:
    """The same without minimal filtering."""
    sg.set_winograd(False)
    convolutions()
    sg.set_winograd(True)


def windows() -> None:
    """Small windows of every kind."""
    for seed in range(SMALL_WINDOWS):
        rng = np.random.default_rng(seed)
        rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 3))
        kernel, stride, dilation = (numbers(rng, 1, most, rank) for most in (4, 3, 2))
        padding = tuple(numbers(rng, 0, k - 1, 2) for k in kernel)
        size = tuple(d * (k - 1) + 1 + int(rng.integers(6)) for k, d in zip(kernel, dilation, strict=True))
        dtype = (np.float32, np.float64)[seed % 2]
        x = rng.normal(size=(int(rng.choice([1, 2, 3, 5, 9])), 2 * groups, *size)).astype(dtype)
        w = rng.normal(size=(3 * groups, 2, *kernel)).astype(dtype)
        passes(x, w, None, Geometry(kernel, stride, padding, dilation, groups), rng)
        g = Geometry(kernel, stride, padding, (1,) * rank)
        y = against("max_pool", x, g)
        against("max_pool_backward", rng.normal(size=y.shape).astype(dtype), x, y, g, "first")
        against("avg_pool_backward", against("avg_pool", x, g, True), g, x.shape[2:], True)


def networks() -> None:
    """Networks drawn at random, and those of the field, in all that one does with them."""
    for mode in MODES:
        for seed in NETWORKS:
            case, twin = draw(seed, mode), draw(seed, mode)
            found = everything(case)
            with kernels.use("vectorized"):
                expected = everything(twin)
            for a, b in zip(found, expected, strict=True):
                close(a, b, 1e-2 if a.dtype == np.float32 else 1e-6)
    for net in (sg.models.lenet5((1, 12, 12), 10), sg.models.cnn((1, 8, 8), 10), sg.models.resnet20((3, 8, 8), 10)):
        for samples in (1, 17):
            for optimizer in (sg.SGD(net.parameters(), lr=0.01, momentum=0.9), sg.Adam(net.parameters(), lr=1e-4)):
                step(net, optimizer, samples)


def everything(case: Case) -> list[Array]:
    """Outputs and gradients: plain, by sample, clipped."""
    y, tape = case.net.forward(*case.inputs, training=case.training)
    gradients = tape.backward(case.upstreams, inputs=True)
    found = [*(y.values() if isinstance(y, dict) else [y]), *gradients.values(), *gradients.inputs.values()]
    try:
        found += tape.backward(case.upstreams, by_sample=list(case.net.parameters())).values()
        total, norms = tape.clipped_by_sample(case.upstreams, 1.0)
        found += [norms, *total.values()]
    except ConfigError:
        pass  # a network whose samples are not apart says so
    tape.trace(case.upstreams)
    return found


def step(net: sg.Network, optimizer: Any, samples: int) -> None:
    rng = np.random.default_rng(samples)
    x = rng.normal(size=(samples, *next(iter(net.inputs.values())))).astype(np.float32)
    y, tape = net.forward(x)
    _, upstream = sg.CrossEntropy()(y, rng.integers(0, 10, samples))
    optimizer.step(tape.backward(upstream))
    net.predict(x)


def one_call() -> None:
    """Steps in one call have the bits of the loop."""
    for samples in (1, 17):
        for make in (lambda net: sg.SGD(net.parameters(), lr=0.01), lambda net: sg.Adam(net.parameters(), lr=1e-3)):
            net, twin = (sg.Network([sg.ReLU(), sg.Flatten(), sg.Linear(1536, 33), sg.Linear(33, 10)]) for _ in "12")
            taken, written_out = sg.compile_step(net, sg.CrossEntropy(), make(net)), make(twin)
            rng = np.random.default_rng(samples)
            x, target = rng.normal(size=(samples, 6, 16, 16)).astype(np.float32), rng.integers(0, 10, samples)
            for _ in range(3):
                taken(x, target)
                y, tape = twin.forward(x, training=True)
                written_out.step(tape.backward(sg.CrossEntropy()(y, target)[1]))
            for a, b in zip(net.parameters(), twin.parameters(), strict=True):
                assert np.array_equal(a.value, b.value)


def functions() -> None:
    """What is not a program."""
    for rng, dtype in seeds():
        outputs, inputs, count = numbers(rng, 1, 40, 3)
        uses, w = numbers(rng, 1, 70, 1)[0], rng.normal(size=(count, outputs, inputs)).astype(dtype)
        p, delta = (rng.normal(size=(uses, count, size)).astype(dtype) for size in (inputs, outputs))
        against("blocks", p, w)
        against("blocks_input_gradient", delta, w)
        against("outer_sum", delta, p, 0)
        against("outer_sum", delta, p, 1)
        y = against("softmax", delta[:, 0], -1)
        against("softmax_backward", p[:, 0, :1] * y, y, -1)
        x, coefficients = rng.normal(size=(2, uses, inputs, 300)).astype(dtype), w[0, :1].repeat(3, 0)
        directions = rng.normal(size=(1, inputs, 8)).astype(dtype)
        for name, given in (("along_directions", (x[0][:, None], directions)), ("channel_uses", (*x, coefficients))):
            both = [getattr(k, name)(*given) for k in (kernels.native, kernels.vectorized)]
            for found, expected in zip(*both, strict=True):
                close(found, expected, 1e-3 if dtype == np.float32 else None)


def at_once() -> None:
    """Several threads of Python, each with a network of its own: they share the pool, and memory that is used again."""

    def train(samples: int) -> None:
        net = sg.models.cnn((1, 8, 8), 10, seed=samples)
        for _ in range(3):
            step(net, sg.SGD(net.parameters(), lr=0.01), samples)

    with ThreadPoolExecutor() as pool:
        list(pool.map(train, (1, 9, 16, 33)))


def seeds() -> Iterator[tuple[np.random.Generator, type]]:
    for seed in range(16):
        yield np.random.default_rng(seed), (np.float32, np.float64)[seed % 2]


if __name__ == "__main__":
    main()
