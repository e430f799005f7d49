"""Messages between two processes: plain data as JSON, arrays as their bytes. Nothing is unpickled."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_MAGIC = b"sgck"
_HEAD = struct.Struct("<4sQ")
LARGEST = 256 * 2**20


class Broken(Exception):
    """The other side has gone or sends what is no message."""


class Late(Exception):
    """No whole message came in time."""


def send(out: int, message: Any) -> None:
    """Write one message: nested dicts and lists of plain values and numeric arrays."""
    arrays: list[np.ndarray[Any, Any]] = []
    text = json.dumps(_packed(message, arrays)).encode()
    parts = [struct.pack("<Q", len(text)), text, *(np.ascontiguousarray(a).tobytes() for a in arrays)]
    body = b"".join(parts)
    view = memoryview(_HEAD.pack(_MAGIC, len(body)) + body)
    while view:
        view = view[os.write(out, view) :]


def receive(source: int, seconds: float | None = None, watch: Callable[[], None] | None = None) -> Any:
    """Read one message.

    Args:
        source: A file descriptor.
        seconds: At most so long; None waits for ever.
        watch: Called a few times a second while waiting; what it raises ends the waiting.

    Raises:
        Broken: The other side has closed, or this is no message.
        Late: The time is over.
    """
    end = None if seconds is None else time.monotonic() + seconds
    magic, size = _HEAD.unpack(_exactly(source, _HEAD.size, end, watch))
    if magic != _MAGIC or size > LARGEST:
        raise Broken("no message")
    body = _exactly(source, size, end, watch)
    try:
        (length,) = struct.unpack_from("<Q", body)
        return _unpacked(json.loads(body[8 : 8 + length]), memoryview(body)[8 + length :])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Broken(str(error)) from None


def _exactly(source: int, count: int, end: float | None, watch: Callable[[], None] | None) -> bytes:
    parts = []
    while count:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise Late
        ready, _, _ = select.select([source], [], [], 0.1 if left is None else min(left, 0.1))
        if watch:
            watch()
        if not ready:
            continue
        part = os.read(source, min(count, 2**20))
        if not part:
            raise Broken("closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _packed(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"__array__": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {str(key): _packed(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, rest: memoryview) -> Any:
    place = 0

    def walk(item: Any) -> Any:
        nonlocal place
        if isinstance(item, dict) and "__array__" in item:
            kind = np.dtype(item["__array__"])
            if kind.kind not in "fiub":
                raise ValueError(f"{kind} arrays are not sent")
            shape = tuple(int(n) for n in item["shape"])
            size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            if min(shape, default=0) < 0 or place + size > len(rest):
                raise ValueError("an array is cut short")
            array = np.frombuffer(rest[place : place + size], kind).reshape(shape).copy()
            place += size
            return array
        if isinstance(item, dict):
            return {key: walk(inner) for key, inner in item.items()}
        return [walk(inner) for inner in item] if isinstance(item, list) else item

    return walk(value)
