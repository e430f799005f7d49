"""Optimizers' steps, compiled: new values and what the next step needs, for all parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from sharedgrad.kernels.native import _native
from sharedgrad.kernels.native.recycled import empty_like
from sharedgrad.kernels.native.single import contiguous
from sharedgrad.parameter import Array

Arrays = list[Array]


def _like(arrays: Arrays) -> Arrays:
    return [empty_like(a) for a in arrays]


def _lists(new: Arrays, values: Arrays, gradients: Arrays, news: list[Arrays], states: list[Arrays]) -> list[Arrays]:
    """In the order in which the compiled side takes them."""
    return [new, values, gradients, *chain.from_iterable(zip(news, states, strict=True))]


def _update(step: Callable[..., bool], values: Arrays, gradients: Arrays, states: list[Arrays], *settings: Any) -> Any:
    """New values, and for each list of arrays in ``states`` a new one."""
    new, news = _like(values), [_like(values) for _ in states]
    try:
        step(_lists(new, values, gradients, news, states), *settings, False)
    except (TypeError, ValueError):  # an array of another type or memory order: rare, so it is not checked beforehand
        given = [
            [contiguous(np.asarray(a, w.dtype)).reshape(w.shape) for a, w in zip(arrays, values, strict=True)]
            for arrays in (values, gradients, *states)
        ]
        step(_lists(new, given[0], given[1], news, given[2:]), *settings, False)
    return new, *news


def sgd(
    values: Arrays,
    gradients: Arrays,
    velocities: Arrays,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Arrays, Arrays]:
    """Stochastic gradient descent, with momentum where there are velocities."""
    states = [velocities] if velocities else []
    new, *news = _update(_native.sgd, values, gradients, states, lr, momentum, weight_decay, nesterov)
    return new, news[0] if news else []


def adam(
    values: Arrays,
    gradients: Arrays,
    means: Arrays,
    squares: Arrays,
    steps: list[int],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> tuple[Arrays, Arrays, Arrays]:
    """Adam, and with ``decoupled`` weight decay AdamW."""
    settings = (steps, lr, *betas, eps, weight_decay, decoupled)
    return _update(_native.adam, values, gradients, [means, squares], *settings)


def sgd_in_place(
    values: Arrays,
    gradients: Arrays,
    states: list[Arrays],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> bool:
    """:func:`sgd`, writing over values and velocities; False, and nothing done, if anybody holds one of them besides
    its one owner and these lists."""
    lists = _lists(values, values, gradients, states, states)
    return _native.sgd(lists, lr, momentum, weight_decay, nesterov, True)


def adam_in_place(
    values: Arrays,
    gradients: Arrays,
    states: list[Arrays],
    steps: list[int],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> bool:
    """:func:`adam`, writing over values, means and squares; False as for :func:`sgd_in_place`."""
    lists = _lists(values, values, gradients, states, states)
    return _native.adam(lists, steps, lr, *betas, eps, weight_decay, decoupled, True)
