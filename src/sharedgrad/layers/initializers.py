"""First values of weights."""

from __future__ import annotations

from functools import partial
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
        return partial(_normal, sqrt(2 / fan_in))
    if init == "glorot":
        return partial(_uniform, sqrt(6 / (fan_in + fan_out)))
    raise ConfigError(f"{where}: init", f"expected 'he' or 'glorot', got {init!r}")


def _normal(deviation: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, deviation, shape)


def _uniform(limit: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(-limit, limit, shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All 0: biases."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All 1: scales."""
    return np.ones(shape)
