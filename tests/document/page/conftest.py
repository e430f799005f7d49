"""The browser: started once for a module's tests; each test gets pages of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.document.page.browser import Browser, chromium


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(running: Any, tmp_path: Path) -> Iterator[Browser]:
    """Fails the test if a page has written to the console or has asked for anything but its own file."""
    given = Browser(running, tmp_path)
    yield given
    for context in running.contexts:
        context.close()
    assert given.complaints == []
    assert {url.split(":")[0] for url in given.requests} <= {"file", "data", "blob"}
    assert len({url.split("#")[0] for url in given.requests if url.startswith("file:")}) <= 1
