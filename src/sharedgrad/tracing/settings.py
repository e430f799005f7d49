"""What a trace was asked to do, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sharedgrad.errors import ConfigError
from sharedgrad.geometry import whole


class Question(NamedTuple):
    """One question that is answered during a pass: "norm" or "share", and the axes to keep apart."""

    kind: str
    by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(self.by)}"


@dataclass(frozen=True)
class Settings:
    """The arguments of ``trace``.

    Attributes:
        questions: What to answer in passing; None keeps the factors.
        batch_axis: The axis of the model's inputs that tells samples apart, or None.
        strict: Whether uses that do not add up raise.
        every: One pass of so many is recorded.
        chunk: Samples at once while questions are answered in passing; None: all.
    """

    questions: tuple[Question, ...] | None
    batch_axis: int | None
    strict: bool
    every: int
    chunk: int | None

    @classmethod
    def of(
        cls, keep: str | Sequence[str], batch_axis: int | None, strict: bool, every: int, chunk: int | None
    ) -> Settings:
        """Read the forms that people write.

        Raises:
            ConfigError: An argument makes no sense.
        """
        questions = None if keep == "factors" else tuple(_question(q) for q in ([keep] if type(keep) is str else keep))
        if questions == ():
            raise ConfigError("trace: keep", "expected 'factors' or questions, got an empty list")
        axis = None if batch_axis is None else whole(batch_axis, "trace: batch_axis", least=0)
        size = None if chunk is None else whole(chunk, "trace: chunk")
        return cls(questions, axis, bool(strict), whole(every, "trace: every"), size)


def _question(given: object) -> Question:
    """A question from its text, e.g. "norm:sample,position"."""
    kind, _, axes = given.partition(":") if isinstance(given, str) else ("", "", "")
    by = tuple(name.strip() for name in axes.split(",") if name.strip())
    if kind not in ("norm", "share") or not by:
        raise ConfigError("trace: keep", f"expected 'factors', 'norm:axis,…' or 'share:axis,…', got {given!r}")
    return Question(kind, by)
