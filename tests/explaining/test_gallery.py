"""The worked examples: their numbers are the engine's, and what their sources printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sharedgrad.document import terminal
from sharedgrad.document.blocks import Grid, Section, Table, walk
from sharedgrad.explaining import explain, gallery
from sharedgrad.explaining.gallery import Entry
from sharedgrad.explaining.names import Names
from tests.explaining.reading import check

CASES = json.loads((Path(__file__).parents[1] / "cases/worked_examples.json").read_text("utf-8"))
EXAMPLES = {
    "filter-1d": "dsse26755-1d",
    "network-5x5": "dsse27506-cnn",
    "channels-and-filters": "dsse28593-multichannel",
    "stride-and-padding": "learn_dl-conv",
    "max-pool-overlap": "flux1197-overlap",
    "max-pool-ties": "koryakinp-pool",
    "rnn-three-steps": "vzhou-rnn-transpose",
}


def arrays(name: str) -> dict[str, np.ndarray]:
    entry = Entry(name)
    return {symbol.key: symbol.array for symbol in Names(entry.calculation, entry.calculation.run()).all()}


def right(name: str, key: str) -> np.ndarray:
    case = CASES[EXAMPLES[name]]
    return np.array({**case.get("right", {}), **case.get("published", {})}[key])


def same(ours: np.ndarray, theirs: np.ndarray, decimals: int = 8) -> None:
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=0, atol=1.01 * 10.0**-decimals)


def test_every_file_is_an_entry() -> None:
    assert sorted(path.stem for path in gallery.FOLDER.glob("*.json")) == sorted(gallery.NAMES)


@pytest.mark.parametrize("name", gallery.NAMES)
def test_every_printed_formula_gives_the_engines_values(name: str) -> None:
    found = explain(name)
    assert check(found.document) >= 2
    assert max(map(len, found.text().splitlines())) <= terminal.WIDTH


@pytest.mark.parametrize("name", gallery.NAMES)
def test_grids_hold_the_engines_arrays(name: str) -> None:
    held = arrays(name)
    found = explain(name)
    grids = [block for block in walk(found.document.blocks) if isinstance(block, Grid)]
    known = [grid for grid in grids if grid.symbol.key in held]
    assert known
    for grid in known:
        np.testing.assert_array_equal(grid.symbol.array, held[grid.symbol.key])


@pytest.mark.parametrize("name", [name for name in gallery.NAMES if Entry(name).published])
def test_the_published_numbers(name: str) -> None:
    entry = Entry(name)
    names = Names(entry.calculation, entry.calculation.run())
    for published in entry.published:
        pairs = published.pairs(names)
        assert pairs
        for cell, value in pairs:
            # sources may cut the last digit instead of rounding it
            assert abs(cell.value - value) <= 1.01 * 10.0**-published.decimals, (published.array, cell.index)


def test_what_the_sources_printed_is_what_the_files_hold() -> None:
    for name, keys in {
        "filter-1d": {"y": "y", "dw": "dW", "dx": "dX"},
        "network-5x5": {"sigmoid.y": "sigmoid_out", "conv.dy": "delta_map", "conv.dw": "dW"},
        "channels-and-filters": {"y": "y", "dx": "dX"},
        "max-pool-ties": {"y": "y", "dx": "dX"},
    }.items():
        published = {entry.array: entry.values for entry in Entry(name).published}
        for ours, theirs in keys.items():
            expected = np.array(CASES[EXAMPLES[name]]["published"][theirs])
            np.testing.assert_array_equal(published[ours], expected)


def test_right_numbers_where_none_or_wrong_ones_were_published() -> None:
    five = arrays("network-5x5")
    same(five["conv.dw"], right("network-5x5", "dW_exact"))
    same(five["before.dy"], right("network-5x5", "dX_exact"))
    same(five["pool.dy"], right("network-5x5", "delta_sigmoid_exact"))
    stride = arrays("stride-and-padding")
    for ours, theirs in {"y": "y", "dw": "dW", "db": "db", "dx": "dX", "w_new": "w_updated"}.items():
        if ours in stride:
            same(stride[ours], right("stride-and-padding", theirs))
    rnn = arrays("rnn-three-steps")
    same(rnn["rnn.dw_hh"], right("rnn-three-steps", "dWhh"))
    same(rnn["rnn.dw_ih"], right("rnn-three-steps", "dWxh"))
    same(rnn["rnn.db_hh"], right("rnn-three-steps", "dbh"))
    same(arrays("max-pool-overlap")["dx"], right("max-pool-overlap", "dX"))


def test_the_layer_before_gives_the_published_image_and_gets_its_gradient() -> None:
    """Against PyTorch: the whole network, six by six, back to the first kernel."""
    five = arrays("network-5x5")
    x, before, kernel, dense = (
        torch.tensor(five[key], requires_grad=True) for key in ("x", "before.w", "conv.w", "dense.w")
    )
    image = torch.conv2d(x, before)
    np.testing.assert_array_equal(image.detach().numpy()[0, 0], CASES[EXAMPLES["network-5x5"]]["given"]["x"])
    pooled = torch.max_pool2d(torch.conv2d(image, kernel), 2).sigmoid().flatten(1)
    (pooled @ dense.T).backward(torch.tensor([[0.25, -0.15]], dtype=torch.float64))
    for tensor, key in ((x, "dx"), (before, "before.dw"), (kernel, "conv.dw"), (dense, "dense.dw")):
        assert tensor.grad is not None
        same(five[key], tensor.grad.numpy(), 12)


def test_why_the_published_numbers_differ_in_the_fourth_digit() -> None:
    """With the source's rounding on the way the same rule gives its numbers."""
    (section,) = (
        block
        for block in walk(explain("network-5x5").document.blocks)
        if isinstance(block, Section) and block.key == "rounding"
    )
    deltas = [equation.right.value for block in section.blocks for equation in getattr(block, "equations", ())]
    published = np.array(CASES[EXAMPLES["network-5x5"]]["published"]["delta_sigmoid"]).reshape(-1)
    np.testing.assert_allclose(deltas, published, rtol=0, atol=1e-9)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    dw = np.array(CASES[EXAMPLES["network-5x5"]]["published"]["dW"]).reshape(-1)
    np.testing.assert_allclose([float(row[1]) for row in table.rows], dw, rtol=0, atol=1e-6)


