"""Pictures of the pages of the worked examples, light and dark, wide and narrow, to be looked at.

    python tools/page_pictures.py FOLDER [EXAMPLE …]

Needs playwright (`pip install playwright`) and an installed Chromium; nothing is downloaded.
"""

from __future__ import annotations

import shutil
import sys
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

from sharedgrad.document.page import render
from sharedgrad.explaining import explain
from sharedgrad.explaining.gallery import NAMES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"wide": 1440, "narrow": 390}


def main(folder: Path, names: list[str]) -> None:
    """One PNG for each example, theme and width."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in names:
            explanation = explain(name)
            file = folder / f"{name}.html"
            file.write_text(render(explanation.calculation.to_config(), explanation.document), "utf-8")
            for theme, (width, pixels) in product(("light", "dark"), WIDTHS.items()):
                page = browser.new_page(viewport={"width": pixels, "height": 900}, color_scheme=theme)
                page.goto(file.absolute().as_uri())
                page.locator("td[data-panel='dw:0'], td[data-panel='y']").first.click()
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(150)
                picture = folder / f"{name}-{theme}-{width}.png"
                page.screenshot(path=picture, full_page=True)
                page.close()
                print(picture)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or list(NAMES))
