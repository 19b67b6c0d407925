"""How well a search's predictor ranks: what was predicted of trials before they ran, against what they found."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.objectives import TrialState
from search_spaces.quality import main_score
from search_spaces.rank_correlation import JUDGED_TRIALS, spearman
from search_spaces.spec import SearchSpec
from service.models import Search, Trial


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's, of the trials judged last; None while there are fewer than a dozen."""

    metric: str
    trials: int
    value: float | None


def rank_correlation(session: Session, search: Search) -> RankCorrelation | None:
    """None where nothing was predicted."""
    score = main_score(SearchSpec.model_validate(search.spec))
    if score is None:
        return None
    query = (
        select(Trial.memo, Trial.values)
        .where(Trial.search_id == search.id, Trial.state == TrialState.SUCCEEDED, Trial.baseline.is_(False))
        .order_by(Trial.finish_number.desc())
        .limit(JUDGED_TRIALS)
    )
    pairs = [
        (memo["predicted"][score.metric], values[score.metric])
        for memo, values in session.execute(query)
        if score.metric in memo.get("predicted", {}) and score.metric in values
    ]
    if not pairs:
        return None
    return RankCorrelation(score.metric, len(pairs), spearman(pairs))
