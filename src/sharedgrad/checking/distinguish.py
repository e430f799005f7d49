"""What numbers can tell apart: which mistakes give the same answer on an exercise, and numbers on which they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.checking.right import right, total
from sharedgrad.checking.rules import Rule, outcomes
from sharedgrad.checking.search import equal, is_right, rules_for, way
from sharedgrad.parameter import Array
from sharedgrad.randomness import generator

Ids = tuple[str, ...]


def wrong_arrays(given: Given, target: str, variants: int | None = None) -> Iterator[tuple[str, str, Array]]:
    """(mistake, note, array) of every single mistake that makes a difference to one array."""
    for rule in rules_for(given.kind, target):
        for outcome in outcomes(way(target), given, (rule,), variants):
            if not is_right(given, target, outcome.array):
                yield rule.id, outcome.notes[0], outcome.array


def classes(given: Given, target: str) -> list[set[tuple[str, str]]]:
    """Mistakes (with their variants) sorted by the array that they give; one that makes no difference is left out."""
    found: list[tuple[set[tuple[str, str]], Array]] = []
    for id, note, array in wrong_arrays(given, target):
        for members, other in found:
            if equal(array, other):
                members.add((id, note))
                break
        else:
            found.append(({(id, note)}, array))
    return [members for members, _ in found]


def drawn(given: Given, seed: int, number: int = 0, friendly: bool = True, spread: int = 0) -> Given:
    """The same exercise with other numbers: small whole numbers (a little larger with ``spread``), or generic ones."""
    rng = generator(seed, "exercise", number)
    arrays: dict[str, Array] = {}
    for name, array in given.arrays.items():
        if (given.kind == "embedding" and name == "x") or name == "target":
            arrays[name] = array
        elif friendly:
            arrays[name] = _friendly(rng, name, array.shape, given.kind, spread)
        else:
            arrays[name] = np.asarray(rng.normal(size=array.shape))
    return given.replaced(**arrays)


def _friendly(rng: np.random.Generator, name: str, shape: tuple[int, ...], kind: str, spread: int) -> Array:
    """Whole numbers that are easy to multiply; halves where a curve would saturate."""
    if kind in ("sigmoid", "tanh", "softmax", "log_softmax", "rnn") and name != "dy":
        return rng.integers(-4, 5, shape) / 4
    if kind == "max_pool" and name == "x":
        return rng.permutation(int(np.prod(shape))).reshape(shape).astype(float)
    values = np.arange(-4 - spread, 6 + spread)
    if name in ("w", "dy"):
        values = np.setdiff1d(np.arange(-3 - spread, 4 + spread), [0])
    return rng.choice(values, shape).astype(float)


def telling(given: Given, target: str, one: Ids, other: Ids, seed: int = 0) -> Given | None:
    """The same exercise with numbers on which two explanations differ; None if they are one formula.

    Only their single mistakes are compared; for two together the first that differs decides.
    """
    for number in range(8):
        probe = drawn(given, seed, number, friendly=number < 6)
        arrays = [_of(probe, target, ids) for ids in (one, other)]
        if all(arrays) and not any(equal(a, b) for a in arrays[0] for b in arrays[1]):
            return probe
    return None


def _of(given: Given, target: str, ids: Ids) -> list[Array]:
    rules: list[Rule] = []
    for id in ids:
        rules += [r for r in rules_for(given.kind, target) if r.id == id][:1]
    if len(rules) != len(ids):
        return []
    return [o.array for o in outcomes(way(target), given, rules, 8)]


def invisible(given: Given, target: str, compare: str = "elements", tolerance: float = 1e-8) -> dict[str, str]:
    """Mistakes of the library that a comparison with these numbers lets pass.

    Args:
        given: The test's numbers.
        target: The array that it compares.
        compare: "elements", "mean" or "sum": what of the array is compared.
        tolerance: How far apart two numbers count as equal, relative to the largest.

    Returns:
        Id -> which variants pass, in words; "" where it makes no difference at all with these settings.
    """
    good = total(right(given, target))
    passing: dict[str, list[str]] = {}
    seen: set[str] = set()
    for rule in rules_for(given.kind, target):
        passing.setdefault(rule.id, [])
        for outcome in outcomes(way(target), given, (rule,), None):
            if _differs(outcome.array, good, compare, tolerance):
                seen.add(rule.id)
            else:
                passing[rule.id].append(outcome.notes[0])
    return {id: "; ".join(notes) for id, notes in passing.items() if notes or id not in seen}


def _differs(array: Array, good: Array, compare: str, tolerance: float) -> bool:
    if compare != "elements":
        reduce = np.mean if compare == "mean" else np.sum
        if array.size == 0:
            return True
        return abs(float(reduce(array)) - float(reduce(good))) > tolerance * max(float(np.abs(good).max()), 1e-300)
    if array.shape != good.shape:
        return True
    return bool((np.abs(array - good) > tolerance * np.abs(good).max(initial=0.0)).any())


def as_data(given: Given, names: Sequence[str] = ("x", "w", "b", "dy", "target")) -> Mapping[str, object]:
    """The numbers as plain data, under the names that an exercise file uses."""
    words = {"dy": "upstream"}
    return {words.get(n, n): given[n].tolist() for n in (*names, *given.arrays) if n in given}
