"""What a reader does with the page and sees, in Chromium, against what the engine says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad.document.page import notebook
from sharedgrad.geometry import Geometry
from tests.document.page.browser import Browser, Opened, array, needs_browser
from tests.document.page.examples import EXAMPLES, GALLERY, Example, draw, engine, node, weights
from tests.helpers import Array, close

pytestmark = needs_browser
EDITS = 15  # in each example
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
    count = int(np.prod(np.shape(example["numbers"]["weights"]["conv.weight"])))
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
        assert opened.page.locator(".inspector .name").text_content().endswith(f"dw{list(np.unravel_index(entry, np.shape(example['numbers']['weights']['conv.weight'])))}".replace(" ", "").replace("np.int64(", "").replace(")", ""))


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
        assert opened.page.locator('.value td.pad.lit').count() == padding


def printed(value: float) -> str:
    """A number as the page prints it in a large cell, but for the exponent's form."""
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def reads(text: str) -> float:
    return float(text.replace("−", "-"))


def same_numbers(opened: Opened, panel: str, truth: Array, digits: int = 4) -> None:
    shown = opened.shown(panel)
    assert shown, panel
    for cell, text in shown.items():
        value = float(truth.ravel()[cell])
        expected = {float(f"{value:.{d}g}") if abs(value) > 1e-12 else 0.0 for d in (digits, 3, 2)}
        assert reads(text) in expected, f"{panel}[{cell}]: {text} for {value}"


@pytest.mark.parametrize("name", ["filter", "classifier", "recurrent"])
def test_stepping_to_the_end_gives_the_engines_gradients(name: str, browser: Browser) -> None:
    """Through all layers, use by use: what the pictures show at the end of each is the engine's, as far as printed."""
    example, truth = EXAMPLES[name], engine(EXAMPLES[name])
    last = example["nodes"][-1]["name"]
    opened = browser.open(example, f"at={last}&step=0")
    for entry in reversed(example["nodes"]):
        assert opened.evaluate("() => page.view.at") == entry["name"]
        count = opened.evaluate("() => page.view.state.evaluation.calls.find((c) => c.name === page.view.at).uses.length")
        for _ in range(count):
            opened.page.get_by_label("one use on").click()
        opened.settle()
        assert f"use {count} of {count}" in opened.page.locator(".where").text_content()
        call = truth.trace.calls[entry["name"]]
        same_numbers(opened, "dy", call.upstream)
        names = opened.evaluate("() => page.view.state.evaluation.calls.find((c) => c.name === page.view.at).slots.map((s) => s.weight.name)")
        for i, weight in enumerate(names):
            same_numbers(opened, f"dw:{i}", weights(truth)[weight])
        if entry is example["nodes"][0]:
            same_numbers(opened, "dx:0", truth.gradients.inputs["x"])
        opened.page.get_by_label("one use on").click()  # on to the layer before
        opened.settle()


def test_every_step_adds_one_contribution(browser: Browser) -> None:
    """After k steps the accumulators hold the sum of the engine's first k contributions."""
    example, truth = EXAMPLES["filter"], engine(EXAMPLES["filter"])
    call = truth.trace.calls["conv"]
    weight, bias = call.uses
    opened = browser.open(example, "at=conv&step=0")
    total, total_b = np.zeros((1, 1, 2)), np.zeros(1)
    for position in range(3):
        opened.page.get_by_label("one use on").click()
        opened.settle()
        total += weight.contribution(sample=0, position=(position,))
        total_b += bias.contribution(sample=0, position=(position,))
        same_numbers(opened, "dw:0", total)
        same_numbers(opened, "dw:1", total_b)
        assert opened.lit("x:0") == {position, position + 1}
    opened.page.get_by_label("one use back").click()
    opened.settle()
    same_numbers(opened, "dw:0", total - weight.contribution(sample=0, position=(2,)))


