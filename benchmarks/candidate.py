"""What one candidate costs, stage by stage, and what the same candidate costs by hand, in the same run.

By hand means what a good engineer would write with the usual tools: torch-pruning, hooks and torch.linalg, torch's
exporter, ONNX Runtime's quantize_static, scoring in torch with channels_last. Both sides prune the demo's network to
the same counts, use the same images, the same number of sampled rows and as many threads, and take turns. Measuring
latency is left out of both. Prints tables and writes benchmarks/results/candidate.json.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch_pruning
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from search_spaces.apply import apply
from search_spaces.check import check_spec
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.network import infer_shapes
from search_spaces.parse import parse_document, parse_spec
from search_spaces.spec import SearchSpec
from service.config import get_settings
from workers.announce import local_known
from workers.candidate import timed
from workers.jobs import evaluate, prepare
from workers.splits import Split, normalise
from workers.transforms.reconstruct import MIN_ROWS, RIDGE, ROWS_PER_UNKNOWN
from workers.transforms.sample import POSITIONS_PER_IMAGE
from workers.try_design import uniform_design
from workers.weights import BATCH_NORM_EPSILON, Weights
from workers.workbench import Workbench, set_up

SPEC = Path(__file__).parent.parent / "examples" / "mobilenet_v1_fashion_mnist.yaml"
RESULTS = Path(__file__).parent / "results" / "candidate.json"
RATIO = 0.5
PRECISIONS = ("w8a8", "fp32")
ROUNDS = 5
SESSION_STAGES = {
    "ours": ("slice", "fold", "write", "check"),
    "by_hand": ("prune", "export", "quantise", "open"),
}
"""From a design to a session that is ready to run. Checking what executes opens the session."""
TARGETS = {"session": 10.0, "candidate": 2.5}

_CALIBRATION_BATCH = 50
_SCORING_BATCH = 100


@dataclass(frozen=True)
class Timing:
    """One candidate: seconds of each stage and of all but measuring, and the share of images right."""

    stage_s: Mapping[str, float]
    total_s: float
    accuracy: float


def main() -> None:
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*ONNX")
    spec, home = read_spec(), get_settings().home.expanduser()
    key = prepare(spec, Sources(), home)["base_key"]
    bench = set_up(spec, Sources(), key, home)
    by_hand = ByHand(bench)
    rows = [compare(spec, key, home, bench, by_hand, precision) for precision in PRECISIONS]
    RESULTS.parent.mkdir(exist_ok=True)
    protocol = {
        "spec": SPEC.name,
        "ratio": RATIO,
        "rounds": ROUNDS,
        "calibration_images": spec.evaluation.calibration_images,
        "score_images": spec.evaluation.score_images,
        "threads": bench.threads,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "torch-pruning", "onnx", "onnxruntime")},
    }
    RESULTS.write_text(json.dumps({"protocol": protocol, "targets": TARGETS, "rows": rows}, indent=2) + "\n")
    for row in rows:
        show(row)


def read_spec() -> SearchSpec:
    """The demo's spec without its limits: a candidate that misses one would be ended before it is made."""
    spec = parse_spec(parse_document(SPEC.read_bytes(), yaml=True))
    return spec.model_copy(update={"limits": ()})


def compare(
    spec: SearchSpec, key: str, home: Path, bench: Workbench, by_hand: ByHand, precision: str
) -> dict[str, Any]:
    """Take turns; the first turn warms both sides up and is dropped. Medians of each stage and of the totals."""
    space = check_spec(spec, local_known()).space
    design = uniform_design(space, RATIO, precision, None)
    turns: dict[str, list[Timing]] = {"ours": [], "by_hand": []}
    for _ in track(range(ROUNDS + 1), description=f"{precision} candidates", transient=True):
        turns["ours"].append(ours(spec, design, key, home))
        turns["by_hand"].append(by_hand.make(design, precision))
    sides = {side: summarise(timings[1:], SESSION_STAGES[side]) for side, timings in turns.items()}
    ratios = {what: round(sides["by_hand"][f"{what}_s"] / sides["ours"][f"{what}_s"], 2) for what in TARGETS}
    return {"precision": precision, **sides, "times_less": ratios}


