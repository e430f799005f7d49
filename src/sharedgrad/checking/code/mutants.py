"""Right and wrong backward passes as functions, made from the library of wrong procedures, to try a test on.

A mutant takes the arguments that the test gives to the real function, reads the numbers out of them, computes the right
gradients, and carries one mistake out on one of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sharedgrad.checking import right
from sharedgrad.checking.code import names
from sharedgrad.checking.code.forms import Form
from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import Rule, outcomes
from sharedgrad.checking.search import rules_for, way
from sharedgrad.errors import ConfigError, SharedgradError
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array

_CACHES = {
    "Conv": ("x", "w", "b", "conv_param"), "MaxPool": ("x", "pool_param"), "AvgPool": ("x", "pool_param"),
    "Linear": ("x", "w", "b"),
}  # fmt: skip
_ELSEWHERE = ("upstream_from_updated_weights", "groups_ignored", "dilation_ignored")  # the courses have none of these


def mutants(kind: str) -> Iterator[tuple[str, Rule]]:
    """(array, mistake) for everything that the library knows of a kind of layer and that a test of it can meet."""
    for target in ("dx", "dw", "db"):
        for rule in rules_for(right.KINDS.get(kind, "layer"), target):
            if rule.id not in _ELSEWHERE:
                yield target, rule


class Stand:
    """What stands in for the function under test.

    Args:
        kind: The layer's class.
        settings: What the function is not told.
        original: The function; it gives the layout of its arguments and results.
    """

    def __init__(self, kind: str, settings: dict[str, Any], original: Callable[..., Any]) -> None:
        self.kind, self.settings, self.original = kind, settings, original
        self.calls = 0
        self.variant: str | None = None  # in words, once a mistake has made a difference or could have

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The right answer, by the real function; what it was given is remembered."""
        self.calls += 1
        return self.original(*args, **kwargs)

    def with_mistake(self, target: str, rule: Rule, variant: int) -> Callable[..., Any]:
        """The function with one mistake in one of its results; right where the mistake makes no difference."""

        def mutant(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            results = self.original(*args, **kwargs)
            form, given = self._read(args, kwargs)
            changed = self._mistaken(given, target, rule, variant)
            return results if changed is None else _replaced(results, form.targets(given), target, changed, form, given)

        return mutant

    def _mistaken(self, given: Given, target: str, rule: Rule, variant: int) -> Array | None:
        """The wrong array, or None where the mistake makes no difference."""
        try:
            good = right.total(right.right(given, target))
            for number, outcome in enumerate(outcomes(way(target), given, (rule,), variant + 1)):
                if number == variant:
                    self.variant = "; ".join(outcome.notes)
                    same = outcome.array.shape == good.shape and np.allclose(outcome.array, good)
                    return None if same else outcome.array
        except (SharedgradError, ValueError, IndexError):  # no such mistake with these numbers
            pass
        return None

    def _read(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Form, Given]:
        bound = inspect.signature(self.original).bind(*args, **kwargs).arguments
        parts: dict[str, Any] = {}
        for number, (name, value) in enumerate(bound.items()):
            role = names.role(name)
            if role == "cache" or (number == 1 and role not in ("x", "w")):
                parts.update(self._unpacked(value))
            elif role is not None:
                parts[role] = value
        if "dy" not in parts:
            parts["dy"] = next(iter(bound.values()))
        form = self._form(parts)
        return form, self._given(parts, form)

    def _unpacked(self, cache: Any) -> dict[str, Any]:
        expected = next((roles for start, roles in _CACHES.items() if self.kind.startswith(start)), ("x",))
        items = cache if isinstance(cache, tuple | list) else (cache,)
        arrays = [c for c in items if not isinstance(c, dict)]
        settings = next((c for c in items if isinstance(c, dict)), {})
        roles = [r for r in expected if not r.endswith("_param")]
        if len(arrays) != len(roles):
            raise ConfigError("audit", f"expected a cache of {', '.join(expected)}, got {len(items)} parts",
                              "only the courses' caches can be read")  # fmt: skip
        told = {names.role(key) or key: value for key, value in settings.items()}
        return {**dict(zip(roles, arrays, strict=True)), **told}

    def _form(self, parts: dict[str, Any]) -> Form:
        """Channels last where the kernel's or the map's axes say so."""
        x, w = np.asarray(parts["x"]), parts.get("w")
        if self.kind == "Linear" and w is not None:
            return Form("", dense="inputs first" if np.shape(w)[0] == x.shape[-1] else "outputs first")
        if w is not None:
            return Form("", channels_last=np.shape(w)[1] != x.shape[1] and np.shape(w)[-2] == x.shape[-1])
        dy = np.asarray(parts["dy"])
        return Form("", channels_last=dy.shape[1] != x.shape[1] and dy.shape[-1] == x.shape[-1])

    def _given(self, parts: dict[str, Any], form: Form) -> Given:
        arrays = {n: np.asarray(parts[n], np.float64) for n in ("x", "w", "b", "dy") if n in parts}
        if form.channels_last:
            for name in ("x", "dy"):
                arrays[name] = np.moveaxis(arrays[name], -1, 1)
            if "w" in arrays:
                arrays["w"] = np.moveaxis(arrays["w"], (-1, -2), (0, 1))
        if form.dense == "inputs first":
            arrays["w"] = arrays["w"].T
            arrays["x"] = arrays["x"].reshape(len(arrays["x"]), -1)
        layer = self._layer(parts, arrays)
        for name, short in right.SHORT.items():
            if short in arrays and name in layer.parameters():
                parameter = layer.parameters()[name]
                parameter.cast(np.dtype(np.float64))
                parameter.value = arrays[short].reshape(parameter.shape)
        return right.of_layer(layer, arrays["x"], arrays["dy"])

    def _layer(self, parts: dict[str, Any], arrays: dict[str, Array]) -> Layer:
        told = {n: parts[n] for n in ("stride", "padding", "dilation", "groups") if n in parts}
        settings: dict[str, Any] = {**self.settings, **told}
        if self.kind.startswith("Conv"):
            w = arrays["w"]
            settings.update(in_channels=arrays["x"].shape[1], out_channels=len(w), kernel_size=w.shape[2:], bias="b" in arrays)
        elif self.kind == "Linear":
            settings.update(in_features=arrays["w"].shape[1], out_features=len(arrays["w"]), bias="b" in arrays)
        elif "Pool" in self.kind:
            height = parts.get("kernel_height", parts.get("kernel_size", settings.get("kernel_size", 2)))
            settings["kernel_size"] = (height, parts.get("kernel_width", height)) if np.ndim(height) == 0 else height
        return Layer.registry[self.kind](**settings)


def _replaced(results: Any, order: Sequence[str], target: str, array: Array, form: Form, given: Given) -> Any:
    laid = form.laid(target, array, given)
    if not isinstance(results, tuple | list):
        return laid if target == order[0] else results
    items = list(results)
    place = list(order).index(target) if target in order else len(items)
    if place < len(items):
        items[place] = laid
    return tuple(items)