def test_play_and_pause(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["many"], "at=conv&step=0")
    opened.page.locator("#do-speed").select_option("40")
    opened.page.get_by_label("play", exact=True).click()
    opened.page.wait_for_function("() => page.view.step >= 5")
    opened.page.get_by_label("pause").click()
    here = opened.evaluate("() => page.view.step")
    opened.page.wait_for_timeout(120)
    assert opened.evaluate("() => page.view.step") == here


def test_the_ledger_lists_every_use_and_ends_at_the_gradient(browser: Browser) -> None:
    example, truth = EXAMPLES["filter"], engine(EXAMPLES["filter"])
    opened = browser.open(example, "at=conv&touch=dw:0,1")
    terms = truth.trace.calls["conv"].uses[0].products(0, 0, 1).values
    rows = opened.page.locator(".ledger tr[data-link]").all()
    assert len(rows) == len(terms) == 3
    products = [reads(row.locator(".product").text_content()) for row in rows]
    assert products == [float(printed(t)) for t in terms]
    sums = [reads(row.locator("td").last.text_content()) for row in rows]
    assert sums == [float(printed(s)) for s in np.cumsum(terms)]
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
    code = "() => [...document.querySelectorAll('.ledger tr[data-link]')].map((r) => r.nextElementSibling?.querySelector('em')?.textContent ?? '')"
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


# ---- edits


def fields(example: Example) -> list[tuple[str, Any]]:
    """Every kind of field that the page lets a reader change in this example."""
    numbers = example["numbers"]
    found: list[tuple[str, Any]] = [("x", name) for name in numbers["x"]]
    found += [("weights", name) for name in numbers["weights"]]
    found += [("upstream", name) for name in numbers.get("upstream", {})]
    found += [("target", i) for i in range(len(numbers.get("loss", [])))]
    for entry in example["nodes"]:
        kind = str(entry.get("layer"))
        if kind.startswith(("Conv", "Locally", "MaxPool", "AvgPool")):
            found += [("argument", (entry["name"], argument)) for argument in ARGUMENTS[kind[:3]]]
    return [*found, ("rate", None)]


ARGUMENTS: dict[str, dict[str, list[str]]] = {
    "Con": {"stride": ["1", "2"], "padding": ["0", "1", "1/0", "2"], "dilation": ["1", "2"], "groups": ["1", "2"]}
    | {"padding_mode": ["zeros", "reflect", "replicate", "circular"]},
    "Loc": {"stride": ["1", "2"], "padding": ["0", "1"], "padding_mode": ["zeros", "reflect", "circular"]},
    "Max": {"kernel_size": ["2", "3"], "stride": ["1", "2"], "padding": ["0", "1"], "ties": ["first", "last", "share"]},
    "Avg": {"kernel_size": ["2", "3"], "stride": ["1", "2"], "padding": ["0", "1"]}
    | {"count_include_pad": ["true", "false"]},
}


def panels(opened: Opened, kind: str, name: Any) -> tuple[str, str]:
    """The node and picture in which an array is changed."""
    code = """([kind, name]) => {
      for (const call of page.view.state.evaluation.calls) {
        const slot = call.slots.findIndex((s) => s.weight.name === name), source = call.inputs.indexOf(name);
        if (kind === "weights" && slot >= 0) return [call.name, `w:${slot}`];
        if (kind === "x" && source >= 0) return [call.name, `x:${source}`];
        if (kind === "upstream" && call.name === name) return [call.name, "dy"];
        if (kind === "target" && page.view.state.example.numbers.loss[name].node === call.name) return [call.name, `t:${name}`];
      }
    }"""
    at, panel = opened.evaluate(code, [kind, name])
    return at, panel


