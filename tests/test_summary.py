"""Parameters, uses and twins of networks, against numbers worked out by hand."""

from __future__ import annotations

import pytest

import sharedgrad as sg
from sharedgrad.errors import ConfigError, ShapeError
from sharedgrad.summary import Row, summarize


def only(*layers: sg.Layer, shape: tuple[int, ...]) -> Row:
    [row] = summarize(sg.Network(list(layers), shape))
    return row


def test_a_kernel_on_32_by_32() -> None:
    row = only(sg.Conv2d(1, 1, 3), shape=(1, 32, 32))
    assert (row.output, row.parameters, row.uses) == ((1, 30, 30), 10, 900)
    assert row.without_sharing == 900 * 10
    assert row.as_dense == 32 * 32 * 900 + 900


def test_a_filter_on_3_by_3() -> None:
    row = only(sg.Conv2d(1, 1, 2, bias=False), shape=(1, 3, 3))
    assert (row.parameters, row.uses, row.without_sharing, row.as_dense) == (4, 4, 16, 36)


def test_groups_stride_and_channels() -> None:
    row = only(sg.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), shape=(4, 8, 8))
    assert (row.parameters, row.uses) == (6 * 2 * 9 + 6, 16)
    assert row.without_sharing == 16 * (6 * 2 * 9 + 6)
    assert row.as_dense == 4 * 64 * 6 * 16 + 6 * 16


def test_recurrence_shares_over_time() -> None:
    row = only(sg.RNN(3, 5), shape=(7, 3))
    weights = 5 * 3 + 5 * 5 + 5 + 5
    assert (row.parameters, row.uses, row.without_sharing) == (weights, 7, 7 * weights)
    assert row.as_dense == 7 * 3 * 7 * 5 + 7 * 5


def test_a_layer_that_shares_nothing_has_no_twin() -> None:
    row = only(sg.Linear(6, 4), shape=(6,))
    assert (row.parameters, row.uses, row.without_sharing, row.as_dense) == (28, 1, None, None)


def test_a_layer_without_parameters() -> None:
    row = only(sg.MaxPool2d(2), shape=(1, 4, 4))
    assert (row.parameters, row.uses, row.without_sharing, row.as_dense) == (0, 0, None, None)


def test_a_reused_layer_counts_once() -> None:
    conv = sg.Conv2d(2, 2, 3, padding=1)
    summary = summarize(sg.Network({"a": conv, "b": conv}, (2, 5, 5)))
    a, b = summary
    assert (a.parameters, a.shared_with) == (38, ())
    assert (b.parameters, b.shared_with, b.uses) == (0, ("a",), 25)
    assert summary.parameters == 38
    assert summary.without_sharing == 2 * 25 * 38


def test_a_tied_weight_counts_once_and_its_own_bias_besides() -> None:
    encoder, decoder = sg.Linear(4, 4), sg.Linear(4, 4)
    decoder.tie("weight", encoder.weight)
    summary = summarize(sg.Network({"encoder": encoder, "decoder": decoder}, (4,)))
    _, row = summary
    assert (row.parameters, row.shared_with) == (4, ("encoder",))
    assert summary.parameters == 24
    assert summary.without_sharing == summary.as_dense == 40
    assert "4 + shared with encoder" in summary.text(200)


def test_several_inputs() -> None:
    net = sg.Network({"sum": (sg.Add(), "p", "q"), "out": sg.Linear(3, 2)}, {"p": (3,), "q": (3,)})
    assert [row.output for row in summarize(net)] == [(3,), (2,)]


def test_lenet5_as_published() -> None:
    assert summarize(sg.models.lenet5((1, 28, 28), 10)).parameters == 61_706


def test_every_ready_made_network_agrees_with_its_state_dict() -> None:
    for name, model in sg.models.MODELS.items():
        net = model((3, 32, 32), 10)
        assert summarize(net).parameters == sum(p.value.size for p in net.parameters()), name


def test_another_shape_than_the_declared_one() -> None:
    net = sg.Network([sg.Conv2d(1, 1, 3)])
    with pytest.raises(ConfigError, match="input shape is not known"):
        summarize(net)
    [row] = summarize(net, (1, 5, 6))
    assert row.output == (1, 3, 4)
    with pytest.raises(ShapeError, match="in_channels=1"):
        summarize(net, (2, 5, 5))


def test_the_table() -> None:
    net = sg.Network(
        {"conv": sg.Conv2d(1, 2, 3, padding=1, init="glorot"), "flat": sg.Flatten(), "fc": sg.Linear(50, 3)},
        (1, 5, 5),
    )
    table, legend = summarize(net).text(100).split("\n\n")
    assert table.splitlines() == [
        "node   output  parameters  uses each  without sharing  as dense  layer",
        "conv   2×5×5           20         25              500     1,300  Conv2d(1, 2, 3, padding=1)",
        "flat   50                                                        Flatten()",
        "fc     3              153          1                             Linear(50, 3)",
        "total                 173                         653     1,453",
    ]
    assert legend.startswith("uses each: how often one sample uses each parameter")


@pytest.mark.parametrize("name", sg.models.MODELS)
@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_columns_give_way_and_numbers_stay_whole(name: str, width: int) -> None:
    summary = summarize(sg.models.MODELS[name]((3, 32, 32), 10))
    full, narrow = summary.text(1000).splitlines(), summary.text(width).splitlines()
    assert max(map(len, narrow)) <= width
    words = set(" ".join(full).split())
    assert {word for line in narrow for word in line.split()} - words <= {
        "left",
        "out",
        "at",
        f"{width}",
        "columns:",
    } | {word + "," for word in " ".join(full).split()}
    assert f"{summary.parameters:,}" in " ".join(narrow).split()


def test_what_is_left_out_is_said() -> None:
    summary = summarize(sg.models.resnet20((3, 32, 32), 10))
    assert "\nleft out at 80 columns: layer\n" in summary.text(80)
    assert "\nleft out at 60 columns: layer, as dense\n" in summary.text(60)
    assert "left out" not in summary.text(130)
