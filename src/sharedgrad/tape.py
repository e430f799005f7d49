"""Going backward: the record of one forward pass, walked in reverse."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, ShapeError, StaleTapeError
from sharedgrad.graph import Node, index_inputs
from sharedgrad.kernels.threads import one_blas_thread
from sharedgrad.parameter import Array, Gradients, Parameter, Weight, numbers, positive
from sharedgrad.replay import Pass, Records, Replay, run
from sharedgrad.traces import Trace
from sharedgrad.uses import SharedWeight, Uses

if TYPE_CHECKING:
    from sharedgrad.plan import Recording

Shape = tuple[int, ...]


def _summed(
    uses: Iterable[Uses],
    inputs: dict[str, Array],
    by_sample: Collection[Parameter] = (),
    names: Mapping[str, Weight] | None = None,
) -> Gradients:
    """The gradient of each parameter is the sum over all its uses: in one call, and over calls that share it."""
    total: dict[Parameter, Array] = {}
    for use in uses:
        parameter = cast(Parameter, use.weight)
        gradient = use.sum(by="sample") if parameter in by_sample else use.gradient
        total[parameter] = total[parameter] + gradient if parameter in total else gradient
    return Gradients(total, inputs, names)


class Structure:
    """What all tapes of a network have in common, as long as no attribute of a layer is set anew."""

    def __init__(
        self, nodes: Sequence[Node], outputs: Sequence[str], inputs: Sequence[str], revisions: tuple[int, ...]
    ) -> None:
        self.nodes, self.outputs, self.inputs, self.revisions = nodes, outputs, inputs, revisions
        self.held = {node.layer: list(node.layer.parameters().values()) for node in nodes}
        self.parameters = {layer: [weight.base for weight in held] for layer, held in self.held.items()}
        self.used = list({p: None for used in self.parameters.values() for p in used})
        self.names = {f"{n.name}.{attribute}": p for n in nodes for attribute, p in n.layer.parameters().items()}
        self._wanted: dict[bool, frozenset[str]] = {}
        self.buffers = list({b: None for node in nodes for b in node.layer.buffers().values()})
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
        done: Recording | Records,
        shapes: Mapping[str, Shape],
        dtype: np.dtype[Any],
        batched: bool,
    ) -> None:
        self._structure, self._origin = structure, origin
        self._records: Records | None = done if isinstance(done, list) else None
        self._recording: Recording | None = None if isinstance(done, list) else done
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

        Args:
            upstream: Gradient of the loss with respect to the output, in its shape; or node name -> gradient, for
                several outputs and for losses at inner nodes. What reaches a node on several paths adds.
            inputs: Whether ``Gradients.inputs`` is wanted too: the gradient with respect to the network's inputs.
            by_sample: Parameters, or their names, whose gradients are kept apart by sample: arrays (N, *shape) whose
                sum over N is the gradient. Each is that sample's own: N backward passes would give the same. (N = 1
                where the forward pass was given a sample without a sample axis.)

        Raises:
            StaleTapeError: A weight has changed since the forward pass.
            ShapeError: An upstream gradient does not have its node's output shape.
            ConfigError: A parameter in ``by_sample`` is of another network, or samples have no gradient of their
                own because a layer between it and the loss mixes them (batch normalization in training mode).
        """
        self._refuse_if_stale()
        deltas, wanted, apart = self._upstreams(upstream), self._structure.wanted(inputs), self._known(by_sample)
        self._refuse_if_mixed(deltas, apart, "by_sample")
        if self._recording is not None and kernels.programs():
            found = self._recording.backward(deltas, wanted, apart)
            if found is not None:
                flowed = {name: self._single(array) for name, array in found[1].items()}
                return Gradients(found[0], flowed, self._structure.names)
        flowed = {}
        with one_blas_thread():
            uses = chain.from_iterable(self._walk(deltas, wanted, flowed))
            return _summed(uses, flowed, apart, self._structure.names)

    def clipped_by_sample(
        self, upstream: ArrayLike | Mapping[str, ArrayLike], max_norm: float
    ) -> tuple[Gradients, Array]:
        """The sum of the samples' gradients, each scaled down to ``max_norm`` if its norm is larger.

        Σ_n min(1, max_norm / ‖g_n‖) · g_n, where g_n is sample n's gradient of all parameters that the upstream
        gradients reach, taken together (Abadi et al. 2016, arXiv:1607.00133). The g_n themselves are not kept. A norm of
        NaN makes the sum NaN.

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
        wanted = self._structure.wanted(False)
        if self._recording is not None and kernels.programs():
            found = self._recording.clipped_by_sample(deltas, wanted, max_norm)
            if found is not None:
                return Gradients(found[0], names=self._structure.names), found[1]
        return self._clipped_by_layers(deltas, wanted, max_norm)

    def _clipped_by_layers(
        self, deltas: dict[str, Array], wanted: Set[str], max_norm: float
    ) -> tuple[Gradients, Array]:
        uses: dict[Parameter, list[Uses]] = {}
        squares = np.zeros(self._samples)
        with one_blas_thread():
            for use in chain.from_iterable(self._walk(deltas, wanted, {})):
                uses.setdefault(cast(Parameter, use.weight), []).append(use)
            for calls in uses.values():
                squares += SharedWeight(calls).norm(by="sample") ** 2
            norms = np.sqrt(squares)
            factors = np.divide(max_norm, norms, out=np.ones_like(norms), where=~(norms <= max_norm))
            weighted = (use.of_samples(slice(None), factors) for calls in uses.values() for use in calls)
            return _summed(weighted, {}, names=self._structure.names), norms.astype(self._dtype)

    def trace(self, upstream: ArrayLike | Mapping[str, ArrayLike]) -> Trace:
        """As :meth:`backward`, with the uses kept apart instead of summed."""
        self._refuse_if_stale()
        deltas, structure = self._upstreams(upstream), self._structure
        reached, replay = structure.reached(deltas), Replay(structure.nodes, self._origin, deltas)
        found = None
        if self._recording is not None and kernels.programs():
            found = self._recording.trace(deltas, structure.wanted(False))
        if found is not None:
            replay.know(found.values, found.deltas, found.statistics)
        else:
            replay.go_back([node.name for node in structure.nodes if node.name in reached], self._records)
        return Trace(replay, reached, structure.names, self._batched)

    def _walk(self, pending: dict[str, Array], wanted: Set[str], found: dict[str, Array]) -> Iterator[list[Uses]]:
        """The uses of each node, in reverse, when all that flows back to it has been added."""
        if self._records is None:
            self._records = run(self._structure.nodes, self._origin.inputs, self._origin.context())[1]
        for node, saved in reversed(self._records):
            delta = pending.pop(node.name, None)
            if delta is None or node.name not in wanted:
                continue
            needs = [source in wanted for source in node.inputs]
            gradients, uses = node.layer.backward(saved, delta, needs)
            yield uses
            for source, needed, gradient in zip(node.inputs, needs, gradients, strict=True):
                if needed and gradient is not None:
                    pending[source] = pending[source] + gradient if source in pending else gradient
        found.update({name: self._single(pending[name]) for name in self._structure.inputs if name in pending})

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
                )
            arrays[name] = array
        return arrays

    def _single(self, array: Array) -> Array:
        """Without the sample axis, where the forward pass was given a sample without one."""
        return array if self._batched else array[0]

    def _refuse_if_stale(self) -> None:
        structure = self._structure
        if structure.revisions != tuple([node.layer.revision for node in structure.nodes]):
            for layer, held in structure.held.items():
                if held != list(layer.parameters().values()):
                    problem = "a parameter has been tied since this tape's forward pass"
                    raise StaleTapeError(layer.label, problem, "call forward again")
        for parameter, version in zip(structure.used, self._versions, strict=True):
            if parameter.version != version:
                raise StaleTapeError(
                    parameter.name,
                    "its value has changed since this tape's forward pass",
                    "call forward again",
                )