def change(opened: Opened, field: tuple[str, Any], rng: np.random.Generator) -> bool:
    """One random edit by hand: a click and a number, a field, or a choice; whether the page took it."""
    kind, name = field
    if kind == "rate":
        opened.enter("#do-rate", str(round(float(rng.uniform(0.01, 0.3)), 3)))
        opened.page.locator("#do-update").click()
    elif kind == "argument":
        at, argument = name
        opened.visit(at)
        control = opened.page.locator(f'[data-argument="{argument}"]')
        layer = opened.evaluate("() => page.view.state.evaluation.calls.find((c) => c.name === page.view.at).kind")
        rank = int(layer[-2])
        text = str(rng.choice(ARGUMENTS[layer[:3]][argument]))
        if control.evaluate("(field) => field.tagName") == "SELECT":
            control.select_option(text)
        else:
            opened.enter(f'[data-argument="{argument}"]', ",".join([text] * rank) if "/" in text else text)
    else:
        at, panel = panels(opened, kind, name)
        opened.visit(at)
        if not opened.shown(panel):  # drawn in blocks
            opened.page.locator(f"[data-part^='{panel}@']").first.click()
            opened.settle()
        cells = sorted(opened.shown(panel))
        opened.hold(panel, int(rng.choice(cells)))
        whole = opened.evaluate("(n) => page.view.state.example.numbers.loss?.[n]?.name", name) if kind == "target" else ""
        value = {"CrossEntropy": str(rng.integers(0, 3)), "BinaryCrossEntropy": str(round(float(rng.random()), 3))}
        opened.enter("#do-value", value.get(whole, str(round(float(rng.normal()), 4))))
    opened.settle()
    return not opened.evaluate("() => page.view.problem")


def agrees(opened: Opened) -> None:
    """Everything that the page holds is what the engine makes of the page's numbers."""
    found, truth = opened.numbers(), engine(opened.example())
    for name, value in found["values"].items():
        close(array(value), truth.values[name])
    assert found["losses"] == pytest.approx(truth.losses, rel=1e-9, abs=1e-12)
    for name, gradient in weights(truth).items():
        close(array(found["gradients"][name]), gradient)
    for name, gradient in truth.gradients.inputs.items():
        close(array(found["inputs"][name]), gradient)


def test_the_fields_are_all_that_the_page_offers(browser: Browser) -> None:
    """No argument that the page lets a reader change is missing from the random edits."""
    for example in EXAMPLES.values():
        opened = browser.open(example)
        for entry in example["nodes"]:
            opened.visit(entry["name"])
            offered = {f.get_attribute("data-argument") for f in opened.page.locator("[data-argument]").all()}
            kind = str(next(e["layer"] for e in example["nodes"] if e["name"] == entry.get("reuses", entry["name"])))
            assert offered - set(ARGUMENTS.get(kind[:3], {})) <= {"dilation"}


def play_to_the_end(opened: Opened) -> None:
    """From two uses before the end of the layer on show; its gradients are then the engine's, as far as printed."""
    for label in ("one use back", "one use back", "one use on", "one use on"):
        opened.page.get_by_label(label).click()
    opened.settle()
    at = opened.evaluate("() => page.view.at")
    truth, found = weights(engine(opened.example())), _weights(opened)
    names = [entry["name"] for entry in opened.example()["nodes"]]
    behind = {weight for owned in found[: names.index(at)] for weight in owned}  # these have more to come
    for i, weight in enumerate(found[names.index(at)]):
        if weight not in behind and weight in truth:
            same_numbers(opened, f"dw:{i}", truth[weight])
    opened.page.get_by_label("to the end").click()
    opened.settle()


