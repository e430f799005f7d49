"""One parameter in one pass: its uses, certified; or what was asked beforehand and answered in passing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np
import torch

from sharedgrad.errors import ConfigError
from sharedgrad.tracing import certify
from sharedgrad.tracing.certify import Certificate
from sharedgrad.tracing.measuring import square_of
from sharedgrad.tracing.settings import Question, Settings
from sharedgrad.uses import Cancellation, Coherence, SharedWeight, Uses, Window
from sharedgrad.uses.arrays import copied, held, matching, picked
from sharedgrad.uses.plot import draw
from sharedgrad.uses.shared import ZERO

AT_ONCE = 1 << 23  # bytes of a factor that are worked on at once: some samples of a large map
NEAR = 1e-8, 1e8  # a gradient of such a length needs no scaling before float32 numbers are multiplied with it


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

    @cached_property
    def zero_up_to_rounding(self) -> bool:
        """Whether the uses cancel, and what is left is rounding: see ``Certificate``."""
        return self.certificate.zero_up_to_rounding

    def by_sample(self) -> torch.Tensor:
        """The sums of each sample's uses (N, *shape); of a convolution their sum is the gradient that is certified."""
        apart = torch.as_tensor(self.sum("sample"))
        if type(self) is TracedWeight and all(isinstance(call, Window) for call in self.calls):
            vars(self).setdefault("_gradient", held(apart.sum(0)))
        return apart

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {self.certificate})"

    def __str__(self) -> str:
        """The sum written out, where it is short enough to read and adds up."""
        return super().__str__() if self.certified else repr(self)


class ChosenWeight(TracedWeight):
    """The uses of some samples alone. Shares are those in the whole gradient G, and all uses were certified.

    Args:
        calls: The uses of these samples in each call.
        deposit: G.
        types: The types that the calls computed in.
        certificate: That of all uses.
        whole: The number of all samples; 0 where they are not told apart.
    """

    def __init__(
        self, calls: Sequence[Uses], deposit: Any, types: Sequence[str], certificate: Certificate, whole: int
    ) -> None:
        super().__init__(calls, deposit, types)
        self.certificate, self.whole = certificate, whole

    @cached_property
    def _gradient(self) -> Any:
        """G, the gradient that shares are of."""
        return matching(self.deposit, self.calls[0].factor)

    @property
    def gradient(self) -> Any:
        """The sum over the uses of these samples, in the weight's shape."""
        return self._give(copied(self._sum(self.calls, ())))

    def norm(self, by: str | Sequence[str] = ()) -> Any:
        """‖S_k‖ of each partial sum S_k of these samples: see ``SharedWeight.norm``."""
        return super().norm(by) if by else sqrt(square_of(torch.as_tensor(self.gradient)))

    def coherence(self, by: str | Sequence[str] | None = None) -> Coherence:
        """Refused: it is about all uses.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"uses of {self.name}", "coherence is about all samples", "trace without samples=")

    def cancellation(self, by: str | Sequence[str] | None = None) -> Cancellation:
        """Refused: it is about all uses.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"uses of {self.name}", "cancellation is about all samples", "trace without samples=")


class KeptWeight:
    """One parameter in a pass of which only answers were kept.

    Attributes:
        name: The parameter's name.
        shape: Its shape.
        count: The number of uses, of all samples.
        axes: The axes that all calls share.
        certificate: Whether the uses added up to the deposited gradient.
    """

    def __init__(self, weight: Any, certificate: Certificate, answers: Mapping[Question, Any]) -> None:
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
        names = tuple(by) if isinstance(by, Iterable) and not isinstance(by, str) else (by,)
        question = next((q for q in self._answers if q.kind == kind and set(q.by) == set(names)), None)
        if question is None:
            known = ", ".join(map(str, self._answers)) or "nothing: the callback was given it"
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


def settled(weight: SharedWeight, deposit: Any, types: Sequence[str], settings: Settings, seed: int) -> Any:
    """Certify a parameter now and answer what was asked, or keep the factors of some samples alone.

    Args:
        weight: Its uses.
        deposit: G, what the pass deposited.
        types: The types that the calls computed in.
        settings: What was asked; an axis that the uses do not share is left out of a question.
        seed: For the random directions.
    """
    comparing = certify.Comparing(deposit, types, seed)
    shared = any(question.kind == "share" for question in settings.questions or ())
    length = comparing.norm if isfinite(comparing.norm) and comparing.norm > 0 else 1.0
    scale = 1.0 if NEAR[0] < length < NEAR[1] else length
    direction = None if not shared else deposit if scale == 1 else deposit / scale
    squares, products = [], []
    for call in weight.calls:
        found = [comparing.add(part, direction) for part in _parts(call, settings.chunk)]
        squares.append(_joined([part.squares for part in found]))
        products.append(_joined([part.products for part in found]) * scale if shared else None)
    certificate = comparing.certificate()
    if certificate.bound and not certificate.certified:  # float32 may have rounded away what the bound would need
        parts = (part for call in weight.calls for part in _parts(call, settings.chunk))
        certificate = certify.probed(parts, deposit, types, seed, wide=True)
    calls = list(weight.calls)
    if settings.samples is not None:
        chosen = [_chosen(*both, settings) for both in zip(calls, squares, products, strict=True)]
        calls, squares, products = ([one[i] for one in chosen] for i in range(3))
    if settings.questions is not None:
        kept = _answered(SharedWeight(calls), squares, products, certificate, settings.questions)
        kept.count = weight.count
        return kept
    if settings.samples is not None:
        return ChosenWeight(calls, deposit, types, certificate, sum(weight.axes.get("sample", ())))
    traced = TracedWeight(calls, deposit, types)
    traced.certificate = certificate
    return traced


def _answered(
    weight: SharedWeight,
    squares: Sequence[Any],
    products: Sequence[Any],
    certificate: Certificate,
    questions: Sequence[Question],
) -> KeptWeight:
    answers: dict[Question, Any] = {}
    for question in questions:
        names = [name for name in question.by if name in weight.axes or name == "call"]
        if question.kind == "share":
            answers[question] = _shares(weight, products, certificate, names)
        else:
            answers[question] = _norms(weight, squares, names)
    return KeptWeight(weight, certificate, answers)


def _chosen(call: Uses, squares: Any, products: Any, settings: Settings) -> tuple[Uses, Any, Any]:
    """The uses of the samples to look at, copied, with their numbers; all, where samples are not told apart."""
    if "sample" not in call.axes:
        return call, squares, products
    (axis,), part = call.axis_numbers(("sample",)), copy(call)
    numbers = np.array(settings.chosen(call.shape[axis]), np.int64)
    part.axes = {name: (len(numbers),) if name == "sample" else lengths for name, lengths in call.axes.items()}
    for name in call.arrays:
        if (array := getattr(call, name)) is not None:
            setattr(part, name, picked(array, numbers, axis))
    return part, squares.take(numbers, axis), None if products is None else products.take(numbers, axis)


def _parts(call: Uses, chunk: int | None) -> Iterator[Uses]:
    """The uses, so many indices of the first axis at once."""
    length = call.shape[0] if call.shape else 1
    size = call.factor.nbytes // max(length, 1)
    step = chunk or max(1, AT_ONCE // max(size, 1))
    rest = [slice(None)] * (len(call.shape) - 1)
    for start in range(0, max(length, 1), step):
        yield call if step >= length else call.taken([slice(start, start + step), *rest])


def _joined(parts: Sequence[Any]) -> Any:
    """Numbers of each use in parts of the first axis, as one array."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
