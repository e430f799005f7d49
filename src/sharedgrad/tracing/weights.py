"""The parameters of a model as uses know them, and tensors that are held until somebody asks."""

from __future__ import annotations

from typing import Any

import torch

from sharedgrad.errors import ConfigError
from sharedgrad.uses import View


class TensorWeight:
    """A parameter of a PyTorch model, with what uses need of it.

    Attributes:
        name: Its first name in ``named_parameters``.
        tensor: The parameter itself.
    """

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self.name, self.tensor = name, tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its own shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> Any:
        """PyTorch's type."""
        return self.tensor.dtype

    @property
    def value(self) -> torch.Tensor:
        """The numbers that it has now."""
        return self.tensor.detach()


class Seen:
    """How a tensor shows a parameter."""

    def __init__(self, weight: TensorWeight, view: View) -> None:
        self.weight, self.view = weight, view

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is seen."""
        return self.view.shape(self.weight.shape)


class Held:
    """A tensor as it was when it was recorded; no copy, so whoever writes into it is noticed."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._version = tensor.detach(), tensor._version

    def get(self) -> torch.Tensor:
        """The tensor.

        Raises:
            ConfigError: It has been written into since.
        """
        if self._tensor._version != self._version:
            problem = "a tensor of the traced pass has been overwritten since"
            raise ConfigError("trace", problem, "ask before it is, or trace with keep=['norm:…', 'share:…']")
        return self._tensor
