"""Which trials must find the same: a key of all that decides what a design is found to be, whatever search it is in.

It is strict: where it is not known that something makes no difference, keys differ and the design is tried again.
What an outcome is judged by afterwards (limits, objectives, sampler, budget, finalists) is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.design import METHOD_KINDS, METHOD_TARGET, Design, decision_name
from search_spaces.known import Sources
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS
from search_spaces.spec import EvaluationSpec, NetworkSpec, SearchSpec

FORMAT_VERSION = 1
"""Part of every key: raise it when a design that is tried in the same way no longer finds the same."""

SEEN_SPLITS = ("train", "calibrate", "score")
"""What a trial is made from and judged on; `confirm` and `test` are for later."""

_METHODS = sorted(METHOD_KINDS)
_OF_OTHER_STEPS = ("finalists", "measure", "rungs")
"""Of an evaluation: what is done to the best afterwards, when a device is asked, and cheap steps before: a trial that
goes all the way ends with the same weights as without them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the designs of a search are tried in, as far as its spec does not say it.

    Attributes:
        base_key: of the base: its network, its weights and where they come from.
        splits: digests of `SEEN_SPLITS`, by name.
        threads: that one job computes with: sums in another order end in other digits.
        versions: of what computes, by name.
        fingerprint_digest: of the device that is asked; empty where none is.
    """

    base_key: str
    splits: Mapping[str, str]
    threads: int
    versions: Mapping[str, str]
    fingerprint_digest: str = ""


def setting_digest(spec: SearchSpec, sources: Sources, setting: Setting) -> str:
    """SHA-256 of all that the outcomes of a search's designs depend on, but for the designs themselves.

    How thoroughly they are tried is in it, as `evaluation` says it: images that are scored, epochs of fine-tuning.
    """
    evaluation = spec.evaluation.model_dump(mode="json", exclude={*_METHODS, *_OF_OTHER_STEPS})
    # An imported network is its base, by whatever name; one of the catalog also says how it is trained on.
    network = spec.network.model_dump(mode="json") if isinstance(spec.network, NetworkSpec) else sources.network
    return _digest(
        {
            "format": FORMAT_VERSION,
            "setting": {**asdict(setting), "splits": dict(setting.splits), "versions": dict(setting.versions)},
            "network": network,
            "recipe": spec.recipe.model_dump(mode="json"),
            "dataset": [spec.dataset.name, sources.dataset],
            "evaluation": evaluation,
            "device": spec.device,
            "told_by_device": sorted(spec.device_metrics),
            "scores": _scores(spec),
            "maps": bool(spec.why_maps),
        }
    )


def outcome_key(setting: str, evaluation: EvaluationSpec, design: Design, design_key: str) -> str:
    """SHA-256 of all that a trial's outcome depends on.

    Args:
        setting: what `setting_digest` tells of the search.
        evaluation: of the search's spec; says the methods that the design does not.
        design: the trial's.
        design_key: of it, see `search_spaces.design_keys`.
    """
    unnamed = [kind for kind in _METHODS if decision_name(kind, METHOD_TARGET) not in design]
    methods = {str(kind): str(getattr(evaluation, kind)) for kind in unnamed}
    return _digest({"setting": setting, "methods": methods, "design": design_key})


def _scores(spec: SearchSpec) -> list[str]:
    """What is told of outputs beside the main score, which the data set decides."""
    return sorted(spec.judged_metrics - DEVICE_METRICS - SYMBOLIC_METRICS - MAP_METRICS)


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
