"""Pruning in rounds: train a little, score what is left, prune, and again (Lubana and Dick, ICLR 2021).

A plain function of data, for experiments; searches prune a trained base at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.network import Network
from search_spaces.ranking import (
    LEAST_SHARE,
    PruningSchedule,
    Ranking,
    count_filters,
    filters_left,
    keep_filters,
    protect_last,
)
from search_spaces.spec import Reconstruct
from workers.importance.base import Evidence, Importance
from workers.splits import Split
from workers.transforms.prune import choose_channels, slice_weights
from workers.transforms.reconstruct import Observed, observe, reconstruct
from workers.weights import Weights

TrainRound = Callable[[Network, Weights, int], Weights]
"""What is trained before round `number`, from 1, prunes; may return the weights as they are."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How a network is pruned.

    Attributes:
        ratio: share of its filters that goes in all.
        rounds: 1 is one-shot.
        ranking: where channels compete.
        schedule: how the ratio is spread; of the published code's, `PAPER_CODE` also caps layers as it does.
        reconstruct: how weights are repaired after each pruning.
        divisor: what kept channel counts must be a multiple of.
        least_share: of each channel group that stays at least; not with `PAPER_CODE`, which has its cap.
    """

    ratio: float
    rounds: int = 1
    ranking: Ranking = Ranking.GLOBAL
    schedule: PruningSchedule = PruningSchedule.EXACT
    reconstruct: Reconstruct = Reconstruct.NONE
    divisor: int = 1
    least_share: float = LEAST_SHARE


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What is left. Attributes: filters: how many there were, and were left after each round."""

    network: Network
    weights: Weights
    filters: tuple[int, ...]


def prune_in_rounds(
    network: Network,
    weights: Weights,
    importance: Importance,
    images: np.ndarray,
    train: Split,
    plan: Rounds,
    train_round: TrainRound,
) -> Pruned:
    """Train, score and prune, `plan.rounds` times.

    Args:
        network, weights: to begin with: trained, or first weights.
        importance: scores what is there in each round.
        images: for calibration, normalised float32 (count, channels, height, width).
        train: labelled images that importances may look at.
        plan: how much goes when.
        train_round: called before each round's pruning.

    Raises:
        ValueError: the plan's ratio or number of rounds.
    """
    counts = [count_filters(network)]
    for number, wanted in enumerate(filters_left(counts[0], plan.ratio, plan.rounds, plan.schedule), start=1):
        weights = train_round(network, weights, number)
        evidence = Evidence(observe(network, weights, images), train)
        scores = importance.atom_scores(network, weights, evidence)
        least_share = plan.least_share
        if plan.schedule is PruningSchedule.PAPER_CODE:
            scores, least_share = protect_last(network, scores), 0.0
        design = keep_filters(network, wanted, scores, plan.ranking, plan.divisor, least_share)
        network, weights = prune(network, weights, design, scores, evidence.observed, plan.reconstruct)
        counts.append(count_filters(network))
    return Pruned(network, weights, tuple(counts))


def prune(
    network: Network, weights: Weights, design: Design, scores: np.ndarray, observed: Observed, method: Reconstruct
) -> tuple[Network, Weights]:
    """The network that a design of channel counts leads to, and its weights: sliced, then repaired."""
    applied, kept = apply(network, design), choose_channels(network, design, scores)
    sliced = slice_weights(network, weights, kept)
    return applied, reconstruct(network, applied, sliced, kept, observed, method)
