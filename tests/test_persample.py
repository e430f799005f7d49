"""Gradients kept apart by sample, their norms and their clipped sum, compiled and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.uses import SharedWeight, Window
from tests.helpers import TOLERANCE, Array, close, same_bits
from tests.uses.kinds import KINDS, Draw

Build = Callable[[str], sg.Network]
IMAGE = (2, 9, 8)
BATCHES = (1, 3, 16, 17, 33)


def plain(dtype: str) -> sg.Network:
    """Strides, padding on one side, dilation; a dense layer without a bias."""
    layers = [
        *(sg.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2))), sg.ReLU(), sg.MaxPool2d(2)),
        *(sg.Conv2d(5, 4, 2, dilation=(1, 2), padding=1, bias=False), sg.Sigmoid(), sg.AvgPool2d(2, padding=1)),
        *(sg.Flatten(), sg.Linear(24, 7, bias=False), sg.Tanh(), sg.Linear(7, 3)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=1)


def grouped(dtype: str) -> sg.Network:
    """Groups, down to depthwise, and a stride that leaves cells out."""
    layers = [
        *(sg.Conv2d(2, 6, 3, padding=1, groups=2), sg.ReLU(), sg.Conv2d(6, 6, 3, groups=6, stride=3, padding=2)),
        *(sg.Tanh(), sg.Conv2d(6, 4, 1, groups=2), sg.GlobalAvgPool(), sg.Linear(4, 3)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=2)


def signal(dtype: str) -> sg.Network:
    layers = [sg.Conv1d(3, 5, 4, stride=2, padding=3, dilation=2), sg.ReLU(), sg.Conv1d(5, 2, 1), sg.Flatten()]
    return sg.Network(layers, (3, 11), dtype=dtype, seed=3)


def wide(dtype: str) -> sg.Network:
    """Many channels on few positions: the norms of its kernels come from inner products."""
    layers = [
        *(sg.Conv2d(2, 40, 3, padding=1, stride=2), sg.ReLU(), sg.Conv2d(40, 44, 3, padding=1), sg.ReLU()),
        *(sg.Conv2d(44, 40, (2, 3), padding=(0, 2), dilation=(3, 2), groups=2), sg.Flatten(), sg.Linear(320, 2)),
    ]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=4)


def residual(dtype: str) -> sg.Network:
    """One upstream gradient flows to several layers that have parameters."""
    layers: dict[str, Any] = {
        "stem": sg.Conv2d(2, 3, 3, padding=1),
        "tanh": sg.Tanh(),
        "skip": (sg.Sigmoid(), "tanh"),
        "left": (sg.Conv2d(3, 3, 3, padding=1), "tanh"),
        "right": (sg.Conv2d(3, 3, 1), "tanh"),
        "sum": (sg.Add(), "left", "right", "skip"),
        "relu": sg.ReLU(),
        "pool": sg.GlobalAvgPool(),
        "a": (sg.Linear(3, 4), "pool"),
        "b": (sg.Linear(3, 4), "pool"),
        "scores": (sg.Add(), "a", "b"),
    }
    return sg.Network(layers, IMAGE, dtype=dtype, seed=5)


def dropped(dtype: str) -> sg.Network:
    layers = [sg.Conv2d(2, 3, 3), sg.Dropout(0.4), sg.ReLU(), sg.Flatten(), sg.Linear(126, 4), sg.Dropout(0.5)]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=6)


def normalized(dtype: str) -> sg.Network:
    layers = [
        *(sg.Conv2d(2, 5, 3), sg.BatchNorm2d(5), sg.ReLU(), sg.Conv2d(5, 3, 3, bias=False), sg.BatchNorm2d(3)),
        *(sg.Tanh(), sg.Flatten(), sg.Linear(60, 3)),
    ]
    net = sg.Network(layers, IMAGE, dtype=dtype, seed=7)
    rng = np.random.default_rng(7)
    for layer in (node.layer for node in net):
        if isinstance(layer, sg.BatchNorm2d):
            for p in layer.parameters().values():
                p.value = rng.normal(1, 0.5, p.shape)
    for _ in range(3):
        net.forward(rng.normal(1, 2, (8, *IMAGE)))
    return net


def tied(dtype: str) -> sg.Network:
    """Two convolutions share their kernel, and one layer is called twice."""
    first, second, dense = sg.Conv2d(2, 2, 3, padding=1), sg.Conv2d(2, 2, 3, padding=1), sg.Linear(144, 144)
    second.tie("weight", first.weight)
    layers = [first, sg.Tanh(), second, sg.Flatten(), dense, sg.ReLU(), dense]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=8)


def tokens(dtype: str) -> sg.Network:
    """A recurrent layer, and a dense one on every time step."""
    layers = [sg.RNN(4, 5), sg.Linear(5, 3), sg.Flatten(), sg.Linear(21, 2)]
    return sg.Network(layers, (7, 4), dtype=dtype, seed=9)


def unshared(dtype: str) -> sg.Network:
    layers = [sg.LocallyConnected2d(2, 3, (9, 8), 3), sg.Tanh(), sg.Flatten(), sg.Linear(126, 2)]
    return sg.Network(layers, IMAGE, dtype=dtype, seed=10)


COMPILED_NETS = (plain, grouped, signal, wide, residual, dropped, normalized, tied)
NETS = (*COMPILED_NETS, tokens, unshared)


class Case:
    """A tape, an upstream gradient, and every sample's gradient by a backward pass of its own, in float64."""

    def __init__(self, build: Build, samples: int, dtype: str = "float64", sizes: float = 1.0) -> None:
        rng = np.random.default_rng(samples)
        self.net = build(dtype)
        self.samples = samples
        x = rng.normal(size=(samples, *next(iter(self.net.inputs.values()))))  # type: ignore[misc]
        y, self.tape = self.net.forward(x, training=build is not normalized)
        self.upstream = rng.normal(size=y.shape) * np.exp(rng.normal(0, sizes, (samples,) + (1,) * (y.ndim - 1)))
        self.parameters = self.net.parameters()
        self.dtype = np.dtype(dtype)

    def alone(self) -> dict[sg.Parameter, Array]:
        """(N, *shape): the upstream gradients of all other samples are zero."""
        rows = []
        for n in range(self.samples):
            upstream = np.zeros_like(self.upstream)
            upstream[n] = self.upstream[n]
            rows.append(self.tape.backward(upstream))
        return {p: np.stack([row[p] for row in rows]).astype(np.float64) for p in self.parameters}


