"""Seeded randomness without hidden state: the same key gives the same numbers, always."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A fresh random generator for one purpose.

    Args:
        seed: The seed of the run, a non-negative integer.
        key: What the numbers are for, e.g. ``("batches", epoch)`` or ``("dropout", step, node, call)``.
            Different keys give independent streams (Philox, keyed by a hash of seed and key).
    """
    digest = hashlib.blake2b(repr((int(seed), *key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
