"""What goes into a network and what comes out, and what is seen of changes between passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from tests.helpers import close
from tests.small_networks import small, two_inputs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(414301)


def test_a_single_sample_may_come_without_the_sample_axis(rng: np.random.Generator) -> None:
    net = small(dtype="float64")
    x, upstream = rng.normal(size=(1, 6, 6)), rng.normal(size=3)
    y, tape = net.forward(x)
    batch, batch_tape = net.forward(x[None])
    assert y.shape == (3,)
    np.testing.assert_array_equal(y, batch[0])
    np.testing.assert_array_equal(net.predict(x), y)
    single, batched = tape.backward(upstream, inputs=True), batch_tape.backward(upstream[None], inputs=True)
    np.testing.assert_array_equal(single.inputs["input"], batched.inputs["input"][0])
    for parameter in net.parameters():
        np.testing.assert_array_equal(single[parameter], batched[parameter])
    np.testing.assert_array_equal(tape.backward(upstream[None])["0.weight"], single["0.weight"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, np.int8, list])
def test_everything_inside_has_the_networks_type_whatever_comes(
    dtype: str, given: Any, rng: np.random.Generator
) -> None:
    net = small(dtype=dtype)
    x = rng.integers(-3, 4, size=(2, 1, 6, 6))
    y, tape = net.forward(x.tolist() if given is list else x.astype(given))
    upstream = np.ones(y.shape, np.float64)
    gradients = tape.backward(upstream.tolist() if given is list else upstream.astype(given), inputs=True)
    arrays = [y, net.predict(x), gradients.inputs["input"], *gradients.values(), *net.state_dict().values()]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


def test_what_the_caller_does_to_his_arrays_afterwards_changes_nothing(rng: np.random.Generator) -> None:
    net = small(dtype="float64")
    x, upstream = rng.normal(size=(2, 1, 6, 6)), rng.normal(size=(2, 3))
    expected = net.forward(x.copy())[1].backward(upstream.copy(), inputs=True)
    y, tape = net.forward(x)
    x[:] = 7
    y[:] = 7
    trace = tape.trace(upstream)
    gradients = tape.backward(upstream, inputs=True)
    upstream[:] = 7
    for key in expected:
        np.testing.assert_array_equal(gradients[key.name], expected[key])
        close(trace.gradients()[key.name], expected[key])
    np.testing.assert_array_equal(gradients.inputs["input"], expected.inputs["input"])


def test_an_output_that_is_an_input_of_the_next_layer_is_safe_to_change(rng: np.random.Generator) -> None:
    net = sg.Network({"a": sg.Tanh(), "b": sg.Linear(2, 1)}, (2,), outputs=["a", "b"], dtype="float64")
    x = rng.normal(size=(3, 2))
    y, tape = net.forward(x)
    y["a"][:] = 100
    np.testing.assert_allclose(tape.backward({"b": np.ones((3, 1))})["b.weight"][0], np.tanh(x).sum(0), rtol=1e-12)


def test_inputs_come_in_order_or_by_name(rng: np.random.Generator) -> None:
    net = two_inputs()
    x, z = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    y = net.predict(x, z)
    for again in (net.predict(z=z, x=x), net.predict(x, z=z), net.forward(z=z, x=x)[0]):
        np.testing.assert_array_equal(again, y)
    assert net.predict(x[0], z[0]).shape == (3,)


def test_inputs_that_are_missing_too_many_or_of_different_lengths() -> None:
    net = two_inputs()
    x, z = np.zeros((4, 2)), np.zeros((4, 3))
    for inputs, named in (((x,), {}), ((x, z, z), {}), ((x,), {"y": z}), ((x, z), {"z": z}), ((), {"x": x})):
        with pytest.raises(ConfigError, match="network inputs: expected an array for each of x, z, got"):
            net.forward(*inputs, **named)
    with pytest.raises(ShapeError, match="expected the same number of samples everywhere, got x 4×2, z 3×3"):
        net.forward(x, z[:3])
    with pytest.raises(ShapeError, match="expected the same number of samples everywhere"):
        net.forward(x[0], z)


@pytest.mark.parametrize("x", ["pixels", [[1.0], [1.0, 2.0]], None, 3.0, np.zeros((0, 1, 6, 6)), [object()]])
def test_inputs_that_are_no_samples(x: Any) -> None:
    with pytest.raises(ShapeError, match="network input 'input': expected") as caught:
        small().forward(x)
    assert "\n" not in str(caught.value)


def test_predict_goes_batch_by_batch_in_evaluation_mode(rng: np.random.Generator) -> None:
    net = sg.Network({"conv": sg.Conv2d(1, 2, 3), "norm": sg.BatchNorm2d(2), "drop": sg.Dropout(0.5)}, (1, 5, 5))
    x = rng.normal(size=(7, 1, 5, 5))
    net.forward(x)
    before = net.state_dict()
    whole = net.predict(x)
    np.testing.assert_array_equal(whole, net.forward(x, training=False)[0])
    for size in (1, 3, 7, 100):
        np.testing.assert_allclose(net.predict(x, batch_size=size), whole, rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    for size in (0, -1, 2.5):
        with pytest.raises(ConfigError, match=f"batch_size: expected a whole number of at least 1, got {size}"):
            net.predict(x, batch_size=size)


def changing(dtype: str = "float32") -> sg.Network:
    layers = {"conv": sg.Conv2d(2, 3, 3), "norm": sg.BatchNorm2d(3), "relu": sg.ReLU(), "flat": sg.Flatten()}
    return sg.Network({**layers, "out": sg.Linear(48, 4), "last": sg.Linear(4, 4)}, (2, 6, 6), dtype=dtype)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda net: None,
    "an attribute": lambda net: setattr(net["norm"], "eps", 3.0),
    "a value": lambda net: setattr(net["out"].bias, "value", np.arange(4)),
    "a buffer": lambda net: setattr(net["norm"].running_mean, "value", np.arange(3)),
    "all values": lambda net: net.load_state_dict({name: a + 1 for name, a in net.state_dict().items()}),
    "a tie": lambda net: net["last"].tie("weight", net["out"].weight[:, 8:12]),
    "a parameter": lambda net: setattr(
        net["last"], "weight", sg.Network([sg.Linear(4, 4)], dtype=net.dtype)["0"].weight
    ),
    "a step of an optimizer": lambda net: sg.SGD(net.parameters(), lr=1).step(
        net.forward(np.ones((2, 2, 6, 6)))[1].backward(np.ones((2, 4)))
    ),
    "outputs": lambda net: setattr(net, "outputs", ["relu", "last"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_changes_between_passes_is_seen(change: str, dtype: str, rng: np.random.Generator) -> None:
    net, x = changing(dtype), rng.normal(size=(3, 2, 6, 6)).astype(dtype)

    def everything(of: sg.Network) -> list[Any]:
        ran = [of.predict(x), of.predict(x[:1]), of.predict(x[0]), of.forward(x, training=False)[0]]
        return [array for one in ran for array in (one.values() if isinstance(one, dict) else [one])]

    before = everything(net)
    kept = [array.copy() for array in before]
    CHANGES[change](net)
    found = everything(net)
    for array, expected in zip(found, everything(copy.deepcopy(net)), strict=True):  # which has to begin anew
        assert array.tobytes() == expected.tobytes()
    assert change == "nothing" or len(found) != len(kept) or not np.array_equal(found[0], kept[0])
    for array, expected in zip(before, kept, strict=True):
        np.testing.assert_array_equal(array, expected)


class Careless(sg.Layer):
    """Writes over what it reads, and keeps it."""

    def forward(self, *inputs: Any, context: sg.Context) -> Any:
        inputs[0][:] += 1
        self.__dict__["seen"] = inputs[0]
        return inputs[0], None

    def backward(self, saved: Any, upstream: Any, needs: Any) -> Any:
        return (upstream,), []

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]


@pytest.mark.parametrize("layer", [sg.ReLU, sg.Flatten, sg.Dropout, sg.Softmax, Careless])
@pytest.mark.parametrize("kernels", ["native", "vectorized"])
def test_the_callers_array_and_what_predict_returns_are_apart(layer: Any, kernels: Any) -> None:
    if kernels == "native" and not sg.kernels.compiled():
        pytest.skip("no kernels were compiled")
    net, x = sg.Network([layer()], (4,)), np.arange(12, dtype=np.float32).reshape(3, 4)
    with sg.kernels.use(kernels):
        for given in (x, x[:1], x[0]):
            y = net.predict(given)
            assert not np.shares_memory(x, y)
            expected = y.copy()
            y[:] = -1
            np.testing.assert_array_equal(x, np.arange(12).reshape(3, 4))
            np.testing.assert_array_equal(net.predict(given), expected)
    if layer is Careless:
        assert not np.shares_memory(x, net["0"].seen)


def test_arrays_that_the_compiled_code_cannot_read_as_they_are(rng: np.random.Generator) -> None:
    net, x = small(), rng.normal(size=(3, 1, 6, 6)).astype(np.float32)
    expected = net.predict(x)
    bytes_apart = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    bytes_apart[:] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    strided, fortran = np.repeat(x, 2, axis=3)[..., ::2], np.asfortranarray(x)
    for given in (bytes_apart, frozen, strided, fortran, x.astype(">f4"), x.astype(np.float64)):
        np.testing.assert_array_equal(net.predict(given), expected)


def test_passes_in_several_threads_while_values_and_attributes_change(rng: np.random.Generator) -> None:
    """Every pass sees a weight of before or after, whole."""
    dense = sg.Linear(6, 5, bias=False)
    net, x = sg.Network([dense, sg.ReLU()], (6,)), rng.normal(size=(40, 6)).astype(np.float32)
    weights = [rng.normal(size=(5, 6)).astype(np.float32) for _ in range(2)]
    expected: list[dict[int, Any]] = []
    for weight in weights:
        dense.weight.value = weight
        expected.append({n: net.predict(x[:n]) for n in range(1, 41)})
    done = False

    def change() -> None:
        while not done:
            for weight in weights:
                dense.weight.value = weight
                net["1"].name = "1"

    def predict(seed: int) -> bool:
        sizes = np.random.default_rng(seed).integers(1, 41, 300)
        found = [(n, net.predict(x[:n])) for n in sizes]
        return all(any(np.array_equal(y, known[n]) for known in expected) for n, y in found)

    with ThreadPoolExecutor(4) as pool:
        changing = pool.submit(change)
        results = [pool.submit(predict, seed) for seed in range(3)]
        right = [result.result() for result in results]
        done = True
        changing.result()
    assert right == [True] * 3


@pytest.mark.compiled
def test_a_program_stays_with_its_instruction_set(rng: np.random.Generator) -> None:
    native = sg.kernels.native._native
    net, x, best = small(), rng.normal(size=(20, 1, 6, 6)), native.instruction_set()
    expected = net.predict(x)
    native.choose("baseline")
    try:
        np.testing.assert_array_equal(net.predict(x), expected)
        np.testing.assert_allclose(net.forward(x, training=False)[0], expected, rtol=1e-4, atol=1e-5)
    finally:
        native.choose(best)


def test_a_network_is_no_function() -> None:
    message = r"network: cannot be called; y = net\.predict\(x\), or y, tape = net\.forward\(x\)"
    with pytest.raises(ConfigError, match=message):
        small()(np.zeros((1, 1, 6, 6)))


def test_predict_returns_every_output(rng: np.random.Generator) -> None:
    net = sg.Network({"a": sg.Linear(2, 3), "b": sg.Tanh()}, (2,), outputs=["a", "b"])
    y = net.predict(rng.normal(size=(5, 2)), batch_size=2)
    assert y["a"].shape == (5, 3)
    close(np.tanh(y["a"]), y["b"], 1e-6)