def summarise(timings: list[Timing], session_stages: tuple[str, ...]) -> dict[str, Any]:
    sessions_s = [sum(timing.stage_s.get(stage, 0.0) for stage in session_stages) for timing in timings]
    return {
        "stage_s": {name: round(median(t.stage_s[name] for t in timings), 4) for name in timings[0].stage_s},
        "session_s": round(median(sessions_s), 4),
        "candidate_s": round(median(timing.total_s for timing in timings), 4),
        "accuracy": timings[0].accuracy,
    }


def ours(spec: SearchSpec, design: Design, key: str, home: Path) -> Timing:
    """The whole job as a worker runs it."""
    begun_s = perf_counter()
    outcome = evaluate(spec, Sources(), design, key, home)
    total_s = perf_counter() - begun_s
    stage_s = outcome.details["stage_s"]
    return Timing(stage_s, total_s - stage_s["measure"], outcome.values["accuracy"])


# --- by hand ----------------------------------------------------------------------------------------------------


class MobileNet(nn.Module):
    """MobileNet-V1 as anybody writes it; the stem has stride 1."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
        channels = int(32 * width)
        layers = [*conv_norm_relu(1, channels, 3)]
        for full_width, stride in plan:
            outputs = int(full_width * width)
            layers += conv_norm_relu(channels, channels, 3, stride, groups=channels)
            layers += conv_norm_relu(channels, outputs, 1)
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]

    def norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPSILON), nn.ReLU(inplace=True)]


def load_base(model: MobileNet, names: list[str], weights: Weights) -> None:
    """Copy the base's weights; `names` are its convs and its classifier in the order they are computed."""
    with torch.no_grad():
        for name, layer in zip(names, model.layers(), strict=True):
            layer.weight.copy_(torch.from_numpy(weights[f"{name}.weight"]))
        model.classifier.bias.copy_(torch.from_numpy(weights[f"{names[-1]}.bias"]))
        for name, norm in zip(names, model.norms(), strict=False):
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, part).copy_(torch.from_numpy(weights[f"{name}.norm.{part}"]))


@dataclass
class Rows:
    """Where one conv is sampled, position by position, and what the base puts out there (rows, channels)."""

    image: Tensor
    y: Tensor
    x: Tensor
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))


