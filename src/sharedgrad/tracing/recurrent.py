"""Recurrent modules and cells: their steps are computed again, beside the caller's own operation, and looked at.

    gi_t = W_ih · x_t + b_ih        gh_t = W_hh · h_{t−1} + b_hh        h_t = cell(gi_t, gh_t, h_{t−1}, c_{t−1})

The caller's operation keeps its bits. When the gradients have arrived at its outputs, the steps are computed from the
same inputs, in :mod:`sharedgrad.tracing.steps`, and autograd gives the gradients at gi and gh, which are the δ of the
weights' uses: one for each sample and time step, in one call for each layer and direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from sharedgrad.tracing.joint import Deltas, Joint, PartUse
from sharedgrad.tracing.place import Packed, Place
from sharedgrad.tracing.site import Site, UnseenError
from sharedgrad.tracing.steps import Pattern, Steps, Weights, steps
from sharedgrad.tracing.weights import Held, Seen
from sharedgrad.uses import Direct, Outer, Uses

MODULES = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
CELLS = {f"{name}_cell" for name in MODULES}
ORDER = {"float64": 3, "float32": 2, "float16": 1, "bfloat16": 0}


class Ahead(NamedTuple):
    """The use axes: what the first axis of (N, T, …) is called, and where each sample stands in it."""

    axes: Mapping[str, tuple[int, ...]]
    samples: tuple[int, ...]


def random_state(name: str, args: Sequence[Any]) -> torch.Tensor | None:
    """The state that an operation is about to draw masks from, between its layers; None where it draws none."""
    if name not in MODULES or len(args) != 9:
        return None
    dropout, training, layers = (args[6], args[7], args[5]) if _is_packed(args) else (args[5], args[6], args[4])
    return torch.get_rng_state() if dropout > 0 and training and layers > 1 else None


def module(site: Site) -> Joint:
    """nn.RNN, nn.GRU and nn.LSTM: the whole sequence, all layers and directions.

    Raises:
        UnseenError: Masks between the layers were drawn in a way that cannot be repeated.
    """
    packed = _is_packed(site.args)
    if packed:
        x, sizes, states, flat, biased, layers, dropout, training, both = site.args
        first = False
    else:
        x, states, flat, biased, layers, dropout, training, both, first = site.args
        sizes = None
    if site.random is not None and x.device.type != "cpu":
        raise UnseenError("dropout between its layers, whose masks cannot be drawn again")
    weights = _by_layer(flat, biased, layers * (1 + both))
    pattern = Pattern(site.name, layers, both, dropout if training else 0.0, first, site.random, _sizes(sizes))
    ahead = _packed_axes(site, x, pattern) if packed else _axes(site, x, first)
    return _joint(site, pattern, x, states, weights, ahead)


def cell(site: Site) -> Joint:
    """nn.RNNCell, nn.GRUCell and nn.LSTMCell: one step."""
    x, states, *flat = site.bound("input hx w_ih w_hh b_ih b_hh")
    pattern = Pattern(site.name.removesuffix("_cell"), 1, False, 0.0, False, None, None, _through(site.outs))
    place = site.place(x)
    known = place is not None and place.axis == 0 and (place.before, place.after) == (1, 1)
    ahead = Ahead({"sample" if known else "row": (len(x),)}, _sorted(place) if known else ())
    return _joint(site, pattern, x[None], _unsqueezed(states), [(*flat, None)], ahead)


def _is_packed(args: Sequence[Any]) -> bool:
    """Whether these are the arguments for sequences of several lengths: batch sizes stand where states would."""
    return isinstance(args[3], list | tuple)


def _sizes(sizes: torch.Tensor | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes.tolist())


def _unsqueezed(states: Any) -> Any:
    return states[None] if isinstance(states, torch.Tensor) else tuple(s[None] for s in states)


def _by_layer(flat: Sequence[Any], biased: bool, count: int) -> list[tuple[Any, ...]]:
    """w_ih, w_hh, b_ih, b_hh, w_hr for each layer and direction, None for what is missing."""
    each = len(flat) // count
    found = []
    for i in range(count):
        w_ih, w_hh, *rest = flat[i * each : (i + 1) * each]
        biases = (rest.pop(0), rest.pop(0)) if biased else (None, None)
        found.append((w_ih, w_hh, *biases, rest[0] if rest else None))
    return found


def _through(outs: Sequence[torch.Tensor]) -> bool:
    """Whether the gradient at c's node has that through h in it: c is then an inner value of the graph."""
    if len(outs) < 2 or outs[0].grad_fn is None or outs[1].grad_fn is None:
        return False
    near = [node for node, _ in outs[0].grad_fn.next_functions if node is not None]
    nodes = [*near, *(below for node in near for below, _ in node.next_functions)]
    return outs[1].grad_fn in nodes


