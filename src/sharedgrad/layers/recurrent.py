"""The simple recurrent layer (Elman 1990): the same weights at every time step.

    a_t = W_ih · x_t + b_ih + W_hh · h_{t−1} + b_hh        h_t = tanh(a_t)        h_0 = 0

Backward goes through time; what reaches h_t comes from the output at t and from step t+1:

    dh_t = dy_t + W_hhᵀ · δ_{t+1}        δ_t = dh_t · (1 − h_t²)

and each weight's gradient is the sum over its uses, one for each sample and time step:

    dW_ih = Σ_t δ_t ⊗ x_t        dW_hh = Σ_t δ_t ⊗ h_{t−1}        db_ih = db_hh = Σ_t δ_t        dx_t = W_ihᵀ · δ_t
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sharedgrad import kernels
from sharedgrad.geometry import whole
from sharedgrad.layers import initializers
from sharedgrad.layers.context import Context
from sharedgrad.layers.layer import Layer, Shape
from sharedgrad.layers.terms import Cells, chosen_cells, dense, factors
from sharedgrad.parameter import Array, Parameter, Weight
from sharedgrad.uses import Direct, Outer, Uses
from sharedgrad.uses.terms import Terms


class RNN(Layer):
    """x (N, T, I) -> all hidden states (N, T, H), or the last one (N, H).

    Parameters carry PyTorch's names (``nn.RNN(..., batch_first=True)``): weight_ih_l0 (H, I), weight_hh_l0 (H, H),
    bias_ih_l0 and bias_hh_l0 (H,).

    Args:
        input_size: I.
        hidden_size: H.
        bias: Whether the two biases are added.
        last: Whether the output is the last hidden state alone.
    """

    fixed = frozenset({"input_size", "hidden_size", "bias"})

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, last: bool = False) -> None:
        self.input_size = input_size = whole(input_size, "RNN: input_size")
        self.hidden_size = hidden_size = whole(hidden_size, "RNN: hidden_size")
        self.bias, self.last = bias, last
        draw = initializers.weights("glorot", input_size, hidden_size, "RNN")
        recur = initializers.weights("glorot", hidden_size, hidden_size, "RNN")
        self.weight_ih = Parameter((hidden_size, input_size), draw, "weight_ih_l0")
        self.weight_hh = Parameter((hidden_size, hidden_size), recur, "weight_hh_l0")
        self.bias_ih = Parameter((hidden_size,), initializers.zeros, "bias_ih_l0") if bias else None
        self.bias_hh = Parameter((hidden_size,), initializers.zeros, "bias_hh_l0") if bias else None

    def parameters(self) -> dict[str, Weight]:
        """The parameters under PyTorch's names."""
        return {f"{name}_l0": parameter for name, parameter in super().parameters().items()}

    def forward(self, *inputs: Array, context: Context) -> tuple[Array, Any]:
        """x (N, T, I) -> h (N, T, H) or h_T (N, H)."""
        (x,) = inputs
        k = kernels.of(x)
        a = k.blocks(x[:, :, None, :], self.weight_ih.value[None])[:, :, 0]
        if self.bias_ih is not None:
            a = a + self.bias_ih.value
        if self.bias_hh is not None:
            a = a + self.bias_hh.value
        h = np.zeros((len(x), x.shape[1] + 1, self.hidden_size), x.dtype)  # h[:, t] is h_{t−1}; h[:, 0] is h_0 = 0
        for t in range(x.shape[1]):
            recurrent = k.blocks(h[:, t, None, :], self.weight_hh.value[None])[:, 0]
            h[:, t + 1] = k.tanh(a[:, t] + recurrent)
        return (h[:, -1].copy() if self.last else h[:, 1:].copy()), (x, h)

    def backward(
        self, saved: Any, upstream: Array, needs: Sequence[bool]
    ) -> tuple[tuple[Array | None, ...], list[Uses]]:
        """dy (N, T, H) or dy_T (N, H) -> dx (N, T, I), and one use of each weight for each sample and time step."""
        x, h = saved
        delta = self._deltas(h, upstream)
        dx = None
        if needs[0]:
            k = kernels.of(upstream)
            dx = k.blocks_input_gradient(delta[:, :, None], self.weight_ih.value[None])[:, :, 0]
        return (dx,), self._uses(delta, x, h[:, :-1])

    def _deltas(self, h: Array, upstream: Array) -> Array:
        """δ (N, T, H) from the states h_0 … h_T (N, T+1, H), last step first."""
        k, steps = kernels.of(upstream), h.shape[1] - 1
        delta = np.empty((len(h), steps, self.hidden_size), upstream.dtype)
        dh = np.zeros_like(delta[:, 0])
        for t in reversed(range(steps)):
            if not self.last:
                dh = dh + upstream[:, t]
            elif t == steps - 1:
                dh = upstream
            delta[:, t] = k.tanh_backward(dh, h[:, t + 1])
            dh = k.blocks_input_gradient(delta[:, t, None], self.weight_hh.value[None])[:, 0]
        return delta

    def _uses(self, delta: Array, x: Array, before: Array) -> list[Uses]:
        """``before`` holds the hidden states h_0 … h_{T−1} that W_hh was multiplied with."""
        axes = {"sample": (len(x),), "time": (x.shape[1],)}
        blocks = delta[:, :, None]
        uses: list[Uses] = [
            Outer(self.weight_ih, blocks, x[:, :, None], axes),
            Outer(self.weight_hh, blocks, before[:, :, None], axes),
        ]
        uses += [Direct(bias, delta, axes) for bias in (self.bias_ih, self.bias_hh) if bias is not None]
        return uses

    def input_terms(self, saved: Any, upstream: Array, which: int = 0, cells: Cells = None) -> Terms:
        """δ_t[h] · W_ih[h,i] for every hidden unit h."""
        x, h = saved
        products = dense(x.shape[0] * x.shape[1], self.input_size, self.hidden_size, self.label)
        met = products.of_inputs(chosen_cells(x.shape, cells, self.label))
        named = {"delta": (self._deltas(h, upstream), met.y), "w_ih": (self.weight_ih.value, met.w)}
        return Terms("dx", x.shape, met.x, factors(named))

    def inner(self, saved: Any, upstream: Array) -> dict[str, Array | Terms]:
        """δ, and dh with its two parts, from the output at t and from step t+1: (N, T, H) each."""
        _, h = saved
        delta = self._deltas(h, upstream)
        from_output, from_next = np.zeros_like(delta), np.zeros_like(delta)
        from_output[:, -1 if self.last else slice(None)] = upstream
        back = kernels.of(upstream).blocks_input_gradient(delta[:, 1:, None], self.weight_hh.value[None])
        from_next[:, :-1] = back[:, :, 0]
        dh = from_output + from_next
        return {"delta": delta, "dh": dh, "dh_from_output": from_output, "dh_from_next": from_next}

    def output_shape(self, *shapes: Shape) -> Shape:
        """(T, H), or (H,) with ``last``."""
        (shape,) = shapes
        fits = len(shape) == 2 and shape[1] == self.input_size
        self.expect(fits, f"sequences of shape time×{self.input_size} (input_size={self.input_size})", shape)
        return (self.hidden_size,) if self.last else (shape[0], self.hidden_size)

    def uses_per_sample(self, *shapes: Shape) -> int:
        """One use for each time step."""
        return shapes[0][0]

    def without_sharing(self, *shapes: Shape) -> int | None:
        """Weights of their own for every time step."""
        return shapes[0][0] * sum(prod(p.shape) for p in self.parameters().values())
