"""The page's modules under node, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sharedgrad.document.page.bundle import script

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(code: str, argument: Any, folder: Path) -> Any:
    """What ``code`` prints as JSON; it finds the page's computing modules and the argument as ``given``."""
    assert NODE is not None
    module = folder / "run.mjs"
    module.write_text(f"{script('example.js')}\nconst given = {json.dumps(argument)};\n{code}", "utf-8")
    done = subprocess.run([NODE, str(module)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
