"""One call of a person's backward pass, watched: what it returns, what it changes, whether a second call agrees.

This file runs beside the person's code.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sharedgrad.checking.code import names

Array = np.ndarray[Any, Any]
_LARGEST = 32 * 2**20  # bytes of one result; the probes' own arrays have a few kilobytes
_OTHER_NAMES = {"w": ("weight",), "b": ("bias", "bias_ih_l0"), "weight": ("w",), "bias": ("b",), "x1": ("x",)}
_FORWARD, _BACKWARD = ("forward", "__call__", "call"), ("backward", "backprop", "backward_pass", "bprop", "gradient")


class Refused(Exception):
    """The person's code cannot be called, or does not return gradients; the text says why."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


@dataclass
class Work:
    """What a person wrote: a backward function, a class, or an autograd function; and a forward pass of their own.

    Attributes:
        main: The function or class.
        forward: Their forward function, if they have one.
        returns: Names that the function returns, where its source tells.
    """

    main: Any
    forward: Any = None
    returns: list[str] | None = None
    values: dict[str, Any] = field(default_factory=dict)


def describe(work: Work) -> dict[str, Any]:
    """What kind of thing it is, and what it calls its arguments."""
    main = work.main
    how = "class" if inspect.isclass(main) else "function"
    if how == "class" and hasattr(main, "apply") and _torch_function(main):
        how = "torch"
    return {
        "how": how,
        "parameters": _parameters(main) if how == "function" else [],
        "forward": None if work.forward is None else _parameters(work.forward),
        "returns": work.returns,
    }