class ByHand:
    """What an engineer keeps between candidates: the model, its sampled outputs, and images as tensors."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        network = bench.base.network
        self.names = [node.name for node in network.compute_nodes()]
        classes = infer_shapes(network)[network.output][0]
        self.model = MobileNet(bench.spec.network.width, classes).eval()
        load_base(self.model, self.names, bench.base.weights)
        self.calibration = bench.observed.images
        self.calibration_tensor = as_tensor(self.calibration)
        split = bench.splits.score.first(bench.spec.evaluation.score_images)
        self.images, self.labels = scoring_tensors(split, bench)
        self.rows: dict[int, Rows] = {}
        self._observe()

    def make(self, design: Design, precision: str) -> Timing:
        stage_s: dict[str, float] = {}
        begun_s = perf_counter()
        with timed(stage_s, "prune"):
            model, kept = self._prune(design)
        with timed(stage_s, "reconstruct"):
            self._reconstruct(model, kept)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "float.onnx"
            with timed(stage_s, "export"):
                export(model, self.calibration_tensor[:1], path)
            if precision != "fp32":
                path = quantise(path, self.calibration, stage_s)
            with timed(stage_s, "open"):
                open_session(path, self.bench.threads)
        with timed(stage_s, "score"):
            accuracy = self._score(model)
        return Timing(stage_s, perf_counter() - begun_s, accuracy)

    def _observe(self) -> None:
        """Run the base once, and keep its outputs at some positions drawn at random."""
        generator = torch.Generator().manual_seed(0)
        handles = []
        for index, layer in enumerate(self.model.layers()):

            def keep(_layer: nn.Module, _inputs: Any, outputs: Tensor, index: int = index) -> None:
                if outputs.dim() == 2:
                    nothing = torch.empty(0)
                    self.rows[index] = Rows(nothing, nothing, nothing, outputs.clone())
                    return
                rows = draw_rows(outputs, generator)
                rows.outputs = outputs[rows.image, :, rows.y, rows.x]
                self.rows[index] = rows

            handles.append(layer.register_forward_hook(keep))
        with torch.inference_mode():
            self.model(self.calibration_tensor)
        for handle in handles:
            handle.remove()

    def _prune(self, design: Design) -> tuple[MobileNet, dict[nn.Module, Tensor]]:
        """The pruned copy, and which of its own channels each layer has kept."""
        shapes = infer_shapes(apply(self.bench.base.network, design))
        model = copy.deepcopy(self.model)
        ratios = {
            layer: 1 - shapes[name][0] / layer.weight.shape[0]
            for name, layer in zip(self.names, model.layers(), strict=True)
            if isinstance(layer, nn.Conv2d) and layer.groups == 1 and shapes[name][0] < layer.weight.shape[0]
        }
        whole = [layer for layer in model.layers() if layer not in ratios and getattr(layer, "groups", 1) == 1]
        kept = {layer: torch.arange(layer.weight.shape[0]) for layer in model.layers()}
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            self.calibration_tensor[:1],
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.0,
            pruning_ratio_dict=ratios,
            ignored_layers=whole,
            round_to=16,
        )
        for group in pruner.step(interactive=True):
            for dependency, removed in group:
                layer = dependency.target.module
                if layer in kept and pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                    remains = torch.ones(len(kept[layer]), dtype=torch.bool)
                    remains[list(removed)] = False
                    kept[layer] = kept[layer][remains]
            group.prune()
        expected = [shapes[name][0] for name in self.names]
        assert [layer.weight.shape[0] for layer in model.layers()] == expected, "pruned to other counts"
        return model, kept

    def _reconstruct(self, model: MobileNet, kept: Mapping[nn.Module, Tensor]) -> None:
        """One pass: each layer that has lost inputs, or comes after one, is fitted just before it computes."""
        norms = [*model.norms(), None]
        base = self.model.layers()
        changed = False
        handles = []
        for index, (layer, norm) in enumerate(zip(model.layers(), norms, strict=True)):
            mixes = isinstance(layer, nn.Linear) or layer.groups == 1
            changed |= mixes and layer.weight.shape[1] < base[index].weight.shape[1]
            if not changed:
                continue

            def fit(
                layer: nn.Module, inputs: tuple[Tensor], index: int = index, norm: nn.BatchNorm2d | None = norm
            ) -> None:
                fit_layer(layer, norm, inputs[0], self.rows[index], kept[layer])

            handles.append(layer.register_forward_pre_hook(fit))
        with torch.no_grad():
            model(self.calibration_tensor)
        for handle in handles:
            handle.remove()

    def _score(self, model: MobileNet) -> float:
        model.to(memory_format=torch.channels_last)
        correct = 0
        with torch.inference_mode():
            batches = zip(self.images.split(_SCORING_BATCH), self.labels.split(_SCORING_BATCH), strict=True)
            for images, labels in batches:
                correct += int((model(images).argmax(1) == labels).sum())
        return correct / len(self.labels)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


def scoring_tensors(split: Split, bench: Workbench) -> tuple[Tensor, Tensor]:
    return as_tensor(normalise(split.images, bench.base.network.input)), torch.from_numpy(split.labels)


def draw_rows(outputs: Tensor, generator: torch.Generator) -> Rows:
    """As many positions of each image as we sample, all images at their first position, then at their second."""
    images, _, height, width = outputs.shape
    count = min(height * width, POSITIONS_PER_IMAGE)
    cells = torch.rand((images, height * width), generator=generator).argsort(1)[:, :count].T.reshape(-1)
    return Rows(torch.arange(images).repeat(count), cells // width, cells % width)


def fit_layer(layer: nn.Module, norm: nn.BatchNorm2d | None, inputs: Tensor, rows: Rows, kept: Tensor) -> None:
    """Ridge regression on the base's outputs, shrunk towards the pruned weights; the norm takes the intercept."""
    unknowns = layer.weight[0].numel()
    count = min(len(rows.outputs), max(MIN_ROWS, ROWS_PER_UNKNOWN * unknowns))
    goal = rows.outputs[:count, kept]
    if isinstance(layer, nn.Linear):
        solution, intercept = solve(inputs[:count][None], goal[None], layer.weight.T[None])
        layer.weight.copy_(solution[0].T)
        layer.bias.copy_(intercept)
        return
    taps = gather_taps(layer, inputs, rows, count)  # (rows, taps, channels)
    if layer.groups > 1:
        start = layer.weight.flatten(1)[:, :, None]
        solution, intercept = solve(taps.permute(2, 0, 1), goal.T[:, :, None], start)
    else:
        start = layer.weight.permute(0, 2, 3, 1).flatten(1).T[None]
        solution, intercept = solve(taps.flatten(1)[None], goal[None], start)
    if layer.groups > 1:
        layer.weight.copy_(solution[:, :, 0].view_as(layer.weight))
    else:
        outputs, inputs_per_output, height, width = layer.weight.shape
        layer.weight.copy_(solution[0].T.view(outputs, height, width, inputs_per_output).permute(0, 3, 1, 2))
    norm.running_mean.sub_(intercept)


