"""A training step in one call: what the loop says line by line, as one compiled whole."""

from sharedgrad.stepping.step import CompiledStep, compile_step

__all__ = ["CompiledStep", "compile_step"]
