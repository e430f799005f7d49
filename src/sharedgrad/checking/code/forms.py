"""How a backward pass is written: as a function of its arrays, with a course's cache, as a class, in PyTorch.

A form lays the arrays out as the person's code expects them and reads its results back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sharedgrad.checking import right
from sharedgrad.checking.answers import Answer, bare
from sharedgrad.checking.code import names
from sharedgrad.checking.given import Given
from sharedgrad.errors import ConfigError
from sharedgrad.parameter import Array

_POOLS = ("max_pool", "avg_pool")
_CACHES = {
    "conv": ("x", "w", "b", "conv_param"), "max_pool": ("x", "pool_param"), "avg_pool": ("x", "pool_param"),
    "linear": ("x", "w", "b"), "relu": ("x",), "sigmoid": ("x",), "tanh": ("x",),
}  # fmt: skip
_DEFAULT_ORDER = {"rnn": ("dx", "dweight_ih_l0", "dweight_hh_l0", "dbias_ih_l0", "dbias_hh_l0")}


@dataclass(frozen=True)
class Form:
    """One way to write a backward pass.

    Attributes:
        title: In words.
        how: "function", "class" or "torch".
        cache: What the cache holds, by role; None where there is none.
        use_forward: Whether the person's own forward pass makes the cache.
        params: Names of the arguments in order, from a signature; None: go by their names.
        results: Names of the results, likewise.
        channels_last: Whether maps are samples × height × width × channels and kernels height × width × channels ×
            filters (deeplearning.ai).
        dense: Layout of a linear layer: "outputs first", "inputs first" (cs231n), or "samples last" (deeplearning.ai,
            whose dw and db are divided by the number of samples).
    """

    title: str
    how: str = "function"
    cache: tuple[str, ...] | None = None
    use_forward: bool = False
    params: tuple[str, ...] | None = None
    results: tuple[str, ...] | None = None
    channels_last: bool = False
    dense: str = "outputs first"
    course: str = ""

    def carries(self, given: Given) -> bool:
        """Whether the code can be told these settings at all: the courses have one number for each."""
        if given.geometry is None:
            return True
        w = given.window
        if self.course == "deeplearning.ai" and len(set(w.kernel)) > 1:
            return False
        if self.course and given.kind in _POOLS and any(sum(p) for p in w.padding):
            return False
        return not (self.course and (len(set(w.stride)) > 1 or max(w.dilation) > 1 or w.groups > 1))

    def job(self, given: Given, extra: Mapping[str, Any], again: bool = False) -> dict[str, Any]:
        """The message that asks for one call."""
        form = {
            "how": self.how, "cache": self.cache, "use_forward": self.use_forward, "params": self.params,
            "results": self.results and self._results(given), "order": self.targets(given),
            "weights": [name for name in given.arrays if name not in ("x", "dy", "x1", "x2")],
        }  # fmt: skip
        return {"form": form, "values": self.values(given, extra), "again": again}

    def _results(self, given: Given) -> list[str | None]:
        wanted = tuple(self.targets(given))
        return [names.result(name, wanted) for name in self.results or ()]

    def targets(self, given: Given) -> list[str]:
        """The arrays that are asked for, in the order in which people return them."""
        wanted = [t for t in right.targets(given) if t not in ("y", "delta", "dx")]
        inputs = ["dx", *(f"dx{n}" for n in range(1, 9) if f"x{n}" in given)]
        gradients = [*([] if given.kind == "embedding" else inputs), *wanted]
        own = self.how in ("class", "torch") or self.use_forward
        return [*gradients, "y"] if own and self.how != "function" else gradients

    def values(self, given: Given, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Every part that an argument may stand for."""
        values: dict[str, Any] = {}
        for name, array in given.arrays.items():
            values[name] = self.laid(name, array, given)
        if given.kind == "embedding":
            values["x"] = values["x"].astype(np.int64)
        if given.kind == "rnn":
            values["h0"] = np.zeros((given.samples, given["weight_hh_l0"].shape[0]))
        if "mask" in extra and extra["mask"] is not None:
            values["mask"] = np.asarray(extra["mask"], np.float64)
        for name in ("axis", "eps", "p", "negative_slope"):
            if given.layer is not None and isinstance(getattr(given.layer, name, None), int | float):
                values.setdefault(name, getattr(given.layer, name))
        if given.geometry is not None:
            values.update(_settings(given))
        return values

    def laid(self, name: str, array: Array, given: Given) -> Array:
        """An array as the code expects it; a gradient is laid out as what it belongs to."""
        name = name.removeprefix("d") if name != "dy" else name
        if given.kind == "linear":
            return self._laid_dense(name, array)
        if given.kind == "rnn" and self.dense == "inputs first" and name.startswith("weight"):
            return np.ascontiguousarray(array.T)
        if not self.channels_last or given.geometry is None:
            return array
        if name == "w":
            return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))
        if name == "b":
            return array.reshape(*(1,) * (given.window.rank + 1), -1)
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))

    def _laid_dense(self, name: str, array: Array) -> Array:
        if self.dense == "outputs first":
            return array
        if self.dense == "inputs first":
            return np.ascontiguousarray(array.T) if name == "w" else array
        if name == "b":
            return array.reshape(-1, 1)
        return array if name == "w" else np.ascontiguousarray(array.T)

    def read(self, target: str, array: Array, given: Given) -> tuple[Answer, tuple[int, ...] | None]:
        """A result in the layer's own layout, and the shape that was expected where it has another one."""
        expected = self.laid(target, right.total(right.right(given, target)), given).shape
        other = None if array.shape == expected else expected
        back = self._back(target, array, expected, given)
        if self.dense == "samples last" and given.kind == "linear" and target in ("dw", "db"):
            back = back * given.samples
        return computed(back), other

    def _back(self, target: str, array: Array, expected: tuple[int, ...], given: Given) -> Array:
        name = target.removeprefix("d") if target != "dy" else target
        if bare(array.shape) == bare(expected):
            array = array.reshape(expected)
        elif array.ndim != len(expected):
            return array
        if given.kind in ("linear", "rnn"):
            turned = self.laid(target, np.zeros((2, 3)), given).shape == (3, 2) if array.ndim == 2 else False
            return array.T if turned else array.reshape(-1) if name == "b" else array
        if not self.channels_last or given.geometry is None:
            return array
        if name == "w":
            return np.moveaxis(array, (-1, -2), (0, 1))
        return array.reshape(-1) if name == "b" else np.moveaxis(array, -1, 1)


