"""Which training images fight the update of a filter, and are these the ones with wrong labels?

    sharedgrad data mnist mnist
    python examples/wrong_labels.py mnist --out pictures

A small network is trained on some thousand images of MNIST, 5 % of which have been given a wrong label at random. After
every epoch the gradient over all training images is taken apart into the shares of the images: those with the most
negative shares push against what the others agree on. The script prints how many of the wrong labels stand among the
first k of that order, beside the order by loss and by gradient norm, and draws both pictures of docs/wrong_labels.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import sharedgrad as sg

ORDERS = ("loss", "gradient norm", "pushes either way", "fights all weights", "fights conv1")
COLORS = dict(zip(ORDERS, ("#444444", "#e08214", "#8073ac", "#2166ac", "#67a9cf"), strict=True))
Array = np.ndarray[Any, Any]


def mislabelled(y: Array, share: float, classes: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The labels with this share of them replaced by another class, and which were replaced."""
    wrong = np.zeros(len(y), bool)
    wrong[rng.permutation(len(y))[: round(share * len(y))]] = True
    return np.where(wrong, (y + rng.integers(1, classes, len(y))) % classes, y), wrong


def network(shape: tuple[int, ...], classes: int, seed: int) -> sg.Network:
    side = (shape[1] // 2 - 4) // 2
    layers = {
        "conv1": sg.Conv2d(shape[0], 8, 5, padding=2),
        "relu1": sg.ReLU(),
        "pool1": sg.MaxPool2d(2),
        "conv2": sg.Conv2d(8, 16, 5),
        "relu2": sg.ReLU(),
        "pool2": sg.MaxPool2d(2),
        "flat": sg.Flatten(),
        "fc": sg.Linear(16 * side * side, classes),
    }
    return sg.Network(layers, shape, seed=seed)


def batches(net: sg.Network, x: Array, y: Array, size: int = 250) -> Iterator[tuple[slice, Array, sg.Tape, Array]]:
    loss = sg.CrossEntropy(reduction="sum")
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        scores, tape = net.forward(x[part], training=False)
        yield part, scores, tape, loss(scores, y[part])[1]


def suspicion(net: sg.Network, x: Array, y: Array) -> dict[str, Array]:
    """For each way to look for wrong labels a number for every image: the larger, the more suspicious."""
    gradient = {p.name: np.zeros(p.shape) for p in net.parameters()}
    for _, _, tape, upstream in batches(net, x, y):
        found = tape.backward(upstream)
        for name in gradient:
            gradient[name] += found[name]
    square = sum(np.vdot(g, g) for g in gradient.values())
    score = {order: np.zeros(len(y)) for order in ORDERS}
    for part, scores, tape, upstream in batches(net, x, y):
        shifted = scores - scores.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        score["loss"][part] = -log_p[np.arange(len(log_p)), y[part]]
        trace, squares = tape.trace(upstream), 0.0
        for name, weight in trace.weights.items():
            [call] = weight.calls
            products = call.projection(gradient[name]).reshape(len(log_p), -1).sum(axis=1)  # ⟨g_n, G⟩
            score["fights all weights"][part] -= products / square
            if name == "conv1.weight":
                score["fights conv1"][part] = -products / np.vdot(gradient[name], gradient[name])
            squares = squares + weight.norm("sample") ** 2
        score["gradient norm"][part] = np.sqrt(squares)
    score["pushes either way"] = np.abs(score["fights all weights"])
    return score


def precision(score: Array, wrong: Array, k: int) -> float:
    """The share of wrong labels among the k most suspicious images."""
    return float(wrong[np.argsort(-score, kind="stable")[:k]].mean())


def run(x: Array, y: Array, classes: int, share: float, epochs: int, seed: int) -> tuple[sg.Network, Array, Array, Any]:
    """Train on labels of which some are wrong; after every epoch, the precision of every order.

    Returns:
        The network, the labels that it was trained on, which of them are wrong, and the table: for every epoch the
        precision of every order at k = a quarter and half of the number of wrong labels, and all of it.
    """
    rng = np.random.default_rng(seed)
    given, wrong = mislabelled(y, share, classes, rng)
    net = network(x.shape[1:], classes, seed)
    optimizer, loss = sg.Adam(net.parameters(), lr=0.002), sg.CrossEntropy()
    counts = [max(1, wrong.sum() // part) for part in (4, 2, 1)]
    rows = []
    for epoch in range(epochs):
        for images, target in sg.data.batches(x, given, 32, seed=seed, epoch=epoch):
            scores, tape = net.forward(images)
            optimizer.step(tape.backward(loss(scores, target)[1]))
        score = suspicion(net, x, given)
        rows.append([[precision(score[order], wrong, k) for k in counts] for order in ORDERS])
    return net, given, wrong, np.array(rows)


def draw_precision(tables: Array, share: float) -> Figure:
    """Precision over the epochs, the mean over the seeds and the range of all of them."""
    figure = Figure((7, 3.8), layout="constrained")
    axes = figure.add_subplot()
    epochs = np.arange(1, tables.shape[1] + 1)
    for number, order in enumerate(ORDERS):
        of = 100 * tables[:, :, number, -1]
        axes.plot(epochs, of.mean(axis=0), color=COLORS[order], label=order, marker="o", markersize=3)
        axes.fill_between(epochs, of.min(axis=0), of.max(axis=0), color=COLORS[order], alpha=0.15, linewidth=0)
    axes.axhline(100 * share, color="0.6", linestyle=":", label="chance")
    axes.set_xlabel("epochs of training on the wrong labels, too")
    axes.set_ylabel("wrong labels among the first k (%)")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_maps(net: sg.Network, x: Array, given: Array, right: Array, images: Array) -> tuple[int, Figure]:
    """The filter of conv1 with the largest gradient, and where in the images lies what fights its update most."""
    chosen = x[:1000], given[:1000]
    scores, tape = net.forward(chosen[0], training=False)
    weight = tape.trace(sg.CrossEntropy()(scores, chosen[1])[1])["conv1.weight"]
    strongest = int(np.argmax(np.square(weight.gradient).sum(axis=(1, 2, 3))))
    one = weight.filter(strongest)
    fighting = [part.use["sample"][0] for part in one.top(6, "sample", sign=-1)]
    labels = [f"{r}" if r == g else f"{r}, labelled {g}" for r, g in zip(right, given, strict=True)]
    return strongest, one.plot(samples=fighting, images=images[:1000], labels=labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a folder with MNIST's files, or anything else that sg.data.load reads")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--share", type=float, default=0.05, help="of wrong labels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures")
    given = parser.parse_args()
    data = sg.data.load(given.data)
    images, y = data.x[: given.samples], data.y[: given.samples]
    x = sg.data.Normalization.of(images)(images)
    tables = []
    for seed in range(given.seeds):
        net, labels, wrong, table = run(x, y, len(data.classes), given.share, given.epochs, seed)
        tables.append(table)
        if seed == 0:
            filter_number, maps = draw_maps(net, x, labels, y, images)
    found = np.array(tables)
    print(f"{len(y)} images, {wrong.sum()} wrong labels, {given.seeds} seeds; precision in %, mean (lowest to highest)")
    print(f"{'':<20}{'k = a quarter':>20}{'k = half':>20}{'k = all wrong':>20}")
    for epoch in sorted({1, given.epochs // 2 or 1, given.epochs}):
        print(f"after epoch {epoch}")
        for number, order in enumerate(ORDERS):
            cells = found[:, epoch - 1, number] * 100
            texts = (f"{c.mean():.1f} ({c.min():.0f} to {c.max():.0f})" for c in cells.T)
            print(f"  {order:<18}" + "".join(f"{text:>20}" for text in texts))
    given.out.mkdir(parents=True, exist_ok=True)
    draw_precision(found, given.share).savefig(given.out / "wrong_labels.png", dpi=110)
    maps.savefig(given.out / "wrong_labels_maps.png", dpi=110)
    print(f"filter {filter_number} of conv1 on wrong_labels_maps.png")


if __name__ == "__main__":
    main()
