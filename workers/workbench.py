"""What the jobs of one search work with, kept warm between jobs: splits, base, base activations, anchor.

Everything is a function of the spec and of files in the home folder; nothing is remembered that cannot be
read or computed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from search_spaces.precision import Precision
from search_spaces.spec import SearchSpec
from workers.anchor import get_anchor_in
from workers.base import Base, load_base
from workers.datasets import load_dataset
from workers.hardware import DEVICES
from workers.hardware.base import Anchor, Device
from workers.host_lock import training
from workers.splits import Splits, make_splits, normalise
from workers.transforms.reconstruct import Observed, observe


class DeviceUnavailableError(RuntimeError):
    """This worker does not have the device that the spec names."""


@dataclass(frozen=True)
class Workbench:
    """What candidates of a search are made from and scored with. Shared between jobs: read, never changed.

    Attributes:
        observed: the base on the calibration images.
        device: what latency is told by; None when the spec names no device.
        anchor_in: the device's anchor in a precision.
        threads: for torch and ONNX Runtime, one job's share of the machine.
    """

    spec: SearchSpec
    splits: Splits
    base: Base
    observed: Observed
    device: Device | None
    anchor_in: Callable[[Precision], Anchor]
    threads: int


def set_up(spec: SearchSpec, base_key: str, home: Path) -> Workbench:
    """Load what `prepare` has left in the home folder.

    Raises:
        BaseUnavailableError: the base is not there.
        DeviceUnavailableError: the spec's device is not on this machine.
    """
    threads = use_threads(spec)
    base, splits = _base(base_key, home), splits_of(spec.dataset.name, home)
    images = min(spec.evaluation.calibration_images, len(splits.calibrate))
    observed = _observed(base_key, spec.dataset.name, home, images)
    device = None if spec.device is None else device_called(spec.device)

    def anchor_in(precision: Precision) -> Anchor:
        assert spec.device is not None, "only a device measures"
        return _anchor(base_key, precision, spec.dataset.name, images, spec.device, home)

    return Workbench(spec, splits, base, observed, device, anchor_in, threads)


def use_threads(spec: SearchSpec) -> int:
    """Set torch to one job's share of the cores, and return it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // spec.budget.concurrency)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


@lru_cache(maxsize=1)
def splits_of(dataset: str, home: Path) -> Splits:
    return make_splits(load_dataset(dataset, home))


@lru_cache
def device_called(name: str) -> Device:
    """The device of that name on this machine.

    Raises:
        DeviceUnavailableError: there is none.
    """
    if name not in DEVICES:
        raise DeviceUnavailableError(f"this worker has no device {name!r}; it has {', '.join(DEVICES)}")
    return DEVICES[name]()


@lru_cache(maxsize=2)
def _base(key: str, home: Path) -> Base:
    return load_base(key, home)


@lru_cache(maxsize=4)
def _anchor(key: str, precision: Precision, dataset: str, images: int, device: str, home: Path) -> Anchor:
    observed = _observed(key, dataset, home, images)
    return get_anchor_in(_base(key, home), precision, observed.images, device_called(device), home)


@lru_cache(maxsize=1)  # up to some hundred megabytes each
def _observed(key: str, dataset: str, home: Path, images: int) -> Observed:
    base = _base(key, home)
    calibration = splits_of(dataset, home).calibrate.first(images)
    with training():
        return observe(base.network, base.weights, normalise(calibration.images, base.network.input))
