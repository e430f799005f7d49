"""``sharedgrad check FILE.py:NAME``: a person's code, or a test of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sharedgrad.errors import ConfigError

if TYPE_CHECKING:
    from sharedgrad.checking.audit import Audit
    from sharedgrad.checking.code.process import Limits
    from sharedgrad.checking.report import Report


def is_code(target: str) -> bool:
    """Whether it names something in a Python file."""
    return re.search(r"\.py:[^/\\]+$", target) is not None or target.endswith(".py")


@dataclass(frozen=True)
class Code:
    """The code and what is said of it on the command line."""

    target: str
    like: str | None
    forward: str | None
    signature: str | None
    timeout: float
    memory: int
    seconds: float

    def check(self) -> Report:
        """The report on it."""
        from sharedgrad.checking.code import api

        return api.check(
            api.of_file(self.target, self.forward), self._layer(), self.signature, self._limits(), self.seconds
        )

    def audit(self) -> Audit:
        """What a test lets pass."""
        from sharedgrad.checking.code import audit

        return audit.audit(self.target, self._layer(), self._limits())

    def _layer(self) -> str:
        if self.like is None:
            raise ConfigError("--like", f"expected the layer that {self.target} belongs to", "e.g. --like conv2d")
        return self.like

    def _limits(self) -> Limits:
        from sharedgrad.checking.code.process import Limits

        return Limits(self.timeout, megabytes=self.memory)
