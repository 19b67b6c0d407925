"""What is said of a trial before it is run: the cost model's answer, to a search's own scale, and the front so far."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy.orm import Session

from search_spaces.apply import apply
from search_spaces.catalog import build_for
from search_spaces.cost_models.additive import UncoveredError
from search_spaces.design import design_from_json
from search_spaces.foresight import Foresight, why_measured
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.spec import Measure, NetworkSpec, SearchSpec
from service.cost_models.queries import current_model
from service.known import known_for_search
from service.models import Device, Search, Trial
from service.searches.specs import spec_of
from service.trials.fronts import front_values

_METRIC = Metric.LATENCY_S


def foresee(session: Session, search: Search, trial: Trial) -> Foresight | None:
    """None where the device has no cost model that answers for all that the spec wants of it, and for this design.

    Predictions are ratios to the model's own figure for the base, times the base's latency as the search measured it:
    what is predicted and what is measured then share one scale, whatever speed the machine had when it was profiled.
    """
    spec = spec_of(search)
    base_latency_s = ((search.base_report or {}).get("anchor") or {}).get(_METRIC)
    device = None if spec.device is None else session.get(Device, spec.device)
    if device is None or base_latency_s is None or spec.device_metrics != {_METRIC}:
        return None
    fitted = current_model(session, device, _METRIC)
    base = None if fitted is None else _base_of(session, search, spec)
    if fitted is None or base is None:
        return None
    try:
        ratio = fitted.model.predict_ratio(apply(base, design_from_json(trial.design)), base)
    except UncoveredError:
        return None
    low, high = ratio.low * base_latency_s, ratio.high * base_latency_s
    always = spec.evaluation.measure is Measure.ALWAYS
    return Foresight(
        metric=str(_METRIC),
        value=ratio.value * base_latency_s,
        low=low,
        high=high,
        model_id=fitted.id,
        model_version=fitted.version,
        why=why_measured(_METRIC, low, high, spec.limits, trial.number, always=always),
        front=front_values(session, search, baseline_only=trial.baseline),
    )


def _base_of(session: Session, search: Search, spec: SearchSpec) -> Network | None:
    """The base of a search, as it was when the search was accepted; None where it is not known any more."""
    if search.id not in _bases():
        known = known_for_search(session, search)
        if isinstance(spec.network, NetworkSpec):
            dataset = known.datasets.get(spec.dataset.name)
            base = None if dataset is None else build_for(spec.network, dataset)
        else:
            own = known.networks.get(spec.network.name)
            base = None if own is None else own.network
        if base is None:
            return None
        while len(_bases()) >= _MOST_KEPT:
            _bases().pop(next(iter(_bases()), ""), None)  # another thread may have taken it
        _bases()[search.id] = base
    return _bases().get(search.id)


_MOST_KEPT = 32


@lru_cache(maxsize=1)
def _bases() -> dict[str, Network]:
    return {}
