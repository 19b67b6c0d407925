"""Adds designs to a search as trials. What its costs alone rule out ends here, and what another search has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.apply import apply
from search_spaces.budgets import Certificate, certify
from search_spaces.costs import symbolic_values
from search_spaces.design import Design
from search_spaces.design_keys import realised_key
from search_spaces.network import Network
from search_spaces.objectives import Outcome, Provenance, TrialState
from search_spaces.outcome_keys import outcome_key
from search_spaces.samplers import Proposal
from search_spaces.spec import SearchSpec
from service.models import Search, Trial
from service.searches.specs import budgets_of
from service.trials.actions import KnownOutcome, NewTrial, add_trials
from workers.known_outcomes import find_known, setting_of
from workers.limits import missed_limits


def add_designs(
    session: Session,
    search: Search,
    spec: SearchSpec,
    network: Network,
    proposals: Sequence[Proposal],
    *,
    baseline: bool = False,
) -> list[Trial]:
    """Add those that the search does not have yet; some may have ended at once. `search` must be locked."""
    applied = {}
    for proposal in proposals:
        realised = apply(network, proposal.design)
        applied[realised_key(network, realised, proposal.design)] = (proposal, realised)
    for key in session.scalars(
        select(Trial.design_key).where(Trial.search_id == search.id, Trial.design_key.in_(list(applied)))
    ):
        del applied[key]
    outcome_keys = _outcome_keys(session, search, spec, {key: one.design for key, (one, _) in applied.items()})
    budgets = budgets_of(search)
    certificates = {key: tuple(certify(realised, spec, budgets)) for key, (_, realised) in applied.items()}
    ruled_out = {
        key: outcome
        for key, (_, realised) in applied.items()
        if (outcome := judge_costs(realised, spec, certificates[key]))
    }
    known = {key: KnownOutcome(outcome) for key, outcome in ruled_out.items()}
    known |= _found_elsewhere(session, spec, {key: one for key, one in outcome_keys.items() if key not in ruled_out})
    new = [
        NewTrial(
            proposal.design,
            key,
            proposal.memo,
            certificates[key],
            outcome_keys.get(key),
            known.get(key),
        )
        for key, (proposal, _) in applied.items()
    ]
    return add_trials(session, search, new, baseline=baseline)


def judge_costs(applied: Network, spec: SearchSpec, certificates: Sequence[Certificate]) -> Outcome | None:
    """The outcome of a design whose size, or whatever needs no work to be known, misses a limit, else None."""
    values = {str(metric): value for metric, value in symbolic_values(applied).items()}
    simulated = {one.metric: one.value for one in certificates if one.metric not in values}
    reason = missed_limits(spec.limits, values | simulated)
    if not reason:
        return None
    sources = dict.fromkeys(simulated, Provenance.SIMULATED)
    return Outcome(TrialState.INFEASIBLE, values | simulated, reason, sources=sources)


def _outcome_keys(session: Session, search: Search, spec: SearchSpec, designs: Mapping[str, Design]) -> dict[str, str]:
    """By design key; empty where they cannot be told."""
    setting = setting_of(session, search, spec)
    if setting is None:
        return {}
    return {key: outcome_key(setting, spec.evaluation, design, key) for key, design in designs.items()}


def _found_elsewhere(session: Session, spec: SearchSpec, outcome_keys: Mapping[str, str]) -> dict[str, KnownOutcome]:
    found = find_known(session, spec, set(outcome_keys.values()))
    return {key: found[one] for key, one in outcome_keys.items() if one in found}
