"""The ready-made networks, beside the same ones in PyTorch."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sharedgrad as sg
from sharedgrad.errors import ShapeError
from sharedgrad.models import MODELS


def lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10)),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((3, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 16, 10))


class Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """Its state_dict has the same names as the network of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


TWINS = {
    "lenet5": (lenet5, (1, 28, 28)),
    "cnn": (cnn, (1, 28, 28)),
    "vgg": (vgg, (3, 32, 32)),
    "resnet20": (ResNet20, (3, 32, 32)),
}


def doubled(net: sg.Network) -> sg.Network:
    """The network in float64."""
    return sg.Network.from_config({**net.to_config(), "dtype": "float64"})


def named_as_in(net: sg.Network, twin: nn.Module) -> dict[str, str]:
    """PyTorch's name -> ours; a Sequential has numbers for names, in the same order."""
    ours, theirs = list(net.state_dict()), list(twin.state_dict())
    if isinstance(twin, ResNet20):
        assert set(ours) == set(theirs)
        return {name: name for name in theirs}
    assert [n.rpartition(".")[2] for n in ours] == [n.rpartition(".")[2] for n in theirs]
    return dict(zip(theirs, ours, strict=True))


def disturbed(state: dict[str, Any], seed: int) -> dict[str, Any]:
    """Weights of the same size as first ones are, but with nothing left at 0 or 1."""
    rng = np.random.default_rng(seed)
    result = {name: a + 0.1 * rng.normal(size=a.shape) for name, a in state.items() if not name.endswith("tracked")}
    positive = {name: np.abs(a) for name, a in result.items() if name.endswith("var")}
    return {**{name: np.array(7) for name in state}, **result, **positive}


@pytest.mark.parametrize("name", TWINS)
def test_weights_go_to_pytorch_and_come_back_and_both_compute_the_same(name: str) -> None:
    build, shape = TWINS[name]
    torch.manual_seed(0)
    net, twin = doubled(MODELS[name](shape, 10)), build().double()
    names = named_as_in(net, twin)
    net.load_state_dict(disturbed(net.state_dict(), 1))
    twin.load_state_dict({theirs: torch.tensor(net.state_dict()[ours]) for theirs, ours in names.items()})

    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(2, *shape)), np.array([3, 8])
    y, tape = net.forward(x)
    value, upstream = sg.CrossEntropy(0.1)(y, labels)
    gradients = tape.backward(upstream, inputs=True)
    tensor = torch.tensor(x, requires_grad=True)
    expected = twin(tensor)
    loss = nn.functional.cross_entropy(expected, torch.tensor(labels), label_smoothing=0.1)
    loss.backward()

    np.testing.assert_allclose(y, expected.detach(), rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))
    assert value == pytest.approx(float(loss.detach()), rel=1e-9)
    theirs = {names[n]: p.grad.numpy() for n, p in twin.named_parameters()} | {"x": tensor.grad.numpy()}
    for key, expected_gradient in theirs.items():
        actual = gradients.inputs["input"] if key == "x" else gradients[key]
        np.testing.assert_allclose(actual, expected_gradient, rtol=1e-8, atol=1e-9 * np.abs(expected_gradient).max())

    for n, value_after in twin.state_dict().items():  # running statistics
        np.testing.assert_allclose(net.state_dict()[names[n]], value_after, rtol=1e-12)
    twin.eval()
    with torch.no_grad():
        expected = twin(torch.tensor(x))
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))

    back = doubled(MODELS[name](shape, 10, seed=4))
    back.load_state_dict({names[n]: tensor for n, tensor in twin.state_dict().items()})
    np.testing.assert_allclose(back.predict(x), net.predict(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "weights"), [("lenet5", 61_706), ("cnn", 421_642), ("vgg", 1_186_378), ("resnet20", 269_722 + 2_752)]
)
def test_the_number_of_weights(name: str, weights: int) -> None:
    """He et al. 2016 give 0.27 million for resnet20; its two 1×1 shortcuts with batch norm are 2752 more here."""
    net = MODELS[name](TWINS[name][1], 10)
    assert sum(prod(p.shape) for p in net.parameters()) == weights


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 17, 23), (2, 32, 20)])
def test_any_image_of_fair_size_will_do(name: str, shape: tuple[int, ...]) -> None:
    net = MODELS[name](shape, 7, seed=3)
    assert net.seed == 3
    assert net.shapes()[net.outputs[0]] == (7,)
    assert net.predict(np.zeros((2, *shape))).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 3, 3), (28, 28), (784,), (1, 1, 28, 28)])
def test_what_is_no_image_of_fair_size_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=rf"model {name}: expected images \(channels, height, width\) of at least \d"):
        MODELS[name](shape, 10)


@pytest.mark.parametrize(("name", "least"), [("lenet5", 12), ("cnn", 4), ("vgg", 8), ("resnet20", 4)])
def test_the_smallest_image_is_as_said(name: str, least: int) -> None:
    assert MODELS[name]((1, least, least), 2).predict(np.zeros((1, 1, least, least))).shape == (1, 2)
    with pytest.raises(ShapeError, match=f"at least {least}×{least}"):
        MODELS[name]((1, least - 1, least), 2)


def test_the_seed_decides_the_first_weights() -> None:
    one, again, other = (MODELS["lenet5"]((1, 12, 12), 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["conv1.weight"], other["conv1.weight"])
