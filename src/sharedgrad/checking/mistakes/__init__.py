"""The library of wrong procedures; importing this folder fills ``rules.LIBRARY``."""

from sharedgrad.checking.mistakes import activations, anything, bias, dense, input_gradient, kernel_gradient, loops, pooling

__all__ = ["activations", "anything", "bias", "dense", "input_gradient", "kernel_gradient", "loops", "pooling"]
