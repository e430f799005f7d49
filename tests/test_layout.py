from __future__ import annotations

import pytest

from sharedgrad.layout import columns, fold, printable, table


def test_words_stay_whole() -> None:
    text = "take a smaller learning rate or go on with --resume (97.25 % so far)"
    for width in range(20, 70):
        lines = fold(text, width).splitlines()
        assert max(map(len, lines)) <= width
        assert " ".join(" ".join(lines).split()) == text
        assert not any(line.strip().startswith("%") for line in lines)


def test_a_number_stays_with_its_name() -> None:
    text = "rows (60 weights): 1 epoch, batches of 32, adam, lr 0.001 cosine, seed 0"
    for width in range(24, 70):
        assert not any(line.endswith((" of", "lr", "seed")) for line in fold(text, width).splitlines())


def test_lines_that_fit_stay_as_they_are() -> None:
    assert fold("  a   b\n\nc", 20) == "  a   b\n\nc"
    assert fold("  aaaa bbbb cccc dddd eeee", 12) == "  aaaa bbbb\n    cccc\n    dddd\n    eeee"


def test_a_word_longer_than_the_line_is_not_broken() -> None:
    path = "/a/very/long/path/to/a/folder"
    assert fold(f"in {path} now", 20).splitlines()[1].strip() == path


def test_what_steers_a_terminal_is_shown() -> None:
    assert printable("a\x1b[31m\nb\tü") == r"a\x1b[31m\nb\tü"
    assert printable("a\udcffb") == r"a\udcffb"


ROWS = [("name", "number of", "words"), ("a", "1,234", "some long words"), ("b", "", "short")]


def test_a_table_gives_way_step_by_step() -> None:
    assert table(ROWS, 40, right=[1])[0][1] == "a         1,234  some long words"
    lines, gone = table(ROWS, 28, right=[1], wrapped=[2], leaving=[2, 1])
    assert (lines, gone) == (
        [
            "name  number  words",
            "          of",
            "a      1,234  some long",
            "              words",
            "b             short",
        ],
        [],
    )
    lines, gone = table(ROWS, 18, right=[1], wrapped=[2], leaving=[2, 1])
    assert (lines[0], gone) == ("name  number of", [2])
    assert table(ROWS, 5, right=[1], wrapped=[2], leaving=[2, 1])[1] == [2, 1]


def test_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "57")
    assert columns() == 57
    monkeypatch.setenv("COLUMNS", "1")
    assert columns() == 20