def _torch_function(cls: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(cls, torch.autograd.Function)


def _parameters(function: Any) -> list[str]:
    try:
        return [p.name for p in inspect.signature(function).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return []


def observe(work: Work, job: Mapping[str, Any]) -> dict[str, Any]:
    """Call it once, or twice with equal numbers.

    Args:
        work: The person's code.
        job: "form" (how to call it, see ``forms``), "values" (role -> array or setting), "again".
    """
    values = dict(job["values"])
    given = copy.deepcopy(values)
    results = _call(work, job["form"], given)
    changed = [name for name, value in values.items() if not _same(value, given[name])]
    found: dict[str, Any] = {"results": {}, "missing": [], "types": {}, "changed": changed, "second": "same"}
    for target, value in results.items():
        if value is None:
            found["missing"].append(target)
            continue
        array = _array(target, value)
        found["results"][target], found["types"][target] = array, str(array.dtype)
    if job.get("again"):
        found["second"] = _second(work, job["form"], copy.deepcopy(values), found["results"])
    return found


def _second(work: Work, form: Mapping[str, Any], values: dict[str, Any], first: Mapping[str, Array]) -> str:
    again = {t: _array(t, v) for t, v in _call(work, form, values).items() if v is not None}
    if again.keys() != first.keys() or any(again[t].shape != first[t].shape for t in first):
        return "differs"
    if all(_close(again[t], first[t]) for t in first):
        return "same"
    added = [t for t in first if not _close(again[t], first[t])]
    return "added" if all(_close(again[t], 2 * first[t]) for t in added) else "differs"


def _close(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and bool(np.array_equal(before, after, equal_nan=before.dtype.kind == "f"))
    if isinstance(before, dict):
        return all(key in after and _same(value, after[key]) for key, value in before.items())
    return True


def _call(work: Work, form: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    work.values = values
    if form["how"] == "torch":
        return _torch(work, form)
    if form["how"] == "class":
        return _class(work, form)
    y, cache = None, None
    if form.get("use_forward"):
        y, cache = _forward(work)
    elif form.get("cache"):
        parts = tuple(values[name] for name in form["cache"])
        cache = parts if len(parts) > 1 else parts[0]
    if form.get("params"):
        arguments: Sequence[Any] = [_known(name, values, cache) for name in form["params"]]
        raw = work.main(*arguments)
    else:
        raw = _by_name(work.main, values, cache, form["order"])
    results = _named(raw, form, work.returns)
    return {"y": y, **results} if y is not None else results


def _forward(work: Work) -> tuple[Any, Any]:
    out = _by_name(work.forward, work.values, None, ())
    return (out[0], out[-1]) if isinstance(out, tuple) and len(out) > 1 else (out, None)


def _known(name: str, values: Mapping[str, Any], cache: Any) -> Any:
    found = _value(name, values, cache)
    if found is None:
        raise Refused("signature", f"nobody knows what the argument {name!r} stands for; name it as in --signature")
    return found[0]


def _value(name: str, values: Mapping[str, Any], cache: Any) -> tuple[Any] | None:
    role = names.role(name, tuple(values))
    if role == "cache" and cache is not None:
        return (cache,)
    for key in (role, *_OTHER_NAMES.get(str(role), ())):
        if key in values:
            return (values[key],)
    return None


def _by_name(function: Callable[..., Any], values: Mapping[str, Any], cache: Any, wanted: Sequence[str]) -> Any:
    """Call a function with what its arguments' names ask for."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return function(values["dy"], cache)
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}
    for number, p in enumerate(parameters):
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        found = _value(p.name, values, cache)
        if found is None and wanted and cache is not None and p.default is p.empty:
            found = ((values["dy"],), (cache,))[number] if number < 2 else None  # as the courses order them
        if found is None and p.default is p.empty:
            raise Refused("signature", f"nobody knows what the argument {p.name!r} of {function.__name__} stands for")
        if found is None:
            continue
        if p.kind is p.KEYWORD_ONLY or keywords or len(arguments) < number:
            keywords[p.name] = found[0]
        else:
            arguments.append(found[0])
    return function(*arguments, **keywords)


def _named(raw: Any, form: Mapping[str, Any], returns: Sequence[str] | None) -> dict[str, Any]:
    """What was returned, by target: by the names in a dict or after ``return``, else in the usual order."""
    wanted = tuple(form["order"])
    if isinstance(raw, Mapping):
        found = {names.result(str(key), wanted): value for key, value in raw.items()}
        return {t: found.get(t) for t in wanted if t in found}
    items = list(raw) if isinstance(raw, tuple | list) and not _is_one_array(raw, wanted) else [raw]
    order: list[str | None] = list(form.get("results") or ())
    if not order and returns and len(returns) == len(items):
        order = [names.result(name, wanted) for name in returns]
        if None in order or len({t for t in order if t}) < len([t for t in order if t]):
            order = []
    if not order:
        order = list(wanted)[: len(items)]
    if len(order) != len(items):
        expected = ", ".join(wanted)
        raise Refused("count", f"expected {len(order)} results ({expected}), got {len(items)}")
    return {t: value for t, value in zip(order, items, strict=True) if t}


def _is_one_array(raw: Any, wanted: Sequence[str]) -> bool:
    """Whether a list is one array of numbers, not several results."""
    return isinstance(raw, list) and (len(wanted) == 1 or len(raw) > len(wanted) + 2)


# ---- a class with forward and backward


def _class(work: Work, form: Mapping[str, Any]) -> dict[str, Any]:
    values = work.values
    instance = _by_name(work.main, values, None, ())
    weights = {}
    for name in form["weights"]:
        if name in values:
            weights[name] = _attribute(instance, name, values)
            if weights[name] is None:
                raise Refused("class", f"{work.main.__name__} has no attribute for {name}: call it {name} or weight")
            setattr(instance, weights[name], values[name])
    if callable(zero := getattr(instance, "zero_grad", None)):
        zero()
    before = {name: np.array(values[name]) for name in weights}
    y = _by_name(_method(instance, _FORWARD), values, None, ())
    y = y[0] if isinstance(y, tuple) else y
    learning = {**values, "learning_rate": 1.0}
    raw = _by_name(_method(instance, _BACKWARD), learning, None, ())
    found = _named(raw, {**form, "order": [t for t in form["order"] if t != "y"]}, None) if raw is not None else {}
    for name, attribute in weights.items():
        gradient = _gradient(instance, name, attribute)
        after = getattr(instance, attribute)
        if gradient is None and isinstance(after, np.ndarray) and not np.array_equal(after, before[name]):
            gradient = before[name] - after  # updated inside backward, with a learning rate of 1
        found.setdefault(f"d{name}", gradient)
    return {"y": y, **found}


def _method(instance: Any, candidates: Sequence[str]) -> Callable[..., Any]:
    for name in candidates:
        if callable(getattr(instance, name, None)):
            return getattr(instance, name)
    raise Refused("class", f"{type(instance).__name__} has no method {candidates[0]}")


def _attribute(instance: Any, name: str, values: Mapping[str, Any]) -> str | None:
    for attribute in vars(instance):
        role = names.role(attribute, tuple(values))
        if name in (role, *_OTHER_NAMES.get(str(role), ())):
            return attribute
    return None


def _gradient(instance: Any, name: str, attribute: str) -> Any:
    wanted = (f"d{name}",)
    for key, value in vars(instance).items():
        if names.result(key, wanted) == wanted[0]:
            return value
    for holder in ("grads", "grad", "gradients"):
        inside = getattr(instance, holder, None)
        if isinstance(inside, Mapping):
            for key in (attribute, f"d{attribute}", name, f"d{name}", name.upper(), f"d{name.upper()}"):
                if key in inside:
                    return inside[key]
    return None


# ---- PyTorch's autograd.Function


def _torch(work: Work, form: Mapping[str, Any]) -> dict[str, Any]:
    torch: Any = sys.modules["torch"]
    values = {
        name: torch.from_numpy(v).requires_grad_(v.dtype.kind == "f" and name != "dy") if _numeric(v) else v
        for name, v in work.values.items()
    }
    arguments = [_known(name, values, None) for name in form["params"] or _parameters(work.main.forward)[1:]]
    y = work.main.apply(*arguments)
    y.backward(values["dy"])
    found = {"y": y}
    for target in form["order"]:
        source = values.get(target.removeprefix("d"))
        if target != "y" and source is not None:
            found[target] = source.grad
    return found


def _numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _array(target: str, value: Any) -> Array:
    """A result as an array of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refused("type", f"expected an array for {target}, got rows of different lengths") from None
    if array.dtype.kind not in "fiub":
        raise Refused("type", f"expected numbers for {target}, got {type(value).__name__} of {array.dtype}")
    if array.nbytes > _LARGEST:
        raise Refused("size", f"{target} has {array.size:,} numbers")
    return array
