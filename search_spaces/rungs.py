"""Who goes on to the next step of its evaluation, and who has cost enough: successive halving for several objectives.

The rule is the stopping variant of ASHA (Li et al. 2020): a trial that has been scored at a step is ranked among all
that were scored there before, and goes on if it is within the best share. With several objectives its rank is that of
non-dominated sorting, ties by crowding distance (Deb et al. 2002, section III), so that what is kept lies along the
whole front. Whom nobody dominates goes on in any case: while there are few trials a front is more than a share of them,
and its members are what the search is for. It must not know how a step is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from search_spaces.objectives import Direction
from search_spaces.pareto import Points, Values
from search_spaces.spec import EvaluationSpec, ObjectiveSpec, RungsSpec, StepSpec


@dataclass(frozen=True)
class Standing:
    """What other trials of the search were worth at each step before the full evaluation.

    Attributes:
        steps: for each step a point for each trial that was scored there: the objectives' values in their order.
    """

    steps: Sequence[Sequence[Sequence[float]]]

    def to_json(self) -> list[Any]:
        return [[list(point) for point in points] for points in self.steps]


def standing_from_json(data: list[Any] | None) -> Standing | None:
    """Inverse of `Standing.to_json`; None where a trial is not to be stopped."""
    return None if data is None else Standing(data)


def objectives_of(values: Values, objectives: Sequence[ObjectiveSpec]) -> dict[str, float] | None:
    """The objectives' values in their order; None where one is not known or not finite, and there is no rank."""
    known = {objective.metric: values.get(objective.metric, math.nan) for objective in objectives}
    return known if all(map(math.isfinite, known.values())) else None


def worth_at_steps(
    told: Sequence[Mapping[str, Any]], steps: Sequence[StepSpec], objectives: Sequence[ObjectiveSpec]
) -> tuple[dict[str, float], ...]:
    """What a trial that another search has evaluated in the same way was worth at the steps of this one.

    Args:
        told: the steps that it went through: `score_images`, `finetune_epochs` and the `values` of its objectives.
        steps: those of this search, without the full evaluation.

    Returns:
        for each step the values of this search's objectives; none where it was not scored so, or not all are known.
    """
    known = {(one["score_images"], one["finetune_epochs"]): one["values"] for one in told}
    at_steps = (known.get((step.score_images, step.finetune_epochs), {}) for step in steps)
    return tuple(objectives_of(values, objectives) or {} for values in at_steps)


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a trial stands at a step.

    Attributes:
        front: of non-dominated sorting, from 0.
        place: how many of the others are strictly better.
        trials: how many there are, itself included.
    """

    front: int
    place: int
    trials: int

    def goes_on(self, rungs: RungsSpec) -> bool:
        """Whether it is not dominated, or within the share that goes on, or there are too few trials to tell."""
        return self.front == 0 or self.trials < rungs.least or self.place < rungs.keep * self.trials


def rank_among(values: Values, others: Sequence[Sequence[float]], objectives: Sequence[ObjectiveSpec]) -> Rank:
    """Rank a trial among the points of others (n, objectives).

    Better is who lies on a better front of non-dominated sorting or, on the same front, has more room around it.
    Equal points are equally good, and the order of the others does not matter.
    """
    signs = np.array([-1.0 if objective.direction is Direction.MAXIMIZE else 1.0 for objective in objectives])
    own = np.array([[values[objective.metric] for objective in objectives]])
    points: Points = np.concatenate([np.array(others, np.float64).reshape(-1, len(objectives)), own]) * signs
    fronts = moocore.pareto_rank(points)
    front = points[fronts == fronts[-1]]
    crowding = crowding_distances(front)
    place = int((fronts < fronts[-1]).sum()) + int((crowding > crowding[-1]).sum())
    return Rank(int(fronts[-1]), place, len(points))


def crowding_distances(front: Points) -> NDArray[np.float64]:
    """How much room each point of a front (n, objectives) has, (n,); infinite at the ends of an objective.

    Equal points count once, and all of them get that one's room.
    """
    distinct, which = np.unique(front, axis=0, return_inverse=True)
    room = np.zeros(len(distinct))
    for column in distinct.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            room[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
        room[(column == column[order[0]]) | (column == column[order[-1]])] = np.inf
    told: NDArray[np.float64] = room[which.reshape(-1)]
    return told


def step_faults(evaluation: EvaluationSpec, available_images: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the steps of an evaluation, as (pointer, message).

    Args:
        available_images: of the split `score`.
    """
    if evaluation.rungs is None:
        return
    pointer = "/evaluation/rungs/steps"
    for number, step in enumerate(evaluation.rungs.steps):
        if step.score_images > available_images:
            message = f"the split 'score' has {available_images:,} images; ask for at most that"
            yield f"{pointer}/{number}/score_images", message
    for number, (step, following) in enumerate(pairwise(evaluation.rungs.steps), start=1):
        if not _grows(step, following):
            message = "each step needs more images or more epochs than the one before, and no less of the other"
            yield f"{pointer}/{number}", message
    last, full = evaluation.rungs.steps[-1], evaluation.steps[-1]
    reached = full.model_copy(update={"score_images": min(full.score_images, available_images)})
    if not (_grows(last, reached) or (_is_within(last, reached) and evaluation.quantisation_aware.epochs)):
        whole = f"score_images {reached.score_images}, finetune_epochs {reached.finetune_epochs:g}"
        message = f"this is not less than the full evaluation ({whole}): ask for less here, or for more there"
        yield f"{pointer}/{len(evaluation.rungs.steps) - 1}", message


def _is_within(step: StepSpec, following: StepSpec) -> bool:
    return step.score_images <= following.score_images and step.finetune_epochs <= following.finetune_epochs


def _grows(step: StepSpec, following: StepSpec) -> bool:
    return _is_within(step, following) and step != following
