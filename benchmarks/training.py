"""What training costs beside a bare torch loop over the same network, with and without each regulariser.

Bare means `torch.nn` layers in a `Sequential`, images that are normalised already, a shuffled order, cross entropy and
torch's own SGD with its defaults, channels last. Ours also reads uint8 images, has a schedule, checks each loss and
yields. They take turns on one thread, and processor time is counted, which other work on the machine disturbs least;
a ratio is the median over rounds of one turn by the bare turn before it. Prints a table and writes
benchmarks/results/training.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from search_spaces.catalog import build_network
from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.spec import Family, NetworkSpec, RegulariserName
from workers.losses import Teacher
from workers.progress import ignore_progress
from workers.recipe import Distillation, Recipe, Regulariser
from workers.splits import Split, normalise
from workers.train import train
from workers.weights import init_weights

RESULTS = Path(__file__).parent / "results" / "training.json"
STEPS, BATCH_SIZE, ROUNDS = 15, 128, 5
TARGET_RATIO = 1.1


def main() -> None:
    torch.set_num_threads(1)
    network = build_network(NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(1, 28, 28)), 10, (0.3,), (0.3,))
    split, turns = made_split(), {}
    for name, recipe in recipes().items():
        turns[name] = ours(network, split, recipe)
    seconds = take_turns(bare(network, split), turns)
    base_s = [round_s["bare"] for round_s in seconds]
    rows = {
        name: {
            "images_per_s": round(STEPS * BATCH_SIZE / median(one[name] for one in seconds), 1),
            "ratio": round(median(one[name] / bare_s for one, bare_s in zip(seconds, base_s, strict=True)), 3),
        }
        for name in seconds[0]
    }
    protocol = {
        "network": "mobilenet_v1, width 0.5, input [1, 28, 28]",
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "rounds": ROUNDS,
        "threads": 1,
        "time": "processor",
        "versions": {"torch": version("torch")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"protocol": protocol, "target_ratio": TARGET_RATIO, "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    show(rows)


def made_split() -> Split:
    """Noise: what images show does not change how long they take."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, size=(STEPS * BATCH_SIZE, 1, 28, 28)).astype(np.uint8)
    return Split("train", images, draw.integers(0, 10, size=len(images)), "noise")


def recipes() -> dict[str, Recipe]:
    plain = Recipe(epochs=1, batch_size=BATCH_SIZE, learning_rate=0.001)
    return {
        "ours": plain,
        **{str(name): replace(plain, regulariser=Regulariser(name)) for name in RegulariserName},
        "activation_l1": replace(plain, activation_l1=1e-6),
        "distillation": replace(plain, distillation=Distillation()),
    }


def ours(network: Network, split: Split, recipe: Recipe) -> Callable[[], object]:
    weights = init_weights(network, 0)
    teacher = Teacher(network, weights)
    return lambda: train(network, weights, split, recipe, ignore_progress, lambda: None, teacher)


def bare(network: Network, split: Split) -> Callable[[], object]:
    images = torch.from_numpy(normalise(split.images, network.input)).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(split.labels)
    module = in_layers(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda: bare_loop(module, images, labels)


def bare_loop(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for rows in torch.split(torch.randperm(len(images)), BATCH_SIZE):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(images[rows]), labels[rows])
        torch.autograd.backward(loss)
        optimiser.step()


def in_layers(network: Network) -> nn.Sequential:
    """The same network as people write it: a chain of layers."""
    shapes = infer_shapes(network)
    return nn.Sequential(*(in_torch(node, shapes[node.inputs[0]][0]) for node in network.nodes if node.inputs))


def in_torch(node: Node, inputs: int) -> nn.Module:
    if node.op is Op.CONV:
        assert node.channels is not None
        top, left, bottom, right = node.padding
        is_even = (top, left) == (bottom, right)
        conv = nn.Conv2d(
            inputs,
            node.channels,
            node.kernel,
            node.stride,
            (top, left) if is_even else 0,
            groups=node.groups,
            bias=node.bias,
        )
        return conv if is_even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)
    if node.op is Op.LINEAR:
        assert node.channels is not None
        return nn.Linear(inputs, node.channels)
    made: dict[Op, Callable[[], nn.Module]] = {
        Op.BATCH_NORM: lambda: nn.BatchNorm2d(inputs),
        Op.RELU: lambda: nn.ReLU(inplace=True),
        Op.RELU6: lambda: nn.ReLU6(inplace=True),
        Op.GLOBAL_AVERAGE_POOL: lambda: nn.AdaptiveAvgPool2d(1),
        Op.FLATTEN: nn.Flatten,
    }
    return made[node.op]()


def take_turns(bare_turn: Callable[[], object], turns: dict[str, Callable[[], object]]) -> list[dict[str, float]]:
    """Seconds of each turn in each round; the first round warms up."""
    rounds = []
    for _ in range(ROUNDS + 1):
        rounds.append({name: timed(turn) for name, turn in {"bare": bare_turn, **turns}.items()})
    return rounds[1:]


def timed(turn: Callable[[], object]) -> float:
    begun_s = time.process_time()
    turn()
    return time.process_time() - begun_s


def show(rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"Training on one thread; target {TARGET_RATIO:g}")
    for column in ("", "images/s", "times bare"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, f"{row['images_per_s']:.0f}", f"{row['ratio']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
