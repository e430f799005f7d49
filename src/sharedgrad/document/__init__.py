"""A calculation as a document of steps, and its renderers.

    expression.py   formulas as trees: names, indices and numbers in one
    blocks.py       what a document is made of: paragraphs, equations, arrays as grids, tables, figures, sections
    numbers.py      the rounding for display
    terminal.py     for a terminal or a pipe            plain.py     formulas as text
    latex.py        a file that compiles as it is       formulas.py  formulas as LaTeX
    html.py         a static file, or fragments of one

A document is made once, from the engine's own arrays; a renderer lays it out and computes nothing.
"""

from sharedgrad.document.blocks import (
    Block,
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
from sharedgrad.document.expression import Expression, Symbol, from_terms

__all__ = [
    "Block",
    "Document",
    "Equation",
    "Equations",
    "Expression",
    "Figure",
    "Grid",
    "Paragraph",
    "Row",
    "Section",
    "Source",
    "Symbol",
    "Table",
    "from_terms",
]
