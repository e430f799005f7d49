"""One parameter in one pass: its uses, certified; or what was asked beforehand and answered in passing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan, sqrt
from typing import Any

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.tracing import certify
from sharedgrad.tracing.certify import Certificate
from sharedgrad.tracing.settings import Question
from sharedgrad.uses import Cancellation, Coherence, Direct, SharedWeight, Uses
from sharedgrad.uses.plot import draw
from sharedgrad.uses.shared import ZERO

AT_ONCE = 1 << 22  # bytes of a factor that are worked on at once: some samples of a large map


@dataclass(frozen=True)
class Other:
    """The part of a gradient that no use explains, and where it comes from.

    Attributes:
        gradient: What the pass deposited, less the sum of the uses; None where the uses were not kept.
        operations: The operations that it came through: those that the trace saw and has no rule for, else the nodes of
            the graph that lead to the parameter.
        norm: ‖gradient‖, or an upper bound of it.
    """

    gradient: Any
    operations: tuple[str, ...]
    norm: float


class TracedWeight(SharedWeight):
    """All uses of one parameter in a pass, with the gradient that the pass itself deposited.

    Args:
        calls: The uses in each call, in forward order.
        deposit: G: the pass's own gradient, before it was added to ``.grad``.
        types: The types that the calls computed in.
    """

    def __init__(self, calls: Sequence[Uses], deposit: Any, types: Sequence[str]) -> None:
        super().__init__(calls)
        self.deposit, self.types = deposit, tuple(types)

    @cached_property
    def certificate(self) -> Certificate:
        """Whether the uses add up to the deposited gradient; worked out when it is first asked for."""
        return certify.exact(self.calls, self.deposit, self._gradient, self.types)

    @property
    def certified(self) -> bool:
        """Whether the uses add up to the gradient that the pass deposited."""
        return self.certificate.certified

    @property
    def residual(self) -> float:
        """‖Σ g_u − G‖ / Σ‖g_u‖."""
        return self.certificate.residual

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {self.certificate})"


class KeptWeight:
    """One parameter in a pass of which only answers were kept.

    Attributes:
        name: The parameter's name.
        shape: Its shape.
        count: The number of uses.
        axes: The axes that all calls share.
        certificate: Whether the uses added up to the deposited gradient.
    """

    def __init__(self, weight: SharedWeight, certificate: Certificate, answers: Mapping[Question, Any]) -> None:
        self.name, self.shape, self.count, self.axes = weight.name, weight.shape, weight.count, weight.axes
        self.certificate, self._answers = certificate, dict(answers)

    @property
    def certified(self) -> bool:
        """Whether the uses added up to the gradient that the pass deposited."""
        return self.certificate.certified

    @property
    def residual(self) -> float:
        """‖Σ g_u − G‖ / Σ‖g_u‖, or an upper bound of it."""
        return self.certificate.residual

    def norm(self, by: str | Sequence[str]) -> Any:
        """What was kept of the norms: see ``SharedWeight.norm``.

        Raises:
            ConfigError: This was not kept.
        """
        return self._kept("norm", by)

    def share(self, by: str | Sequence[str]) -> Any:
        """What was kept of the shares: see ``SharedWeight.share``.

        Raises:
            ConfigError: This was not kept.
        """
        return self._kept("share", by)

    def plot(
        self,
        by: str | None = None,
        samples: int | Sequence[int] = 6,
        *,
        images: Any = None,
        labels: Sequence[Any] | None = None,
    ) -> Any:
        """Draw what was kept of the shares: see ``SharedWeight.plot``.

        Raises:
            ConfigError: This was not kept.
        """
        return draw(self, by, samples, images, labels)

    def coherence(self) -> Coherence:
        """‖G‖² / Σ‖g_u‖² over all single uses."""
        zero = self.zero_up_to_rounding
        value = nan if zero else self.certificate.norm**2 / self.certificate.square
        return Coherence(value, self.count, ZERO if zero else "")

    def cancellation(self) -> Cancellation:
        """1 − ‖G‖ / Σ‖g_u‖ over all single uses."""
        length = self.certificate.length
        value = 1 - self.certificate.norm / length if length else nan
        return Cancellation(value, self.count, 1 - 1 / sqrt(max(self.count, 1)))

    @property
    def zero_up_to_rounding(self) -> bool:
        """Whether ‖G‖ ≤ 16·eps·Σ‖g_u‖."""
        return self.certificate.zero_up_to_rounding

    def _kept(self, kind: str, by: str | Sequence[str]) -> Any:
        names = (by,) if isinstance(by, str) else tuple(by)
        question = next((q for q in self._answers if q.kind == kind and set(q.by) == set(names)), None)
        if question is None:
            known = ", ".join(map(str, self._answers)) or "nothing"
            problem = f"{Question(kind, names)} was not kept in this pass, but {known}"
            raise ConfigError(f"uses of {self.name}", problem, "name it in keep=[…], or keep='factors'")
        return self._answers[question]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(SharedWeight, name):
            raise AttributeError(name)
        problem = f"{name} needs the factors, which were not kept in this pass"
        raise ConfigError(f"uses of {self.name}", problem, "trace with keep='factors'")

    def __repr__(self) -> str:
        kept = ", ".join(map(str, self._answers))
        return f"KeptWeight({self.name}: {self.count} uses; {self.certificate}; kept {kept})"


def answered(
    weight: SharedWeight,
    deposit: Any,
    types: Sequence[str],
    questions: Sequence[Question],
    chunk: int | None,
    seed: int,
) -> KeptWeight:
    """Answer these questions about a parameter now, and keep nothing else.

    Args:
        weight: Its uses.
        deposit: G, what the pass deposited.
        types: The types that the calls computed in.
        questions: What to answer; an axis that the uses do not share is left out.
        chunk: At most so many indices of the first axis at once; None: as many as fit into the caches.
        seed: For the probes.
    """
    probing = certify.Probing(deposit, types, seed)
    shared = any(question.kind == "share" for question in questions)
    squares, products = [], []
    for call in weight.calls:
        both = [(probing.add(part), part.projection(deposit) if shared else None) for part in _parts(call, chunk)]
        squares.append(np.concatenate([square for square, _ in both]) if call.shape else both[0][0])
        products.append(np.concatenate([p for _, p in both]) if call.shape and shared else both[0][1])
    certificate = probing.certificate()
    answers: dict[Question, Any] = {}
    for question in questions:
        names = [name for name in question.by if name in weight.axes or name == "call"]
        if question.kind == "share":
            answers[question] = _shares(weight, products, certificate, names)
        else:
            answers[question] = _norms(weight, squares, names)
    return KeptWeight(weight, certificate, answers)


def _parts(call: Uses, chunk: int | None) -> Iterator[Uses]:
    """The uses, so many indices of the first axis at once; elementwise contributions are multiplied once."""
    length = call.shape[0] if call.shape else 1
    size = call.factor.nbytes // max(length, 1)
    step = chunk or max(1, AT_ONCE // max(size, 1))
    rest = [slice(None)] * (len(call.shape) - 1)
    for start in range(0, max(length, 1), step):
        part = call if step >= length else call.taken([slice(start, start + step), *rest])
        if isinstance(part, Direct) and part.local is not None:
            part = Direct(part.weight, part.contributions, part.axes, view=part.view)
        yield part


def _norms(weight: SharedWeight, squares: Sequence[Any], names: Sequence[str]) -> Any:
    """Norms, from the squares where every single use is kept apart."""
    if len(weight.calls) == 1 and set(names) == set(weight.axes):
        return np.sqrt(squares[0])
    return np.asarray(weight.norm(names))


def _shares(weight: SharedWeight, products: Sequence[Any], certificate: Certificate, names: Sequence[str]) -> Any:
    """Shares in the deposited gradient, from ⟨g_u, G⟩ of every use."""
    square = nan if certificate.zero_up_to_rounding else certificate.norm**2
    kept = [name for name in weight.calls[0].axes if name in names]
    found = []
    for call, product in zip(weight.calls, products, strict=True):
        shares = np.asarray(product) / square
        found.append(call.grouped(shares, kept).sum(axis=1).reshape(call.lengths(kept)))
    return found if "call" in names else sum(found)
