"""Networks: how they are written down, what they let in and out, modes, seeds and exchanged weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sharedgrad as sg
from sharedgrad.errors import CheckpointError, ConfigError, ShapeError
from tests.helpers import close
from tests.small_networks import small, two_inputs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(414301)


# ---- forms


def test_a_list_is_named_by_numbers_and_reads_in_order() -> None:
    net = small()
    assert [(node.name, node.inputs) for node in net] == [
        ("0", ("input",)),
        *((str(i), (str(i - 1),)) for i in range(1, 5)),
    ]
    assert net.outputs == ["4"]
    assert isinstance(net[0], sg.Conv2d)
    assert net[0] is net["0"]
    assert [p.name for p in net.parameters()] == ["0.weight", "0.bias", "4.weight", "4.bias"]


def test_pairs_and_a_mapping_say_the_same() -> None:
    layers = {"conv": sg.Conv1d(1, 1, 2), "tanh": sg.Tanh()}
    for form in (list(layers.items()), layers, {"conv": (layers["conv"],), "tanh": (layers["tanh"], "conv")}):
        net = sg.Network(form, (1, 4))
        assert [(node.name, node.inputs) for node in net] == [("conv", ("input",)), ("tanh", ("conv",))]


def test_entries_out_of_order_are_sorted_and_the_last_entry_stays_the_output(rng: np.random.Generator) -> None:
    net = sg.Network(
        {"c": (sg.Add(), "a", "b"), "b": (sg.Tanh(), "a"), "a": (sg.Linear(2, 2), "input"), "d": (sg.ReLU(), "c")},
        (2,),
    )
    assert [node.name for node in net] == ["a", "b", "c", "d"]
    assert net.outputs == ["d"]
    x = rng.normal(size=(3, 2)).astype(np.float32)
    a = net["a"].forward(x, context=sg.Context())[0]
    np.testing.assert_allclose(net.predict(x), np.maximum(a + np.tanh(a), 0), rtol=1e-6)


def test_an_output_may_be_any_node_and_there_may_be_several(rng: np.random.Generator) -> None:
    layers = {"a": sg.Linear(2, 3), "b": sg.Tanh(), "c": sg.Linear(3, 1)}
    x = rng.normal(size=(4, 2))
    one = sg.Network(layers, (2,), outputs="b")
    assert one.predict(x).shape == (4, 3)
    many = sg.Network(layers, (2,), outputs=["c", "a"])
    y, _ = many.forward(x)
    assert {name: array.shape for name, array in y.items()} == {"c": (4, 1), "a": (4, 3)}
    close(np.tanh(y["a"]), one.predict(x), 1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "network: expected at least one layer, got none"),
        ({}, "network: expected at least one layer, got none"),
        ([sg.Tanh(), "relu"], "node '1': expected a layer, got str"),
        ({"a": (sg.Tanh(), "b"), "b": (sg.Tanh(), "a")}, "network: expected no circles, got "),
        ({"a": (sg.Tanh(), "a")}, "network: expected no circles, got a -> a"),
        ({"a": (sg.Tanh(), "nowhere")}, "node 'a': reads 'nowhere', which is no node or input"),
        ([("a", sg.Tanh()), ("a", sg.Tanh())], "network: expected every name once, got input, a, a"),
        ({"input": sg.Tanh()}, "network: expected every name once, got input, input"),
    ],
)
def test_graphs_that_make_no_sense(layers: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sg.Network(layers)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": "5"}, "outputs: there is no node '5'; choose from 0, 1, 2, 3, 4"),
        ({"outputs": ["4", "x"]}, "outputs: there is no node 'x'; choose from"),
        ({"dtype": "float16"}, "dtype: expected float32 or float64, got 'float16'"),
        ({"dtype": "wide"}, "dtype: expected float32 or float64, got 'wide'"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": "one"}, "seed: expected a whole number of at least 0, got 'one'"),
        ({"input_shape": (1, 6, 0)}, "input_shape of 'input': expected positive whole numbers, got (1, 6, 0)"),
        ({"input_shape": "big"}, "input_shape of 'input': expected positive whole numbers, got 'big'"),
        ({"input_shape": 2.5}, "input_shape of 'input': expected positive whole numbers, got 2.5"),
        ({"input_shape": {}}, "input_shape: expected at least one input, got none"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(**arguments)
    assert str(caught.value).startswith(message)


# ---- layers that do not fit


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        (
            {"conv": sg.Conv2d(3, 4, 3)},
            (1, 8, 8),
            "layer 'conv' (Conv2d): expected samples of shape 3×height×width (in_channels=3), got 1×8×8; "
            "set in_channels=1",
        ),
        (
            {"conv": sg.Conv2d(1, 4, 3), "fc": sg.Linear(144, 10)},
            (1, 8, 8),
            "layer 'fc' (Linear): expected 144 features (in_features=144), got 4×6×6; put a Flatten before it",
        ),
        (
            {"flat": sg.Flatten(), "fc": sg.Linear(100, 10)},
            (1, 8, 8),
            "layer 'fc' (Linear): expected 100 features (in_features=100), got 64; set in_features=64",
        ),
        (
            {"pool": sg.GlobalAvgPool(), "norm": sg.BatchNorm2d(3)},
            (3, 8, 8),
            "layer 'norm' (BatchNorm2d): expected maps of shape 3×height×width (num_features=3), got 3; "
            "its input comes from 'pool'",
        ),
        (
            {"a": sg.Linear(2, 2), "b": (sg.Linear(2, 3), "input"), "sum": (sg.Add(), "a", "b")},
            (2,),
            "layer 'sum' (Add): expected two or more inputs of one shape, got 2 and 3; "
            "its input comes from 'a' and 'b'",
        ),
    ],
)
def test_a_layer_that_does_not_fit_says_which_expected_got_and_what_to_change(
    layers: Any, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError) as caught:
        sg.Network(layers, shape)
    assert str(caught.value) == message
    with pytest.raises(ShapeError) as caught:  # the shape is seen with the first batch at the latest
        sg.Network(layers).forward(np.zeros((2, *shape)))
    assert str(caught.value) == message


def test_a_layer_with_too_many_inputs_says_so() -> None:
    with pytest.raises(ConfigError, match=r"layer 'c' \(Tanh\): got 2 inputs \(a, b\), which it does not take"):
        sg.Network({"a": sg.ReLU(), "b": sg.ReLU(), "c": (sg.Tanh(), "a", "b")}, (3,))


def test_the_next_batch_may_have_another_size_where_the_layers_allow_it_and_is_checked_where_not() -> None:
    net = sg.Network([sg.Conv2d(1, 2, 3), sg.GlobalAvgPool()])
    assert net.predict(np.zeros((2, 1, 6, 6))).shape == net.predict(np.zeros((2, 1, 9, 5))).shape == (2, 2)
    with pytest.raises(ShapeError, match="does not fit into the padded input of 2×9"):
        net.predict(np.zeros((2, 1, 2, 9)))


def test_shapes_are_told_without_computing() -> None:
    assert small().shapes() == {
        "input": (1, 6, 6), "0": (2, 4, 4), "1": (2, 4, 4), "2": (2, 2, 2), "3": (8,), "4": (3,)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="network: its input shape is not known; pass input_shape"):
        small(input_shape=None).shapes()


# ---- modes, steps and seeds


def dropping(seed: int = 0) -> sg.Network:
    drop = sg.Dropout(0.5)
    return sg.Network({"a": drop, "b": (drop, "input"), "c": (sg.Dropout(0.5), "input")}, (40,), ["a", "b", "c"], seed)


def test_randomness_follows_seed_step_and_node() -> None:
    x = np.ones((2, 40))
    first, _ = (net := dropping()).forward(x)
    second, _ = net.forward(x)
    arrays = [*first.values(), *second.values()]
    assert all(not np.array_equal(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    other, _ = dropping(1).forward(x)
    assert not np.array_equal(other["a"], first["a"])
    again = dropping()
    for expected in (first, second):
        for name, value in again.forward(x)[0].items():
            np.testing.assert_array_equal(value, expected[name])
    again.step = 1
    np.testing.assert_array_equal(again.forward(x)[0]["b"], second["b"])


def test_only_training_counts_steps_and_draws() -> None:
    net, x = dropping(), np.ones((2, 40))
    expected = dropping().forward(x)[0]
    y, _ = net.forward(x, training=False)
    assert net.step == 0
    np.testing.assert_array_equal(y["a"], x)
    np.testing.assert_array_equal(net.forward(x)[0]["a"], expected["a"])
    assert net.step == 1


def test_first_weights_follow_the_seed_and_differ_between_layers() -> None:
    def build(seed: int) -> dict[str, Any]:
        return sg.Network([sg.Linear(3, 3), sg.Linear(3, 3)], seed=seed).state_dict()

    one, again, other = build(1), build(1), build(2)
    np.testing.assert_array_equal(one["0.weight"], again["0.weight"])
    assert not np.array_equal(one["0.weight"], other["0.weight"])
    assert not np.array_equal(one["0.weight"], one["1.weight"])


def test_a_forward_pass_that_fails_changes_nothing() -> None:
    net = sg.Network({"norm": sg.BatchNorm2d(2), "pool": sg.GlobalAvgPool(), "drop": sg.Dropout()}, (2, 1, 1))
    before = net.state_dict()
    with pytest.raises(ShapeError, match="more than one value per channel in training mode"):
        net.forward(np.ones((1, 2, 1, 1)))
    assert net.step == 0
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())


def test_a_batch_norm_called_twice_tracks_both_calls(rng: np.random.Generator) -> None:
    norm, other = sg.BatchNorm2d(2), torch.nn.BatchNorm2d(2, dtype=torch.float64)
    net = sg.Network({"a": norm, "b": sg.Tanh(), "c": norm}, (2, 3, 3), dtype="float64")
    for _ in range(3):
        x = rng.normal(2, 3, size=(4, 2, 3, 3))
        y, _ = net.forward(x)
        expected = other(torch.tanh(other(torch.tensor(x))))
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-9)
    for name, value in other.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[f"a.{name}"], value, rtol=1e-12)
    assert net.state_dict()["c.num_batches_tracked"] == 6


# ---- state_dict


def test_state_dict_hands_out_copies() -> None:
    net = small()
    state = net.state_dict()
    state["0.weight"][:] = 9
    assert not np.array_equal(net.state_dict()["0.weight"], state["0.weight"])
    net.load_state_dict(state)
    state["0.weight"][:] = 8
    assert (net.parameter("0.weight").value == 9).all()


BAD_STATES: dict[str, Any] = {
    "1.weight": (np.zeros(3), "state_dict: does not fit this network: no place for 1.weight"),
    "0.weight": (np.zeros((2, 1, 3)), "state_dict: 0.weight: expected shape (2, 1, 3, 3), got (2, 1, 3)"),
    "4.bias": (["a", "b", "c"], "state_dict: 4.bias: expected an array of numbers, got "),
    "4.weight": (None, "state_dict: 4.weight: expected"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(name: str) -> None:
    net = small()
    before = net.state_dict()
    value, message = BAD_STATES[name]
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict({**{n: v + 1 for n, v in before.items()}, name: value})
    assert str(caught.value).startswith(message)
    assert all(np.array_equal(before[n], v) for n, v in net.state_dict().items())


def test_a_state_with_something_missing_changes_nothing() -> None:
    net = small()
    before = net.state_dict()
    with pytest.raises(CheckpointError, match=r"does not fit this network: 4\.bias missing"):
        net.load_state_dict({n: v + 1 for n, v in before.items() if n != "4.bias"})
    assert all(np.array_equal(before[n], v) for n, v in net.state_dict().items())


def test_two_names_of_one_weight_are_compared_even_without_its_first_name() -> None:
    layer = sg.Linear(2, 2, bias=False)
    net = sg.Network({"a": layer, "b": layer, "c": layer})
    with pytest.raises(CheckpointError, match=r"c\.weight and b\.weight are one shared parameter but differ"):
        net.load_state_dict({"b.weight": np.zeros((2, 2)), "c.weight": np.ones((2, 2))})


def test_a_parameter_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"parameter: there is no '0\.wait'; choose from 0\.weight, 0\.bias"):
        small().parameter("0.wait")
    with pytest.raises(KeyError, match="no node 9; there are 0, 1, 2, 3, 4"):
        small()[9]


def test_the_representation_shows_the_graph() -> None:
    assert repr(two_inputs()) == (
        "Network(float32\n  l: Linear(in_features=2, out_features=3) <- x\n  sum: Add() <- l, z\n)"
    )


def test_a_buffer_keeps_its_type_and_is_never_changed_in_place() -> None:
    norm = sg.BatchNorm2d(2)
    network = sg.Network([norm], (2, 3, 3))
    norm.running_mean.value = np.array([1.0, 2.0])  # float64
    norm.running_var.value = [1, 4]
    norm.num_batches_tracked.value = np.int32(3)
    assert norm.running_mean.value.dtype == np.float32
    assert norm.num_batches_tracked.value.dtype == np.int64
    y, tape = network.forward(np.ones((4, 2, 3, 3)), training=False)
    np.testing.assert_allclose(y[:, 1], -0.5, rtol=1e-4)
    before = tape.backward(np.ones_like(y), inputs=True).inputs["input"]
    with pytest.raises(ValueError, match="read-only"):
        norm.running_var.value[0] = 100
    norm.running_var.value = np.array([100.0, 100.0])  # the tape has what its forward pass read
    np.testing.assert_array_equal(tape.backward(np.ones_like(y), inputs=True).inputs["input"], before)
    with pytest.raises(ShapeError, match=r"expected a value of shape \(2,\), got \(3,\)"):
        norm.running_mean.value = np.zeros(3)


@pytest.mark.parametrize("make", [lambda: sg.Linear(3, 3), lambda: sg.BatchNorm2d(3)])
def test_a_layer_in_networks_of_two_types_is_refused_where_it_is_used(make: Any) -> None:
    layer = make()
    shape = (3,) if isinstance(layer, sg.Linear) else (3, 2, 2)
    first = sg.Network([layer], shape)
    first.predict(np.ones((2, *shape)))
    second = sg.Network([layer], shape, dtype="float64")
    assert second.predict(np.ones((2, *shape))).dtype == np.float64
    message = r"0\.\w+: is float64 now, this network float32: another network of that type holds it too; give that one"
    for use in (first.predict, first.forward):
        with pytest.raises(ConfigError, match=message):
            use(np.ones((2, *shape)))


def test_outputs_can_be_set_anew() -> None:
    network = sg.Network({"hidden": sg.Linear(3, 4), "relu": sg.ReLU(), "out": sg.Linear(4, 2)}, (3,))
    x = np.random.default_rng(0).normal(size=(5, 3))
    out, tape = network.forward(x)
    network.outputs = "relu"
    assert network.outputs == ["relu"]
    hidden, _ = network.forward(x)
    assert hidden.shape == network.predict(x).shape == (5, 4)
    assert tape.backward(np.ones_like(out))["out.bias"].shape == (2,)
    network.outputs = ["out", "relu"]
    both = network.predict(x)
    np.testing.assert_array_equal(both["relu"], hidden)
    for wrong in ("output", ["out", "x"], []):
        with pytest.raises(ConfigError, match=r"outputs: there is no node '\w*'; choose from hidden, relu, out"):
            network.outputs = wrong
    assert network.to_config()["outputs"] == ["out", "relu"]
