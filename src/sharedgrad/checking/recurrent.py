"""The recurrent layer's backward with its numbers, and with the faults that people build into it.

δ_t = dh_t · (1 − h_t²)        dh_t = dy_t + W_hhᵀ · δ_{t+1}        dW_hh = Σ_t δ_t ⊗ h_{t−1}
"""

from __future__ import annotations

import numpy as np

from sharedgrad.checking.given import Given
from sharedgrad.parameter import Array


def backward(g: Given) -> dict[str, Array]:
    """All gradients by name, and "delta" (N, T, H); ``g.options["fault"]`` names a wrong procedure."""
    fault = g.options.get("fault", "")
    x, w_ih, w_hh = g["x"], g["weight_ih_l0"], g["weight_hh_l0"]
    samples, steps, _ = x.shape
    bias = sum((g[name] for name in ("bias_ih_l0", "bias_hh_l0") if name in g), np.zeros(len(w_hh)))
    h = np.zeros((samples, steps + 1, len(w_hh)))
    for t in range(steps):
        h[:, t + 1] = np.tanh(x[:, t] @ w_ih.T + h[:, t] @ w_hh.T + bias)
    dy = np.zeros((samples, steps, len(w_hh)))
    dy[:, -1] = g["dy"][:, -1] if g["dy"].ndim == 3 else g["dy"]
    if g["dy"].ndim == 3 and fault != "last_only":
        dy = g["dy"]
    delta, carried = np.zeros_like(dy), np.zeros((samples, len(w_hh)))
    for t in reversed(range(steps)):
        dh = dy[:, t] + carried
        delta[:, t] = dh * _slope(h[:, t + 1], fault)
        carried = _back(delta[:, t], w_hh, fault)
    before = h[:, 1:] if fault == "same_step" else h[:, :-1]
    kept = slice(0, 1) if fault == "first_step" else slice(steps - 1, steps) if fault == "last_step" else slice(None)
    part = 1 / steps if fault == "mean_time" else 1.0
    bias_gradient = delta[:, kept].sum((0, 1)) * part
    found = {
        "delta": delta,
        "dx": delta @ w_ih,
        "dweight_ih_l0": np.einsum("nth,nti->hi", delta[:, kept], x[:, kept]) * part,
        "dweight_hh_l0": np.einsum("nth,ntk->hk", delta[:, kept], before[:, kept]) * part,
        "dbias_ih_l0": bias_gradient,
        "dbias_hh_l0": bias_gradient,
        "y": h[:, 1:] if g["dy"].ndim == 3 else h[:, -1],
    }
    return {name: np.clip(a, -1, 1) for name, a in found.items()} if fault == "clip" else found


def _slope(h: Array, fault: str) -> Array:
    if fault == "no_tanh":
        return np.ones_like(h)
    return 1 - np.tanh(h) ** 2 if fault == "tanh_of_h" else 1 - h**2


def _back(delta: Array, w_hh: Array, fault: str) -> Array:
    if fault == "not_carried":
        return np.zeros_like(delta)
    if fault == "transpose":
        return delta @ w_hh.T
    return delta * w_hh.sum(1) if fault == "elementwise" else delta @ w_hh
