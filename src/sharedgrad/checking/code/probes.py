"""Numbers on which mistakes differ: small layers with unequal sizes, one setting changed at a time, then several.

The first probe is what courses test with: padding 1, stride 1, square maps. Where code works there and fails elsewhere,
the probes around it tell which change it cannot take.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sharedgrad.checking import right
from sharedgrad.checking.given import Given
from sharedgrad.errors import ConfigError, SharedgradError
from sharedgrad.layers import Context
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array
from sharedgrad.randomness import generator


@dataclass(frozen=True, eq=False)
class Probe:
    """One call of one layer with its numbers.

    Attributes:
        given: The numbers and the layer.
        recipe: What it was made from; ``shrink`` makes smaller ones.
        values: "normal", "ties" (equal values), "one-hot" (a single upstream value, 1).
    """

    given: Given
    recipe: Recipe
    values: str = "normal"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The sizes and settings in words."""
        g, r = self.given, self.recipe
        maps = "×".join(str(n) for n in g["x"].shape[1:])
        parts = [f"{g.samples} sample{'s' * (g.samples > 1)} of {maps}"]
        if r.filters and "w" in g:
            parts.append(f"{len(g['w'])} filter{'s' * (len(g['w']) > 1)}")
        if g.geometry is not None:
            parts.append(f"{'×'.join(str(k) for k in g.window.kernel)} windows")
            parts.append(f"stride {'×'.join(str(s) for s in sorted(set(g.window.stride)))}")
            parts.append(f"padding {max(max(pair) for pair in g.window.padding)}")
        if self.values == "ties":
            parts.append("equal values")
        return ", ".join(parts)


class Recipe(NamedTuple):
    """Sizes of one probe: samples, channels, map, filters, window, stride, padding."""

    samples: int = 2
    channels: int = 3
    size: tuple[int, ...] = (5, 5)
    filters: int = 2
    kernel: tuple[int, ...] = (3, 3)
    stride: int = 1
    padding: int = 1


_CONV = (
    Recipe(),
    Recipe(padding=0),
    Recipe(padding=2),
    Recipe(stride=2),
    Recipe(size=(6, 5)),
    Recipe(size=(5, 7)),
    Recipe(kernel=(3, 2)),
    Recipe(kernel=(2, 3)),
    Recipe(kernel=(2, 2)),
    Recipe(size=(6, 6), kernel=(5, 5), padding=2),
    Recipe(size=(4, 4), kernel=(1, 1), padding=0),
    Recipe(size=(6, 6), stride=2),
    Recipe(size=(7, 7), stride=3),
    Recipe(samples=1, channels=2, size=(9, 8), stride=2),
    Recipe(samples=1),
    Recipe(samples=3),
    Recipe(channels=1),
    Recipe(filters=1),
    Recipe(channels=2, filters=4),
    Recipe(stride=2, padding=0),
    Recipe(stride=2, padding=2),
    Recipe(size=(8, 7), kernel=(2, 3), stride=3, padding=2, filters=3),
    Recipe(size=(7, 4), kernel=(3, 2), stride=2, padding=0, samples=1, channels=2),
    Recipe(samples=3, channels=2, size=(4, 6), kernel=(2, 2), padding=0, filters=3),
)
_POOL = (
    Recipe(size=(4, 4), kernel=(2, 2), stride=2, padding=0),
    Recipe(size=(5, 5), kernel=(3, 3), stride=2, padding=0),
    Recipe(size=(4, 4), kernel=(2, 2), stride=1, padding=0),
    Recipe(size=(5, 5), kernel=(3, 3), stride=1, padding=0),
    Recipe(size=(6, 4), kernel=(2, 2), stride=2, padding=0),
    Recipe(size=(4, 6), kernel=(2, 2), stride=2, padding=0),
    Recipe(size=(4, 6), kernel=(2, 3), stride=2, padding=0),
    Recipe(size=(6, 4), kernel=(3, 2), stride=2, padding=0),
    Recipe(size=(5, 5), kernel=(2, 2), stride=2, padding=0),
    Recipe(size=(7, 7), kernel=(2, 2), stride=3, padding=0),
    Recipe(samples=1, size=(4, 4), kernel=(2, 2), stride=2, padding=0),
    Recipe(channels=1, size=(4, 4), kernel=(2, 2), stride=2, padding=0),
    Recipe(samples=3, channels=2, size=(7, 5), kernel=(3, 2), stride=2, padding=0),
    Recipe(samples=1, channels=2, size=(2, 2), kernel=(2, 2), stride=2, padding=0),
    Recipe(size=(6, 6), kernel=(2, 2), stride=2, padding=1),
)
_OTHER = (
    Recipe(size=(4, 3)),
    Recipe(samples=1, size=(4, 3)),
    Recipe(samples=3, size=(3, 5), channels=2, filters=4),
    Recipe(channels=1, size=(2, 2)),
    Recipe(samples=4, size=(3, 3), filters=3),
)
_ONE_HOT = 2
_FRESH = 4


