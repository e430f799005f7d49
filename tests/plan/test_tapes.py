"""What is handed out stays what it was: arrays and tapes, whatever the network computes afterwards."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad import kernels, network
from sharedgrad.kernels import set_threads
from tests.helpers import Array, close, same_bits
from tests.plan.networks import BATCHES, Case, draw

pytestmark = pytest.mark.compiled


def _arrays(gradients: sg.Gradients) -> dict[str, Array]:
    named = {p.name: array for p, array in gradients.items()}
    return named | {f"input {name}": array for name, array in gradients.inputs.items()}


def _same(actual: sg.Gradients, expected: dict[str, Array]) -> None:
    found = _arrays(actual)
    assert set(found) == set(expected)
    for name, array in found.items():
        same_bits(array, expected[name])


def _copies(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}


def _gone_on(case: Case, seed: int) -> None:
    """Later passes: in both modes, over other numbers and other batches, forward and back."""
    rng = np.random.default_rng(seed)
    for i in range(4):
        inputs = [rng.normal(size=x.shape) * 5 for x in case.inputs]
        case.net.forward(*inputs, training=bool(i % 2))[1].backward(case.upstreams, inputs=True)
    case.net.predict(*[rng.normal(size=x.shape) for x in case.inputs], batch_size=3)


@pytest.mark.parametrize("seed", range(30))
def test_later_passes_change_nothing_that_was_handed_out(seed: int) -> None:
    case = draw(seed, "double")
    y, tape = case.net.forward(*case.inputs, training=case.training)
    outputs = y if isinstance(y, dict) else {"y": y}
    gradients = tape.backward(case.upstreams, inputs=True)
    again = tape.backward(case.upstreams, inputs=True)
    kept, expected = _copies(outputs), _copies(_arrays(gradients))
    _gone_on(case, seed)
    for name, value in outputs.items():
        same_bits(value, kept[name])
    _same(gradients, expected)
    _same(again, expected)


@pytest.mark.parametrize("seed", range(30))
def test_a_kept_tape_gives_its_own_gradients(seed: int) -> None:
    case = draw(seed, "double")
    _, tape = case.net.forward(*case.inputs, training=case.training)
    expected = _arrays(tape.backward(case.upstreams, inputs=True))
    _, late = draw(seed, "double").net.forward(*case.inputs, training=case.training)
    _gone_on(case, seed)
    _same(tape.backward(case.upstreams, inputs=True), expected)
    _same(late.backward(case.upstreams, inputs=True), expected)
    trace = _arrays(tape.trace(case.upstreams).gradients())
    for name, array in trace.items():
        close(array, expected[name])


def test_running_statistics_of_later_batches_are_not_a_tapes() -> None:
    rng = np.random.default_rng(0)
    net = sg.Network([sg.BatchNorm2d(2), sg.ReLU(), sg.Conv2d(2, 1, 2)], (2, 4, 4), dtype="float64")
    x = rng.normal(size=(5, 2, 4, 4))
    y, tape = net.forward(x, training=False)
    upstream = rng.normal(size=y.shape)
    with kernels.use("vectorized"):
        expected = _arrays(net.forward(x, training=False)[1].backward(upstream, inputs=True))
    net.forward(10 * x + 3)
    for gradients in (tape.backward(upstream, inputs=True), tape.trace(upstream).gradients()):
        for name, array in _arrays(gradients).items():
            close(array, expected[name])


@pytest.mark.parametrize("seed", range(30))
def test_two_tapes_in_turn(seed: int) -> None:
    case, rng = draw(seed, "double"), np.random.default_rng(seed)
    batches = [case.inputs, [rng.normal(size=x.shape) for x in case.inputs]]

    def forward(inputs: list[Array]) -> sg.Tape:
        case.net.step = 0  # the same dropout each time
        return case.net.forward(*inputs, training=True)[1]

    expected = [_arrays(forward(inputs).backward(case.upstreams, inputs=True)) for inputs in batches]
    tapes = [forward(inputs) for inputs in batches]
    for i in (1, 0, 0, 1):
        _same(tapes[i].backward(case.upstreams, inputs=True), expected[i])


def _large(dtype: str) -> sg.Network:
    """Work enough for several threads at every node."""
    layers = [
        sg.Conv2d(3, 16, 5, padding=2),
        sg.BatchNorm2d(16),
        sg.ReLU(),
        sg.MaxPool2d(2),
        sg.Conv2d(16, 24, 3, stride=2, padding=1, groups=2),
        sg.Tanh(),
        sg.AvgPool2d(3, 1),
        sg.Dropout(0.3),
        sg.Flatten(),
        sg.Linear(24 * 6 * 6, 50),
        sg.ReLU(),
        sg.Linear(50, 10),
    ]
    return sg.Network(layers, (3, 32, 32), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("samples", [1, 7, 40])
def test_training_gives_the_same_bits_on_any_number_of_threads(dtype: str, samples: int) -> None:
    data = np.random.default_rng(0).normal(size=(3, samples, 3, 32, 32))
    labels = np.arange(samples) % 10

    def trained() -> list[Array]:
        net, loss = _large(dtype), sg.CrossEntropy()
        optimizer = sg.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for x in data:
            y, tape = net.forward(x)
            gradients = tape.backward(loss(y, labels)[1], inputs=True)
            optimizer.step(gradients)
        return [y, gradients.inputs["input"], *net.state_dict().values()]

    set_threads(1)
    expected = trained()
    for count in (2, 3):
        set_threads(count)
        for actual, one in zip(trained(), expected, strict=True):
            same_bits(actual, one)


@pytest.mark.parametrize("seed", range(4))
def test_several_python_threads_use_one_network_at_once(seed: int) -> None:
    case = draw(seed, "double", training=False, samples=17)
    rng = np.random.default_rng(seed)
    batches = [[rng.normal(size=(n, *x.shape[1:])) for x in case.inputs] for n in (17, 17, 5, 1)]
    ups = [{name: up[: len(batch[0])] for name, up in case.upstreams.items()} for batch in batches]

    def step(i: int) -> dict[str, Array]:
        tape = case.net.forward(*batches[i], training=False)[1]
        return _arrays(tape.backward(ups[i], inputs=True))

    expected = [step(i) for i in range(4)]
    case.net.structure().routes.clear()  # now all work them out at once
    meeting = Barrier(4, timeout=30)

    def work(i: int) -> list[dict[str, Array]]:
        meeting.wait()
        return [step(i) for _ in range(25)]

    with ThreadPoolExecutor(4) as pool:
        for i, results in enumerate(pool.map(work, range(4))):
            for result in results:
                for name, array in result.items():
                    same_bits(array, expected[i][name])


def test_python_threads_work_out_more_ways_than_a_network_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_ROUTES", 2)
    net, before = sg.Network([sg.Linear(3, 2)], (3,)), sys.getswitchinterval()

    def work(first: int) -> None:
        for i in range(1000):
            net.predict(np.ones((1 + (first + i) % 4, 3)))

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)


# ---- samples that do not interact


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("cut", [(17, 16), (9, 8), (5, 4), (3, 1)])
def test_a_batch_is_its_parts(seed: int, cut: tuple[int, int], instruction_set: str) -> None:
    """Lanes without a sample never leak into those that have one."""
    samples, first = cut
    case = draw(seed, "double", training=False, samples=samples)
    net = case.net

    def run(part: slice) -> tuple[dict[str, Array], sg.Gradients]:
        y, tape = net.forward(*(x[part] for x in case.inputs), training=False)
        upstreams = {name: up[part] for name, up in case.upstreams.items()}
        outputs = y if isinstance(y, dict) else {net.outputs[0]: y}
        return outputs, tape.backward(upstreams, inputs=True)

    y, whole = run(slice(None))
    (y1, one), (y2, two) = run(slice(first)), run(slice(first, None))
    for name, value in y.items():
        close(value, np.concatenate([y1[name], y2[name]]))
    for name, value in whole.inputs.items():
        close(value, np.concatenate([one.inputs[name], two.inputs[name]]))
    for parameter, value in whole.items():
        close(value, one[parameter] + two[parameter])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("samples", BATCHES[1:])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:.*encountered.*:RuntimeWarning")
def test_what_is_not_finite_stays_in_its_sample(poison: float, samples: int, seed: int, instruction_set: str) -> None:
    case = draw(seed, "double", training=False, samples=samples)
    sick = int(np.random.default_rng(seed).integers(samples))
    others = np.arange(samples) != sick

    def run() -> tuple[dict[str, Array], dict[str, Array]]:
        y, tape = case.net.forward(*case.inputs, training=False)
        outputs = y if isinstance(y, dict) else {case.net.outputs[0]: y}
        return outputs, dict(tape.backward(case.upstreams, inputs=True).inputs)

    healthy = run()
    for x in case.inputs:
        x[sick] = poison
    for before, after in zip(healthy, run(), strict=True):
        assert set(before) == set(after)
        for name, array in before.items():
            same_bits(after[name][others], array[others])


@pytest.mark.compiled
def test_the_same_question_has_the_same_bits_and_another_one_differs_by_rounding_alone() -> None:
    network = sg.Network(
        [sg.Conv2d(1, 8, 5), sg.ReLU(), sg.MaxPool2d(2), sg.Flatten(), sg.Linear(1152, 10)], (1, 28, 28)
    )
    rng = np.random.default_rng(0)
    y, tape = network.forward(rng.normal(size=(64, 1, 28, 28)))
    upstream = rng.normal(size=y.shape)
    for parameter in network.parameters():
        plain, again = (tape.backward(upstream)[parameter] for _ in range(2))
        same_bits(plain, again)
        for more in (tape.backward(upstream, inputs=True)[parameter], tape.backward(upstream, inputs=True)[parameter]):
            close(more, plain, 1e-6)
