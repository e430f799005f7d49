"""What the page is to a reader besides its numbers: addresses, the keyboard, saved files, frames, names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharedgrad.document.page import notebook, render
from sharedgrad.errors import ConfigError
from sharedgrad.explaining import explain
from tests.document.page.browser import Browser, needs_browser
from tests.document.page.examples import EXAMPLES, GALLERY, draw, node

pytestmark = needs_browser
WRONG = ["at=nothing&step=-3&touch=dw:9,99", "edits=[[1]]&sample=9", "edits={&step=x", "touch=constructor,1"]


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


@pytest.mark.parametrize(
    "state", ["at=nothing&step=-3&touch=dw:9,99", "edits=[[1]]&sample=9", "edits={&step=x", "touch=constructor,1"]
)
def test_an_address_that_does_not_fit_is_no_error(state: str, browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], state)
    assert opened.page.locator(".grid").count() > 3


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
    assert opened.evaluate("() => ({...document.activeElement.dataset})") == {"panel": "w:0", "cell": "1"}
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


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 1400), ("light", 380), ("dark", 380)])
def test_the_page_is_accessible(theme: str, width: int, browser: Browser) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    from axe_playwright_python.sync_playwright import Axe

    states = [("classifier", "at=conv&touch=dw:0,4"), ("recurrent", "at=rnn&step=2"), ("many", "at=conv&touch=dx:0,33")]
    for name, state in states:
        opened = browser.open(EXAMPLES[name], state, viewport={"width": width, "height": 900}, color_scheme=theme)
        found = Axe().run(opened.page).response["violations"]
        assert [(v["help"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found] == []
        assert opened.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"


@pytest.mark.parametrize("name", GALLERY)
def test_every_worked_example_is_one_small_file(name: str, browser: Browser) -> None:
    explanation = explain(name)
    opened = browser.open(GALLERY[name], document=explanation.document)
    size = (browser.folder / "page.html").stat().st_size
    assert size < 400_000
    assert opened.page.locator("h1").text_content() == explanation.document.title
    assert opened.page.locator("#written details").count() > 0
    ids = "(where) => [...document.querySelectorAll(where)].map((element) => element.id)"
    own, every = opened.evaluate(ids, "#page [id], header [id]"), opened.evaluate(ids, "[id]")
    assert [every.count(name) for name in own] == [1] * len(own)


def test_touching_a_written_term_touches_its_cell(browser: Browser) -> None:
    opened = browser.open(GALLERY["network-5x5"], "at=dense", explain("network-5x5").document)
    assert not opened.page.locator(".stale").is_visible()
    opened.page.locator("#written summary", has_text="Backward").click()
    term = opened.page.locator("#written [data-cells*='conv.dy:']").first
    first = term.get_attribute("data-cells").split()[0]
    term.click()
    opened.settle()
    array, cell = first.rsplit(":", 1)
    name = opened.page.locator(".inspector .name").text_content()
    assert opened.evaluate("() => page.view.pin.cell") == int(cell)
    assert name.startswith(array.replace("conv.w", "conv.dw").replace("conv.y", "conv.y"))
    opened.enter("#do-rate", "0.3")
    assert opened.page.locator(".stale").is_visible()


def test_a_layer_that_the_page_cannot_compute_is_named() -> None:
    layers = [node("norm", "BatchNorm2d", num_features=1)]
    with pytest.raises(ConfigError, match="node 'norm': the page cannot show a BatchNorm2d"):
        render({"nodes": layers, "numbers": {"x": {}}})
