"""Reads how right a device's cost models were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.objectives import Metric
from service.cost_models.queries import current_model_id
from service.devices.schemas import AccuracyBody, CostModelBody, ResidualBody, ResidualSummary
from service.models import Conditions, CostModel, Device, Residual, Trial

SHOWN = 100
"""Newest models and residuals that are listed; the summary is of the newest `SUMMARISED`."""

SUMMARISED = 10_000


def read_accuracy(session: Session, device: Device) -> AccuracyBody:
    return AccuracyBody(
        device=device.name,
        models=_models(session, device),
        in_searches=_summaries(session, device),
        residuals=_residuals(session, device),
    )


def _models(session: Session, device: Device) -> list[CostModelBody]:
    current = current_model_id(session, device, Metric.LATENCY_S)
    query = (
        select(CostModel, Conditions.protocol)
        .join(Conditions)
        .where(Conditions.device == device.name)
        .order_by(CostModel.id.desc())
        .limit(SHOWN)
    )
    return [
        CostModelBody(
            metric=model.metric,
            version=model.version,
            batch=protocol.get("batch"),
            threads=protocol.get("threads"),
            samples=model.samples,
            is_current=model.id == current,
            report=model.report if model.id == current else _without_points(model.report),
            created_at=model.created_at,
        )
        for model, protocol in session.execute(query)
    ]


def _residuals(session: Session, device: Device) -> list[ResidualBody]:
    query = (
        select(Residual, CostModel.version, Trial.search_id, Trial.number)
        .join(CostModel, CostModel.id == Residual.cost_model_id)
        .join(Conditions, Conditions.id == CostModel.conditions_id)
        .join(Trial, Trial.id == Residual.trial_id)
        .where(Conditions.device == device.name)
        .order_by(Residual.id.desc())
        .limit(SHOWN)
    )
    return [
        ResidualBody(
            search_id=search_id,
            trial=number,
            metric=row.metric,
            predicted=row.predicted,
            low=row.low,
            high=row.high,
            measured=row.measured,
            why_measured=row.reason,
            model_version=version,
            measured_at=row.created_at,
        )
        for row, version, search_id, number in session.execute(query)
    ]


def _without_points(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "points"}


def _summaries(session: Session, device: Device) -> dict[str, ResidualSummary]:
    """By reason, of what the device is now."""
    query = (
        select(Residual.reason, Residual.predicted, Residual.low, Residual.high, Residual.measured)
        .join(CostModel)
        .join(Conditions)
        .where(Conditions.device == device.name, Conditions.fingerprint_digest == device.fingerprint_digest)
        .order_by(Residual.id.desc())
        .limit(SUMMARISED)
    )
    by_reason: dict[str, list[Sequence[float]]] = {}
    for reason, *figures in session.execute(query):
        by_reason.setdefault(reason, []).append(figures)
    return {reason: _summary(figures) for reason, figures in sorted(by_reason.items())}


def _summary(figures: Sequence[Sequence[float]]) -> ResidualSummary:
    predicted, low, high, measured = np.array(figures).T
    errors = np.abs(predicted / measured - 1)
    return ResidualSummary(
        trials=len(figures),
        mean_error=float(errors.mean()),
        within_5_percent=float((errors <= 0.05).mean()),
        within_10_percent=float((errors <= 0.10).mean()),
        interval_coverage=float(((low <= measured) & (measured <= high)).mean()),
    )
