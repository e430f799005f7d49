"""The renderers: nothing is wider than the page, nothing that comes from a file is markup, LaTeX compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from sharedgrad.document import html, latex, terminal
from sharedgrad.document.blocks import (
    Document,
    Equation,
    Equations,
    Figure,
    Grid,
    Paragraph,
    Row,
    Section,
    Source,
    Table,
)
from sharedgrad.document.expression import LeftOut, Number, Product, Sum, Symbol
from sharedgrad.document.numbers import columns
from sharedgrad.explaining import explain, gallery

NASTY = [
    "<script>alert(1)</script>",
    "</title></style><b>",
    r"\input{/etc/passwd} $x$ _^~%#&{}",
    r"}\end{document}\write18{ls}",
    "\x1b[31mred\x1b[0m \x07\x9b31m",
    "a\nb\tc\r",
    "漢字と\u202eright-to-left\u2066",
    "é ß ü ñ ‘quotes’ “double” — 🎈",
    "x" * 200,
    "&lt;b&gt; &amp; \"'",
    "`a' --- -- ?` !`",
    "",
]


def nasty(text: str) -> Document:
    """A document in which a text stands wherever a text can stand."""
    symbol = Symbol(text or "x", np.array([[1.5, -2.0], [1e-7, 30000.0]]), text)
    cell = symbol.cell(0, 1)
    grid = Grid(symbol, {(0, 1): "wrong", (1, 0): "used"}, text)
    product = Product((symbol.cell(0, 0), cell))
    return Document(
        text,
        (
            Paragraph.of(text, cell, 0.5),
            Section(
                text,
                (
                    Equation.cell(cell, Sum((product, cell), LeftOut(3, 0.5, text))),
                    Equations((Equation(text, Number(1.0), 1.0),), 5, text),
                    grid,
                    Row((grid, text, grid)),
                    Table((text, "b"), ((text, 1.5), (text, -2.0)), text, 4, text),
                    Figure(b"\x89PNG", text, text),
                ),
                text,
            ),
            Section(text, (Paragraph.of(text),), folded=True),
        ),
        (Source(text, text), Source(text, "https://example.org/?a=1&b=" + text)),
    )


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "a", "section", "details"),
    *("summary", "div", "span", "strong", "table", "caption", "thead", "tbody", "tr", "td", "th", "figure"),
    *("figcaption", "img", "math", "mrow", "mi", "mn", "mo", "mtext", "msub", "msup", "msubsup", "mfrac"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "href", "id", "data-cells", "data-array", "data-cell"),
    *("scope", "src", "alt", "title", "stretchy"),
}


@pytest.mark.parametrize("text", NASTY)
def test_texts_are_never_markup_in_html(text: str) -> None:
    reader = Reader()
    reader.feed(html.render(nasty(text)))
    assert reader.tags <= TAGS
    assert reader.attributes <= ATTRIBUTES
    assert all(link.startswith(("https://example.org", "data:image/png;base64,")) for link in reader.links)


@pytest.mark.parametrize("text", NASTY)
def test_texts_never_steer_a_terminal(text: str) -> None:
    printed = terminal.render(nasty(text))
    assert all(c == "\n" or c.isprintable() for c in printed)
    assert all(columns(line) <= 80 for line in printed.splitlines())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_are_never_wider_than_asked_for(width: int) -> None:
    for text in NASTY:
        assert all(columns(line) <= width for line in terminal.render(nasty(text), width).splitlines())


def test_numbers_and_words_stay_whole() -> None:
    rng = np.random.default_rng(0)
    wide = Grid(Symbol("w", rng.normal(size=(3, 30))))
    printed = terminal.text([wide])
    numbers = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", printed)
    assert sorted(map(float, numbers)) == sorted(
        float(f"{v:.6g}") for v in wide.symbol.array.reshape(-1) if "." in f"{v:.6g}"
    )
    assert "columns 0 to" in printed
    words = "supercalifragilistic " * 30
    assert set(terminal.text([Paragraph.of(words)]).split()) == {"supercalifragilistic"}


def test_colour_is_where_it_is_wanted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.wants_color(Terminal())
    assert not terminal.wants_color(StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_color(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.wants_color(Terminal())
    document = nasty("a")
    assert "\x1b[" not in terminal.render(document)
    colored = terminal.render(document, color=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == terminal.render(document)


def test_marks_show_without_colour() -> None:
    grid = Grid(Symbol("x", np.array([[1.0, 2.0, 3.0]])), {(0, 0): "used", (0, 1): "wrong", (0, 2): "expected"})
    assert terminal.text([grid]).splitlines()[1].split() == ["[1]", ">2<", "(3)"]


def test_what_is_left_out_is_counted_and_how_to_get_it() -> None:
    grid = Grid(Symbol("x", np.zeros((10, 10))), shown=(slice(0, 2), slice(0, 3)), how="ask")
    for text in (
        terminal.text([grid]),
        html.fragment([grid]),
        "\n".join(latex.render(Document("t", (grid,))).split("\n")),
    ):
        assert "(94 more cells; ask)" in text


def test_a_sum_that_seems_not_to_agree_says_so() -> None:
    thirds = Symbol("t", np.array([1 / 3, 1 / 3, 1 / 3]))
    equation = Equation("total", Sum((thirds.cell(0), thirds.cell(1), thirds.cell(2))), 1.0)
    note = "The printed numbers give 0.999999"
    for text in (terminal.text([equation]), html.fragment([equation]), latex.render(Document("t", (equation,)))):
        assert note in " ".join(text.split())
    assert not Equation("a", Sum((Number(0.5), Number(0.25))), 0.75).rounding_note()
    both = Equations((equation, equation))
    assert "In 2 of these lines" in terminal.text([both])


def test_terms_in_html_name_their_cells() -> None:
    found = html.fragment(explain("filter-1d").document.blocks)
    assert '<span class="term" data-cells="dy:0 x:0">' in found
    assert '<table class="grid" data-array="dw">' in found
    assert '<td class="number" data-cell="1">0.4</td>' in found


def test_a_static_file_loads_nothing() -> None:
    for name in ("filter-1d", "network-5x5"):
        text = html.render(explain(name).document)
        assert "http" not in re.sub(r'<p class="source">.*?</p>', "", text)
        assert "<script" not in text


@pytest.mark.parametrize("name", gallery.NAMES)
def test_a_page_is_small(name: str) -> None:
    assert len(explain(name).html.encode()) < 400_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("name", ["nasty texts", *gallery.NAMES])
def test_latex_compiles(name: str, tmp_path: Path) -> None:
    if name == "nasty texts":
        blocks = tuple(block for text in NASTY for block in nasty(text).blocks)
        source = latex.render(Document(NASTY[2], blocks, (Source(NASTY[2], NASTY[2]),)))
    else:
        source = explain(name).latex
    (tmp_path / "it.tex").write_text(source, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "it.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout.decode("latin-1")[-2000:]
    log = (tmp_path / "it.log").read_text("latin-1")
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", log)]
    assert name == "nasty texts" or max(wide, default=0) < 20  # points: a term that does not break
