"""Who goes on to the next step of its evaluation, and who has cost enough.

There are two rules. Without a share to keep, a trial goes on while going on pays. Trials that were evaluated in full
have told how much they gained from a step to the end; those that stood nearest foretell what this one may come to, and
so by how much it may be expected to improve the hypervolume. It goes on if that is no less than what the same seconds
have brought lately, and is stopped if seconds are better spent on the next design: the marginal value theorem
(Charnov 1976), by which a forager leaves a patch. What the training does not change (sizes, operations) gains nothing,
and so is known.

With a share, the rule is the stopping variant of ASHA (Li et al. 2020) for several objectives: a trial that has been
scored at a step is ranked among all that were scored there before, and goes on if it is within the best share. Its rank
is that of non-dominated sorting, ties by crowding distance (Deb et al. 2002, section III), so that what is kept lies
along the whole front. Whom nobody dominates goes on in any case: while there are few trials a front is more than a
share of them, and its members are what the search is for. It must not know how a step is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from search_spaces.objectives import Direction
from search_spaces.pareto import Points, Values, hypervolume, reference_point
from search_spaces.quality import is_share
from search_spaces.spec import EvaluationSpec, ObjectiveSpec, RungsSpec, StepSpec

Point = Sequence[float]
"""The objectives' values in their order."""

NEAREST = 5
"""Trials that foretell what another will come to."""
LATELY, FEW = 20, 5
"""Trials that tell what seconds bring, and how many they must be."""


@dataclass(frozen=True)
class Ended:
    """A trial that is over, as far as others are judged by it.

    Attributes:
        at_steps: its point at each step before the full evaluation that it was scored at, by number from 0.
        full: its point in the end, if it was evaluated in full and met the limits.
        stopped_at: the step that it was stopped at, from 0; None for others.
        seconds: of evaluators, that it took.
        is_own: whether a sampler proposed it and it was evaluated for this search.
    """

    at_steps: Mapping[int, Point]
    full: Point | None
    stopped_at: int | None
    seconds: float
    is_own: bool


@dataclass(frozen=True)
class Standing:
    """What other trials of the search were worth, and what they took.

    Attributes:
        steps: at each step before the full evaluation, a point for each trial that was scored there.
        pairs: for each step, of each trial that was also evaluated in full, its point there and the one in the end.
        full: the point of each trial that was evaluated in full and met the limits.
        seconds: of a trial that ended at each step, the full evaluation last; the mean, 0 where none did.
        lately_s: of the last `LATELY` trials of the sampler, each.
        lately_full: how many of these were evaluated in full: their points are the last of `full`.
    """

    steps: Sequence[Sequence[Point]]
    pairs: Sequence[Sequence[Sequence[Point]]]
    full: Sequence[Point]
    seconds: Sequence[float] = ()
    lately_s: Sequence[float] = ()
    lately_full: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def stand(trials: Sequence[Ended], steps: int) -> Standing:
    """Sum up the trials of a search, in the order in which they ended, for one that goes through so many steps."""
    at_steps: list[list[Point]] = [[] for _ in range(steps)]
    pairs: list[list[list[Point]]] = [[] for _ in range(steps)]
    for trial in trials:
        for number, here in trial.at_steps.items():
            at_steps[number].append(here)
            if trial.full is not None:
                pairs[number].append([here, trial.full])
    own = [trial for trial in trials if trial.is_own]
    given = [trial for trial in trials if not trial.is_own]
    taken = [[one.seconds for one in trials if one.stopped_at == number and one.seconds > 0] for number in range(steps)]
    taken.append([one.seconds for one in trials if one.full is not None and one.seconds > 0])
    return Standing(
        steps=at_steps,
        pairs=pairs,
        full=[trial.full for trial in given + own if trial.full is not None],
        seconds=[sum(each) / len(each) if each else 0.0 for each in taken],
        lately_s=[trial.seconds for trial in own[-LATELY:]],
        lately_full=sum(trial.full is not None for trial in own[-LATELY:]),
    )


def standing_from_json(data: dict[str, Any] | None) -> Standing | None:
    """Inverse of `Standing.to_json`; None where a trial is not to be stopped."""
    return None if data is None else Standing(**data)


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


def why_stopped(
    values: Values, number: int, standing: Standing, rungs: RungsSpec, objectives: Sequence[ObjectiveSpec]
) -> str | None:
    """Why a trial is to be stopped at a step, for people; None if it goes on.

    Args:
        values: of the objectives, at that step.
        number: of the step, from 0.
    """
    step = rungs.steps[number]
    epochs = "1 epoch" if step.finetune_epochs == 1 else f"{step.finetune_epochs:g} epochs"
    at_step = f"at step {number + 1} of {len(rungs.steps) + 1} ({step.score_images:,} images, {epochs} of training)"
    if rungs.keep is None:
        if len(standing.pairs[number]) < rungs.least:
            return None
        promised, usual = promise(values, number, standing, objectives)
        if promised <= 0:
            return f"{at_step} it is foretold to add nothing to what was evaluated in full"
        if promised >= usual:
            return None
        share = f"{100 * promised / usual:.2g} %"
        return f"{at_step} it is foretold to add {share} of what the same seconds have added lately"
    rank = rank_among(values, standing.steps[number], objectives)
    if rank.goes_on(rungs.keep, rungs.least):
        return None
    return f"place {rank.place + 1} of {rank.trials} {at_step}: the best {100 * rungs.keep:g} % go on"


