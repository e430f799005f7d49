"""One table of the kinds of uses, in every situation that the algebra must be right in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sharedgrad.geometry import Geometry
from sharedgrad.parameter import Parameter
from sharedgrad.uses import Direct, Lookup, Outer, SharedWeight, Uses, View, Window
from tests.helpers import Array, numbers, sliding

Rng = np.random.Generator


class Draw:
    """Random factors as arrays of one library and type."""

    def __init__(self, seed: int, library: str = "numpy", dtype: str = "float64") -> None:
        self.rng, self.library, self.dtype = np.random.default_rng(seed), library, dtype

    def __call__(self, *shape: int) -> Any:
        array = self.rng.normal(size=shape)
        if self.library == "numpy":
            return array.astype(self.dtype)
        return torch.tensor(array).to(getattr(torch, self.dtype))

    def index(self, rows: int, *shape: int) -> Any:
        index = self.rng.integers(0, rows, shape)
        return index if self.library == "numpy" else torch.tensor(index)

    def axes(self, *names: str, low: int = 1, high: int = 3) -> dict[str, tuple[int, ...]]:
        return {name: numbers(self.rng, low, high, 2 if name == "position" else 1) for name in names}


def weight(*shape: int) -> Parameter:
    return Parameter(shape, lambda rng, s: rng.normal(size=s), "w", np.float64)


def lead(axes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(n for lengths in axes.values() for n in lengths)


def outer(draw: Draw, w: Parameter, axes: dict[str, tuple[int, ...]], blocks: int = 1, view: Any = None) -> Outer:
    """w seen as (B·O, I)."""
    *_, inputs = (view or View()).shape(w.shape)
    outputs = int(np.prod((view or View()).shape(w.shape))) // inputs // blocks
    delta, patch = draw(*lead(axes), blocks, outputs), draw(*lead(axes), blocks, inputs)
    return Outer(w, delta, patch, axes, view)


def lookup(draw: Draw, w: Parameter, axes: dict[str, tuple[int, ...]], view: Any = None) -> Lookup:
    rows, width = (view or View()).shape(w.shape)
    return Lookup(w, draw.index(rows, *lead(axes)), draw(*lead(axes), width), axes, view)


def direct(draw: Draw, w: Parameter, axes: dict[str, tuple[int, ...]], local: bool = False, view: Any = None) -> Direct:
    shape = (*lead(axes), *(view or View()).shape(w.shape))
    return Direct(w, draw(*shape), axes, draw(*shape) if local else None, view)


def window(draw: Draw, samples: int = 3, rank: int = 2, groups: int = 1, upstream: Any = "small") -> Window:
    """A window of a weight of its own, over maps that its stride may not use up."""
    slide = sliding(draw.rng, rank, spare=1)
    g = slide.geometry(groups)
    inside, outside = numbers(draw.rng, 1, 3, 2)
    small = draw(samples, groups * outside, *g.output(slide.spatial))
    return Window(
        weight(groups * outside, inside, *g.kernel), small, draw(samples, groups * inside, *slide.spatial), g, upstream
    )


def again(draw: Draw, u: Window, view: Any = None, of: Any = None) -> Window:
    """Another call of the same kernel."""
    return Window(of or u.weight, draw(*u.small.shape), draw(*u.big.shape), u.geometry, u.upstream, view)


def times(uses: Uses, factor: float) -> Uses:
    return uses.of_samples(slice(None), np.full(uses.axes["sample"][0], factor))


def _outers(draw: Draw) -> list[Uses]:
    w, axes = weight(3, 4), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes)]


def _blocks(draw: Draw) -> list[Uses]:
    w, axes = weight(3, 2, 4), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes, blocks=3)]


def _grouped(draw: Draw) -> list[Uses]:
    return [window(draw, groups=3)]


def _windows(rank: int) -> Callable[[Draw], list[Uses]]:
    return lambda draw: [window(draw, rank=rank)]


def _transposed_window(draw: Draw) -> list[Uses]:
    return [window(draw, groups=2, upstream="big")]


def _tied_windows(draw: Draw) -> list[Uses]:
    first = window(draw, groups=2)
    return [first, again(draw, first), again(draw, first)]


def _window_both_ways(draw: Draw) -> list[Uses]:
    """An autoencoder: the decoder's transposed convolution has the encoder's kernel."""
    first = window(draw)
    second = again(draw, first)
    second.upstream = "big"
    return [first, second]


def _window_and_outer(draw: Draw) -> list[Uses]:
    """A 1×1 convolution tied to a dense layer through a reshape: the axes that both have are the samples."""
    g = Geometry((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))
    w = weight(3, 4, 1, 1)
    return [
        Window(w, draw(3, 3, 2, 3), draw(3, 4, 2, 3), g),
        outer(draw, w, {"sample": (3,)}, view=View.reshape(w.shape, (3, 4))),
    ]


def _kernel_transposed(draw: Draw) -> list[Uses]:
    """A kernel with its first two axes exchanged."""
    first = window(draw)
    w = weight(first.kernel[1], first.kernel[0], *first.kernel[2:])
    view = View.transpose(w.shape, (1, 0, *range(2, len(w.shape))))
    return [again(draw, first, view, w)]


def _tied_transposed(draw: Draw) -> list[Uses]:
    """Autoencoder: W in the encoder, Wᵀ in the decoder."""
    w, axes = weight(3, 5), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes), outer(draw, w, axes, view=View.transpose(w.shape))]


def _slices(draw: Draw) -> list[Uses]:
    """Queries, keys and values: three slices of one weight, and one that overlaps two of them."""
    w, axes = weight(6, 3), draw.axes("sample", "token", low=2)
    parts = [slice(0, 2), slice(2, 4), slice(4, 6), slice(1, 4, 2)]
    return [outer(draw, w, axes, view=View.slice(w.shape, part)) for part in parts]


def _apart(draw: Draw) -> list[Uses]:
    w, axes = weight(6, 3), draw.axes("sample", "token", low=2, high=3)
    return [outer(draw, w, axes, view=View.slice(w.shape, part)) for part in (slice(0, 2), slice(2, 6))]


def _cast(draw: Draw) -> list[Uses]:
    w, axes = weight(3, 4), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes, view=View.cast("float32")), outer(draw, w, axes)]


def _direct(draw: Draw) -> list[Uses]:
    return [direct(draw, weight(3, 2), draw.axes("sample", "position"))]


def _scale(draw: Draw) -> list[Uses]:
    return [direct(draw, weight(3), draw.axes("sample", "position"), local=True)]


def _scalar(draw: Draw) -> list[Uses]:
    return [direct(draw, weight(), draw.axes("sample"), local=True)]


def _tied_biases(draw: Draw) -> list[Uses]:
    w, axes = weight(4), draw.axes("sample", "time")
    view = View.slice(w.shape, slice(1, 4, 2))
    return [direct(draw, w, axes), direct(draw, w, axes, local=True), direct(draw, w, axes, view=view)]


def _direct_and_outer(draw: Draw) -> list[Uses]:
    w, axes = weight(3, 4), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes), direct(draw, w, axes)]


def _lookup(draw: Draw) -> list[Uses]:
    return [lookup(draw, weight(4, 3), draw.axes("sample", "token", low=3))]


def _tied_lookups(draw: Draw) -> list[Uses]:
    w, axes = weight(4, 3), draw.axes("sample", "token", low=2)
    return [lookup(draw, w, axes), lookup(draw, w, axes)]


def _embedding_and_head(draw: Draw) -> list[Uses]:
    w, axes = weight(5, 3), draw.axes("sample", "token", low=2)
    return [lookup(draw, w, axes), outer(draw, w, axes)]


def _embedding_and_transposed_head(draw: Draw) -> list[Uses]:
    """The table is the transpose of a weight that the head has as it is."""
    w, axes = weight(3, 5), draw.axes("sample", "token", low=2)
    return [lookup(draw, w, axes, view=View.transpose(w.shape)), outer(draw, w, axes)]


def _head_through_a_view(draw: Draw) -> list[Uses]:
    w, axes = weight(5, 3), draw.axes("sample", "token", low=2)
    return [outer(draw, w, axes, view=View.transpose(w.shape)), lookup(draw, w, axes)]


def _no_samples(draw: Draw) -> list[Uses]:
    w = weight(3, 4)
    return [outer(draw, w, {"time": (5,)}), outer(draw, w, {"time": (5,)})]


def _once(draw: Draw) -> list[Uses]:
    """A use without any axis."""
    w = weight(3, 4)
    return [outer(draw, w, {}), direct(draw, w, {}), lookup(draw, w, {})]


def _one_sample(draw: Draw) -> list[Uses]:
    return [window(draw, samples=1)]


def _axes_in_another_order(draw: Draw) -> list[Uses]:
    w = weight(3, 4)
    return [outer(draw, w, {"sample": (2,), "token": (3,)}), outer(draw, w, {"token": (3,), "sample": (2,)})]


def _other_lengths(draw: Draw) -> list[Uses]:
    w = weight(4, 3)
    return [
        lookup(draw, w, {"sample": (3,), "token": (5,)}),
        outer(draw, w, {"sample": (3,), "token": (2,)}),
        outer(draw, w, {"sample": (3,)}),
    ]


def _zero(draw: Draw) -> list[Uses]:
    """The second call takes back what the first adds."""
    w, axes = weight(3, 4), {"sample": (4,), "token": (2,)}
    first = outer(draw, w, axes)
    return [first, times(first, -1)]


def _all_zero(draw: Draw) -> list[Uses]:
    return [times(u, 0) for u in _embedding_and_head(draw)]


KINDS: dict[str, Callable[[Draw], list[Uses]]] = {
    "outer": _outers,
    "outer in blocks": _blocks,
    "window over signals": _windows(1),
    "window over images": _windows(2),
    "window over volumes": _windows(3),
    "grouped window": _grouped,
    "transposed convolution": _transposed_window,
    "tied windows": _tied_windows,
    "window both ways": _window_both_ways,
    "window and outer": _window_and_outer,
    "kernel transposed": _kernel_transposed,
    "outer and its transpose": _tied_transposed,
    "slices": _slices,
    "slices apart": _apart,
    "cast": _cast,
    "direct": _direct,
    "scale": _scale,
    "scalar": _scalar,
    "tied biases": _tied_biases,
    "direct and outer": _direct_and_outer,
    "lookup": _lookup,
    "tied lookups": _tied_lookups,
    "embedding and head": _embedding_and_head,
    "transposed table and head": _embedding_and_transposed_head,
    "head through a view": _head_through_a_view,
    "no samples": _no_samples,
    "no axes": _once,
    "one sample": _one_sample,
    "axes in another order": _axes_in_another_order,
    "other lengths": _other_lengths,
    "zero": _zero,
    "all zero": _all_zero,
}


def plain(array: Any) -> Array:
    """As NumPy in float64."""
    return array.double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, np.float64)


def contributions(u: Uses) -> Array:
    """The single contributions, one call each, in the weight's own shape: (*U, *weight), in float64."""
    single = [plain(u.contribution(**u.place(index))) for index in np.ndindex(*u.shape)]
    return np.array(single).reshape((*u.shape, *u.weight.shape))


class Materialized:
    """All contributions of a shared weight, and the questions answered from them."""

    def __init__(self, shared: SharedWeight) -> None:
        self.calls = [(call.axes, contributions(call)) for call in shared.calls]
        self.first, self.rank = shared.calls[0].axes, len(shared.shape)

    def sum_of(self, call: int, names: tuple[str, ...]) -> Array:
        """(K, *weight) of one call, groups flat in the first call's order of axes."""
        axes, single = self.calls[call]
        numbered, start = {}, 0
        for name, lengths in axes.items():
            numbered[name] = list(range(start, start + len(lengths)))
            start += len(lengths)
        kept = [a for name in self.first if name in names for a in numbered[name]]
        moved = np.moveaxis(single, kept, range(len(kept)))
        return moved.sum(axis=tuple(range(len(kept), start)))

    def sums(self, by: tuple[str, ...]) -> list[Array]:
        """One array for each call if "call" is in ``by``, else one."""
        each = [self.sum_of(i, by) for i in range(len(self.calls))]
        return each if "call" in by else [np.sum(each, axis=0)]

    def gradient(self) -> Array:
        return self.sums(())[0]
