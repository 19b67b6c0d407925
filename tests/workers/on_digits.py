"""A small search on real images, with its base trained: what the jobs are tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.check import check_spec
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.spec import SearchSpec
from workers.announce import local_known
from workers.datasets import load_dataset
from workers.jobs import prepare
from workers.splits import Splits, make_splits
from workers.try_design import uniform_design

CALIBRATION_IMAGES, SCORE_IMAGES = 144, 80


def digits_document(**changes: Any) -> dict[str, Any]:
    """A spec as a user writes it; so many jobs at once leave one thread to each."""
    return {
        "name": "digits here",
        "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8], "stem_stride": 1},
        "dataset": {"name": "digits"},
        "space": {
            "prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.25},
            "precision": {"choices": ["fp32", "w8a8"], "scope": "block"},
            "group_size": {"choices": [1, 2], "layers": ["*.depthwise"]},
        },
        "objectives": [
            {"metric": "accuracy", "direction": "maximize"},
            {"metric": "size_bytes", "direction": "minimize"},
        ],
        "evaluation": {
            "calibration_images": CALIBRATION_IMAGES,
            "score_images": SCORE_IMAGES,
            "finalists": {"top": 1, "finetune_epochs": 0.5, "learning_rate": 0.01},
        },
        "budget": {"trials": 5, "concurrency": 1000},
    } | changes


def on_local_cpu(**changes: Any) -> dict[str, Any]:
    """The same spec with latency for its second objective."""
    objectives = [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
    ]
    return digits_document(objectives=objectives, **changes)


def digits_spec(**changes: Any) -> SearchSpec:
    return SearchSpec.model_validate(digits_document(**changes))


@dataclass(frozen=True)
class DigitsHome:
    """A home folder with the base of `digits_spec()` in it, and what the job that trained it said."""

    folder: Path
    prepared: dict[str, Any]

    @property
    def key(self) -> str:
        key: str = self.prepared["base_key"]
        return key

    @property
    def splits(self) -> Splits:
        return make_splits(load_dataset("digits", self.folder))


def make_digits_home(folder: Path) -> DigitsHome:
    return DigitsHome(folder, prepare(digits_spec(), Sources(), folder))


def half(precision: str, group_size: int | None = None) -> Design:
    """Every layer to half of its channels."""
    space = check_spec(digits_spec(), local_known()).space
    return uniform_design(space, 0.5, precision, group_size)
