"""The layers: one file per family; in each the formula, forward and backward."""

from sharedgrad.layers.activations import ReLU, Sigmoid, Softmax, Tanh
from sharedgrad.layers.context import Context
from sharedgrad.layers.convolution import Conv1d, Conv2d
from sharedgrad.layers.dropout import Dropout
from sharedgrad.layers.layer import Layer
from sharedgrad.layers.linear import Linear
from sharedgrad.layers.locally_connected import LocallyConnected1d, LocallyConnected2d
from sharedgrad.layers.merging import Add, Concat
from sharedgrad.layers.normalization import BatchNorm2d
from sharedgrad.layers.pooling import AvgPool1d, AvgPool2d, GlobalAvgPool, MaxPool1d, MaxPool2d
from sharedgrad.layers.recurrent import RNN
from sharedgrad.layers.shaping import Flatten, Reshape

__all__ = [
    "RNN",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm2d",
    "Concat",
    "Context",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "Linear",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "MaxPool1d",
    "MaxPool2d",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
