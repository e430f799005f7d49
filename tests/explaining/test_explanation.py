"""What ``explain`` takes and gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharedgrad as sg
from sharedgrad.calculation import Calculation
from sharedgrad.errors import ConfigError

SMALL: dict[str, Any] = {"layer": "conv1d", "x": [1, 2, 3], "w": [0.3, 0.5], "upstream": [-0.1, 0.2]}


def test_a_name_a_file_a_mapping_and_a_calculation(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SMALL))
    texts = {sg.explain(what).text() for what in (SMALL, path, str(path), Calculation.of(SMALL))}
    assert len(texts) == 1
    assert str(sg.explain("filter-1d")) == sg.explain("filter-1d").text()


@pytest.mark.parametrize("what", [3, None, ["filter-1d"]])
def test_other_things_are_refused(what: Any) -> None:
    with pytest.raises(ConfigError, match="expected a name, a file or a mapping"):
        sg.explain(what)


def test_a_small_network_can_be_touched() -> None:
    found = sg.explain(SMALL, weight="w[1]")
    assert "<script" in found.html
    assert '"focus": {"weight": "conv.weight[0,0,1]"}' in found.html or "conv.weight[0,0,1]" in found.html
    assert found._repr_html_().startswith("<iframe srcdoc=")


@pytest.mark.parametrize(
    "config",
    [
        {
            "layer": "batchnorm2d",
            "num_features": 1,
            "x": np.ones((2, 1, 2, 2)),
            "w": [1],
            "b": [0],
            "upstream": np.ones((2, 1, 2, 2)),
        },
        {"layer": "linear", "x": np.ones(80), "w": np.ones((80, 80)), "upstream": np.ones(80)},
    ],
    ids=["a layer that the page does not compute", "too many numbers"],
)
def test_others_are_written_out_alone(config: dict[str, Any]) -> None:
    found = sg.explain(config)
    assert "<script" not in found.html
    assert found._repr_html_().startswith("<iframe srcdoc=")


def test_the_same_numbers_give_the_same_text() -> None:
    assert sg.explain("network-5x5").html == sg.explain("network-5x5").html
