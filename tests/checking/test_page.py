"""docs/ten_mistakes.md is what the tool writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "ten_mistakes.py"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("ten_mistakes", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text("utf-8") == tool.page()
