"""The worked examples as a whole: each is computed, and its numbers are those of the collection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import test_worked_courses, test_worked_examples
from tests.worked import CASES, COMPUTED, NOT_COMPUTED

MODULES = test_worked_courses, test_worked_examples  # importing them enters their examples in COMPUTED


def test_every_example_is_computed_or_has_a_reason_why_not() -> None:
    assert COMPUTED.keys() | NOT_COMPUTED.keys() == CASES.keys()
    assert not COMPUTED.keys() & NOT_COMPUTED.keys()
    for name, test in COMPUTED.items():
        assert (test.__doc__ or "").split()[0] == CASES[name]["source"]


def test_the_numbers_are_those_of_the_collection_they_came_from() -> None:
    collection = Path(__file__).resolve().parents[2] / "shared/cases/worked_examples.json"
    if not collection.exists():
        pytest.skip("the collection is not here")
    originals = {entry["id"]: entry for entry in json.loads(collection.read_text())["examples"]}
    assert originals.keys() == CASES.keys()
    for name, case in CASES.items():
        assert case["source"] == originals[name]["source_url"]
        for part, original in (("given", "given"), ("published", "published_answer"), ("right", "right_answer")):
            for key, value in case.get(part, {}).items():
                assert value == originals[name][original][key], f"{name}: {key}"