def tables(name: str) -> dict[str, Table]:
    """The first table of each section."""
    sections = [b for b in walk(explain(name).document.blocks) if isinstance(b, Section)]
    return {s.key: t for s in sections for t in reversed([b for b in s.blocks if isinstance(b, Table)])}


def test_ten_parameters_and_900_uses() -> None:
    assert [row[1] for row in tables("count-32x32")["counts"].rows] == [10, 900, 9000, 922500]
    text = explain("count-32x32").text()
    assert "That makes ten." in text
    assert "nine input cells" in " ".join(text.split())


def test_four_weights_against_16_and_36() -> None:
    assert [row[1] for row in tables("four-weights")["symbols"].rows] == [4, 16, 36]
    symbolic = explain("four-weights").text().partition("Forward")[0]
    assert "dw[0,0] = dy[0,0]·x[0,0] + dy[0,1]·x[0,1] + dy[1,0]·x[1,0] + dy[1,1]·x[1,1]\n" in symbolic


def test_the_three_paths_of_a_weight() -> None:
    text = explain("chain-1d").text()
    assert "conv2.w[2]·(1 - h1.y[3]²)·x[3]" in text.replace("\n", "")
    assert "6 paths that are 0" in " ".join(text.split())


def test_equal_starts_do_not_stay_equal() -> None:
    found = tables("why-shared")
    after = [row[3] for row in found["theory-1"].rows]
    assert len(set(after)) == len(after)


def test_the_mean_of_the_copies_is_the_sum_with_a_900th_of_the_learning_rate() -> None:
    """Played by copies, as the theory has it: a locally connected layer, set to its mean after every update."""
    entry = Entry("why-shared")
    rate = entry.calculation.learning_rate or 0.0
    numbers = entry.calculation.to_config()["numbers"]
    x, kernel, dense = (torch.tensor(np.array(a)) for a in (numbers["x"]["input"], *numbers["weights"].values()))
    losses, middles = [], []
    for _ in range(6):
        copies = kernel.reshape(1, 9).repeat(900, 1).requires_grad_()
        weights = dense.clone().requires_grad_()
        patches = torch.nn.functional.unfold(x, 3)[0].T
        loss = 0.5 * ((patches * copies).sum(1) @ weights[0] - 1) ** 2
        loss.backward()
        losses.append(loss.item())
        middles.append(kernel.reshape(-1)[4].item())
        assert copies.grad is not None
        assert weights.grad is not None
        kernel = (copies.detach() - rate * copies.grad).mean(0)
        dense = dense - rate * weights.grad
    played = tables("why-shared")["theory-2"].rows
    np.testing.assert_allclose([float(row[3]) for row in played], losses, rtol=1e-10)
    np.testing.assert_allclose([float(row[4]) for row in played], middles, rtol=1e-10)


def test_the_steps_of_the_two_rules_point_in_different_directions() -> None:
    held = arrays("why-shared")
    conv, dense = held["conv.dw"].reshape(-1), held["dense.dw"].reshape(-1)
    one, other = np.concatenate([conv, dense]), np.concatenate([conv / 900, dense])
    angle = np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    assert angle > 45
    assert f"{angle:.6g} degrees" in " ".join(explain("why-shared").text().split())


def test_filters_started_equal_stay_equal_and_others_part() -> None:
    rows = tables("why-shared")["filters"].rows
    assert {row[1] for row in rows} == {0.0}
    assert rows[0][2] == pytest.approx(0.1)
    assert rows[-1][2] != pytest.approx(0.1, abs=1e-4)
