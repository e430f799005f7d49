"""Playback through the uses, in Chromium, against the engine."""

from __future__ import annotations

import numpy as np
import pytest

from tests.document.page.browser import Browser, needs_browser, same_numbers
from tests.document.page.examples import EXAMPLES, engine, weights

pytestmark = needs_browser


@pytest.mark.parametrize("name", ["filter", "classifier", "recurrent"])
def test_stepping_to_the_end_gives_the_engines_gradients(name: str, browser: Browser) -> None:
    """Through all layers, use by use: what the pictures show at the end of each is the engine's, as far as printed."""
    example, truth = EXAMPLES[name], engine(EXAMPLES[name])
    last = example["nodes"][-1]["name"]
    opened = browser.open(example, f"at={last}&step=0")
    for entry in reversed(example["nodes"]):
        assert opened.evaluate("() => page.view.at") == entry["name"]
        count = opened.call("call.uses.length")
        for _ in range(count):
            opened.page.get_by_label("one use on").click()
        opened.settle()
        assert f"use {count} of {count}" in opened.page.locator(".where").text_content()
        call = truth.trace.calls[entry["name"]]
        same_numbers(opened, "dy", call.upstream)
        names = opened.call("call.slots.map((s) => s.weight.name)")
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


def test_nothing_moves_where_the_reader_wants_no_motion(browser: Browser) -> None:
    opened = browser.open(EXAMPLES["filter"], "at=conv&step=0", reduced_motion="reduce")
    opened.page.get_by_label("play", exact=True).click()
    opened.settle()
    assert opened.evaluate("() => [page.view.playing, page.view.step]") == [False, None]
    assert "no motion" in opened.page.locator(".message").text_content()
    assert opened.evaluate("() => document.getAnimations().length") == 0
    durations = "() => [...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration)"
    assert set(opened.evaluate(durations)) == {"0s"}
