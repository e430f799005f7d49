"""The pages in docs/gallery are those that the tool makes today."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from sharedgrad.explaining import gallery
from sharedgrad.explaining.pages import pages

FOLDER = Path(__file__).parents[2] / "docs/gallery"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
NAMES = ["README.md", *(f"{entry.name}.md" for entry in gallery.entries())]


@cache
def made() -> dict[str, str]:
    return pages()


def test_there_is_a_page_for_each_example_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(made()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_up_to_date(name: str) -> None:
    """Word for word; numbers within what other kernels round differently."""
    written, today = (FOLDER / name).read_text("utf-8"), made()[name]
    words = [re.sub(r" +", " ", NUMBER.sub("0", text)).split("\n") for text in (written, today)]
    assert words[0] == words[1], "run tools/gallery"
    for one, other in zip(NUMBER.findall(written), NUMBER.findall(today), strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-5, abs=1e-12)
