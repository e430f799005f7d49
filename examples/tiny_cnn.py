"""A network of one's own: ``sharedgrad train digits --model examples/tiny_cnn.py:tiny_cnn``."""

import sharedgrad as sg


def tiny_cnn(input_shape: tuple[int, ...], classes: int) -> sg.Network:
    """One shared 3×3 kernel for each of 8 filters, used at every position; 3,426 weights for the digits.

    Args:
        input_shape: (channels, height, width) of an image.
        classes: Number of classes: the network gives one score for each.
    """
    channels, height, width = input_shape
    return sg.Network(
        {
            "conv": sg.Conv2d(channels, 8, 3, padding=1),
            "relu1": sg.ReLU(),
            "pool": sg.MaxPool2d(2),
            "flatten": sg.Flatten(),
            "fc1": sg.Linear(8 * (height // 2) * (width // 2), 24),
            "relu2": sg.ReLU(),
            "fc2": sg.Linear(24, classes, init="glorot"),
        },
        input_shape,
    )
