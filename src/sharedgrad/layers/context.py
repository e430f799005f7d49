"""What a forward pass tells its layers: the mode, keyed randomness and pending changes of buffers."""

from __future__ import annotations

import numpy as np

from sharedgrad.parameter import Array, Buffer
from sharedgrad.randomness import generator


class Context:
    """One forward pass of a network, or of one layer on its own.

    Args:
        training: Training mode (dropout drops, batch norm uses the batch) or evaluation mode.
        seed: Seed of the network.
        step: Number of the training step; with the node it keys the randomness.
    """

    def __init__(self, training: bool = True, seed: int = 0, step: int = 0) -> None:
        self.training, self.seed, self.step = training, seed, step
        self._node = ""
        self._pending: dict[Buffer, Array] = {}

    def enter(self, node: str) -> Context:
        """Say which node computes next; returns the context itself."""
        self._node = node
        return self

    def random(self) -> np.random.Generator:
        """A generator of its own for this seed, step and node; a layer called twice stands at two nodes."""
        return generator(self.seed, "forward", self.step, self._node)

    def read(self, buffer: Buffer) -> Array:
        """The buffer's value, with what earlier calls in this pass have changed."""
        return self._pending.get(buffer, buffer.value)

    def update(self, buffer: Buffer, value: Array) -> None:
        """Change a buffer once the whole pass has succeeded."""
        self._pending[buffer] = value

    def commit(self) -> None:
        """Carry the changes out."""
        for buffer, value in self._pending.items():
            buffer.replace(value)
        self._pending = {}