def gather_taps(layer: nn.Conv2d, inputs: Tensor, rows: Rows, count: int) -> Tensor:
    """im2col at the sampled positions only."""
    image, y, x = rows.image[:count], rows.y[:count], rows.x[:count]
    (pad_y, pad_x), (stride_y, stride_x) = layer.padding, layer.stride
    padded = nn.functional.pad(inputs, (pad_x, pad_x, pad_y, pad_y)) if pad_x or pad_y else inputs
    cells = padded.permute(0, 2, 3, 1)
    height, width = layer.kernel_size
    taps = [cells[image, y * stride_y + i, x * stride_x + j] for i in range(height) for j in range(width)]
    return torch.stack(taps, 1)


def solve(X: Tensor, Y: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    """(groups, rows, unknowns) and (groups, rows, outputs) to weights like `start`, and intercepts."""
    mean_x, mean_y = X.mean(1, keepdim=True), Y.mean(1, keepdim=True)
    X, Y = X - mean_x, Y - mean_y  # noqa: N806
    gram = (X.mT @ X).double()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    ridge = RIDGE * diagonal.mean(1) + 1e-30
    diagonal += ridge[:, None]
    cross = (X.mT @ (Y - X @ start)).double()
    solution = start + torch.linalg.solve(gram, cross).float()
    return solution, (mean_y - mean_x @ solution).flatten()


def export(model: MobileNet, example: Tensor, path: Path) -> None:
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


class Reader(CalibrationDataReader):
    """Hands out calibration images and remembers how long it took until all were used."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, max(1, len(images) // _CALIBRATION_BATCH)))
        self._begun_s = 0.0
        self.used_s = 0.0

    def get_next(self) -> dict[str, np.ndarray] | None:
        self._begun_s = self._begun_s or perf_counter()
        batch = next(self._batches, None)
        if batch is None:
            self.used_s = perf_counter() - self._begun_s
            return None
        return {"image": batch}


def quantise(path: Path, images: np.ndarray, stage_s: dict[str, float]) -> Path:
    """QDQ, per channel. Running the calibration images is told apart: our session's time has no calibration either."""
    target = path.with_name("int8.onnx")
    reader = Reader(images)
    begun_s = perf_counter()
    quantize_static(
        str(path),
        str(target),
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    stage_s["calibrate"] = reader.used_s
    stage_s["quantise"] = perf_counter() - begun_s - reader.used_s
    return target


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


# --- report -----------------------------------------------------------------------------------------------------


def show(row: dict[str, Any]) -> None:
    console = Console()
    for side, title in {"ours": "Espalier", "by_hand": "By hand"}.items():
        table = Table(title=f"{title}, uniform {RATIO:.0%} {row['precision']}, ms")
        stages = {
            **row[side]["stage_s"],
            "session": row[side]["session_s"],
            "all but measure": row[side]["candidate_s"],
        }
        for name in stages:
            table.add_column(name, justify="right")
        table.add_row(*(f"{1000 * seconds:.0f}" for seconds in stages.values()))
        console.print(table, f"accuracy {row[side]['accuracy']:.4f}")
    for what, target in TARGETS.items():
        if what == "session" and row["precision"] == "fp32":
            continue  # the target is for integers
        console.print(f"{what}: {row['times_less'][what]:.1f} times less than by hand (target {target:g})")


if __name__ == "__main__":
    main()