def norms_of(apart: dict[sg.Parameter, Array]) -> Array:
    return np.sqrt(sum(np.square(a).reshape(len(a), -1).sum(1) for a in apart.values()))


def check_clipped(case: Case, apart: dict[sg.Parameter, Array], max_norm: float) -> None:
    """Against the definition."""
    total, norms = case.tape.clipped_by_sample(case.upstream, max_norm)
    expected = norms_of(apart)
    tolerance = 10 * TOLERANCE[case.dtype]
    assert norms.dtype == case.dtype
    assert norms.shape == (case.samples,)
    np.testing.assert_allclose(norms, expected, rtol=tolerance, atol=0)
    factors = np.minimum(1, max_norm / np.maximum(expected, 1e-300))
    assert list(total) == list(case.tape.backward(case.upstream))
    for p, a in apart.items():
        assert total[p].dtype == case.dtype
        scale = np.abs(np.tensordot(factors, np.abs(a), 1)).max()
        assert np.abs(total[p] - np.tensordot(factors, a, 1)).max() <= tolerance * scale, p


@pytest.fixture(params=[pytest.param("compiled", marks=pytest.mark.compiled), "layers", "NumPy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How backward passes run; forward runs as it does by default."""
    if request.param == "layers":
        monkeypatch.setattr(kernels, "programs", lambda: False)
    with kernels.use("vectorized") if request.param == "NumPy" else nullcontext():
        yield request.param


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("samples", BATCHES)
def test_gradients_kept_apart_are_those_of_single_samples(build: Build, samples: int, way: str) -> None:
    case = Case(build, samples)
    apart, expected = case.tape.backward(case.upstream, by_sample=case.parameters), case.alone()
    assert list(apart) == list(case.tape.backward(case.upstream))
    for p in case.parameters:
        close(apart[p], expected[p])


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("samples", BATCHES)
def test_the_clipped_sum_and_the_norms_are_as_defined(build: Build, samples: int, way: str) -> None:
    case = Case(build, samples)
    apart = case.alone()
    check_clipped(case, apart, float(np.median(norms_of(apart))))


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("samples", BATCHES)
def test_in_single_precision(build: Build, samples: int) -> None:
    case = Case(build, samples, "float32")
    apart = case.alone()
    for p, array in case.tape.backward(case.upstream, by_sample=case.parameters).items():
        close(array, apart[p])
    check_clipped(case, apart, float(np.median(norms_of(apart))))


@pytest.mark.compiled
@pytest.mark.parametrize("build", COMPILED_NETS)
def test_the_compiled_way_is_the_one_that_is_tested(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(build, 5)

    def fail(*arguments: object) -> None:
        raise AssertionError("layer by layer")

    monkeypatch.setattr(sg.Tape, "_through_layer", fail)
    case.tape.backward(case.upstream, by_sample=case.parameters)
    case.tape.clipped_by_sample(case.upstream, 1.0)


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", [plain, grouped, signal, wide, residual])
@pytest.mark.parametrize("forced", ["again", "keep", "products"])
def test_all_ways_to_a_kernels_norms(build: Build, forced: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharedgrad.plan.steps import convolution

    monkeypatch.setattr(convolution, "cheapest", lambda *_: forced)
    for samples in (16, 37) if forced == "products" else (2, 16, 37):
        case = Case(build, samples, dtype)
        apart = case.alone()
        check_clipped(case, apart, float(np.median(norms_of(apart))))


@pytest.mark.compiled
def test_each_way_is_the_cheapest_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharedgrad.plan.steps import convolution

    chosen, choose = set(), convolution.cheapest

    def spy(*arguments: Any) -> str:
        chosen.add(choose(*arguments))
        return choose(*arguments)

    monkeypatch.setattr(convolution, "cheapest", spy)
    for channels, size in ((40, 4), (4, 16), (2, 3)):
        net = sg.Network([sg.Conv2d(channels, channels, 3, padding=1)], (channels, size, size))
        y, tape = net.forward(np.ones((16, channels, size, size)))
        tape.clipped_by_sample(np.ones_like(y), 1.0)
    assert chosen == {"again", "keep", "products"}


@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set() -> None:
    for build in COMPILED_NETS:
        for dtype in ("float32", "float64"):
            case = Case(build, 9, dtype)
            apart = case.alone()
            for p, array in case.tape.backward(case.upstream, by_sample=case.parameters).items():
                close(array, apart[p])
            check_clipped(case, apart, float(np.median(norms_of(apart))))


def test_against_pytorch() -> None:
    net = plain("float64")
    twin = torch.nn.Sequential(
        *(torch.nn.ZeroPad2d((0, 2, 1, 0)), torch.nn.Conv2d(2, 5, (3, 2), stride=(2, 1)), torch.nn.ReLU()),
        *(torch.nn.MaxPool2d(2), torch.nn.Conv2d(5, 4, 2, dilation=(1, 2), padding=1, bias=False)),
        *(torch.nn.Sigmoid(), torch.nn.AvgPool2d(2, padding=1), torch.nn.Flatten()),
        *(torch.nn.Linear(24, 7, bias=False), torch.nn.Tanh(), torch.nn.Linear(7, 3)),
    ).double()
    weights = {name: torch.tensor(p.value) for name, p in zip(twin.state_dict(), net.parameters(), strict=True)}
    rng = np.random.default_rng(3)
    x, upstream = rng.normal(size=(19, *IMAGE)), rng.normal(size=(19, 3))

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(twin, parameters, (x[None],))[0] * up).sum()

    theirs = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, torch.tensor(x), torch.tensor(upstream))
    expected = {p: theirs[name].numpy() for name, p in zip(weights, net.parameters(), strict=True)}
    _, tape = net.forward(x)
    for p, array in tape.backward(upstream, by_sample=net.parameters()).items():
        close(array, expected[p])
    norms = norms_of(expected)
    total, found = tape.clipped_by_sample(upstream, float(np.median(norms)))
    close(found, norms)
    factors = np.minimum(1, np.median(norms) / norms)
    for p, array in total.items():
        close(array, np.tensordot(factors, expected[p], 1))


# ---- what is kept apart, and what is not


@pytest.mark.parametrize("build", [plain, normalized, residual, tied])
def test_only_the_listed_parameters_are_kept_apart(build: Build, way: str) -> None:
    case = Case(build, 5)
    sums = case.tape.backward(case.upstream, inputs=True)
    everything = case.tape.backward(case.upstream, by_sample=case.parameters)
    for listed in ([p] for p in case.parameters):
        mixed = case.tape.backward(case.upstream, inputs=True, by_sample=listed)
        close(mixed.inputs["input"], sums.inputs["input"])
        for p in case.parameters:
            close(mixed[p], everything[p] if p in listed else sums[p])


def test_parameters_that_the_loss_does_not_reach(way: str) -> None:
    net = sg.Network({"a": sg.Linear(3, 2), "b": (sg.Linear(2, 2), "a")}, (3,), dtype="float64")
    _, tape = net.forward(np.ones((4, 3)))
    found = tape.backward({"a": np.ones((4, 2))}, by_sample=net.parameters())
    assert [p.name for p in found] == ["a.weight", "a.bias"]
    total, norms = tape.clipped_by_sample({"a": np.ones((4, 2))}, 0.5)
    assert [p.name for p in total] == ["a.weight", "a.bias"]
    np.testing.assert_allclose(norms, np.sqrt(8))


def test_losses_at_inner_nodes_count_together(way: str) -> None:
    net = sg.Network({"a": sg.Linear(3, 2), "tanh": sg.Tanh(), "b": sg.Linear(2, 2)}, (3,), dtype="float64")
    rng = np.random.default_rng(0)
    _, tape = net.forward(rng.normal(size=(4, 3)))
    ups = {"a": rng.normal(size=(4, 2)), "b": rng.normal(size=(4, 2))}
    apart = tape.backward(ups, by_sample=net.parameters())
    rows = [tape.backward({k: v * (np.arange(4) == n)[:, None] for k, v in ups.items()}) for n in range(4)]
    for p in net.parameters():
        close(apart[p], np.stack([row[p] for row in rows]))
    close(tape.clipped_by_sample(ups, 1.0)[1], norms_of(dict(apart)))


def test_one_sample_without_a_sample_axis(way: str) -> None:
    net = plain("float64")
    y, tape = net.forward(np.ones(IMAGE))
    upstream = np.arange(1.0, 4)
    assert y.shape == (3,)
    gradients, apart = tape.backward(upstream), tape.backward(upstream, by_sample=net.parameters())
    for p in net.parameters():
        close(apart[p], gradients[p][None])
    total, norms = tape.clipped_by_sample(upstream, 0.5)
    close(norms, [gradients.norm()])
    close(np.array(total.norm()), 0.5)


# ---- norms and factors at the edges


@pytest.mark.parametrize("build", [plain, wide, normalized, tied])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_with_no_gradient(build: Build, dtype: str, way: str) -> None:
    case = Case(build, 18, dtype)
    case.upstream[[0, 7, 17]] = 0
    apart = case.alone()
    assert (case.tape.clipped_by_sample(case.upstream, 1e-3)[1] == 0).nonzero()[0].tolist() == [0, 7, 17]
    check_clipped(case, apart, 1e-3)
    case.upstream[:] = 0
    total, norms = case.tape.clipped_by_sample(case.upstream, 1.0)
    assert not norms.any()
    assert not any(total[p].any() for p in case.parameters)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_norm_that_nothing_reaches_clips_nothing(dtype: str, way: str) -> None:
    case = Case(plain, 17, dtype)
    gradients = case.tape.backward(case.upstream)
    for max_norm in (1e6, 1e300, float("inf")):
        total, _ = case.tape.clipped_by_sample(case.upstream, max_norm)
        for p in case.parameters:
            close(total[p], gradients[p])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiny_norms(dtype: str, way: str) -> None:
    case = Case(plain, 17, dtype)
    total, norms = case.tape.clipped_by_sample(case.upstream, 1e-12)
    directions = {p: a / norms.reshape(-1, *(1,) * (a.ndim - 1)) for p, a in case.alone().items()}
    for p in case.parameters:
        close(total[p] * 1e12, directions[p].sum(0), 1e-3 if dtype == "float32" else None)
    assert all(np.abs(a).max() <= 1e-300 * 17 for a in case.tape.clipped_by_sample(case.upstream, 1e-300)[0].values())


def test_squares_that_single_precision_cannot_hold(way: str) -> None:
    case = Case(plain, 17, "float32", sizes=0)
    ordinary = case.tape.clipped_by_sample(case.upstream, 1.0)[1]
    for size in (1e-25, 1e25):
        norms = case.tape.clipped_by_sample(case.upstream * size, size)[1]
        np.testing.assert_allclose(norms, ordinary * size, rtol=1e-4)


def test_not_a_number_reaches_its_own_sample_alone(way: str) -> None:
    case = Case(plain, 17)
    case.upstream[3, 1] = np.nan
    norms = case.tape.clipped_by_sample(case.upstream, 1.0)[1]
    assert np.isnan(norms).nonzero()[0].tolist() == [3]


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_on_any_number_of_threads(dtype: str) -> None:
    layers = [
        *(sg.Conv2d(3, 24, 3, padding=1), sg.ReLU(), sg.MaxPool2d(2), sg.Conv2d(24, 64, 3, padding=1), sg.ReLU()),
        *(sg.MaxPool2d(2), sg.Conv2d(64, 64, 3, padding=1), sg.Flatten(), sg.Linear(1024, 40), sg.Linear(40, 5)),
    ]
    net = sg.Network(layers, (3, 16, 16), dtype=dtype)
    rng = np.random.default_rng(0)
    _, tape = net.forward(rng.normal(size=(37, 3, 16, 16)))
    upstream = rng.normal(size=(37, 5))
    runs = []
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        total, norms = tape.clipped_by_sample(upstream, 3.0)
        runs.append([norms, *total.values(), *tape.backward(upstream, by_sample=net.parameters()).values()])
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            same_bits(a, b)


def test_many_samples_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tied, 17)
    whole = case.tape.clipped_by_sample(case.upstream, 1.0)
    most = []

    def spy(self: Window, slices: Sequence[slice]) -> Window:
        part = original(self, slices)
        if slices[0] != slice(None):
            most.append(part.axes["sample"][0])
        return part

    original = Window.taken
    monkeypatch.setattr(Window, "taken", spy)
    monkeypatch.setattr("sharedgrad.uses.limits._limit", 1 << 17)
    parts = case.tape.clipped_by_sample(case.upstream, 1.0)
    assert 1 < max(most) < 17, most
    close(parts[1], whole[1])
    for p in case.parameters:
        close(parts[0][p], whole[0][p])


# ---- uses of some samples


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_samples_go_into_every_kind_of_uses(kind: str) -> None:
    for seed in range(5):
        draw = Draw(seed)
        for uses in KINDS[kind](draw):
            if "sample" not in uses.axes:
                with pytest.raises(ConfigError, match="uses of w: there is no axis 'sample'"):
                    uses.of_samples(slice(None))
                continue
            (samples,) = uses.axes["sample"]
            weights = draw.rng.normal(size=samples)
            apart = uses.sum(by="sample")
            close(uses.of_samples(slice(None), weights).gradient, np.tensordot(weights, apart, 1))
            some = slice(samples // 3, samples // 2 + 1)
            close(uses.of_samples(some).sum(by="sample"), apart[some])
            close(uses.of_samples(some, weights[some]).gradient, np.tensordot(weights[some], apart[some], 1))
            assert uses.of_samples(some).count * samples == uses.count * len(apart[some])
            squares = np.square(2 * apart).reshape(samples, -1).sum(1)
            close(SharedWeight([uses, uses]).norm(by="sample") ** 2, squares)


# ---- what is refused


@pytest.mark.parametrize("compiled", [True, False])
def test_layers_that_mix_samples_are_refused(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "programs", lambda: False)
    net = normalized("float64")
    x = np.random.default_rng(0).normal(size=(4, *IMAGE))
    y, tape = net.forward(x)
    upstream = np.ones_like(y)
    mixed = r"\(BatchNorm2d\) in training mode mixes the samples, so none has a gradient of its own"
    fix = r'; go forward with training=False, or keep its uses apart: trace\(upstream\)\[p\]\.sum\(by="sample"\)'
    with pytest.raises(ConfigError, match=f"by_sample: layer '1' {mixed} with respect to 0.weight{fix}"):
        tape.backward(upstream, by_sample=[net["0"].weight])  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=f"tape.clipped_by_sample: layer '4' {mixed}"):
        tape.clipped_by_sample(upstream, 1.0)
    # what comes after the last such layer has a gradient for each sample, and so have that layer's own parameters
    behind = [net.parameter(name) for name in ("4.weight", "4.bias", "7.weight", "7.bias")]
    apart = tape.backward(upstream, by_sample=behind)
    trace = tape.trace(upstream)
    for p in behind:
        close(apart[p], trace[p].sum(by="sample"))
    tape.backward(upstream)
    net.forward(x, training=False)[1].clipped_by_sample(upstream, 1.0)


def test_a_layer_of_ones_own_may_mix_samples_too() -> None:
    class Centred(sg.Layer):
        mixes_samples = True

        def forward(self, *inputs: Array, context: Any) -> tuple[Array, Any]:
            return inputs[0] - inputs[0].mean(axis=0), None

        def backward(self, saved: Any, upstream: Array, needs: Any) -> Any:
            return (upstream - upstream.mean(axis=0),), []

        def output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
            return shapes[0]

    try:
        net = sg.Network({"dense": sg.Linear(3, 2), "centred": Centred()}, (3,))
        _, tape = net.forward(np.ones((4, 3)))
        with pytest.raises(ConfigError, match=r"layer 'centred' \(Centred\) in training mode mixes the samples"):
            tape.clipped_by_sample(np.ones((4, 2)), 1.0)
    finally:
        del sg.Layer.registry["Centred"]


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan"), "1", None, 1j])
def test_norms_that_are_no_positive_numbers(max_norm: Any) -> None:
    case = Case(plain, 2)
    with pytest.raises(ConfigError, match=r"^tape\.clipped_by_sample: max_norm: expected a positive number, got "):
        case.tape.clipped_by_sample(case.upstream, max_norm)
    with pytest.raises(ConfigError, match=r"^max_norm: expected a positive number, got "):
        case.tape.backward(case.upstream).clipped(max_norm)


def test_parameters_of_another_network() -> None:
    case, other = Case(plain, 2), plain("float64")
    message = "by_sample: 0.weight is no parameter of this network; choose from net.parameters()"
    with pytest.raises(ConfigError) as caught:
        case.tape.backward(case.upstream, by_sample=other.parameters()[:1])
    assert str(caught.value) == message
    for wrong in ("0.weigth", ["0.weigth"], 3, [None], [[]]):
        with pytest.raises(ConfigError, match=r"is no parameter of this network"):
            case.tape.backward(case.upstream, by_sample=wrong)  # type: ignore[arg-type]
    one = case.parameters[0]
    for way in (one, [one], "0.weight", ["0.weight"]):
        assert case.tape.backward(case.upstream, by_sample=way)[one].shape == (2, *one.shape)  # type: ignore[arg-type]


def test_stale_tapes_and_wrong_shapes() -> None:
    case = Case(plain, 2)
    with pytest.raises(ShapeError, match="expected the output's shape"):
        case.tape.clipped_by_sample(case.upstream[:1], 1.0)
    case.parameters[0].value = case.parameters[0].value + 1
    with pytest.raises(sg.errors.StaleTapeError):
        case.tape.clipped_by_sample(case.upstream, 1.0)


def test_what_is_kept_apart_adds_scales_and_has_no_single_norm() -> None:
    case = Case(plain, 3)
    kernel = case.parameters[0]
    sums, apart = case.tape.backward(case.upstream), case.tape.backward(case.upstream, by_sample=[kernel])
    close((apart + 2 * apart)[kernel], 3 * apart[kernel])
    with pytest.raises(ConfigError, match=r"^norm: the gradient of 0\.weight is kept apart by sample; sum it over"):
        apart.norm()
    with pytest.raises(ConfigError, match="is kept apart by sample"):
        apart.clipped(1.0)
    with pytest.raises(
        ShapeError, match=r"^0\.weight: expected gradients of one shape to add, got 3×5×2×3×2 and 5×2×3"
    ):
        apart + sums
    with pytest.raises(ShapeError, match=r"0\.weight: expected a gradient of shape"):
        sg.SGD(case.parameters, lr=0.1).step(apart)
