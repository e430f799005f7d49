"""The worked examples as Markdown pages, which the documentation holds: ``tools/gallery`` writes them."""

from __future__ import annotations

from sharedgrad.document import markdown
from sharedgrad.explaining import gallery
from sharedgrad.explaining.explanation import explain

_INDEX = """\
# Backpropagation through a convolution, with numbers: worked examples

Each page is one small network with its actual numbers: forward, loss, backward, update; formulas, then the formulas
with their numbers, then the results. They are made by `sharedgrad explain` from the engine's own arrays
(`tools/gallery` writes them), and a test substitutes the numbers into every printed formula.

    sharedgrad explain network-5x5                              # the same in a terminal
    sharedgrad explain network-5x5 --html page.html             # as a page to touch: every weight shows its uses
    sharedgrad explain network-5x5 --weight "conv.weight[0,0]"  # one weight, all its uses in a table
    sharedgrad explain --template network > mine.json           # your own numbers

"""


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    found = {f"{entry.name}.md": _page(entry.name) for entry in gallery.entries()}
    lines = [f"- [{markdown.escape(entry.title)}]({entry.name}.md)" for entry in gallery.entries()]
    return {"README.md": _INDEX + "\n".join(lines) + "\n", **found}


def _page(name: str) -> str:
    text = markdown.render(explain(name).document)
    how = f"To touch the numbers: `sharedgrad explain {name} --html page.html`. [All examples](README.md)"
    return f"{text}\n{how}\n"
