"""What a trial is judged by: metrics, objectives and limits, and the Outcome that a trial ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Metric(StrEnum):
    """The numbers that a trial can have, besides scores that are installed. Units are in the names."""

    ACCURACY = "accuracy"  # share of images right, of the split `score`
    TOP5_ACCURACY = "top5_accuracy"
    BALANCED_ACCURACY = "balanced_accuracy"
    F1 = "f1"
    ROC_AUC = "roc_auc"
    MEAN_ABSOLUTE_ERROR = "mean_absolute_error"
    R2 = "r2"
    LATENCY_S = "latency_s"  # of one inference at batch 1, on the device
    ENERGY_J = "energy_j"  # of one inference, on the device
    MEMORY_BYTES = "memory_bytes"  # most that is held at once for one inference, on the device
    SIZE_BYTES = "size_bytes"  # payload at the declared bits
    MACS = "macs"
    PARAMETERS = "parameters"
    ACTIVATION_TRAFFIC_BYTES = "activation_traffic_bytes"
    PEAK_ACTIVATION_BYTES = "peak_activation_bytes"
    ACTIVATION_BYTES = "activation_bytes"  # of the maps of one image, in the activation codec
    ACTIVATION_NONZERO_SHARE = "activation_nonzero_share"  # of the values of all maps


SYMBOLIC_METRICS = frozenset(
    {
        Metric.SIZE_BYTES,
        Metric.MACS,
        Metric.PARAMETERS,
        Metric.ACTIVATION_TRAFFIC_BYTES,
        Metric.PEAK_ACTIVATION_BYTES,
    }
)
"""Known from the applied Network alone, before any work is done."""

MAP_METRICS = frozenset({Metric.ACTIVATION_BYTES, Metric.ACTIVATION_NONZERO_SHARE})
"""Counted in the activation maps of images, once there is a file."""

DEVICE_METRICS = frozenset({Metric.LATENCY_S, Metric.ENERGY_J, Metric.MEMORY_BYTES})
"""Told by a device, and only by one that can. The rest are scores: told from a network's outputs."""


class Provenance(StrEnum):
    """Where a figure comes from. Told with every figure."""

    MEASURED = "measured"
    IMPORTED = "imported"
    SIMULATED = "simulated"
    PREDICTED = "predicted"


class Direction(StrEnum):
    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class TrialState(StrEnum):
    """The life of a trial. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    INFEASIBLE = "infeasible"  # a limit is missed; not an error
    STOPPED = "stopped"  # promised too little at a step before the full evaluation; not an error
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial found.

    Attributes:
        state: SUCCEEDED, INFEASIBLE, STOPPED or FAILED.
        values: by metric name; an infeasible trial has what was known when it was ended, a stopped one those of the
            step that it reached.
        reason: for people, why it is infeasible, stopped or failed; empty otherwise.
        details: JSON-safe evidence: time of each stage in seconds, measurements, executed precisions.
        sources: where each value that a device tells comes from, by metric name.
        rungs: the objectives' values at each step before the full evaluation that it was scored at, in their order;
            empty for a step where one of them could not be told.
        expected: of a stopped trial what its objectives would probably have come to, see `search_spaces.rungs.expect`.
    """

    state: TrialState
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Provenance] = field(default_factory=dict)
    rungs: Sequence[Mapping[str, float]] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