@pytest.mark.parametrize("name", [*GALLERY, *EXAMPLES])
def test_random_edits_agree_with_the_engine(name: str, browser: Browser) -> None:
    """Over the gallery and the examples here more than 300 edits, drawn evenly over the fields of each."""
    example = {**GALLERY, **EXAMPLES}[name]
    rng, opened, taken = np.random.default_rng(len(name)), browser.open(example), 0
    every = fields(example)
    drawn = [*(every * (EDITS // len(every))), *(every[int(i)] for i in rng.permutation(len(every))[: EDITS % len(every)])]
    for number, field in enumerate(drawn):
        taken += change(opened, field, rng)
        agrees(opened)
        if number % 5 == 3:
            play_to_the_end(opened)
    assert taken >= EDITS / 2, "most edits make sense"


def _weights(opened: Opened) -> list[list[str]]:
    found = opened.evaluate("() => page.view.state.evaluation.calls.map((c) => c.slots.map((s) => s.weight.name))")
    return list(found)


def test_an_edit_that_makes_no_sense_is_told_and_changes_nothing(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], "at=conv&touch=w:0,0")
    before = opened.example()
    opened.enter('[data-argument="stride"]', "0")
    assert "stride: expected a whole number of at least 1" in opened.page.get_by_role("alert").text_content()
    assert opened.page.locator('[data-argument="stride"]').input_value() == "1"
    opened.enter("#do-value", "three")
    assert "expected a number, got “three”" in opened.page.get_by_role("alert").text_content()
    assert opened.example() == before
    opened.enter("#do-value", "0.25")
    assert opened.page.get_by_role("alert").count() == 0
    assert opened.example()["numbers"]["weights"]["conv.weight"][0][0][0] == 0.25
    opened.page.locator("#do-undo").click()
    opened.settle()
    assert opened.example() == before


def test_updates_undo_and_reset(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["classifier"], "at=conv")
    first = opened.example()
    for mode in ("sum", "mean", "last", "unshared"):
        opened.page.locator(f"label:has([value={mode}])").click()
        opened.page.locator("#do-update").click()
        opened.settle()
    assert "private copy" in opened.page.locator(".message").text_content()
    assert opened.evaluate("() => page.view.state.copies['conv.weight'].length") == 36 * 18
    opened.page.locator("#do-undo").click()
    opened.settle()
    assert opened.evaluate("() => Object.keys(page.view.state.copies).length") == 0
    opened.page.locator("#do-reset").click()
    opened.settle()
    assert opened.example() == first


# ---- the address, covering, names, the notebook


def test_a_state_can_be_sent_to_somebody(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["classifier"], "at=conv")
    opened.hold("w:0", 4)
    opened.enter("#do-value", "0.75")
    opened.page.locator("label:has([value=mean])").click()
    opened.page.locator("#do-update").click()
    opened.page.locator("#do-step").fill("5")
    opened.settle()
    again = browser.visit(opened.page.url)
    for code in ("page.view.state.example", "[page.view.at, page.view.step, page.view.mode, page.view.pin]"):
        assert again.evaluate(f"() => {code}") == opened.evaluate(f"() => {code}")
    assert "step=5" in opened.page.url


@pytest.mark.parametrize("state", ["at=nothing&step=-3&touch=dw:9,99", "edits=[[1]]&sample=9", "edits={&step=x", "touch=constructor,1"])
def test_an_address_that_does_not_fit_is_no_error(state: str, browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], state)
    assert opened.page.locator(".grid").count() > 3


def test_cover_and_guess(browser: Browser) -> None:
    truth = weights(engine(EXAMPLES["filter"]))["conv.weight"].ravel()
    opened = browser.open(EXAMPLES["filter"], "at=conv")
    opened.page.locator('[data-cover="dw:0"]').click()
    opened.settle()
    assert set(opened.shown("dw:0").values()) == {"?"}
    opened.hold("dw:0", 0)
    assert opened.page.locator(".inspector .result").text_content() == "= ?"
    assert set(opened.page.locator(".ledger .product").all_text_contents()) == {"?"}
    assert printed(truth[0]).lstrip("-") not in opened.page.locator(".inspector").inner_html()
    opened.enter("#do-guess", str(truth[0] + 1))
    assert opened.page.locator(".verdict").text_content().startswith("Not yet.")
    assert opened.page.locator("td.wrong").count() == 1
    opened.hold("dw:0", 1)
    opened.enter("#do-guess", f"{truth[1]:.3g}")
    assert opened.page.locator(".verdict").text_content().startswith("Right.")
    assert opened.page.locator(".ledger tr[data-link]").count() == 3


def test_names_and_texts_are_text_never_markup(browser: Browser) -> None:
    evil = "<img src=x onerror=alert(1)>"
    example = draw(
        {
            "title": f"</script><script>alert(2)</script>{evil}",
            "about": f"{evil} & more\n\nsecond $script",
            "source": [{"title": evil, "url": "javascript:alert(3)"}, {"title": "b", "url": 'https://a.example/"><b>'}],
            "inputs": {"x": [1, 3]},
            "nodes": [node(evil, "Conv1d", in_channels=1, out_channels=1, kernel_size=2), node("</script>", "ReLU")],
            "numbers": {"upstream": ["</script>"]},
        },
        seed=1,
        batch=1,
    )
    opened = browser.open(example)
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("h1").text_content() == example["title"]
    assert [a.get_attribute("href") for a in opened.page.locator("a").all()] == ['https://a.example/"><b>']
    assert opened.page.locator(".strip b").all_text_contents()[1:] == [evil, "</script>"]
    assert opened.page.locator(".about").all_text_contents() == [f"{evil} & more", "second $script"]


def test_the_keyboard_is_enough(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], "at=conv")
    opened.cell("w:0", 0).focus()
    opened.page.keyboard.press("ArrowRight")
    opened.settle()
    assert opened.evaluate("() => [document.activeElement.dataset.panel, document.activeElement.dataset.cell]") == ["w:0", "1"]
    assert opened.lit("dy") == {0, 1, 2}
    opened.page.keyboard.press("Enter")
    opened.settle()
    opened.settle()
    opened.page.keyboard.type("0.5")
    opened.page.keyboard.press("Enter")
    opened.settle()
    assert opened.example()["numbers"]["weights"]["conv.weight"][0][0][1] == 0.5
    opened.page.keyboard.press("Escape")
    opened.settle()
    assert opened.evaluate("() => page.view.pin") is None


