"""Where a network with other groups begins its training: with the base's weights, regrouped, or with fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.network import Network
from search_spaces.objectives import Metric
from workers.base import Base
from workers.fold import fold_batch_norms
from workers.onnx_writer import write_onnx
from workers.score import run_file, score_outputs
from workers.splits import Split
from workers.transforms.regroup import regroup
from workers.weights import Weights


class Start(StrEnum):
    """What training begins with."""

    REGROUPED = "regrouped"  # the base's weights in the new groups
    SCRATCH = "scratch"


Train = Callable[[Network, Weights | None], Weights]
"""Trains weights further, or fresh ones where there are none yet."""


@dataclass(frozen=True, slots=True)
class Trained:
    """How right a network was before and after it was trained.

    Attributes:
        before, after: values of the score; nobody asks what fresh weights say.
    """

    start: Start
    before: float | None
    after: float


def compare_starts(
    base: Base, design: Design, train: Train, judged: Split, score: str = Metric.ACCURACY
) -> Iterator[Trained]:
    """Train the same network from both starts.

    Args:
        base: a trained network with depthwise or grouped convs.
        design: of group sizes or numbers of groups; all channels stay.
        train: called once for each start.
        judged: what the score is told of; at least one image.
        score: its name.

    Raises:
        DesignError: the design does not fit.
    """
    network = apply(base.network, design)
    for start in Start:
        weights = regroup(network, base.weights) if start is Start.REGROUPED else None
        before = None if weights is None else _score(network, weights, judged, score)
        yield Trained(start, before, _score(network, train(network, weights), judged, score))


def _score(network: Network, weights: Weights, judged: Split, score: str) -> float:
    model = write_onnx(*fold_batch_norms(network, weights))
    return score_outputs([score], run_file(model, judged, network.input), judged.labels)[score]