# ---- the axes


def _axes(site: Site, x: torch.Tensor, first: bool) -> Ahead:
    place, batch = site.place(x), 0 if first else 1
    known = place is not None and place.axis == batch and (place.before, place.after) == (1, 1)
    axes = {"sample" if known else "row": (x.shape[batch],), "time": (x.shape[1 - batch],)}
    return Ahead(axes, _sorted(place) if known else ())


def _packed_axes(site: Site, x: torch.Tensor, pattern: Pattern) -> Ahead:
    place = site.packed(x)
    assert pattern.sizes is not None
    axes = {"row" if place is None else "sample": (pattern.sizes[0],), "time": (len(pattern.sizes),)}
    return Ahead(axes, _sorted(place))


def _sorted(place: Place | Packed | None) -> tuple[int, ...]:
    """Where each sample stands, if they were sorted."""
    return () if place is None else tuple(place.order.index(i) for i in range(len(place.order)))


# ---- the uses


def _joint(site: Site, pattern: Pattern, x: Any, states: Any, weights: Sequence[Any], ahead: Ahead) -> Joint:
    """The uses of every layer and direction's weights."""
    held = Held(x), [Held(s) for s in ([states] if isinstance(states, torch.Tensor) else states)]
    values = [Weights(*(None if w is None else Held(w) for w in layer)) for layer in weights]
    uses = []
    for number, layer in enumerate(weights):
        for tensor, build in zip(layer, (_of_input, _of_state, _of_gi, _of_gh, _of_projection), strict=True):
            seen = site.seen(tensor)
            if seen is not None:
                uses.append(PartUse(seen, _part(site.name, pattern, number), _picked(build, seen, ahead, number)))
    return Joint(uses, partial(_compute, pattern, *held, values), _type(site, x))


def _compute(pattern: Pattern, x: Held, states: Sequence[Held], weights: Sequence[Any], deltas: Deltas) -> list[Steps]:
    given = [Weights(*(None if w is None else w.get() for w in layer)) for layer in weights]
    return steps(pattern, x.get(), [s.get() for s in states], given, deltas)


def _picked(build: Callable[..., Uses], seen: Seen, ahead: Ahead, number: int) -> Callable[[list[Steps]], Uses]:
    def made(found: list[Steps]) -> Uses:
        return build(seen, ahead, found[number])

    return made


def _part(name: str, pattern: Pattern, number: int) -> str:
    if name in CELLS:
        return name
    layer, back = (number // 2, number % 2) if pattern.both else (number, 0)
    return f"{name} layer {layer}{' reverse' if back else ''}"


def _type(site: Site, x: torch.Tensor) -> str:
    """The narrowest type in the call."""
    kind = x.device.type
    types = [t.dtype for t in (x, *site.outs)]
    if torch.is_autocast_enabled(kind):
        types.append(torch.get_autocast_dtype(kind))
    return min((str(t).removeprefix("torch.") for t in types), key=lambda name: ORDER.get(name, 4))


def _of_input(seen: Seen, ahead: Ahead, found: Steps) -> Uses:
    return _outer(seen, ahead, found.gi, found.x)


def _of_state(seen: Seen, ahead: Ahead, found: Steps) -> Uses:
    return _outer(seen, ahead, found.gh, found.before)


def _of_gi(seen: Seen, ahead: Ahead, found: Steps) -> Uses:
    return Direct(seen.weight, _first(ahead, found.gi), ahead.axes, view=seen.view)


def _of_gh(seen: Seen, ahead: Ahead, found: Steps) -> Uses:
    return Direct(seen.weight, _first(ahead, found.gh), ahead.axes, view=seen.view)


def _of_projection(seen: Seen, ahead: Ahead, found: Steps) -> Uses:
    return _outer(seen, ahead, found.projected, found.unprojected)


def _outer(seen: Seen, ahead: Ahead, delta: Any, patch: Any) -> Uses:
    delta, patch = _first(ahead, delta), _first(ahead, patch)
    return Outer(seen.weight, delta[..., None, :], patch[..., None, :], ahead.axes, seen.view)


def _first(ahead: Ahead, factor: torch.Tensor) -> torch.Tensor:
    """(T, N, F) as (*U, F), the samples in their own order; a cell has no axis of time."""
    turned = factor.transpose(0, 1) if "time" in ahead.axes else factor[0]
    return turned[list(ahead.samples)] if ahead.samples else turned
