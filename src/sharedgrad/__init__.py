"""sharedgrad: the gradient of a shared weight is the sum over its uses.

The engine is imported at once; what is built on it when it is first asked for, so that ``import sharedgrad`` is quick.
"""

import typing as _typing
from importlib import import_module as _import_module

from sharedgrad import kernels, uses
from sharedgrad.gradients import Gradients
from sharedgrad.kernels import get_threads, get_winograd, set_threads, set_winograd
from sharedgrad.layers import (
    RNN,
    Add,
    AvgPool1d,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Context,
    Conv1d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    LocallyConnected1d,
    LocallyConnected2d,
    MaxPool1d,
    MaxPool2d,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
)
from sharedgrad.losses import MSE, BinaryCrossEntropy, CrossEntropy
from sharedgrad.network import Network
from sharedgrad.optimizers import SGD, Adam, AdamW, Combined
from sharedgrad.parameter import Parameter
from sharedgrad.storage import init_from, load, save
from sharedgrad.tape import Tape
from sharedgrad.traces import Trace
from sharedgrad.uses import kernel_uses

if _typing.TYPE_CHECKING:
    from sharedgrad import data, models
    from sharedgrad.checking import assert_backward, assert_layer, check_backward, check_layer, check_numbers
    from sharedgrad.explaining import Explanation, explain
    from sharedgrad.stepping import compile_step
    from sharedgrad.summary import summarize
    from sharedgrad.tracing import trace
    from sharedgrad.training import Callback, History, fit
    from sharedgrad.training.evaluate import evaluate
else:
    _LATER = {
        "sharedgrad.data": ("data",),
        "sharedgrad.checking": ("assert_backward", "assert_layer", "check_backward", "check_layer", "check_numbers"),
        "sharedgrad.explaining": ("Explanation", "explain"),
        "sharedgrad.models": ("models",),
        "sharedgrad.stepping": ("compile_step",),
        "sharedgrad.summary": ("summarize",),
        "sharedgrad.tracing": ("trace",),
        "sharedgrad.training": ("Callback", "History", "evaluate", "fit"),
    }

    def __getattr__(name: str) -> object:
        for module, names in _LATER.items():
            if name in names:
                found = _import_module(module)
                globals()[name] = found if module == f"{__name__}.{name}" else getattr(found, name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "MSE",
    "RNN",
    "SGD",
    "Adam",
    "AdamW",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "Callback",
    "Combined",
    "Concat",
    "Context",
    "Conv1d",
    "Conv2d",
    "CrossEntropy",
    "Dropout",
    "Explanation",
    "Flatten",
    "GlobalAvgPool",
    "Gradients",
    "History",
    "Layer",
    "Linear",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "MaxPool1d",
    "MaxPool2d",
    "Network",
    "Parameter",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tape",
    "Trace",
    "assert_backward",
    "assert_layer",
    "check_backward",
    "check_layer",
    "check_numbers",
    "compile_step",
    "data",
    "evaluate",
    "explain",
    "fit",
    "get_threads",
    "get_winograd",
    "init_from",
    "kernel_uses",
    "kernels",
    "load",
    "models",
    "save",
    "set_threads",
    "set_winograd",
    "summarize",
    "trace",
    "uses",
]
