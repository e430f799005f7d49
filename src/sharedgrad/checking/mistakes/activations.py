"""Mistakes in activations and losses: dx = dy · f'(x)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sharedgrad.checking.elementwise import one_hot, probabilities, slope, value
from sharedgrad.checking.given import Given
from sharedgrad.checking.rules import rule
from sharedgrad.parameter import Array

CURVES = "sigmoid tanh relu"


@rule("sigmoid_prime_of_activation", "dx", "sigmoid tanh", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * slope(g.kind, value(g.kind, g["x"]))


@rule("sigmoid_x_times_1_minus_x_on_z", "dx", "sigmoid", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * g["x"] * (1 - g["x"])


@rule("tanh_prime_of_preactivation", "dx", "tanh", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * (1 - g["x"] ** 2)


@rule("sigmoid_prime_for_tanh", "dx", "tanh", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * np.tanh(g["x"]) * (1 - np.tanh(g["x"]))


@rule("derivative_of_the_other_curve", "dx", "sigmoid", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * (1 - value("sigmoid", g["x"]) ** 2)


@rule("activation_derivative_missing", "dx", "sigmoid tanh softmax", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"]


@rule("relu_mask_missing", "dx", "relu", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"]


@rule("activation_derivative_twice", "dx", CURVES, stage="result")
def _(dx: Array, g: Given) -> Array:
    return dx * slope(g.kind, g["x"])


@rule("relu_values_clipped", "dx", "relu", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    yield "negative gradients set to 0", np.maximum(g["dy"], 0)
    yield "both masks", np.maximum(g["dy"], 0) * (g["x"] > 0)


@rule("relu_mask_inverted", "dx", "relu", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * (g["x"] < 0)


@rule("relu_value_for_slope", "dx", "relu", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * np.maximum(g["x"], 0)


@rule("activation_value_for_slope", "dx", "sigmoid tanh", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * value(g.kind, g["x"])


@rule("upstream_ignored", "dx", CURVES, stage="result")
def _(_: Array, g: Given) -> Array:
    return slope(g.kind, g["x"])


# ---- softmax, log-softmax


@rule("softmax_diagonal_only", "dx", "softmax", stage="result")
def _(_: Array, g: Given) -> Array:
    p = probabilities(g)
    return g["dy"] * p * (1 - p)


@rule("softmax_sum_missing", "dx", "softmax", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"] * probabilities(g)


@rule("log_softmax_sum_missing", "dx", "log_softmax", stage="result")
def _(_: Array, g: Given) -> Iterator[tuple[str, Array]]:
    p = probabilities(g)
    yield "dy + p", g["dy"] + p
    yield "dy − p", g["dy"] - p


@rule("activation_derivative_missing", "dx", "log_softmax", stage="result")
def _(_: Array, g: Given) -> Array:
    return g["dy"]


# ---- losses: dx is the gradient with respect to the scores


LOSSES = "cross_entropy mse binary_cross_entropy"


@rule("activation_derivative_twice", "dx", "cross_entropy binary_cross_entropy", stage="result")
def _(dx: Array, g: Given) -> Array:
    p = probabilities(g) if g.kind == "cross_entropy" else value("sigmoid", g["x"])
    return dx * p * (1 - p)


@rule("softmax_all_equal_true_class", "dx", "cross_entropy", stage="result")
def _(_: Array, g: Given) -> Array:
    p, t = probabilities(g), one_hot(g)
    own = (p * t).sum(1, keepdims=True) - 1
    return np.broadcast_to(own, p.shape) / (g.samples if g.options.get("reduction", "mean") == "mean" else 1)


@rule("softmax_true_class_only", "dx", "cross_entropy", stage="result")
def _(dx: Array, g: Given) -> Array:
    return dx * one_hot(g)


@rule("target_not_subtracted", "dx", "cross_entropy", stage="result")
def _(_: Array, g: Given) -> Array:
    return probabilities(g) / (g.samples if g.options.get("reduction", "mean") == "mean" else 1)


@rule("half_of_square_forgotten", "dx", "mse", stage="result")
def _(dx: Array, g: Given) -> Iterator[tuple[str, Array]]:
    yield "twice the right value", 2 * dx
    yield "half of the right value", dx / 2


@rule("batch_mean_vs_sum", "dx", LOSSES, stage="result")
def _(dx: Array, g: Given) -> Iterator[tuple[str, Array]]:
    counts = {g.samples: "samples", dx.size: "elements", dx[0].size: "outputs"}
    for count, what in counts.items():
        if count > 1:
            yield f"divided by the {count} {what} once more", dx / count
            yield f"not divided by the {count} {what}", dx * count


@rule("gradcheck_of_output_not_loss", "dx", LOSSES, stage="result")
def _(dx: Array, g: Given) -> Array:
    return np.ones_like(dx)
