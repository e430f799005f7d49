"""Going backward: the record of one forward pass, walked in reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError, StaleTapeError
from sharedgrad.gradients import Gradients
from sharedgrad.graph import Node, index_inputs
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.layers import own
from sharedgrad.layers.layer import Layer
from sharedgrad.parameter import Array, Buffer, Parameter, Revision, Weight, numbers, positive
from sharedgrad.replay import Pass, Records, Replay, run
from sharedgrad.traces import Trace
from sharedgrad.uses import SharedWeight, Uses

if TYPE_CHECKING:
    from sharedgrad.plan import Known, Recording
    from sharedgrad.plan.route import Route

Shape = tuple[int, ...]
T = TypeVar("T")


Piece = Any  # of a pass: the Recording of a compiled stretch, or a pair of a node and what its layer has saved
Part = dict[Parameter, Array] | list[Uses]  # what one piece adds: gradients, or uses that are still to be summed


def _summed(
    parts: Iterable[Part],
    inputs: dict[str, Array],
    by_sample: Collection[Parameter] = (),
    names: Mapping[str, Weight] | None = None,
    layers: Iterable[Layer] = (),
) -> Gradients:
    """The gradient of each parameter is the sum over all its uses: in one call, and over calls that share it."""
    total: dict[Parameter, Array] = {}
    for part in parts:
        found = part.items() if isinstance(part, dict) else _gradients(part, by_sample, layers)
        for parameter, gradient in found:
            total[parameter] = total[parameter] + gradient if parameter in total else gradient
    return Gradients(total, inputs, names)


def _gradients(
    uses: Iterable[Uses], by_sample: Collection[Parameter], layers: Iterable[Layer]
) -> Iterator[tuple[Parameter, Array]]:
    for use in uses:
        parameter = cast(Parameter, use.weight)
        gradient = use.sum(by="sample") if parameter in by_sample else use.gradient
        if gradient.dtype != parameter.dtype:
            gradient = own.summed(layers, parameter, gradient)
        yield parameter, gradient


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(np.all(a == b)))


def _blas(pieces: Iterable[Piece]) -> AbstractContextManager[None]:
    """BLAS on one thread, if there are layers in Python."""
    return one_blas_thread() if any(isinstance(piece, tuple) for piece in pieces) else nullcontext()


class Structure:
    """What all passes of a network have in common, as long as no attribute of a layer is set anew.

    Attributes:
        used: Its parameters.
        typed: What a network keeps in its own type.
        seen: The latest revision of anything when all this was seen to hold.
        shapes: Shapes of the inputs, without the sample axis -> those of all nodes.
        routes: The compiled ways that were asked for last.
    """

    shapes: dict[tuple[Shape, ...], dict[str, Shape]]
    routes: dict[Any, Route]

    def __init__(
        self, nodes: Sequence[Node], outputs: Sequence[str], inputs: Sequence[str], revisions: list[int]
    ) -> None:
        self.nodes, self.outputs, self.inputs, self.revisions = nodes, outputs, inputs, revisions
        self.held = {node.layer: list(node.layer.parameters().values()) for node in nodes}
        self.settings = {layer: layer.settings() for layer in self.held}
        self.parameters = {layer: [weight.base for weight in held] for layer, held in self.held.items()}
        self.used = list({p: None for used in self.parameters.values() for p in used})
        often = Counter(p for node in nodes for p in self.parameters[node.layer])
        self.tied = frozenset(p for p, times in often.items() if times > 1)
        self.names = {f"{n.name}.{attribute}": p for n in nodes for attribute, p in n.layer.parameters().items()}
        self._wanted: dict[bool, frozenset[str]] = {}
        self.shapes, self.routes, self.seen = {}, {}, -1
        self.buffers = list({b: None for node in nodes for b in node.layer.buffers().values()})
        self.typed: list[Parameter | Buffer] = [*self.used, *(b for b in self.buffers if b.dtype.kind == "f")]
        self.mixes = any(node.layer.mixes_samples for node in nodes)

    def wanted(self, inputs: bool) -> frozenset[str]:
        """Names whose gradient leads to a parameter, or to an input that is asked for."""
        if inputs not in self._wanted:
            wanted = set(self.inputs) - index_inputs(self.nodes, self.inputs) if inputs else set()
            for node in self.nodes:
                if self.parameters[node.layer] or any(source in wanted for source in node.inputs):
                    wanted.add(node.name)
            self._wanted[inputs] = frozenset(wanted)
        return self._wanted[inputs]

    def reached(self, given: Iterable[str]) -> frozenset[str]:
        """Names that gradients flow back to, from those where they are given."""
        reached = set(given)
        for node in reversed(self.nodes):
            if node.name in reached:
                reached.update(node.inputs)
        return frozenset(reached)


class Tape:
    """What one forward pass saved. Go backward as often as you like: nothing is consumed or accumulated.

    Networks make tapes; see ``Network.forward``.
    """

    def __init__(
        self,
        structure: Structure,
        origin: Pass,
        done: Sequence[Piece],
        shapes: Mapping[str, Shape],
        dtype: np.dtype[Any],
        batched: bool,
    ) -> None:
        self._structure, self._origin = structure, origin
        self._done = done
        self._recordings: list[Recording] = [piece for piece in done if not isinstance(piece, tuple)]
        self._records: Records | None = None
        self._shapes, self._samples, self._dtype = shapes, len(next(iter(origin.inputs.values()))), dtype
        self._batched = batched
        self._versions = [p.version for p in structure.used]

    def backward(
        self,
        upstream: ArrayLike | Mapping[str, ArrayLike],
        inputs: bool = False,
        by_sample: Iterable[Weight | str] = (),
    ) -> Gradients:
        """The gradient of every parameter that the upstream gradients reach.

        The same question gives the same bits, on any number of threads. Another one may take another way through the
        compiled kernels: with ``inputs`` or ``by_sample`` a gradient may differ from one without, by rounding.

        Args:
            upstream: Gradient of the loss with respect to the output, in its shape; or node name -> gradient, for
                several outputs and for losses at inner nodes. What reaches a node on several paths adds.
            inputs: Whether ``Gradients.inputs`` is wanted too: the gradient with respect to the network's inputs.
            by_sample: Parameters, or their names, whose gradients are kept apart by sample: arrays (N, *shape) whose
                sum over N is the gradient. Each is that sample's own: N backward passes would give the same. (N = 1
                where the forward pass was given a sample without a sample axis.)

        Raises:
            StaleTapeError: A weight, or an argument of a layer, has changed since the forward pass.
            ShapeError: An upstream gradient does not have its node's output shape.
            ConfigError: A parameter in ``by_sample`` is of another network, or samples have no gradient of their
                own because a layer between it and the loss mixes them (batch normalization in training mode).
        """
        self._refuse_if_stale()
        deltas, wanted, apart = self._upstreams(upstream), self._structure.wanted(inputs), self._known(by_sample)
        self._refuse_if_mixed(deltas, apart, "by_sample")
        return self._back(deltas, wanted, apart)

    def _back(self, deltas: dict[str, Array], wanted: frozenset[str], apart: frozenset[Parameter]) -> Gradients:
        pieces, structure = self._pieces(deltas), self._structure
        if (whole := self._whole(pieces)) is not None:
            found, inputs = whole.backward(deltas, wanted, apart)
            return Gradients(found, {name: self._single(array) for name, array in inputs.items()}, structure.names)

        def back(recording: Recording, given: dict[str, Array]) -> tuple[Part, dict[str, Array]]:
            return recording.backward(given, wanted, apart)

        flowed: dict[str, Array] = {}
        with _blas(pieces):
            parts = (part for *_, part in self._walk(pieces, deltas, wanted, back, flowed))
            return _summed(parts, flowed, apart, structure.names, structure.held)

    def clipped_by_sample(
        self, upstream: ArrayLike | Mapping[str, ArrayLike], max_norm: float
    ) -> tuple[Gradients, Array]:
        """The sum of the samples' gradients, each scaled down to ``max_norm`` if its norm is larger.

        Σ_n min(1, max_norm / ‖g_n‖) · g_n, where g_n is sample n's gradient of all parameters that the upstream
        gradients reach, taken together (Abadi et al. 2016, arXiv:1607.00133). The g_n themselves are not kept. A
        norm of NaN makes the sum NaN.

        Args:
            upstream: As for :meth:`backward`. Of a mean loss every g_n carries the factor 1/N; take
                ``reduction="sum"`` for the samples' own.
            max_norm: The largest norm that a sample's gradient keeps.

        Returns:
            The sum, and the norms ‖g_n‖ (N,) before clipping.

        Raises:
            StaleTapeError, ShapeError: As for :meth:`backward`.
            ConfigError: ``max_norm`` is not positive, or a layer mixes the samples.
        """
        self._refuse_if_stale()
        max_norm, deltas = positive(max_norm, "tape.clipped_by_sample: max_norm"), self._upstreams(upstream)
        self._refuse_if_mixed(deltas, self._structure.used, "tape.clipped_by_sample")
        wanted, pieces = self._structure.wanted(False), self._pieces(deltas)
        whole = self._whole(pieces)
        if whole is not None and not self._structure.tied:
            sums, norms = whole.clipped_by_sample(deltas, wanted, max_norm)
            return Gradients(sums, names=self._structure.names), norms
        norms = np.sqrt(self._squares(pieces, deltas, wanted))
        factors = np.divide(max_norm, norms, out=np.ones_like(norms), where=~(norms <= max_norm)).astype(self._dtype)
        scaled = {name: delta * factors.reshape(-1, *[1] * (delta.ndim - 1)) for name, delta in deltas.items()}
        return self._back(scaled, wanted, frozenset()), norms.astype(self._dtype)

    def _squares(self, pieces: Sequence[Piece], deltas: dict[str, Array], wanted: frozenset[str]) -> Array:
        """The squared norm (N,) of each sample's gradient, in float64, all uses of a weight taken together."""
        structure, squares, uses = self._structure, np.zeros(self._samples), dict[Parameter, list[Uses]]()
        known = frozenset(structure.inputs)

        def back(recording: Recording, given: dict[str, Array]) -> tuple[list[Uses], dict[str, Array]]:
            found, copies, inputs = recording.squares(given, wanted, known, structure.tied)
            np.add(squares, found, out=squares)
            return self._uses(copies), inputs

        with one_blas_thread():
            for *_, part in self._walk(pieces, deltas, wanted, back, {}):
                for use in part:
                    uses.setdefault(cast(Parameter, use.weight), []).append(use)
            for calls in uses.values():
                squares += SharedWeight(calls).norm(by="sample") ** 2
        return squares

    def _uses(self, copies: Known) -> list[Uses]:
        """The uses at the nodes that a compiled stretch tells of."""
        found, values = list[Uses](), {**self._origin.inputs, **copies.values}
        for node in reversed(self._structure.nodes):
            if node.name in copies.deltas:
                layer: Any = node.layer
                saved = layer.saved(*[values[source] for source in node.inputs], *copies.statistics[node.name])
                found += layer.backward(saved, copies.deltas[node.name], [False] * len(node.inputs))[1]
        return found

    def trace(self, upstream: ArrayLike | Mapping[str, ArrayLike]) -> Trace:
        """As :meth:`backward`, with the uses kept apart instead of summed."""
        self._refuse_if_stale()
        deltas, structure = self._upstreams(upstream), self._structure
        reached, replay = structure.reached(deltas), Replay(structure.nodes, self._origin, deltas)
        pieces, wanted, known = self._pieces(deltas), structure.wanted(False), frozenset(structure.inputs)

        def back(recording: Recording, given: dict[str, Array]) -> tuple[list[Uses], dict[str, Array]]:
            found, inputs = recording.trace(given, wanted, known)
            replay.know(found.values, found.deltas, found.statistics)
            return [], inputs

        if all(isinstance(piece, tuple) for piece in pieces):
            replay.go_back([node.name for node in structure.nodes if node.name in reached], cast(Records, pieces))
        else:
            with _blas(pieces):
                for piece, given, _ in self._walk(pieces, deltas, wanted, back, {}):
                    if isinstance(piece, tuple):
                        node, saved = piece
                        replay.know_call(node, saved, given[node.name])
        return Trace(replay, reached, structure.names, self._batched)

    # ---- the way back

    def _pieces(self, given: Collection[str]) -> Sequence[Piece]:
        """What a way back goes through: what the forward pass went through, or, where that cannot be, every layer."""
        compiled = kernels.programs() and all([recording.unseen.isdisjoint(given) for recording in self._recordings])
        if compiled or not self._recordings:
            return self._done
        if self._records is None:
            self._records = run(self._structure.nodes, self._origin.inputs, self._origin.context())[1]
        return self._records

    def _whole(self, pieces: Sequence[Piece]) -> Recording | None:
        """The only piece, where that is a compiled stretch."""
        return self._recordings[0] if len(pieces) == 1 and pieces[0] is self._done[0] and self._recordings else None

    def _walk(
        self,
        pieces: Sequence[Piece],
        deltas: Mapping[str, Array],
        wanted: Set[str],
        through: Callable[[Recording, dict[str, Array]], tuple[T, dict[str, Array]]],
        found: dict[str, Array],
    ) -> Iterator[tuple[Piece, dict[str, Array], T | list[Uses]]]:
        """Each piece in reverse, with all that has flowed back to it, and what it makes of that.

        Args:
            pieces: Of the pass.
            deltas: The gradients that are given.
            wanted: Names of nodes and inputs whose gradients lead to what is asked for.
            through: Goes back through a compiled stretch: what it makes of it, and the gradients of what it has read.
            found: Receives the gradients of the network's inputs.
        """
        pending = dict(deltas)
        for piece in reversed(pieces):
            names = (piece[0].name,) if isinstance(piece, tuple) else piece.names
            given = {name: pending.pop(name) for name in list(pending) if name in names}
            if given.keys().isdisjoint(wanted):
                continue
            made: T | list[Uses]
            if isinstance(piece, tuple):
                node, saved = piece
                made, flowed = self._through_layer(node, saved, given[node.name], wanted)
            else:
                made, gradients = through(piece, given)
                flowed = list(gradients.items())
            yield piece, given, made
            for source, gradient in flowed:
                pending[source] = pending[source] + gradient if source in pending else gradient
        found.update({name: self._single(pending[name]) for name in self._structure.inputs if name in pending})

    def _through_layer(
        self, node: Node, saved: Any, delta: Array, wanted: Set[str]
    ) -> tuple[list[Uses], list[tuple[str, Array]]]:
        """A layer's uses, and the gradients of what it has read."""
        needs = [source in wanted for source in node.inputs]
        gradients, uses = own.backward(node.layer, saved, delta, needs, partial(self._shapes_of, node))
        flowed = zip(node.inputs, needs, gradients, strict=True)
        return uses, [(source, gradient) for source, needed, gradient in flowed if needed and gradient is not None]

    def _shapes_of(self, node: Node) -> list[Shape]:
        return [(self._samples, *self._shapes[source]) for source in node.inputs]

    def _known(self, given: Iterable[Weight | str]) -> frozenset[Parameter]:
        """The parameters, checked to be this network's."""
        known = []
        for one in given if isinstance(given, Iterable) and not isinstance(given, str) else [given]:
            weight = self._structure.names.get(one) if isinstance(one, str) else one
            if not isinstance(weight, Weight) or weight.base not in self._structure.used:
                name = getattr(one, "name", repr(one))
                raise ConfigError(
                    "by_sample", f"{name} is no parameter of this network", "choose from net.parameters()"
                )
            known.append(weight.base)
        return frozenset(known)

    def _refuse_if_mixed(self, given: Collection[str], parameters: Collection[Parameter], where: str) -> None:
        """What flows back through a layer that mixes samples is no sample's own gradient any more."""
        structure = self._structure
        if not (self._origin.training and parameters and structure.mixes):
            return
        reached, mixer = set(given), dict[str, str]()
        for node in reversed(structure.nodes):
            if node.name not in reached:
                continue
            for parameter in structure.parameters[node.layer]:
                if parameter in parameters and node.name in mixer:
                    problem = (
                        f"{mixer[node.name]} in training mode mixes the samples, so none has a gradient of its own"
                    )
                    fix = "go forward with training=False, or keep its uses apart: trace(upstream)[p]."
                    raise ConfigError(where, f"{problem} with respect to {parameter.name}", f'{fix}sum(by="sample")')
            if node.layer.mixes_samples:
                mixer[node.name] = node.layer.label
            for source in node.inputs:
                reached.add(source)
                if node.name in mixer:
                    mixer[source] = mixer[node.name]

    def _upstreams(self, upstream: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Array]:
        if not isinstance(upstream, Mapping):
            outputs = self._structure.outputs
            if len(outputs) != 1:
                names = ", ".join(outputs)
                raise ConfigError(
                    "tape.backward", f"the network has several outputs ({names})", "pass name -> gradient"
                )
            upstream = {outputs[0]: upstream}
        arrays = {}
        for name, value in upstream.items():
            if name not in self._shapes:
                raise ConfigError(
                    "tape.backward", f"there is no node {name!r}", f"choose from {', '.join(self._shapes)}"
                )
            array = numbers(value, self._dtype, f"upstream gradient at {name!r}")
            shape = (self._samples, *self._shapes[name])
            if not self._batched and array.shape == shape[1:]:
                array = array[None]
            if array.shape != shape:
                raise ShapeError(
                    f"upstream gradient at {name!r}",
                    f"expected the output's shape {shape}, got {array.shape}",
                    "pass what the loss returned for this pass",
                )
            arrays[name] = array
        return arrays

    def _single(self, array: Array) -> Array:
        """Without the sample axis, where the forward pass was given a sample without one."""
        return array if self._batched else array[0]

    def _refuse_if_stale(self) -> None:
        structure = self._structure
        if structure.seen != Revision.latest and structure.revisions != [n.layer.revision for n in structure.nodes]:
            for layer, held in structure.held.items():
                if held != list(layer.parameters().values()):
                    problem = "a parameter has been tied since this tape's forward pass"
                    raise StaleTapeError(layer.label, problem, "call forward again")
                for name, value in layer.settings().items():
                    if not _same(structure.settings[layer].get(name), value):
                        problem = f"its {name} has been set since this tape's forward pass"
                        raise StaleTapeError(layer.label, problem, "call forward again")
        if self._versions != [p.version for p in structure.used]:
            changed = (p for p, version in zip(structure.used, self._versions, strict=True) if p.version != version)
            problem = "its value has changed since this tape's forward pass"
            raise StaleTapeError(next(changed).name, problem, "call forward again")
