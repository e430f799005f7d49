"""Gradients kept apart by sample, their norms and their clipped sum, compiled and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad import kernels
from sharedgrad.errors import ConfigError
from sharedgrad.uses import SharedWeight, Window
from tests.helpers import TOLERANCE, Array, close, same_bits
from tests.samples_apart import (
    BATCHES,
    COMPILED_NETS,
    IMAGE,
    NETS,
    Build,
    Case,
    grouped,
    normalized,
    plain,
    residual,
    signal,
    tied,
    wide,
)
from tests.uses.kinds import KINDS, Draw


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
