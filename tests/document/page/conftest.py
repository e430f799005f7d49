"""The browser: started once for a module's tests; each test gets pages of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.document.page.browser import Browser, chromium, faultless


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(running: Any, tmp_path: Path) -> Iterator[Browser]:
    with faultless(running, tmp_path) as given:
        yield given
