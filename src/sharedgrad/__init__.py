"""sharedgrad: the gradient of a shared weight is the sum over its uses."""

from sharedgrad import data, kernels, models, uses
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
from sharedgrad.optimizers import SGD, Adam, AdamW
from sharedgrad.parameter import Gradients, Parameter
from sharedgrad.storage import load, save
from sharedgrad.summary import summarize
from sharedgrad.tape import Tape
from sharedgrad.trace import Trace
from sharedgrad.training import Callback, History, evaluate, fit
from sharedgrad.uses import kernel_uses

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
    "Concat",
    "Context",
    "Conv1d",
    "Conv2d",
    "CrossEntropy",
    "Dropout",
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
    "data",
    "evaluate",
    "fit",
    "get_threads",
    "get_winograd",
    "kernel_uses",
    "kernels",
    "load",
    "models",
    "save",
    "set_threads",
    "set_winograd",
    "summarize",
    "uses",
]