@dataclass(frozen=True)
class Subject:
    """The layer that the code is compared with.

    Attributes:
        kind: Name of its class.
        settings: Its arguments besides the sizes; those that the code is told may vary.
        layer: The layer itself, where the sizes are its own.
        varies: Which of "stride", "padding", "kernel_size" the code is told.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    layer: Layer | None = None
    varies: frozenset[str] = frozenset()

    @property
    def rank(self) -> int:
        """Number of spatial axes; 0 where there are none."""
        return next((n for n in (1, 2, 3) if self.kind.endswith(f"{n}d")), 0)

    def make(self, r: Recipe, key: int = 0, values: str = "normal") -> Probe:
        """The probe of a recipe.

        Raises:
            SharedgradError: The sizes do not fit together.
        """
        layer, x, extra = self._layer(r, generator(0, "probe", self.kind, *map(str, r), key, values), values)
        return _probe(layer, x, r, key, values, extra)

    def _layer(self, r: Recipe, rng: np.random.Generator, values: str) -> tuple[Layer, Array, dict[str, Any]]:
        if self.kind.startswith(("Conv", "MaxPool", "AvgPool")):
            return self._sliding(r, rng, values)
        if self.kind in ("Add", "Concat"):
            layer = Layer.registry[self.kind](**self.settings)
            x, other = (rng.normal(size=(r.samples, r.channels, *r.size)) for _ in range(2))
            return layer, x, {"inputs": (other,)}
        if self.kind in _MAKERS:
            return (*_MAKERS[self.kind](self, r, rng), {})
        if self.layer is None:
            raise ConfigError("--like", f"{self.kind} needs sizes", "use sg.check_backward(fn, layer=…) in Python")
        return copy.deepcopy(self.layer), self._input(r, rng), {}

    def _sliding(self, r: Recipe, rng: np.random.Generator, values: str) -> tuple[Layer, Array, dict[str, Any]]:
        settings = dict(self.settings)
        groups, rank = int(settings.get("groups", 1)), self.rank
        told = {"stride": r.stride, "padding": r.padding, "kernel_size": r.kernel[:rank]}
        settings.update({n: v for n, v in told.items() if n in self.varies})
        settings.setdefault("kernel_size", 2)
        cls = Layer.registry[self.kind]
        channels = r.channels * groups
        if self.kind.startswith("Conv"):
            settings.update(in_channels=channels, out_channels=r.filters * groups)
        layer = cls(**settings)
        x = rng.normal(size=(r.samples, channels, *r.size[:rank]))
        if values == "ties":
            x = rng.integers(-1, 2, x.shape).astype(float)
        return layer, x, {}

    def _input(self, r: Recipe, rng: np.random.Generator) -> Array:
        """Inputs of a layer whose sizes are its own: the first of some usual shapes that it takes."""
        assert self.layer is not None
        layer, n = self.layer, r.samples
        features = [
            getattr(layer, a) for a in ("in_features", "input_size", "in_channels", "num_features") if hasattr(layer, a)
        ]
        size = getattr(layer, "input_size", None)
        shapes: list[tuple[int, ...]] = []
        if features and isinstance(features[0], int):
            c = features[0]
            shapes = [(c,), (r.size[0], c), (c, *r.size), (c, *r.size[:1])]
        if hasattr(layer, "in_channels") and size is not None:
            spatial = (size,) if isinstance(size, int) else tuple(size)
            shapes.insert(0, (layer.in_channels, *spatial))
        if isinstance(getattr(layer, "shape", None), tuple):
            shapes.append((int(np.prod(layer.shape)),))
        shapes += [(r.channels, *r.size), (r.channels,), (r.channels, r.size[0])]
        for shape in shapes:
            try:
                layer.output_shape(shape)
            except SharedgradError:
                continue
            return rng.normal(size=(n, *shape))
        raise ConfigError("check", f"no input shape was found that {type(layer).__name__} takes")


def _probe(layer: Layer, x: Array, r: Recipe, key: int, values: str, extra: dict[str, Any]) -> Probe:
    """Draw the parameters and the upstream gradient."""
    rng = generator(1, "probe numbers", type(layer).__name__, *map(str, r), key, values)
    for parameter in layer.parameters().values():
        parameter.cast(np.dtype(np.float64))
        parameter.value = rng.normal(size=parameter.shape)
        if parameter.name.endswith("bias_hh_l0"):  # people write one bias where PyTorch has two
            parameter.value = np.zeros(parameter.shape)
    extra = dict(extra)
    context = Context(training=True, seed=key)
    y, saved = layer.forward(x, *extra.get("inputs", ()), context=context)
    dy = rng.normal(size=y.shape)
    if values == "one-hot":
        place = int(rng.integers(dy.size))
        dy = np.zeros(dy.size)
        dy[place] = 1.0
        dy = dy.reshape(y.shape)
    if type(layer).__name__ == "Dropout":
        extra["mask"] = saved
    given = right.of_layer(layer, x, dy)
    if "inputs" in extra:
        given = given.replaced(**{f"x{n}": a for n, a in enumerate(extra["inputs"], 1)})
    return Probe(given, r, values, extra)


def _linear(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    layer = Layer.registry["Linear"](**{**s.settings, "in_features": r.channels, "out_features": r.filters})
    return layer, rng.normal(size=(r.samples, r.channels))


def _rnn(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    layer = Layer.registry[s.kind](**{**s.settings, "input_size": r.channels, "hidden_size": r.filters})
    return layer, rng.normal(size=(r.samples, r.size[0], r.channels))


def _maps(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    return Layer.registry[s.kind](**s.settings), rng.normal(size=(r.samples, r.channels, *r.size))


def _rows(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    return Layer.registry[s.kind](**s.settings), rng.normal(size=(r.samples, r.channels + 1))


def _norm(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    return Layer.registry[s.kind](**{**s.settings, "num_features": r.channels}), rng.normal(
        size=(r.samples + 1, r.channels, *r.size)
    )


def _embedding(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    rows = r.channels + 2
    layer = Layer.registry[s.kind](**{**s.settings, "num_embeddings": rows, "embedding_dim": r.filters})
    return layer, rng.integers(0, rows, (r.samples, r.size[0])).astype(float)


def _local(s: Subject, r: Recipe, rng: np.random.Generator) -> tuple[Layer, Array]:
    size = r.size[: s.rank]
    sizes = {"in_channels": r.channels, "out_channels": r.filters, "input_size": size, "kernel_size": 2}
    return Layer.registry[s.kind](**{**sizes, **s.settings, "input_size": size}), rng.normal(
        size=(r.samples, r.channels, *size)
    )


_MAKERS = {
    "Linear": _linear, "RNN": _rnn, "LSTM": _rnn, "GRU": _rnn, "BatchNorm2d": _norm, "Embedding": _embedding,
    "LocallyConnected1d": _local, "LocallyConnected2d": _local, "Softmax": _rows, "LogSoftmax": _rows,
    **dict.fromkeys(("ReLU", "Sigmoid", "Tanh", "Flatten", "GlobalAvgPool", "Dropout"), _maps),
}  # fmt: skip


def recipes(subject: Subject) -> Sequence[Recipe]:
    """The recipes for a kind of layer."""
    if subject.kind.startswith("Conv"):
        return _CONV
    return _POOL if subject.kind.startswith(("MaxPool", "AvgPool")) else _OTHER


def probes(subject: Subject) -> Iterator[Probe]:
    """All probes of a layer, the course's own first; those that its fixed settings rule out are left out."""
    seen: set[tuple[Any, ...]] = set()
    made = 0
    for r in recipes(subject):
        for values in _kinds_of_values(subject, made):
            try:
                probe = subject.make(r, values=values)
            except SharedgradError:  # the window does not fit
                continue
            g = probe.given
            key = (g["x"].shape, values, g.geometry, *(g[n].shape for n in ("w", "weight") if n in g))
            if key not in seen:
                seen.add(key)
                made += 1
                yield probe
    if not made:
        raise ConfigError("check", f"no probe fits the settings of {subject.kind}")


def _kinds_of_values(subject: Subject, made: int) -> tuple[str, ...]:
    """Ties where the largest wins, also in overlapping windows; the first probe again with one upstream value."""
    if subject.kind.startswith("MaxPool") and made < 6:
        return ("normal", "ties")
    return ("normal", "one-hot") if made == 0 and not subject.kind.startswith("MaxPool") else ("normal",)


def fresh(subject: Subject, count: int = _FRESH) -> Iterator[Probe]:
    """Further probes with other sizes and other numbers, on which a finding is tried before it is told."""
    known = recipes(subject)
    rng = generator(2, "fresh", subject.kind)
    found = 0
    for key in range(1, 40):
        a, b = known[int(rng.integers(len(known)))], known[int(rng.integers(len(known)))]
        r = a._replace(samples=b.samples, channels=b.channels, filters=b.filters, stride=b.stride)
        if rng.random() < 0.5:
            r = r._replace(padding=b.padding)
        try:
            yield subject.make(r, key=key)
        except SharedgradError:
            continue
        found += 1
        if found == count:
            return