def test_numbers_can_be_saved_and_opened_again(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["siamese"], "at=a&touch=w:0,0")
    opened.enter("#do-value", "0.125")
    with opened.page.expect_download() as download:
        opened.page.locator("#save").click()
    saved = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert saved == opened.example()
    assert saved["numbers"]["weights"]["a.weight"][0][0][0] == 0.125


def test_a_notebook_shows_it_in_a_frame(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><title>notebook</title>{notebook(EXAMPLES['filter'])}", "utf-8")
    opened = browser.visit(file.as_uri())
    frame = opened.page.frame_locator("iframe")
    frame.locator('td[data-panel="w:0"]').first.click()
    frame.locator("#do-value").fill("2")
    frame.locator("#do-value").press("Enter")
    frame.locator('td[data-panel="w:0"] span:text-is("+2")').wait_for()


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


def test_nothing_moves_where_the_reader_wants_no_motion(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], "at=conv&step=0", reduced_motion="reduce")
    opened.page.get_by_label("play", exact=True).click()
    opened.settle()
    assert opened.evaluate("() => [page.view.playing, page.view.step]") == [False, None]
    assert "no motion" in opened.page.locator(".message").text_content()
    moving = "() => document.getAnimations().length + [...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).transitionDuration !== '0s').length"
    assert opened.evaluate(moving) == 0


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 1400), ("light", 380), ("dark", 380)])
def test_the_page_is_accessible(theme: str, width: int, browser: Browser) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    from axe_playwright_python.sync_playwright import Axe

    states = [("classifier", "at=conv&touch=dw:0,4"), ("recurrent", "at=rnn&step=2"), ("many", "at=conv&touch=dx:0,33")]
    for name, state in states:
        opened = browser.open(EXAMPLES[name], state, viewport={"width": width, "height": 900}, color_scheme=theme)
        found = Axe().run(opened.page).response["violations"]
        assert not found, json.dumps([(v["id"], v["help"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found], indent=1)
        assert opened.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"
