"""Touching a number, in Chromium: what lights up, and what the ledger says, against the engine."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sharedgrad.geometry import Geometry
from tests.document.page.browser import Browser, needs_browser, printed, reads
from tests.document.page.examples import EXAMPLES, Example, draw, engine, node, weights

pytestmark = needs_browser
PAD = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def links(example: Example, name: str) -> list[tuple[int, int, int]]:
    """(input cell, weight entry, output cell) of every product of a convolution, flat; −1 in the padding.

    By padding an array of the inputs' own numbers as NumPy pads.
    """
    config = next(entry for entry in example["nodes"] if entry["name"] == name)
    x = np.array(example["numbers"]["x"]["x"])
    w = np.array(example["numbers"]["weights"][f"{name}.weight"])
    rank, groups = w.ndim - 2, config.get("groups", 1)
    arguments = [config.get(key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    g = Geometry.of(rank, list(w.shape[2:]), *arguments)
    cells = np.arange(x.size).reshape(x.shape)
    pads = ((0, 0), (0, 0), *g.padding)
    mode = config.get("padding_mode", "zeros")
    padded = np.pad(cells, pads, constant_values=-1) if mode == "zeros" else np.pad(cells, pads, mode=PAD[mode])
    positions = g.output(x.shape[2:])
    out = np.arange(len(x) * len(w) * int(np.prod(positions))).reshape(len(x), len(w), *positions)
    entries = np.arange(w.size).reshape(w.shape)
    found = []
    for n, f, c in product(range(len(x)), range(w.shape[0]), range(w.shape[1])):
        channel = f // (len(w) // groups) * w.shape[1] + c
        for o, k in product(np.ndindex(*positions), np.ndindex(*w.shape[2:])):
            at = tuple(i * s + j * d for i, s, j, d in zip(o, g.stride, k, g.dilation, strict=True))
            found.append((int(padded[n, channel, *at]), int(entries[f, c, *k]), int(out[n, f, *o])))
    return found


def of_sample(cells: set[int], shape: tuple[int, ...], sample: int) -> set[int]:
    size = int(np.prod(shape[1:]))
    return {cell for cell in cells if cell // size == sample}


@pytest.mark.parametrize("name", ["filter", "geometry", "classifier"])
def test_touching_a_weight_lights_exactly_its_uses(name: str, browser: Browser) -> None:
    example, opened = EXAMPLES[name], browser.open(EXAMPLES[name], "at=conv")
    x, y = np.shape(example["numbers"]["x"]["x"]), engine(example).values["conv"].shape
    every = links(example, "conv")
    shape = np.shape(example["numbers"]["weights"]["conv.weight"])
    count = int(np.prod(shape))
    for entry in range(0, count, max(1, count // 12)):
        opened.page.mouse.move(0, 0)
        if entry not in opened.shown("w:0"):
            opened.page.locator('[data-page="w:0"][data-by="1"]').click()
            opened.settle()
        opened.cell("w:0", entry).hover()
        opened.settle()
        cells = {i for i, w, _ in every if w == entry and i >= 0}
        outputs = {o for _, w, o in every if w == entry}
        assert opened.lit("x:0") == of_sample(cells, x, 0)
        assert opened.lit("dy") == of_sample(outputs, y, 0)
        assert opened.lit("y") == opened.lit("dx:0") == set()
        element = ",".join(str(i) for i in np.unravel_index(entry, shape))
        assert opened.page.locator(".inspector .name").text_content().endswith(f"dw[{element}]")


@pytest.mark.parametrize("name", ["filter", "geometry", "classifier"])
def test_touching_an_input_or_an_output_cell_lights_what_it_is_multiplied_with(name: str, browser: Browser) -> None:
    example, opened = EXAMPLES[name], browser.open(EXAMPLES[name], "at=conv")
    x, y = np.shape(example["numbers"]["x"]["x"]), engine(example).values["conv"].shape
    every = links(example, "conv")
    for cell in range(0, int(np.prod(x[1:])), 5):
        opened.page.mouse.move(0, 0)
        opened.cell("dx:0", cell).hover()
        opened.settle()
        assert opened.lit("dy") == {o for i, _, o in every if i == cell}
        shown = opened.shown("w:0").keys()
        assert opened.lit("w:0") == {w for i, w, _ in every if i == cell} & shown
    for cell in range(0, int(np.prod(y[1:])), 5):
        opened.page.mouse.move(0, 0)
        opened.cell("y", cell).hover()
        opened.settle()
        assert opened.lit("x:0") == {i for i, _, o in every if o == cell and i >= 0}
        padding = len({k for i, k, o in every if o == cell and i < 0})
        assert opened.page.locator(".value td.pad.lit").count() == padding


def test_the_ledger_lists_every_use_and_ends_at_the_gradient(browser: Browser) -> None:
    example, truth = EXAMPLES["filter"], engine(EXAMPLES["filter"])
    opened = browser.open(example, "at=conv&touch=dw:0,1")
    terms = truth.trace.calls["conv"].uses[0].products(0, 0, 1).values
    rows = opened.page.locator(".ledger tr[data-link]").all()
    assert len(rows) == len(terms) == 3
    products = [reads(row.locator(".product").text_content()) for row in rows]
    assert products == [printed(t) for t in terms]
    sums = [reads(row.locator("td").last.text_content()) for row in rows]
    assert sums == [printed(s) for s in np.cumsum(terms)]
    assert reads(opened.page.locator(".ledger .total").text_content()) == float(f"{terms.sum():.6g}")
    opened.page.locator("#do-sort").select_option("size")
    opened.settle()
    products = [reads(p) for p in opened.page.locator(".ledger .product").all_text_contents()]
    assert products == sorted(products, key=abs, reverse=True)
    first = opened.page.locator(".ledger tbody tr").first
    first.hover()
    opened.settle()
    use = int(first.get_attribute("data-use"))
    assert opened.lit("x:0") == {use + 1}
    assert opened.lit("dy") == {use}


def test_terms_that_are_zero_say_why(browser: Browser) -> None:
    """Padding, a ReLU that is off, a cell that is not the largest: marked, not left out."""
    example = draw(
        {
            "inputs": {"x": [1, 4, 4]},
            "nodes": [
                node("conv", "Conv2d", in_channels=1, out_channels=1, kernel_size=3, padding=1),
                node("relu", "ReLU"),
                node("pool", "MaxPool2d", kernel_size=2),
            ],
            "numbers": {"upstream": ["pool"]},
        },
        seed=3,
        batch=1,
    )
    opened, truth = browser.open(example, "at=conv&touch=dw:0,0"), engine(example)
    code = """() => [...document.querySelectorAll('.ledger tr[data-link]')].map((row) =>
      row.nextElementSibling?.querySelector('em')?.textContent ?? '')"""
    notes = opened.evaluate(code)
    assert len(notes) == 16
    y, relu, pool = (truth.values[name][0, 0] for name in ("conv", "relu", "pool"))
    for position, note in enumerate(notes):
        i, j = divmod(position, 4)
        if min(i, j) == 0:
            assert note == "padding"
        elif y[i, j] <= 0 and relu[i, j] == 0 and pool[i // 2, j // 2] > 0:
            assert "ReLU is off" in note or "not the largest" in note
        elif relu[i, j] < pool[i // 2, j // 2]:
            assert "not the largest" in note
        else:
            assert note == "" or "ReLU is off" in note


def test_cover_and_guess(browser: Browser) -> None:
    truth = weights(engine(EXAMPLES["filter"]))["conv.weight"].ravel()
    opened = browser.open(EXAMPLES["filter"], "at=conv")
    opened.page.locator('[data-cover="dw:0"]').click()
    opened.settle()
    assert set(opened.shown("dw:0").values()) == {"?"}
    opened.hold("dw:0", 0)
    assert opened.page.locator(".inspector .result").text_content() == "= ?"
    assert set(opened.page.locator(".ledger .product").all_text_contents()) == {"?"}
    assert f"{abs(truth[0]):.4g}" not in opened.page.locator(".inspector").inner_html()
    opened.enter("#do-guess", str(truth[0] + 1))
    assert opened.page.locator(".verdict").text_content().startswith("Not yet.")
    assert opened.page.locator("td.wrong").count() == 1
    opened.hold("dw:0", 1)
    opened.enter("#do-guess", f"{truth[1]:.3g}")
    assert opened.page.locator(".verdict").text_content().startswith("Right.")
    assert opened.page.locator(".ledger tr[data-link]").count() == 3


def test_a_large_layer_is_drawn_in_blocks_that_open(browser: Browser) -> None:
    example = draw(
        {
            "inputs": {"x": [1, 64, 64]},
            "nodes": [node("conv", "Conv2d", in_channels=1, out_channels=1, kernel_size=3, padding=1)],
            "numbers": {"upstream": ["conv"]},
        },
        seed=5,
        batch=1,
    )
    opened = browser.open(example, "at=conv&touch=dw:0,4")
    assert opened.page.locator("[data-part]").count() == 4 * 32 * 32
    assert opened.page.locator(".ledger [data-open]").count() == 64
    opened.page.locator("[data-open]").nth(2).click()
    opened.settle()
    assert opened.page.locator(".ledger tr[data-link]").count() == 64
    opened.page.locator("[data-part='x:0@0']").nth(40).click()
    opened.settle()
    assert len(opened.shown("x:0")) == 24 * 24
    opened.page.locator("[data-whole]").click()
    opened.settle()
    assert opened.shown("x:0") == {}
