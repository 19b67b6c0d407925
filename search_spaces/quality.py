"""How good a trial's outputs were, as one number that models learn: the first objective that is a score."""

from __future__ import annotations

import math
from collections.abc import Mapping

from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Direction
from search_spaces.scores import BUILT_IN_SCORES, Scale
from search_spaces.spec import ObjectiveSpec, SearchSpec

_COSTS = DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS
_LEAST_SHARE = 0.005
"""Shares nearer to 0 or 1 than this are as good as that: some images more or less are chance."""


def main_score(spec: SearchSpec) -> ObjectiveSpec | None:
    """The objective that weights decide; None where all are costs."""
    return next((one for one in spec.objectives if one.metric not in _COSTS), None)


def quality(values: Mapping[str, float], score: ObjectiveSpec | None) -> float | None:
    """A told score, higher where better; of shares the log-odds. None where it was not told, or is no number.

    From 90 to 95 per cent is as far then as from 50 to 68: what several losses do together is nearer to a sum.
    """
    value = math.nan if score is None else values.get(score.metric, math.nan)
    if score is None or not math.isfinite(value):
        return None
    if is_share(score):
        value = to_log_odds(value)
    return value if score.direction is Direction.MAXIMIZE else -value


def is_share(score: ObjectiveSpec) -> bool:
    info = BUILT_IN_SCORES.get(score.metric)
    return info is not None and info.info.scale is Scale.SHARE


def to_log_odds(share: float) -> float:
    inside = min(max(share, _LEAST_SHARE), 1 - _LEAST_SHARE)
    return math.log(inside / (1 - inside))
