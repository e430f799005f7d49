"""Small samples of the rates; ``python -m tests.checking.rates`` counts large ones."""

from __future__ import annotations

from tests.checking import rates


def test_the_innocent_are_not_accused() -> None:
    found = rates.innocent(150, seed=1)
    assert not found.counts["wrong"], found
    assert found.counts["right"] + found.counts["right under a convention"] >= 0.99 * 150, found


def test_wrong_answers_are_never_called_right() -> None:
    found = rates.wrong(120, seed=1)
    assert not found.counts["right"] + found.counts["right under a convention"], found


def test_a_mistake_is_named_first() -> None:
    found = rates.detection(6, seed=1)
    assert found.counts["named first"] >= 0.95 * sum(found.counts.values()), found


def test_two_mistakes_are_named() -> None:
    found = rates.pairs(6, seed=1)
    assert not found.counts["different arrays: missed"] + found.counts["same array: missed"], found
