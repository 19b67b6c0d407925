"""What the jobs of one search work with, kept warm between jobs: splits, base, base activations, anchor.

Everything is a function of the spec, of what its names stand for, and of files in the home folder; nothing is
remembered that cannot be read or computed again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from search_spaces.check import scores_of
from search_spaces.datasets import DatasetInfo
from search_spaces.design import Design, Kind
from search_spaces.extensions import look_up
from search_spaces.known import Sources
from search_spaces.methods import method_of
from search_spaces.network import Network, infer_shapes
from search_spaces.objectives import Direction
from search_spaces.precision import Precision
from search_spaces.scores import installed_scores
from search_spaces.spec import Calibration, SearchSpec
from workers.anchor import get_anchor_in
from workers.base import Base
from workers.candidate import Quantising
from workers.hardware import open_device
from workers.hardware.base import Anchor, Device
from workers.hardware.named import offered_devices
from workers.host_lock import training
from workers.importance import Evidence, Importance, installed_importances
from workers.material import base_of, dataset_of, splits_of
from workers.progress import do_nothing
from workers.splits import Splits, normalise
from workers.transforms.reconstruct import Observed, observe


@dataclass(frozen=True)
class Workbench:
    """What candidates of a search are made from and scored with. Shared between jobs: read, never changed.

    Attributes:
        dataset: what the splits are of.
        scores: names of what is told of outputs, the main one of the task first.
        observed: the base on the calibration images.
        device: what latency is told by; None when the spec names no device.
        anchor_in: the device's anchor in a precision.
        home: where everything is.
        threads: for torch and ONNX Runtime, one job's share of the machine.
    """

    spec: SearchSpec
    dataset: DatasetInfo
    splits: Splits
    base: Base
    scores: tuple[str, ...]
    observed: Observed
    device: Device | None
    anchor_in: Callable[[Precision], Anchor]
    home: Path
    threads: int

    @property
    def main_score(self) -> str:
        """What decides where one score has to: the first objective that is one, else the main one of the task."""
        objectives = (str(objective.metric) for objective in self.spec.objectives)
        return next((name for name in objectives if name in self.scores), self.scores[0])

    @property
    def main_direction(self) -> Direction:
        direction: Direction = look_up("metric", self.main_score, installed_scores()).info.direction
        return direction

    def atom_scores(self, importance: str, yield_to: Callable[[], None] = do_nothing) -> np.ndarray:
        """How much each atom of the base matters, (atoms,); told once. The caller holds `training`.

        Args:
            yield_to: called between batches, where there are any; it may take its time.

        Raises:
            NotInstalledError: this machine has no such importance.
            NoGradientError: it needs a gradient, and the network lets none through.
        """
        seen = (self.splits.train.digest, self.splits.calibrate.digest, len(self.observed.images))
        key = (self.base.key, *seen, self.threads, importance)
        if key not in _told_scores:
            evidence = Evidence(self.observed, self.splits.train, yield_to)
            _told_scores[key] = _importance_called(importance).atom_scores(
                self.base.network, self.base.weights, evidence
            )
            while len(_told_scores) > _MOST_SCORES:
                del _told_scores[next(iter(_told_scores))]
        return _told_scores[key]

    def quantising_of(self, design: Design) -> Quantising:
        """How a design is brought to its precisions. Raises `DesignError`: there is no such method."""
        calibration = Calibration(method_of(design, Kind.CALIBRATION, self.spec))
        return Quantising(calibration, self.spec.evaluation.bias_correction)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the network's outputs; empty where nobody knows them."""
        return self.base.class_names or self.dataset.class_names


def set_up(spec: SearchSpec, sources: Sources, base_key: str, home: Path) -> Workbench:
    """Load what `prepare` has left in the home folder.

    Raises:
        BaseUnavailableError: the base is not there.
        DatasetUnavailableError: the data set is not there.
        NotInstalledError: the spec's device is not on this machine.
    """
    threads = use_threads(spec)
    base, dataset = base_of(base_key, home), dataset_of(spec, sources, home)
    splits = splits_of(spec, sources, base.network.input, base.class_names, home)
    observed = _observe(base, splits, count_calibration(spec, base.network))
    device = None if spec.device is None else device_called(spec.device)

    def anchor_in(precision: Precision) -> Anchor:
        assert device is not None, "only a device measures"
        return _anchor(base, precision, observed, device, home)

    return Workbench(
        spec=spec,
        dataset=dataset,
        splits=splits,
        base=base,
        scores=scores_of(spec, dataset),
        observed=observed,
        device=device,
        anchor_in=anchor_in,
        home=home,
        threads=threads,
    )


def use_threads(spec: SearchSpec) -> int:
    """Set torch to one job's share of the cores, and return it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // spec.budget.concurrency)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


_WIDEST_BYTES = 2 * 2**30


def count_calibration(spec: SearchSpec, network: Network) -> int:
    """How many calibration images are used: as the spec says, else the usual number if memory allows it.

    Reconstruction has one layer's inputs and outputs of all images in memory at once.
    """
    asked, usual = spec.evaluation.calibration_images, spec.evaluation.most_calibration_images
    if asked is not None:
        return asked
    shapes = infer_shapes(network)
    sizes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}
    widest = max(sizes[node.name] + sum(sizes[name] for name in node.inputs) for node in network.nodes)
    return max(min(usual, _WIDEST_BYTES // widest), 16)


@lru_cache
def device_called(name: str) -> Device:
    """The device of that name on this machine. Raises `NotInstalledError`."""
    return open_device(name, offered_devices())


_told_scores: dict[tuple[object, ...], np.ndarray] = {}
"""By all that they depend on; kept without the images."""
_MOST_SCORES = 64


def _importance_called(name: str) -> Importance:
    importance: Importance = look_up("importance", name, installed_importances())()
    return importance


@lru_cache(maxsize=4)
def _anchor(base: Base, precision: Precision, observed: Observed, device: Device, home: Path) -> Anchor:
    return get_anchor_in(base, precision, observed.images, device, home)


@lru_cache(maxsize=1)  # up to some hundred megabytes each
def _observe(base: Base, splits: Splits, images: int) -> Observed:
    with training():
        calibration = normalise(splits.calibrate.first(images).images, base.network.input)
        return observe(base.network, base.weights, calibration)
