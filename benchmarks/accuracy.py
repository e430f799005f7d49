"""What `sharedgrad train` reaches, and how long the whole command takes.

    python benchmarks/accuracy.py digits                    # 5 seeds
    python benchmarks/accuracy.py mnist PATH/TO/mnist       # lenet5, 3 epochs
    python benchmarks/accuracy.py cifar10 PATH/TO/cifar10   # resnet20, augmented; class folders in train/, test/

Prints a Markdown table: accuracy on data not trained on, seconds from the command's start to its end. The run
folders stay under --out, with their curves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import mean
from time import perf_counter

TASKS = {
    "digits": [],
    "mnist": ["--model", "lenet5", "--epochs", "3"],
    "cifar10": [
        "--model",
        "resnet20",
        "--augment",
        "flip,crop",
        "--batch-size",
        "64",
        "--epochs",
        "25",
        "--optimizer",
        "sgd",
        "--lr",
        "0.05",
    ],
}


def train(data: str, options: list[str], seed: int, out: Path) -> tuple[float, float]:
    """(accuracy, seconds) of one run of the command."""
    command = [sys.executable, "-m", "sharedgrad", "train", data, *options, "--seed", str(seed), "--out", str(out)]
    start = perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((out / "run.json").read_text())["results"]["accuracy"], perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("data", nargs="?", help="folder of the data set (not for digits)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 5 for digits, else 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    given, more = parser.parse_known_args()
    if given.task != "digits" and not given.data:
        parser.error(f"{given.task} needs the folder of its data")
    options = [*TASKS[given.task], *more]
    seeds = given.seeds or (5 if given.task == "digits" else 1)
    rows = [train(given.data or "digits", options, s, given.out / f"{given.task}-{s}") for s in range(seeds)]
    settings = " ".join(options)
    print(f"`sharedgrad train {given.task} {settings}`, {os.cpu_count()} cores, {platform.platform()}\n")
    print("| seed | accuracy | seconds |\n|---|---|---|")
    for seed, (accuracy, seconds) in enumerate(rows):
        print(f"| {seed} | {accuracy:.2%} | {seconds:.1f} |")
    print(f"| mean | {mean(a for a, _ in rows):.2%} | {mean(s for _, s in rows):.1f} |")


if __name__ == "__main__":
    main()
