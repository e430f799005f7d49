"""The page's script as one text: its modules in the order in which they need one another.

The modules keep to the part of JavaScript's module syntax that can be linked by taking words away: named imports of
files beside them, and ``export`` before a declaration. All names at the top of the modules differ.
"""

from __future__ import annotations

import re
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|let|function|class)\b)", re.MULTILINE)


def part(*names: str) -> str:
    """The text of a file of this package, e.g. ``part("vendor", "htm-preact.js")``."""
    return files(__package__).joinpath(*names).read_text("utf-8")


@cache
def script(entry: str = "main.js") -> str:
    """A module and all that it needs, as one module without imports."""
    needs: dict[str, list[str]] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in needs:
            needs[name] = _IMPORT.findall(part("script", name))
            waiting += needs[name]
    order = TopologicalSorter(needs).static_order()
    text = "\n".join(_EXPORT.sub("", _IMPORT.sub("", part("script", name))) for name in order)
    return re.sub(r"\n\s*\n", "\n", _comments_out(text))


def _comments_out(text: str) -> str:
    """Without types and remarks, which no browser needs."""
    text = re.sub(r"/\*\*.*?\*/ ?", "", text, flags=re.DOTALL)
    return re.sub(r"^\s*//.*\n|[ \t]+// .*$", "", text, flags=re.MULTILINE)