def promise(
    values: Values, number: int, standing: Standing, objectives: Sequence[ObjectiveSpec]
) -> tuple[float, float]:
    """By how much a trial may be expected to improve the hypervolume, and what the same seconds have added lately.

    The first is the mean of what it would add with the gains of each of those `NEAREST` to it at the step, in what
    changes until the end; infinite where nothing was evaluated in full yet. The second is 0 where too few have ended to
    tell. Both are up to the reference point of what was evaluated in full and of what it may come to.

    Args:
        values: of the objectives, at that step.
        number: of the step, from 0.
    """
    if not standing.full:
        return math.inf, 0.0
    gains = _gains_of_nearest(values, standing.pairs[number], objectives)
    ends = [[_changed(values, gain, objectives)] for gain in gains]
    known = _as_values(standing.full, objectives)
    reference = reference_point(known + [end for (end,) in ends], objectives)

    def volume(points: Sequence[Values]) -> float:
        return hypervolume(points, objectives, reference)

    now = volume(known)
    before = volume(known[: len(known) - standing.lately_full])
    promised = float(np.mean([volume(known + end) - now for end in ends]))
    return promised, (now - before) * _share_of_lately(number, standing)


def _share_of_lately(number: int, standing: Standing) -> float:
    """The seconds from a step to the end, as a share of those that the last trials took; 0 where these are too few."""
    lately_s = sum(standing.lately_s)
    if len(standing.lately_s) < FEW or lately_s <= 0:
        return 0.0
    return max(standing.seconds[-1] - standing.seconds[number], 0.0) / lately_s


def _as_values(points: Sequence[Point], objectives: Sequence[ObjectiveSpec]) -> list[dict[str, float]]:
    return [{str(one.metric): value for one, value in zip(objectives, point, strict=True)} for point in points]


def expect(values: Values, pairs: Sequence[Sequence[Point]], objectives: Sequence[ObjectiveSpec]) -> dict[str, float]:
    """What a trial may come to: by the median of the gains of those `NEAREST` to it at the step, for each objective.

    This is what samplers learn of a stopped trial.
    """
    return _changed(values, np.median(_gains_of_nearest(values, pairs, objectives), axis=0), objectives)


def _gains_of_nearest(
    values: Values, pairs: Sequence[Sequence[Point]], objectives: Sequence[ObjectiveSpec]
) -> NDArray[np.float64]:
    """What those that stood nearest have gained until the end (`NEAREST`, objectives); less is better."""
    if not pairs:
        return np.zeros((1, len(objectives)))
    own = np.array([values[objective.metric] for objective in objectives])
    here, end = np.moveaxis(np.array(pairs, np.float64), 1, 0)
    gains = (end - here) * _signs(objectives)
    changes = np.any(gains != 0, axis=0)
    spans = np.where(np.ptp(here, axis=0) > 0, np.ptp(here, axis=0), 1.0)
    away = np.linalg.norm(((here - own) / spans)[:, changes], axis=1)
    nearest: NDArray[np.float64] = gains[np.argsort(away, kind="stable")[:NEAREST]]
    return nearest


def _changed(values: Values, gains: NDArray[np.float64], objectives: Sequence[ObjectiveSpec]) -> dict[str, float]:
    own = np.array([values[objective.metric] for objective in objectives]) + gains * _signs(objectives)
    told = zip(objectives, own.tolist(), strict=True)
    return {str(one.metric): min(max(value, 0.0), 1.0) if is_share(one) else value for one, value in told}


def _signs(objectives: Sequence[ObjectiveSpec]) -> NDArray[np.float64]:
    """Times which less is better."""
    return np.array([-1.0 if objective.direction is Direction.MAXIMIZE else 1.0 for objective in objectives])


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

    def goes_on(self, keep: float, least: int) -> bool:
        """Whether it is not dominated, or within the share that goes on, or there are too few trials to tell."""
        return self.front == 0 or self.trials < least or self.place < keep * self.trials


def rank_among(values: Values, others: Sequence[Sequence[float]], objectives: Sequence[ObjectiveSpec]) -> Rank:
    """Rank a trial among the points of others (n, objectives).

    Better is who lies on a better front of non-dominated sorting or, on the same front, has more room around it.
    Equal points are equally good, and the order of the others does not matter.
    """
    own = np.array([[values[objective.metric] for objective in objectives]])
    earlier = np.array(others, np.float64).reshape(-1, len(objectives))
    points: Points = np.concatenate([earlier, own]) * _signs(objectives)
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
