"""What stands under which name in a network: shared things have several, and a view's name shows a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sharedgrad.errors import CheckpointError, ShapeError
from sharedgrad.parameter import Array, Buffer, Parameter, Weight, numbers
from sharedgrad.view import View

Items = Mapping[str, Weight | Buffer]
Given = Sequence[tuple[str, Array]]


def shared(items: Items) -> dict[str, tuple[str, View]]:
    """Alias -> the first name of the same thing, and how the alias shows it.

    A view belongs to the first name of the whole Parameter. If no name shows the whole, it stands for itself.
    """
    first: dict[Weight | Buffer, str] = {}
    for name, item in items.items():
        first.setdefault(item, name)
    found = {}
    for name, item in items.items():
        if not _view(item).identity and _whole(item) in first:
            found[name] = (first[_whole(item)], _view(item))
        elif first[item] != name:
            found[name] = (first[item], View())
    return found


def values(items: Items, state: Mapping[str, Any]) -> dict[Parameter | Buffer, Array]:
    """The new value of every parameter and buffer, from name -> array.

    Raises:
        CheckpointError: Names are missing or unknown, a shape differs, or names of one thing do not agree.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError("state_dict", f"expected name -> array, got {type(state).__name__}")
    if unknown := [n for n in state if n not in items]:
        raise CheckpointError("state_dict", f"does not fit this network: no place for {', '.join(unknown[:5])}")
    given: dict[Parameter | Buffer, list[tuple[str, Array]]] = {}
    for name, value in state.items():
        given.setdefault(_whole(items[name]), []).append((name, _array(name, value, items[name].value)))
    if missing := [name for name in items if not _covered(name, items, given.get(_whole(items[name]), ()))]:
        raise CheckpointError("state_dict", f"does not fit this network: {', '.join(missing[:5])} missing")
    return {whole: _joined(whole, items, own) for whole, own in given.items()}


def _whole(item: Weight | Buffer) -> Parameter | Buffer:
    return item.base if isinstance(item, Weight) else item


def _view(item: Weight | Buffer) -> View:
    return item.view if isinstance(item, Weight) else View()


def _covered(name: str, items: Items, given: Given) -> bool:
    """Whether all that stands under a name is given, under whatever names of the same thing."""
    if any(_view(items[other]).identity or items[other] == items[name] for other, _ in given):
        return True
    shape = _whole(items[name]).value.shape
    cells = [_view(items[other]).cells(shape).ravel() for other, _ in given]
    return bool(cells) and bool(np.isin(_view(items[name]).cells(shape), np.concatenate(cells)).all())


def _joined(whole: Parameter | Buffer, items: Items, given: Given) -> Array:
    """The value that all names of one thing carry together; cells that no name sees stay as they are."""
    (first, value), *others = given
    if all(_view(items[name]).identity for name, _ in given):
        for name, array in others:
            _refuse_unless(np.array_equal(array, value, equal_nan=True), name, first)
        return value
    total, source = whole.value.reshape(-1).copy(), np.full(whole.value.size, -1)
    for number, (name, array) in enumerate(given):
        cells = _view(items[name]).cells(whole.value.shape).ravel()
        flat, before = array.ravel(), source[cells]
        same = (flat == total[cells]) | np.isnan(flat) & np.isnan(total[cells])
        if (wrong := before[(before >= 0) & ~same]).size:
            _refuse_unless(False, name, given[wrong[0]][0])
        total[cells], source[cells] = flat, number
    return total.reshape(whole.value.shape)


def _refuse_unless(same: bool, name: str, other: str) -> None:
    if not same:
        raise CheckpointError("state_dict", f"{name} and {other} are one shared parameter but differ")


def _array(name: str, value: Any, like: Array) -> Array:
    try:
        array = numbers(value, like.dtype, name)
    except ShapeError as error:
        raise CheckpointError("state_dict", str(error)) from None
    if array.shape != like.shape:
        raise CheckpointError("state_dict", f"{name}: expected shape {like.shape}, got {array.shape}")
    return array
