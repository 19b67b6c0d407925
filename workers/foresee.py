"""What is said of a trial before it is run: the cost model's answer, to a search's own scale, and the front so far."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy.orm import Session

from search_spaces.apply import apply
from search_spaces.check import check_spec
from search_spaces.cost_models.additive import UncoveredError
from search_spaces.design import design_from_json
from search_spaces.foresight import Foresight, why_measured
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.spec import Measure, SearchSpec
from service.cost_models.queries import current_model
from service.known import known_for_search
from service.models import Device, Search, Trial
from service.trials.fronts import front_values

_METRIC = Metric.LATENCY_S


def foresee(session: Session, search: Search, trial: Trial) -> Foresight | None:
    """None where the device has no cost model that answers for all that the spec wants of it, and for this design.

    Predictions are ratios to the model's own figure for the base, times the base's latency as the search measured it:
    what is predicted and what is measured then share one scale, whatever speed the machine had when it was profiled.
    """
    spec = SearchSpec.model_validate(search.spec)
    base_latency_s = ((search.base_report or {}).get("anchor") or {}).get(_METRIC)
    device = None if spec.device is None else session.get(Device, spec.device)
    if device is None or base_latency_s is None or spec.device_metrics != {_METRIC}:
        return None
    fitted = current_model(session, device, _METRIC)
    if fitted is None:
        return None
    network = _network_of(session, search, spec)
    try:
        base = fitted.model.predict(network)
        found = fitted.model.predict(apply(network, design_from_json(trial.design)))
    except UncoveredError:
        return None
    scale = base_latency_s / base.value
    low, high = found.low * scale, found.high * scale
    always = spec.evaluation.measure is Measure.ALWAYS
    return Foresight(
        metric=str(_METRIC),
        value=found.value * scale,
        low=low,
        high=high,
        model_id=fitted.id,
        model_version=fitted.version,
        why=why_measured(_METRIC, low, high, spec.limits, trial.number, always=always),
        front=front_values(session, search),
    )


def _network_of(session: Session, search: Search, spec: SearchSpec) -> Network:
    """The base of a search, which stays what it was when the search was accepted."""
    if search.id not in _networks():
        checked = check_spec(spec, known_for_search(session, search))
        while len(_networks()) >= _MOST_KEPT:
            _networks().pop(next(iter(_networks())))
        _networks()[search.id] = checked.network
    return _networks()[search.id]


_MOST_KEPT = 32


@lru_cache(maxsize=1)
def _networks() -> dict[str, Network]:
    return {}
