"""A person's own automatic differentiation, as in micrograd: a class of numbers with +, *, ``backward()`` and ``grad``.

    gradient of a node = Σ over its uses of (gradient of the user × local derivative)

The faults are those of going back: a second use overwrites the first, a node is gone back through once for each path,
an earlier gradient is still inside.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from sharedgrad.checking.code.findings import FAILURES, explanation, in_words
from sharedgrad.checking.code.process import Limits, Process
from sharedgrad.checking.report import Explanation, Report
from sharedgrad.errors import ConfigError

Node = tuple[str, float, float] | tuple[str, int, int]  # ("leaf", value, 0) or ("+" | "*", left, right)
GRAPHS: dict[str, tuple[Node, ...]] = {
    "a·b + c": (("leaf", 3.0, 0), ("leaf", -2.0, 0), ("leaf", 0.5, 0), ("*", 0, 1), ("+", 3, 2)),
    "a + a": (("leaf", 3.0, 0), ("+", 0, 0)),
    "a·a": (("leaf", -1.5, 0), ("*", 0, 0)),
    "c·d with c = a + b": (("leaf", 3.0, 0), ("leaf", 2.0, 0), ("leaf", 1.25, 0), ("+", 0, 1), ("*", 3, 2)),
    "(a·b) · (a + b)": (("leaf", -2.0, 0), ("leaf", 3.0, 0), ("*", 0, 1), ("+", 0, 1), ("*", 2, 3)),
    "c·c + c·a with c = a·b": (("leaf", 1.5, 0), ("leaf", -0.5, 0), ("*", 0, 1), ("*", 2, 2), ("*", 2, 0), ("+", 3, 4)),
    "d·c + d with d = c + c, c = a·b": (
        ("leaf", 2.0, 0), ("leaf", 0.75, 0), ("*", 0, 1), ("+", 2, 2), ("*", 3, 2), ("+", 4, 3),
    ),
}  # fmt: skip
_ACT = "sharedgrad.checking.code.graphs:act"
Gradients = dict[int, float]


def check(order: Mapping[str, Any], limits: Limits) -> Report:
    """Judge a class of numbers.

    Raises:
        ConfigError: It cannot be loaded.
    """
    first: dict[str, Gradients] = {}
    second: dict[str, Gradients] = {}
    with Process({**order, "act": _ACT}, limits) as process:
        if failure := process.start():
            raise ConfigError("check", f"cannot be loaded: {in_words(failure)}")
        for words, nodes in GRAPHS.items():
            answer = process.ask({"name": order["name"], "nodes": nodes})
            if "failure" in answer:
                id = FAILURES.get(str(answer["failure"]["kind"]), "crashes")
                told = f"{in_words(answer['failure'])}; in {words}"
                return Report("wrong", (explanation(id, notes=told),))
            first[words] = {int(k): float(v) for k, v in answer["first"].items()}
            second[words] = {int(k): float(v) for k, v in answer["second"].items()}
    return _judged(first, second)


def _judged(first: Mapping[str, Gradients], second: Mapping[str, Gradients]) -> Report:
    bad = [words for words, nodes in GRAPHS.items() if not _equal(first[words], gradients(nodes))]
    remarks = [f"{len(bad)} of {len(GRAPHS)} expressions go wrong{': ' if bad else ''}{'; '.join(bad)}."]
    if bad:
        named = [id for id, ways in WAYS.items() if all(any(_equal(first[w], g) for g in ways(GRAPHS[w])) for w in bad)
                 and all(any(_equal(first[w], g) for g in ways(GRAPHS[w])) for w in GRAPHS)]  # fmt: skip
        if not named:
            remarks.append("No known mistake gives these gradients.")
        return Report("wrong", tuple(explanation(i) for i in named), remarks=(*remarks, _example(bad[0], first)))
    if all(_equal(second[w], first[w]) for w in GRAPHS):
        return Report("right", remarks=tuple(remarks))
    if all(_equal(second[w], {k: 2 * v for k, v in first[w].items()}) for w in GRAPHS):
        title = "backward() adds to the gradients that are there, as PyTorch's does: clear them between calls"
        return Report("right under a convention", (Explanation("gradients_accumulate", title, (), sort="convention"),))
    words = next(w for w in GRAPHS if not _equal(second[w], first[w]))
    note = f"a second backward() through {words} gives {_listed(second[words])} after {_listed(first[words])}"
    return Report("wrong", (explanation("grad_not_zeroed", notes=note),), remarks=tuple(remarks))


def _example(words: str, first: Mapping[str, Gradients]) -> str:
    return f"In {words}: expected {_listed(gradients(GRAPHS[words]))}, got {_listed(first[words])}."


def _listed(found: Gradients) -> str:
    return ", ".join(f"d{'abcdef'[k]} = {v:g}" for k, v in sorted(found.items()))


def _equal(a: Gradients, b: Gradients) -> bool:
    return a.keys() == b.keys() and all(np.isclose(a[k], b[k], rtol=1e-6, atol=1e-9) for k in a)


# ---- the right way back, and the wrong ones


def values(nodes: Sequence[Node]) -> list[float]:
    """The value of every node."""
    found: list[float] = []
    for kind, left, right in nodes:
        if kind == "leaf":
            found.append(float(left))
        else:
            a, b = found[int(left)], found[int(right)]
            found.append(a + b if kind == "+" else a * b)
    return found


def _uses(nodes: Sequence[Node]) -> list[list[tuple[int, float]]]:
    """For each node its uses: (user, local derivative)."""
    known = values(nodes)
    uses: list[list[tuple[int, float]]] = [[] for _ in nodes]
    for user, (kind, left, right) in enumerate(nodes):
        if kind != "leaf":
            a, b = int(left), int(right)
            uses[a].append((user, 1.0 if kind == "+" else known[b]))
            uses[b].append((user, 1.0 if kind == "+" else known[a]))
    return uses


def _leaves(nodes: Sequence[Node], all_gradients: Sequence[float]) -> Gradients:
    return {n: all_gradients[n] for n, node in enumerate(nodes) if node[0] == "leaf"}


def _back(nodes: Sequence[Node], counted: Callable[[int], Sequence[tuple[int, float]]]) -> Gradients:
    found = [0.0] * len(nodes)
    found[-1] = 1.0
    for n in range(len(nodes) - 2, -1, -1):
        found[n] = sum(found[user] * local for user, local in counted(n))
    return _leaves(nodes, found)


def gradients(nodes: Sequence[Node]) -> Gradients:
    """The gradient of the last node with respect to every leaf: each node adds over all its uses."""
    uses = _uses(nodes)
    return _back(nodes, lambda n: uses[n])


def _one_use(nodes: Sequence[Node]) -> Iterator[Gradients]:
    """Every way to count one use of each node: assigning keeps the one that came last."""
    uses = _uses(nodes)
    for choice in product(*(range(max(len(u), 1)) for u in uses)):
        yield _back(nodes, lambda n, choice=choice: uses[n][choice[n] : choice[n] + 1])  # type: ignore[misc]


def _each_path(nodes: Sequence[Node]) -> Iterator[Gradients]:
    """Recursion into both parts at once: a node that is reached again sends again what it has sent."""
    known = values(nodes)
    for order in (1, -1):
        found = [0.0] * len(nodes)
        found[-1] = 1.0

        def visit(n: int, found: list[float] = found, order: int = order) -> None:
            kind, left, right = nodes[n]
            if kind == "leaf":
                return
            a, b = int(left), int(right)
            found[a] += found[n] * (1.0 if kind == "+" else known[b])
            found[b] += found[n] * (1.0 if kind == "+" else known[a])
            for part in (a, b)[::order]:
                visit(part)

        visit(len(nodes) - 1)
        yield _leaves(nodes, found)


WAYS: dict[str, Callable[[Sequence[Node]], Iterator[Gradients]]] = {
    "accumulation_missing": _one_use, "node_visited_per_path": _each_path,
}  # fmt: skip


# ---- beside the person's code


def act(module: types.ModuleType, job: Mapping[str, Any]) -> dict[str, Any]:
    """Build one expression with the person's class and go back through it, twice."""
    cls: Any = module
    for part in str(job["name"]).split("."):
        cls = getattr(cls, part)
    made: list[Any] = []
    for kind, left, right in job["nodes"]:
        if kind == "leaf":
            made.append(cls(float(left)))
        else:
            made.append(made[left] + made[right] if kind == "+" else made[left] * made[right])
    leaves = [n for n, node in enumerate(job["nodes"]) if node[0] == "leaf"]
    made[-1].backward()
    first = {n: float(np.asarray(made[n].grad)) for n in leaves}
    made[-1].backward()
    return {"first": first, "second": {n: float(np.asarray(made[n].grad)) for n in leaves}}
