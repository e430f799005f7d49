"""Ready-made networks: ``models.lenet5(input_shape, classes)`` and so on, for images (channels, height, width)."""

from __future__ import annotations

from collections.abc import Callable

from sharedgrad.errors import ShapeError
from sharedgrad.geometry import text
from sharedgrad.layers import (
    Add,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
)
from sharedgrad.layers.layer import Layer
from sharedgrad.network import Network

Shape = tuple[int, ...]
Graph = dict[str, Layer | tuple[object, ...]]


def lenet5(input_shape: Shape, classes: int, seed: int = 0) -> Network:
    """LeNet-5 (LeCun et al. 1998) with sigmoids and max pooling; for images of at least 12×12."""
    channels, height, width = _images("lenet5", input_shape, 12)
    features = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    return Network(
        {
            "conv1": Conv2d(channels, 6, 5, padding=2, init="glorot"),
            "sigmoid1": Sigmoid(),
            "pool1": MaxPool2d(2),
            "conv2": Conv2d(6, 16, 5, init="glorot"),
            "sigmoid2": Sigmoid(),
            "pool2": MaxPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(features, 120, init="glorot"),
            "sigmoid3": Sigmoid(),
            "fc2": Linear(120, 84, init="glorot"),
            "sigmoid4": Sigmoid(),
            "fc3": Linear(84, classes, init="glorot"),
        },
        input_shape,
        seed=seed,
    )


def cnn(input_shape: Shape, classes: int, seed: int = 0) -> Network:
    """Two 3×3 convolutions with 32 and 64 filters, each pooled, and a dense layer of 128; images of at least 4×4."""
    channels, height, width = _images("cnn", input_shape, 4)
    return Network(
        {
            "conv1": Conv2d(channels, 32, 3, padding=1),
            "relu1": ReLU(),
            "pool1": MaxPool2d(2),
            "conv2": Conv2d(32, 64, 3, padding=1),
            "relu2": ReLU(),
            "pool2": MaxPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(64 * (height // 4) * (width // 4), 128),
            "relu3": ReLU(),
            "fc2": Linear(128, classes, init="glorot"),
        },
        input_shape,
        seed=seed,
    )


def vgg(input_shape: Shape, classes: int, seed: int = 0) -> Network:
    """Six 3×3 convolutions in three pooled stages of 64, 128 and 256 filters; images of at least 8×8.

    After Simonyan & Zisserman 2015, arXiv:1409.1556, sized for 32×32.
    """
    channels, height, width = _images("vgg", input_shape, 8)
    layers: Graph = {}
    for stage, filters in enumerate((64, 128, 256), 1):
        for half in "ab":
            layers[f"conv{stage}{half}"] = Conv2d(channels, filters, 3, padding=1)
            layers[f"relu{stage}{half}"] = ReLU()
            channels = filters
        layers[f"pool{stage}"] = MaxPool2d(2)
    layers["flatten"] = Flatten()
    layers["fc"] = Linear(256 * (height // 8) * (width // 8), classes, init="glorot")
    return Network(layers, input_shape, seed=seed)


def resnet20(input_shape: Shape, classes: int, seed: int = 0) -> Network:
    """The 20-layer residual network for CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2).

    Three stages of 16, 32 and 64 filters, three blocks each; 1×1 convolutions where the shape changes.
    """
    channels, *_ = _images("resnet20", input_shape, 4)
    layers: Graph = {
        "conv1": Conv2d(channels, 16, 3, padding=1, bias=False),
        "bn1": BatchNorm2d(16),
        "relu1": ReLU(),
    }
    before, channels = "relu1", 16
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            layers |= _residual_block(name, before, channels, filters, stride)
            before, channels = f"{name}.relu2", filters
    layers["pool"] = GlobalAvgPool()
    layers["fc"] = Linear(64, classes, init="glorot")
    return Network(layers, input_shape, seed=seed)


def _residual_block(name: str, before: str, channels: int, filters: int, stride: int) -> Graph:
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1×1 convolution on x where the shapes differ."""
    shortcut = before
    layers: Graph = {
        f"{name}.conv1": (Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False), before),
        f"{name}.bn1": BatchNorm2d(filters),
        f"{name}.relu1": ReLU(),
        f"{name}.conv2": Conv2d(filters, filters, 3, padding=1, bias=False),
        f"{name}.bn2": BatchNorm2d(filters),
    }
    if stride != 1 or channels != filters:
        layers[f"{name}.shortcut.0"] = (Conv2d(channels, filters, 1, stride=stride, bias=False), before)
        layers[f"{name}.shortcut.1"] = BatchNorm2d(filters)
        shortcut = f"{name}.shortcut.1"
    layers[f"{name}.add"] = (Add(), f"{name}.bn2", shortcut)
    layers[f"{name}.relu2"] = ReLU()
    return layers


def _images(model: str, shape: Shape, least: int) -> Shape:
    if len(shape) != 3 or min(shape[1:]) < least:
        expected = f"expected images (channels, height, width) of at least {least}×{least}, got {text(shape)}"
        raise ShapeError(f"model {model}", expected, "use larger images (--size) or another model")
    return shape


MODELS: dict[str, Callable[..., Network]] = {"lenet5": lenet5, "cnn": cnn, "vgg": vgg, "resnet20": resnet20}
