"""Edits through the page's own controls, in Chromium: everything follows, as the engine says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.document.page.browser import Browser, Opened, array, needs_browser, same_numbers
from tests.document.page.examples import EXAMPLES, GALLERY, Example, engine, weights
from tests.helpers import close

pytestmark = needs_browser
EDITS = 15  # in each example


ARGUMENTS: dict[str, dict[str, list[str]]] = {
    "Con": {"stride": ["1", "2"], "padding": ["0", "1", "1/0", "2"], "dilation": ["1", "2"], "groups": ["1", "2"]}
    | {"padding_mode": ["zeros", "reflect", "replicate", "circular"]},
    "Loc": {"stride": ["1", "2"], "padding": ["0", "1"], "padding_mode": ["zeros", "reflect", "circular"]},
    "Max": {"kernel_size": ["2", "3"], "stride": ["1", "2"], "padding": ["0", "1"], "ties": ["first", "last", "share"]},
    "Avg": {"kernel_size": ["2", "3"], "stride": ["1", "2"], "padding": ["0", "1"]}
    | {"count_include_pad": ["true", "false"]},
}


def fields(example: Example) -> list[tuple[str, Any]]:
    """Every kind of field that the page lets a reader change in this example."""
    numbers = example["numbers"]
    found: list[tuple[str, Any]] = [("x", name) for name in numbers["x"]]
    found += [("weights", name) for name in numbers.get("weights", {})]
    found += [("upstream", name) for name in numbers.get("upstream", {})]
    found += [("target", i) for i in range(len(numbers.get("loss", [])))]
    for entry in example["nodes"]:
        kind = str(entry.get("layer"))
        if kind.startswith(("Conv", "Locally", "MaxPool", "AvgPool")):
            found += [("argument", (entry["name"], argument)) for argument in ARGUMENTS[kind[:3]]]
    return [*found, ("rate", None)] if "weights" in numbers else found


def panels(opened: Opened, kind: str, name: Any) -> tuple[str, str]:
    """The node and picture in which an array is changed."""
    code = """([kind, name]) => {
      for (const call of page.view.state.evaluation.calls) {
        const slot = call.slots.findIndex((s) => s.weight.name === name), source = call.inputs.indexOf(name);
        if (kind === "weights" && slot >= 0) return [call.name, `w:${slot}`];
        if (kind === "x" && source >= 0) return [call.name, `x:${source}`];
        if (kind === "upstream" && call.name === name) return [call.name, "dy"];
        const loss = kind === "target" && page.view.state.example.numbers.loss[name];
        if (loss && loss.node === call.name) return [call.name, `t:${name}`];
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
        opened.settle()
    elif kind == "argument":
        at, argument = name
        opened.visit(at)
        control = opened.page.locator(f'[data-argument="{argument}"]')
        layer = opened.call("call.kind")
        rank = int(layer[-2])
        text = str(rng.choice(ARGUMENTS[layer[:3]][argument]))
        if control.evaluate("(field) => field.tagName") == "SELECT":
            control.select_option(text)
            opened.settle()
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
        loss = opened.example()["numbers"]["loss"][name]["name"] if kind == "target" else ""
        value = {"CrossEntropy": str(rng.integers(0, 3)), "BinaryCrossEntropy": str(round(float(rng.random()), 3))}
        opened.enter("#do-value", value.get(loss, str(round(float(rng.normal()), 4))))
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


def _weights(opened: Opened) -> list[list[str]]:
    found = opened.evaluate("() => page.view.state.evaluation.calls.map((c) => c.slots.map((s) => s.weight.name))")
    return list(found)


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
    for label in ("one use back", "one use on"):
        for _ in range(min(2, opened.call("call.uses.length"))):
            opened.page.get_by_label(label).click()
    opened.settle()
    at = opened.evaluate("() => page.view.at")
    truth, found = weights(engine(opened.example())), _weights(opened)
    names = [entry["name"] for entry in opened.example()["nodes"]]
    behind = {weight for owned in found[: names.index(at)] for weight in owned}  # these have more to come
    for i, weight in enumerate(found[names.index(at)]):
        if weight not in behind and weight in truth and opened.shown(f"dw:{i}"):  # not drawn in blocks
            same_numbers(opened, f"dw:{i}", truth[weight])
    opened.page.get_by_label("to the end").click()
    opened.settle()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GALLERY, *EXAMPLES])
def test_random_edits_agree_with_the_engine(name: str, browser: Browser) -> None:
    """Over the gallery and the examples here more than 300 edits, drawn evenly over the fields of each."""
    example = {**GALLERY, **EXAMPLES}[name]
    rng, opened, taken = np.random.default_rng(len(name)), browser.open(example), 0
    every = fields(example)
    drawn = [
        *(every * (EDITS // len(every))),
        *(every[int(i)] for i in rng.permutation(len(every))[: EDITS % len(every)]),
    ]
    for number, field in enumerate(drawn):
        taken += change(opened, field, rng)
        agrees(opened)
        if number % 5 == 3:
            play_to_the_end(opened)
    assert taken >= EDITS / 2, "most edits make sense"


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
