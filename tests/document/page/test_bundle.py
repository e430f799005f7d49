"""The page's script: linked without a bundler, checked types, no name twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from sharedgrad.document import page
from sharedgrad.document.page.bundle import part, script
from tests.document.page.node import NODE, needs_node, run

TSC = shutil.which("tsc")


@needs_node
def test_the_modules_link_to_one_valid_script(tmp_path: Path) -> None:
    file = tmp_path / "script.mjs"
    file.write_text(script(), "utf-8")
    assert NODE is not None
    done = subprocess.run([NODE, "--check", str(file)], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_nothing_is_left_of_imports_exports_and_types() -> None:
    text = script()
    assert not re.search(r"^\s*(import|export)\b", text, re.MULTILINE)
    assert "@param" not in text
    assert "</script" not in text.lower() + part("vendor", "htm-preact.js").lower()


@needs_node
def test_python_and_the_page_know_the_same_layers(tmp_path: Path) -> None:
    assert set(run("console.log(JSON.stringify(Object.keys(LAYERS)))", None, tmp_path)) == set(page.LAYERS)


@pytest.mark.skipif(TSC is None, reason="tsc is not installed (npm install -g typescript)")
def test_the_types_of_the_script_are_right() -> None:
    assert TSC is not None
    with as_file(files(page).joinpath("script")) as folder:
        done = subprocess.run([TSC, "-p", str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