def computed(array: Array) -> Answer:
    """An answer with all the digits that a program has."""
    full = np.full(array.shape, 17)
    return Answer(array.astype(np.float64), full, full, array.dtype in (np.float32, np.float16))


def _one(values: Sequence[int]) -> Any:
    return values[0] if len(set(values)) == 1 else list(values)


def _settings(given: Given) -> dict[str, Any]:
    w = given.window
    padding = _one([before for before, _ in w.padding])
    stride = _one(w.stride)
    kernel = list(w.kernel)
    values = {
        "stride": stride, "padding": padding, "dilation": _one(w.dilation), "groups": w.groups,
        "kernel_size": _one(kernel), "kernel_height": kernel[0], "kernel_width": kernel[-1],
        "in_channels": given["x"].shape[1], "out_channels": len(given["w"]) if "w" in given else given["x"].shape[1],
        "conv_param": {"stride": stride, "pad": padding, "f": kernel[0]},
        "mode": "max" if given.kind == "max_pool" else "average",
    }  # fmt: skip
    values["pool_param"] = {"pool_height": kernel[0], "pool_width": kernel[-1], "stride": stride}
    return values


def candidates(told: Mapping[str, Any], given: Given, signature: str | None) -> Iterator[Form]:
    """The ways in which this code may be meant, the likeliest first.

    Raises:
        ConfigError: The signature is none.
    """
    if told["how"] != "function":
        title = "a class" if told["how"] == "class" else "an autograd function of PyTorch"
        yield from _layouts(Form(title, told["how"]), given)
        return
    params: tuple[str, ...] | None = None
    results: tuple[str, ...] | None = None
    if signature is not None:
        params, results = _parsed(signature)
    roles = [names.role(name, tuple(given.arrays)) for name in params or told["parameters"]]
    direct = Form("a function of its arrays", params=params, results=results)
    if "cache" not in roles and (signature or len(roles) > 2 or not _second_is_cache(roles, told)):
        yield from _layouts(direct, given)
        return
    last = [f for f in _with_cache(told, given) if f.channels_last or f.dense == "samples last"]
    first = [f for f in _with_cache(told, given) if f not in last]
    courses = last + first if _says_deeplearning(told["parameters"]) else first + last
    for form in courses:
        yield replace(form, params=params, results=results)
    if "cache" not in roles:
        yield from _layouts(direct, given)


