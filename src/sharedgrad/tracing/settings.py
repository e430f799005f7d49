"""What a trace was asked to do, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import whole

AXES = ("sample", "position", "time", "token", "row", "call")  # what uses may be told apart by


class Question(NamedTuple):
    """One question that is answered during a pass: "norm" or "share", and the axes to keep apart."""

    kind: str
    by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.by))}"


@dataclass(frozen=True)
class Settings:
    """The arguments of ``trace``.

    Attributes:
        questions: What to answer in passing; None keeps the factors.
        batch_axis: The axis of the model's inputs that tells samples apart, or None.
        strict: Whether uses that do not add up raise.
        every: One pass of so many is recorded.
        chunk: Samples at once while questions are answered in passing; None: as many as fit into the caches.
        samples: The samples to look at; None: all.
        callback: What is given each parameter as soon as its gradient is complete; nothing else is kept then.
    """

    questions: tuple[Question, ...] | None
    batch_axis: int | None
    strict: bool
    every: int
    chunk: int | None
    samples: slice | tuple[int, ...] | None = None
    callback: Callable[[Any], object] | None = None

    @property
    def in_passing(self) -> bool:
        """Whether each parameter is settled when its gradient is complete."""
        return self.questions is not None or self.samples is not None or self.callback is not None

    def chosen(self, count: int) -> range | tuple[int, ...] | None:
        """The samples to look at, of so many; None: all of them.

        Raises:
            ConfigError: There is no such sample.
        """
        if self.samples is None:
            return None
        if isinstance(self.samples, slice):
            return range(count)[self.samples]
        for sample in self.samples:
            if sample >= count:
                raise ConfigError("trace: samples", f"there is no sample {sample} in a batch of {count}")
        return self.samples

    @classmethod
    def of(
        cls,
        keep: str | Sequence[str],
        batch_axis: int | None,
        strict: bool,
        every: int,
        chunk: int | None,
        samples: slice | Sequence[int] | None,
        callback: Callable[[Any], object] | None,
    ) -> Settings:
        """Read the forms that people write.

        Raises:
            ConfigError: An argument makes no sense.
        """
        asked = keep if isinstance(keep, Iterable) and not isinstance(keep, str) else [keep]
        questions = None if keep == "factors" else tuple(_question(q) for q in asked)
        if questions == ():
            raise ConfigError("trace: keep", "expected 'factors' or questions, got an empty list")
        axis = None if batch_axis is None else whole(batch_axis, "trace: batch_axis", least=0)
        size = None if chunk is None else whole(chunk, "trace: chunk")
        if callback is not None and not callable(callback):
            raise ConfigError("trace: callback", f"expected a function of one parameter's answers, got {callback!r}")
        some = _samples(samples)
        return cls(questions, axis, bool(strict), whole(every, "trace: every"), size, some, callback)


def _samples(given: Any) -> slice | tuple[int, ...] | None:
    if given is None:
        return None
    if isinstance(given, slice):
        for end in (given.start, given.stop, given.step):
            if end is not None:
                whole(end, "trace: samples", least=None)
        return given
    given = given.tolist() if hasattr(given, "tolist") else given
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
    if not found:
        raise ConfigError("trace: samples", f"expected a slice or numbers of samples, got {given!r}")
    return tuple(whole(sample, "trace: samples", least=0) for sample in found)


def _question(given: object) -> Question:
    """A question from its text, e.g. "norm:sample,position"."""
    kind, _, axes = given.partition(":") if isinstance(given, str) else ("", "", "")
    by = tuple(name.strip() for name in axes.split(",") if name.strip())
    if kind not in ("norm", "share") or not by:
        raise ConfigError("trace: keep", f"expected 'factors', 'norm:axis,…' or 'share:axis,…', got {given!r}")
    for name in by:
        if name not in AXES:
            raise ConfigError(
                "trace: keep", f"{given!r} names {name!r}, which no use has", f"choose from {', '.join(AXES)}"
            )
    return Question(kind, by)
