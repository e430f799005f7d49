"""The table of a pass."""

from __future__ import annotations

import torch
from torch import nn

import sharedgrad as sg


def test_a_row_for_each_parameter_within_eighty_columns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model.add_module("a_module_with_a_long_name", nn.Linear(3, 3))
    with sg.trace(model) as t:
        model(torch.randn(4, 2, 6, 6)).square().mean().backward()
    lines = t.table().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["0.weight", "64", "yes", *lines[2].split()[3:]]
    norms = t["0.weight"].norm("position")
    place = divmod(int(norms.argmax()), 4)
    assert lines[2].split()[-2:] == [str(int(t["0.weight"].norm("sample").argmax())), f"{place[0]},{place[1]}"]
    assert "a_module_with_a_long_name.weight" in lines
    assert "(0.875)" in lines[2]  # 1 − 1/√64


def test_the_first_samples_are_not_shown_where_they_were_not_kept() -> None:
    model = nn.Linear(3, 2)
    with sg.trace(model, keep=["share:sample"]) as t:
        model(torch.randn(4, 3)).square().mean().backward()
    assert t.table().splitlines()[2].split()[-2:] == ["–", "–"]


def test_what_is_about_all_samples_is_a_dash_where_some_were_looked_at() -> None:
    model = nn.Linear(3, 2)
    for keep in ("factors", ["norm:sample"]):
        with sg.trace(model, keep=keep, samples=[3, 1]) as t:
            model(torch.randn(4, 3)).square().mean().backward()
        assert t.table().splitlines()[2].split()[2:] == ["yes", "–", "–", "–", "–"]


def test_one_use_cancels_nothing_and_no_zero_is_negative() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Linear(9, 9)
        with sg.trace(model) as t:
            model(torch.randn(1, 9)).square().mean().backward()
        assert t.table().splitlines()[2].split()[-4:-2] == ["0.000", "(0.000)"]
