"""How much memory a question may take while it is worked out, besides the factors and the answer itself."""

from __future__ import annotations

from sharedgrad.errors import ConfigError

_limit = 1 << 28


def get_memory_limit() -> int:
    """The limit in bytes; 256 MiB at first."""
    return _limit


def set_memory_limit(limit: int) -> None:
    """Set the limit in bytes. Less memory means smaller chunks, never another answer.

    Tables of terms that would be larger are refused, unless some cells are asked for.
    What cannot be cut further is taken all the same: the sums of one group of uses at a time.

    Raises:
        ConfigError: It is no positive number.
    """
    global _limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise ConfigError("set_memory_limit", f"expected a positive number of bytes, got {limit!r}")
    _limit = int(limit)
