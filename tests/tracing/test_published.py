"""The page of published models says what the tool finds; those that PyTorch alone brings are traced again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "traced_models.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["nn.Transformer", "nn.LSTM", "nn.GRU"])
def test_the_page_is_what_the_tool_finds(name: str) -> None:
    spec = importlib.util.spec_from_file_location("traced_models", ROOT / "tools" / "traced_models.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for kind, dtype in tool.TYPES.items():
        found = tool.traced(tool.MODELS[name], dtype)
        told = tool.row(name, kind, tool.built(tool.MODELS[name], dtype), found)
        assert told.rsplit("|", 2)[0] + "|" in PAGE  # residuals are another machine's
        assert found.residual <= {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]


def test_every_parameter_of_every_model_is_certified_or_reported() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "| float" in line]
    assert len(rows) == 24
    for _, kind, parameters, _, _, certified, _, _, reported, residual in rows:
        assert int(certified) + int(reported) == int(parameters)
        assert float(residual) <= {"float64": 1e-12, "float32": 1e-5}[kind]
