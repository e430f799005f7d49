"""Every error a user can meet.

A message is one line: where, what was expected and what came, how to mend it. The command line prints it
after the command's name and exits with 2; in Python it is the text of the exception.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class SharedgradError(Exception):
    """The base of all errors below: ``where: problem; fix``.

    Args:
        where: The layer, file, option or argument that the problem is in.
        problem: What was expected and what came.
        fix: How to mend it (may be empty where nothing is to be done).
    """

    def __init__(self, where: object, problem: str, fix: str = "") -> None:
        self.where, self.problem, self.fix = str(where), problem, fix
        text = f"{where}: {problem}" if str(where) else problem
        text = f"{text}; {fix}" if fix else text
        super().__init__(" ".join(text.splitlines()))  # a file name may hold a line break, a message may not

    def __reduce__(self) -> tuple[type[SharedgradError], tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.fix)


class ShapeError(SharedgradError, ValueError):
    """An array or a layer does not fit where it is used."""


class ConfigError(SharedgradError, ValueError):
    """An argument, an option or a configuration makes no sense."""


class DataError(SharedgradError, ValueError):
    """A data set, an image or a label cannot be used."""


class CheckpointError(SharedgradError):
    """A run folder, a checkpoint or a model file cannot be read or does not belong to this network."""


class OutputError(SharedgradError, OSError):
    """A result cannot be written: no permission, no space, not a folder."""


class StaleTapeError(SharedgradError, RuntimeError):
    """A tape is asked to go backward although a weight has changed since its forward pass."""


class DivergedError(SharedgradError, ArithmeticError):
    """The loss has become NaN or infinite."""


class UncertifiedError(SharedgradError, ArithmeticError):
    """The uses of a parameter do not add up to the gradient that a backward pass has deposited."""


class UncertifiedWarning(UserWarning):
    """Numbers are asked of a parameter whose uses do not add up to its gradient."""


class MissingDependencyError(SharedgradError, ImportError):
    """An optional library is needed and not installed."""


def kind(value: object) -> str:
    """What somebody passed, in a message: the name of its type, or of the class that should have been called."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def require(module: str, purpose: str, extra: str = "cli") -> ModuleType:
    """Import an optional library, or say in one line how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise MissingDependencyError(
            purpose, f"needs {package}, which is not installed", f"pip install 'sharedgrad[{extra}]'"
        ) from error
