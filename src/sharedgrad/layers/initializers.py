"""First values of weights."""

from __future__ import annotations

from math import sqrt

import numpy as np

from sharedgrad.errors import ConfigError
from sharedgrad.parameter import Array, Initializer


def weights(init: str, fan_in: int, fan_out: int, where: str) -> Initializer:
    """The initializer of a weight whose outputs see ``fan_in`` inputs and whose inputs reach ``fan_out`` outputs.

    ``"he"``: normal with variance 2 / fan_in, for ReLU (He et al. 2015, arXiv:1502.01852).
    ``"glorot"``: uniform within ±√(6 / (fan_in + fan_out)), for sigmoid and tanh (Glorot & Bengio 2010).
    """
    if init == "he":
        return lambda rng, shape: rng.normal(0, sqrt(2 / fan_in), shape)
    if init == "glorot":
        limit = sqrt(6 / (fan_in + fan_out))
        return lambda rng, shape: rng.uniform(-limit, limit, shape)
    raise ConfigError(f"{where}: init", f"expected 'he' or 'glorot', got {init!r}")


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All 0: biases."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All 1: scales."""
    return np.ones(shape)
