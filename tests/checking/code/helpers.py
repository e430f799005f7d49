"""Code as a person's file."""

from __future__ import annotations

import textwrap
from pathlib import Path

from sharedgrad.checking.code import api
from sharedgrad.checking.code.process import Limits
from sharedgrad.checking.report import Report

RIGHT = (Path(__file__).parent.parent / "students" / "right_conv_loops.py").read_text("utf-8")


def check(
    folder: Path, text: str, layer: str, name: str = "backward", signature: str | None = None, seconds: float = 1.0,
    limits: Limits | None = None, forward: str | None = None,
) -> Report:  # fmt: skip
    """The report on a file with this text."""
    file = folder / "mine.py"
    file.write_text(textwrap.dedent(text), "utf-8")
    return api.check(api.of_file(f"{file}:{name}", forward), layer, signature, limits or Limits(), seconds)