def _second_is_cache(roles: Sequence[str | None], told: Mapping[str, Any]) -> bool:
    return len(roles) == 2 and roles[1] in (None, "cache", "x")


def _says_deeplearning(parameters: Sequence[str]) -> bool:
    return bool(parameters) and parameters[0].lower() in ("dz", "da")


def _with_cache(told: Mapping[str, Any], given: Given) -> Iterator[Form]:
    cache = _CACHES.get(given.kind)
    if told["forward"] is not None:
        own = Form("a cache of the own forward pass", use_forward=True)
        roles = [names.role(name, tuple(given.arrays)) for name in told["forward"]]
        course = "own" if {"conv_param", "pool_param"} & set(roles) else ""
        if given.kind in _POOLS and "conv_param" in roles:  # one size for the window
            course = "deeplearning.ai"
        yield from _layouts(replace(own, course=course), given)
    if cache is None:
        return
    yield Form("a cache as in cs231n", cache=cache, dense="inputs first", course="cs231n")
    if given.kind in ("conv", *_POOLS):
        cache = ("x", "conv_param") if given.kind in _POOLS else cache
        yield Form("a cache as in deeplearning.ai", cache=cache, channels_last=True, course="deeplearning.ai")
    if given.kind == "linear":
        yield Form("a cache as in deeplearning.ai", cache=cache, dense="samples last", course="deeplearning.ai")
        yield Form("a cache of x, w, b", cache=cache)


def _layouts(form: Form, given: Given) -> Iterator[Form]:
    yield form
    if given.kind in ("linear", "rnn"):
        yield replace(form, dense="inputs first", title=f"{form.title}, weights inputs × outputs")
    if given.geometry is not None:
        yield replace(form, channels_last=True, title=f"{form.title}, channels last")


def _parsed(signature: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        params, results = names.parsed(signature)
    except ValueError:
        raise ConfigError("--signature", f"expected arguments -> results, got {signature!r}",
                          'e.g. "dout, x, w, b -> dx, dw, db"') from None  # fmt: skip
    return tuple(params), tuple(results)


def settings_told(told: Mapping[str, Any], form: Form) -> frozenset[str]:
    """Which settings the code is told, so that probes may vary them."""
    if form.cache is not None:
        return frozenset({"stride", "padding", "kernel_size"})
    written = form.params or told["parameters"]
    if form.use_forward:
        written = [*written, *(told["forward"] or ())]
    roles = {names.role(name) for name in written}
    if roles & {"conv_param", "pool_param"}:
        return frozenset({"stride", "padding", "kernel_size"})
    heights = {"kernel_size"} if "kernel_height" in roles else set()
    return frozenset(({"stride", "padding", "kernel_size"} & roles) | heights)
