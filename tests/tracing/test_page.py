"""The report's words and its page, in a real browser too: one file, that loads nothing and fits narrow windows."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sharedgrad as sg
from sharedgrad.tracing import page, pictures
from sharedgrad.tracing.report import Report, number, percent
from sharedgrad.tracing.survey import survey
from tests.document.page.browser import Browser, chromium, faultless, needs_browser

CLASSES = ("seven", "<script>alert(1)</script>", "drei & \u202evier")


def report(size: int = 9, channels: int = 1, count: int = 30) -> Report:
    rng = np.random.default_rng(1)
    twice = sg.Linear(6, 6)
    layers = {
        "conv": sg.Conv2d(channels, 4, 3, padding=1),
        "relu": sg.ReLU(),
        "rows": sg.Reshape((size, 4 * size)),
        "rnn": sg.RNN(4 * size, 2),
        "flat": sg.Flatten(),
        "in": sg.Linear(2 * size, 6),
        "a": twice,
        "tanh": sg.Tanh(),
        "b": twice,
        "scores": sg.Linear(6, 3),
    }
    images = rng.integers(0, 256, (count, channels, size, size), np.uint8)
    net = sg.Network(layers, (channels, size, size))
    found = survey(net, images, np.arange(count) % 3, sg.data.Normalization.of(images))
    return Report(
        found, "runs/a & b", "30 images of x", CLASSES, images, np.arange(count) + 100, net.dtype, ("A note.",)
    )


@pytest.fixture(scope="module")
def small() -> Report:
    return report()


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def test_lines_fit(small: Report) -> None:
    for width in (40, 80, 100):
        text = small.text(width, color=False)
        assert max(len(line) for line in text.splitlines()) <= width
        assert "A note." in text
    assert re.search(r"^rnn\.weight_ih_l0 +270 ", small.text(80, False), re.MULTILINE)


def test_no_zero_is_negative() -> None:
    assert [number(v) for v in (-1e-9, 0.0, -0.25, 12345.6)] == ["0.000", "0.000", "-0.250", "12,346"]


def test_names_of_classes_are_no_markup(small: Report) -> None:
    text = page.render(small)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\u202e" not in text
    assert "\u202e" not in small.text(80, False)


def test_every_link_leads_somewhere(small: Report) -> None:
    text = page.render(small)
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) == set(ids)


def test_calls_steps_filters_and_maps(small: Report) -> None:
    text = page.render(small)
    section = {
        name: part
        for name, part in zip(small.survey.weights, text.split('<section class="stage" id=')[1:], strict=True)
    }
    assert "By position" in section["conv.weight"]
    assert section["conv.weight"].count("<h4>Filter") == 4
    assert "By time" in section["rnn.weight_hh_l0"]
    assert section["rnn.weight_hh_l0"].count("<rect") == 9
    assert "By call" in section["a.weight"]
    shares = small.survey.weights["a.weight"].calls
    for name, share in shares.items():
        assert f'<th scope="row">{name}</th><td>{pictures.percent(share)}</td>' in section["a.weight"]
    assert "By call" not in section["in.weight"]


def decoded(element: str) -> Image.Image:
    data = re.search(r"base64,([^\"]+)", element)
    assert data
    return Image.open(io.BytesIO(base64.b64decode(data[1])))


def test_every_card_shows_its_own_image_and_numbers(small: Report) -> None:
    text = page.render(small).split("<h2>The images that push hardest")[1].split("</section>")[0]
    shown = re.findall(r'<img class="image".*?</li>', text, re.DOTALL)
    expected = [*small.hardest(1)[:8], *small.hardest(-1)[:8]]
    assert len(shown) == len(expected)
    for card, n in zip(shown, expected, strict=True):
        assert np.array_equal(np.asarray(decoded(card)), small.images[n, 0])
        words = f"{pictures.percent(float(small.survey.shares[n]))}</b> image {n + 100}"
        assert words in card
        assert f"loss {small.survey.seen.losses[n]:.3g}" in card
        assert html.escape(small.classes[n % 3]).replace("\u202e", "\\u202e") in card


def test_the_maps_of_a_weight_are_of_the_images_beside_them(small: Report) -> None:
    tally = small.survey.weights["conv.weight"]
    section = page.render(small).split("<h2>conv.weight")[1].split("Filter by filter")[0]
    pushing = [*tally.hardest(1), *tally.hardest(-1)]
    limit = max(np.abs(p.places).max() for p in pushing if p.places is not None)
    cards = re.findall(r"<li.*?</li>", section, re.DOTALL)
    for card, p in zip(cards, pushing, strict=True):
        assert p.places is not None
        assert np.array_equal(np.asarray(decoded(card)), small.images[p.sample, 0])
        drawn = card[card.index('class="map"') :]
        assert np.array_equal(
            np.asarray(decoded(drawn).convert("RGBA")),
            np.asarray(decoded(pictures.share_map(p.places, limit, "")).convert("RGBA")),
        )


def test_a_map_is_red_with_the_gradient_and_clear_at_zero() -> None:
    places = np.array([[0.5, 0.0, -0.5], [0.125, -0.01, 0.0]])
    colors = np.asarray(decoded(pictures.share_map(places, 0.5, "a map")).convert("RGBA")).astype(int)
    red, _, blue, alpha = np.moveaxis(colors, -1, 0)
    assert (red > blue + 50)[places > 0.1].all()
    assert (blue > red + 50)[places < -0.1].all()
    assert alpha[0].tolist() == [245, 0, 245]
    assert 0 < alpha[1, 0] < 245


def test_an_image_is_as_it_lies_in_the_data() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4) * 20
    assert np.array_equal(np.asarray(decoded(pictures.image(pixels, 0, 255, ""))), pixels[0])
    color = np.random.default_rng(0).random((3, 5, 4))
    shown = np.asarray(decoded(pictures.image(color, 0.0, 1.0, "")))
    assert np.array_equal(shown, np.round(255 * color).transpose(1, 2, 0))
    assert max(decoded(pictures.image(np.zeros((3, 300, 200)), 0, 1, "")).size) == 96


def test_large_maps_are_added_up_in_squares() -> None:
    places = np.random.default_rng(0).normal(size=(100, 83))
    cells = pictures.coarse(places)
    assert cells.shape == (34, 28)
    assert cells.sum() == pytest.approx(places.sum())
    assert cells[0, 0] == pytest.approx(places[:3, :3].sum())


def test_percent() -> None:
    assert [percent(v).replace("\xa0", " ") for v in (0.1234, -0.01234, 0.0004, 2.5)] == [
        "+12 %",
        "-1.2 %",
        "+0.04 %",
        "+250 %",
    ]


def test_a_page_of_many_weights_stays_small(monkeypatch: pytest.MonkeyPatch, small: Report) -> None:
    monkeypatch.setattr(page, "LARGEST", 60_000)
    text = page.render(small)
    assert len(text) < 60_000 + 30_000
    assert "ask for them by --param" in text


@pytest.fixture
def browser(running: Any, tmp_path: Path) -> Iterator[Browser]:
    with faultless(running, tmp_path) as given:
        yield given


class TestInABrowser:
    pytestmark = needs_browser

    @pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
    def test_it_is_accessible_and_nothing_is_cut_off(
        self, theme: str, width: int, browser: Browser, small: Report
    ) -> None:
        pytest.importorskip("axe_playwright_python", reason="axe is not installed")
        from axe_playwright_python.sync_playwright import Axe

        file = browser.folder / "report.html"
        file.write_text(page.render(small), "utf-8")
        opened = browser.visit(file.as_uri(), viewport={"width": width, "height": 900}, color_scheme=theme)
        found = Axe().run(opened.page).response["violations"]
        assert [(v["help"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found] == []
        assert opened.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert opened.evaluate("() => [...document.images].every((i) => i.complete && i.naturalWidth > 0)")
