"""The page in a real browser: Debian's Chromium, or another one that is installed, without a window."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedgrad.document import Document
from sharedgrad.document.page import render
from tests.document.page.examples import Example
from tests.helpers import Array

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_MISSING = "playwright is not installed" if find_spec("playwright") is None else "" if CHROMIUM else "no Chromium"
needs_browser = [
    pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "never"),
    pytest.mark.xdist_group("browser"),  # one browser at a time
]


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page that has been opened; asks for what a reader would see and do."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def evaluate(self, code: str, argument: Any = None) -> Any:
        return self.page.evaluate(code, argument)

    def settle(self) -> None:
        """Until what has changed is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def visit(self, node: str) -> None:
        self.page.locator(f'[data-at="{node}"]').click()
        self.settle()

    def cell(self, panel: str, cell: int) -> Any:
        return self.page.locator(f'td[data-panel="{panel}"][data-cell="{cell}"]').first

    def hold(self, panel: str, cell: int) -> None:
        """Pins a cell by a click."""
        if self.evaluate("([p, c]) => page.view.pin?.panel === p && page.view.pin.cell === c", [panel, cell]):
            return
        self.cell(panel, cell).click()
        self.page.mouse.move(0, 0)
        self.settle()

    def enter(self, field: str, text: str) -> None:
        self.page.locator(field).fill(text)
        self.page.locator(field).press("Enter")
        self.settle()

    def lit(self, panel: str) -> set[int]:
        """The cells of a picture that are lit."""
        found = self.evaluate(
            "(p) => [...document.querySelectorAll(`td.lit[data-panel='${p}']`)].map((td) => +td.dataset.cell)", panel
        )
        return set(found)

    def shown(self, panel: str) -> dict[int, str]:
        """The texts of a picture's cells."""
        code = """(p) => [...document.querySelectorAll(`td[data-panel='${p}']`)].map((td) =>
          [+td.dataset.cell, td.querySelector('span')?.textContent ?? td.ariaLabel])"""
        return dict(self.evaluate(code, panel))

    def call(self, what: str) -> Any:
        """Something of the call on show, as a JavaScript expression of ``call``."""
        code = (
            "() => { const call = page.view.state.evaluation.calls.find((c) => c.name === page.view.at); return %s; }"
        )
        return self.evaluate(code % what)

    def example(self) -> Example:
        """The numbers that the page holds now."""
        return dict(json.loads(self.evaluate("() => JSON.stringify(page.view.state.example)")))

    def numbers(self) -> dict[str, Any]:
        """All that the page has computed, in full precision."""
        return dict(json.loads(self.evaluate(_NUMBERS)))  # as a text: many times quicker than as an object


_NUMBERS = """() => {
  const {evaluation, example} = page.view.state, plain = ({shape, data}) => [shape, Array.from(data)];
  const zeros = (weight) => new Array(weight.value.data.length).fill(0);
  const plus = (sum, {gradient}) => sum.map((v, i) => v + gradient.data[i]);
  const total = (weight) => weight.slots.reduce(plus, zeros(weight));
  const weights = Object.values(evaluation.weights).map((w) => [w.name, [w.value.shape, total(w)]]);
  return JSON.stringify({
    values: Object.fromEntries(evaluation.calls.map((call) => [call.name, plain(call.y)])),
    losses: evaluation.losses.map((loss) => loss.value),
    gradients: Object.fromEntries(weights),
    inputs: Object.fromEntries(Object.keys(example.numbers.x).map((name) => [name, plain(evaluation.upstream[name])])),
  });
}"""


def array(shaped: Any) -> Array:
    shape, data = shaped
    return np.array(data, np.float64).reshape(shape)


class Browser:
    """Opens pages, and keeps account of what they must not do: complain, or ask for anything from outside."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, example: Example, state: str = "", document: Document | None = None, **context: Any) -> Opened:
        file = self.folder / "page.html"
        file.write_text(render(example, document), "utf-8")
        return self.visit(f"{file.as_uri()}#{state}", **context)

    def visit(self, address: str, **context: Any) -> Opened:
        page = self.browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **context}).new_page()
        page.set_default_timeout(30_000)  # a loaded machine is slow, not wrong
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        opened = Opened(page)
        opened.settle()
        return opened


def reads(text: str) -> float:
    """A number as it is printed."""
    return float(text.replace("−", "-"))


def printed(value: float, digits: int = 4) -> float:
    """What is left of a number in so many digits; what rounding has left of a zero is 0."""
    return float(f"{value:.{digits}g}") if abs(value) > 1e-12 else 0.0


def same_numbers(opened: Opened, panel: str, truth: Array) -> None:
    """A picture's cells show these numbers, to the last digit that is printed (4, or 3 or 2 where there is no room)."""
    shown = opened.shown(panel)
    assert shown, panel
    for cell, text in shown.items():
        value = float(truth.ravel()[cell])
        around = [
            value,
            value * (1 - 1e-12),
            value * (1 + 1e-12),
        ]  # 1.0875, added in another order, rounds the other way
        expected = {printed(v, digits) for digits in (4, 3, 2) for v in around}
        assert reads(text) in expected, f"{panel}[{cell}]: {text} for {value}"


@contextmanager
def faultless(running: Any, folder: Path) -> Iterator[Browser]:
    """Fails the test if a page has written to the console or has asked for anything but its own file."""
    given = Browser(running, folder)
    yield given
    for context in running.contexts:
        context.close()
    assert given.complaints == []
    assert {url.split(":")[0] for url in given.requests} <= {"file", "data", "blob"}
    assert len({url.split("#")[0] for url in given.requests if url.startswith("file:")}) <= 1
