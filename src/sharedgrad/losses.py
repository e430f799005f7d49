"""Losses: ``value, upstream = loss(y, target)``, where upstream is the gradient that backward starts from.

Each loss states its reduction. "mean" divides the sum, and so every contribution to every gradient, by a count;
nothing else in this package ever divides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sharedgrad import kernels
from sharedgrad.errors import ConfigError, DataError, ShapeError
from sharedgrad.parameter import Array, numbers

Loss = Callable[[Any, Any], tuple[float, Any]]

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


class MSE:
    """Squared error.

    "mean"      Σ (y − t)² / n        upstream 2 (y − t) / n, with n the number of elements
    "sum"       Σ (y − t)²            upstream 2 (y − t)
    "half_sum"  ½ Σ (y − t)²          upstream y − t, as textbooks write it
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = _one_of("MSE", reduction, ("mean", "sum", "half_sum"))

    def __call__(self, y: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
        """Value, and gradient with respect to y in y's shape."""
        out, goal = _pair("MSE", y, target)
        difference = out - goal
        scale = {"mean": 1 / out.size, "sum": 1.0, "half_sum": 0.5}[self.reduction]
        value = scale * float(np.sum(np.square(difference, dtype=np.float64)))
        return value, difference * out.dtype.type(2 * scale)


class CrossEntropy:
    """Cross-entropy of scores (before the softmax) against classes.

        p = softmax(y)        loss = −Σ_c t_c · log p_c        upstream p − t

    with t the one-hot class, or with label smoothing ε: 1 − ε + ε/C at the class and ε/C elsewhere
    (Szegedy et al. 2016, arXiv:1512.00567). "mean" divides by the number of targets. With a weight w_c for each
    class t_c is w_c · t_c, the upstream p · Σ_c t_c − t, and "mean" divides by the sum of the targets' weights, or
    for soft targets by their number (as PyTorch does).

    Args:
        label_smoothing: ε, at least 0 and below 1.
        reduction: "mean" or "sum".
        weight: One number for each class, e.g. larger for rare ones.
    """

    def __init__(
        self, label_smoothing: float = 0.0, reduction: str = "mean", weight: Sequence[float] | Array | None = None
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError("CrossEntropy: label_smoothing", f"expected 0 to below 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.reduction = _one_of("CrossEntropy", reduction, ("mean", "sum"))
        self.weight = None if weight is None else _class_weights(weight)

    def __call__(self, y: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
        """Value, and gradient with respect to y.

        Args:
            y: Scores (N, C), or (N, C, *positions) as for images of labels.
            target: Class numbers (N,) or (N, *positions), integers from 0 to C − 1; or in the scores' shape one-hot
                classes or probabilities, which add to 1 over the classes.
        """
        scores = _floats("CrossEntropy", y)
        if self.weight is not None and len(self.weight) != scores.shape[1]:
            problem = f"expected a weight for each of {scores.shape[1]} classes, got {len(self.weight)}"
            raise ConfigError("CrossEntropy: weight", problem)
        if np.shape(target) == scores.shape:
            return self._against(scores, _probabilities(target), scores.size // scores.shape[1])
        labels = _labels(scores, target)
        try:
            if self.weight is not None:
                one_hot = np.moveaxis(np.eye(scores.shape[1])[labels], -1, 1)
                return self._against(scores, one_hot, float(np.asarray(self.weight)[labels].sum()))
            count = labels.size if self.reduction == "mean" else 1
            return kernels.of(scores).cross_entropy(scores, labels, self.label_smoothing, count)
        except IndexError:
            problem = f"expected classes from 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}"
            fix = "number the classes from 0, or give the last layer one output for each"
            raise DataError("CrossEntropy", problem, fix) from None

    def _against(self, scores: Array, target: Array, count: float) -> tuple[float, Array]:
        """Value and upstream for targets (N, C, *positions), in float64; "mean" divides by ``count``."""
        target = target * (1 - self.label_smoothing) + self.label_smoothing / scores.shape[1]
        if self.weight is not None:
            target = target * np.reshape(self.weight, (-1, *[1] * (scores.ndim - 2)))
        scale = 1 / count if self.reduction == "mean" else 1.0
        shifted = scores.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        upstream = np.exp(log_p) * target.sum(axis=1, keepdims=True) - target
        return -scale * float(np.sum(target * log_p)), (scale * upstream).astype(scores.dtype)


class BinaryCrossEntropy:
    """Cross-entropy of independent yes/no outputs against targets from 0 to 1.

        p = sigmoid(y)        loss = −Σ t · log p + (1 − t) · log(1 − p)        upstream p − t

    Args:
        from_logits: Whether y are scores before the sigmoid (stable); otherwise y are the probabilities
            themselves and the upstream gradient is (p − t) / (p (1 − p)).
        reduction: "mean" (over all elements) or "sum".
    """

    def __init__(self, from_logits: bool = True, reduction: str = "mean") -> None:
        self.from_logits = from_logits
        self.reduction = _one_of("BinaryCrossEntropy", reduction, ("mean", "sum"))

    def __call__(self, y: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
        """Value, and gradient with respect to y in y's shape."""
        out, goal = _pair("BinaryCrossEntropy", y, target)
        if goal.size and not (goal.min() >= 0 and goal.max() <= 1):
            raise DataError("BinaryCrossEntropy", f"expected targets from 0 to 1, got {goal.min()} to {goal.max()}")
        if self.from_logits:
            # log(1 + e^y) − t·y, with the exponential of a negative number only
            terms = np.maximum(out, 0) - goal * out + np.log1p(np.exp(-np.abs(out)))
            upstream = kernels.of(out).sigmoid(out) - goal
        else:
            if out.size and not (out.min() >= 0 and out.max() <= 1):
                raise DataError("BinaryCrossEntropy", f"expected y from 0 to 1, got {out.min()} to {out.max()}")
            # a logarithm is cut at −100 and p (1 − p) at 10⁻¹², so that 0 and 1 stay finite
            with np.errstate(divide="ignore"):
                log_p, log_q = np.maximum(np.log(out), -100), np.maximum(np.log1p(-out), -100)
            terms = -(goal * log_p + (1 - goal) * log_q)
            upstream = (out - goal) / np.maximum(out * (1 - out), 1e-12)
        count = out.size if self.reduction == "mean" else 1
        return float(np.sum(terms, dtype=np.float64)) / count, (upstream / count).astype(out.dtype)


def measured(loss: Loss, y: Any, target: Any) -> tuple[float, Any]:
    """A loss's value as Python's own number, whatever kind of number it returned, and its upstream gradient.

    Raises:
        ConfigError: It returned something else.
    """
    found: Any = loss(y, target)
    if not isinstance(found, tuple) or len(found) != 2:
        problem = f"expected a pair (value, upstream), got {type(found).__name__}"
        raise ConfigError("loss", problem, "return the loss and its gradient with respect to y")
    value, upstream = found
    try:
        return float(value), upstream
    except (TypeError, ValueError):
        problem = f"expected a pair (value, upstream) that begins with a number, got {type(value).__name__}"
        raise ConfigError("loss", problem, "sum or average over the samples") from None


def _one_of(where: str, reduction: str, known: tuple[str, ...]) -> str:
    if reduction not in known:
        raise ConfigError(f"{where}: reduction", f"expected one of {', '.join(known)}, got {reduction!r}")
    return reduction


def _floats(where: str, y: ArrayLike) -> Array:
    if type(y) is np.ndarray and y.dtype in _FLOATS:
        array: Array = y  # only read: no copy
    else:
        array = numbers(y, np.float32 if getattr(y, "dtype", None) == np.float32 else np.float64, where)
    if array.size == 0:
        fix = "leave out batches without samples"
        raise ShapeError(where, f"expected at least one output, got shape {array.shape}", fix)
    return array


def _pair(where: str, y: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    out = _floats(where, y)
    goal = numbers(target, out.dtype, f"{where}: target")
    if out.shape != goal.shape:
        problem = f"expected a target of the output's shape {out.shape}, got {goal.shape}"
        raise ShapeError(where, problem, "give one number for each of the output's")
    return out, goal


def _class_weights(weight: Sequence[float] | Array) -> tuple[float, ...]:
    if isinstance(weight, Mapping):
        problem = f"expected a number for each class, in the order of the classes, got a {type(weight).__name__}"
        raise ConfigError("CrossEntropy: weight", problem, "pass a list: [weights[c] for c in range(classes)]")
    array = numbers(weight, np.float64, "CrossEntropy: weight")
    if array.ndim != 1 or not (np.isfinite(array).all() and (array >= 0).all() and array.any()):
        problem = f"expected a number of at least 0 for each class, got {weight!r}"
        raise ConfigError("CrossEntropy: weight", problem)
    return tuple(array.tolist())


def _probabilities(target: ArrayLike) -> Array:
    """Soft or one-hot targets, checked."""
    goal = numbers(target, np.float64, "CrossEntropy: target")
    sums = goal.sum(axis=1)
    if not (goal.min() >= 0 and np.allclose(sums, 1, rtol=0, atol=1e-3)):
        problem = f"expected one-hot or soft targets from 0 up that add to 1, got sums {sums.min():g} to {sums.max():g}"
        raise DataError("CrossEntropy", problem)
    return goal


def _labels(scores: Array, target: ArrayLike) -> Array:
    """The class numbers as integers in the scores' shape; whether they are classes, the kernel finds out."""
    labels = np.asarray(target)
    if scores.ndim < 2 or labels.shape != (scores.shape[0], *scores.shape[2:]):
        problem = f"expected scores (N, C) and classes (N,), got {scores.shape} and {labels.shape}"
        drop = labels.shape == (scores.shape[0], 1, *scores.shape[2:])
        raise ShapeError("CrossEntropy", problem, "pass target[:, 0]" if drop else "give one class for each sample")
    if labels.dtype.kind not in "iu":
        fix = "pass target.astype(int)" if labels.dtype.kind in "fb" else "number the classes from 0"
        raise DataError("CrossEntropy", f"expected class numbers as integers, got {labels.dtype} values", fix)
    return labels
