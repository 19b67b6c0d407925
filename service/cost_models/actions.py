"""Stores cost models and what they said. The caller commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search_spaces.cost_models.additive import AdditiveModel, model_to_bytes
from search_spaces.objectives import Metric
from service.models import Conditions, CostModel, Residual


def add_cost_model(
    session: Session, conditions_id: int, metric: Metric, model: AdditiveModel, samples: int, report: Mapping[str, Any]
) -> CostModel:
    """Add the next version."""
    session.get_one(Conditions, conditions_id, with_for_update=True)  # versions are counted one after the other
    last = session.scalar(
        select(func.max(CostModel.version)).where(
            CostModel.conditions_id == conditions_id, CostModel.metric == str(metric)
        )
    )
    added = CostModel(
        conditions_id=conditions_id,
        metric=str(metric),
        version=(last or 0) + 1,
        content=model_to_bytes(model),
        samples=samples,
        report=dict(report),
    )
    session.add(added)
    session.flush()
    return added


def add_residual(session: Session, trial_id: int, told: Mapping[str, Any], measured: float) -> None:
    """Keep what was predicted of a trial beside what was measured; `told` as `Foresight.told` gives it."""
    session.add(
        Residual(
            cost_model_id=told["model_id"],
            trial_id=trial_id,
            metric=told["metric"],
            predicted=told["value"],
            low=told["low"],
            high=told["high"],
            measured=measured,
            reason=told["why_measured"] or "",
        )
    )
