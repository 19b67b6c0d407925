"""What an engineer brings: a network that torch has trained and exported, and pictures in folders; small, and real."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from PIL import Image
from torch import nn

from search_spaces.importing import ImportSettings
from search_spaces.known import Sources
from search_spaces.spec import SearchSpec
from service.artifacts.store import put_bytes
from workers.bringing import import_network, index_dataset
from workers.datasets import load_dataset
from workers.datasets.kept import UPLOADS

SIDE = 16
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Not in the order of the alphabet, which is that of the data set."""


class Net(nn.Module):
    """Two blocks with batch norms, a residual one between, and a head."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(
            nn.Conv2d(16, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(x + self.inner(x))
        return self.head(self.wide(x).mean((2, 3)))


def digit_pictures() -> tuple[list[Image.Image], np.ndarray]:
    """All handwritten digits as grey pictures, most of them square and some not."""
    digits = load_dataset("digits", Path("unused"))
    pixels = np.concatenate([digits.images, digits.test_images])[:, 0]
    pictures = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in pixels]
    for number in range(0, len(pictures), 7):
        wide = Image.new("L", (SIDE + 4, SIDE))
        wide.paste(pictures[number], (2, 0))
        pictures[number] = wide
    return pictures, np.concatenate([digits.labels, digits.test_labels])


def pack_classes(pictures: Sequence[Image.Image], labels: np.ndarray, names: Sequence[str]) -> bytes:
    """A zip of class folders; labels that have no name are left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            if label < len(names):
                archive.writestr(f"photos/{names[label]}/{number:04d}.png", png(picture))
    return buffer.getvalue()


def pack_values(pictures: Sequence[Image.Image], values: np.ndarray) -> bytes:
    """A zip of pictures and a table with a value for each."""
    buffer = io.BytesIO()
    rows = ["path,value"]
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (picture, value) in enumerate(zip(pictures, values, strict=True)):
            archive.writestr(f"img/{number:04d}.png", png(picture))
            rows.append(f"img/{number:04d}.png,{value}")
        archive.writestr("values.csv", "\n".join(rows))
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def to_tensor(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """As torchvision would: the middle of each, in [0, 1], (x - 0.5) / 0.5."""
    cut = [one.crop(((one.width - SIDE) // 2, 0, (one.width + SIDE) // 2, SIDE)) for one in pictures]
    return torch.from_numpy(np.stack([np.asarray(one, np.float32) for one in cut])[:, None] / 255 - 0.5) / 0.5


def train(
    pictures: Sequence[Image.Image], targets: np.ndarray, outputs: int, loss: Callable[..., torch.Tensor], epochs: int
) -> Net:
    torch.manual_seed(0)
    net, images, labels = Net(outputs).train(), to_tensor(pictures), torch.from_numpy(targets)
    steps = epochs * (len(images) // 32)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(images), (32,), generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        torch.autograd.backward(loss(net(images[rows]), labels[rows]))
        optimiser.step()
        schedule.step()
    return net.eval()


def export(net: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.randn(1, 1, SIDE, SIDE),), file, dynamo=False, opset_version=17)
    return file.getvalue()


SETTINGS: dict[str, Any] = {"mean": [0.5], "std": [0.5]}


@dataclass(frozen=True)
class Own:
    """A home folder that things are brought to."""

    folder: Path

    def network(self, data: bytes, **settings: Any) -> dict[str, Any]:
        """What the job says; `base_key` names what came of it."""
        digest = put_bytes(self.folder / UPLOADS, data)
        return import_network(digest, "mine", ImportSettings.model_validate(SETTINGS | settings), self.folder)

    def dataset(self, *archives: bytes, parent: str | None = None) -> dict[str, Any]:
        """What the job says; `digest` names what came of it."""
        digests = [put_bytes(self.folder / UPLOADS, data) for data in archives]
        return index_dataset(digests, "pictures", parent, self.folder)


def sources(network: dict[str, Any], dataset: dict[str, Any]) -> Sources:
    return Sources(network=network["base_key"], dataset=dataset["digest"])


def own_spec(*objectives: dict[str, str], **changes: Any) -> SearchSpec:
    document = {
        "name": "my own",
        "network": {"name": "mine"},
        "dataset": {"name": "pictures"},
        "space": {"prune_ratio": {"high": 0.5, "step": 0.25}, "precision": {"choices": ["fp32", "w8a8"]}},
        "objectives": [*(objectives or [{"metric": "accuracy", "direction": "maximize"}])],
        "evaluation": {"finalists": {"top": 1, "finetune_epochs": 1.0, "learning_rate": 0.01}},
        "budget": {"trials": 5, "concurrency": 1000},
    }
    return SearchSpec.model_validate(document | changes)
