"""Adds designs to a search as trials. What its costs alone rule out ends here: no work is needed to know."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.apply import apply
from search_spaces.budgets import certify
from search_spaces.costs import symbolic_values
from search_spaces.design_keys import realised_key
from search_spaces.network import Network
from search_spaces.objectives import Outcome, TrialState
from search_spaces.samplers import Proposal
from search_spaces.spec import SearchSpec
from service import leases
from service.models import Search, Trial
from service.searches.specs import budgets_of
from service.trials.actions import NewTrial, add_trials, finish_trial
from workers.limits import missed_limits

_JUDGE = "the planner"
_LEASE_S = 60.0


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
    known = select(Trial.design_key).where(Trial.search_id == search.id, Trial.design_key.in_(list(applied)))
    for key in session.scalars(known):
        del applied[key]
    budgets = budgets_of(search)
    new = [
        NewTrial(proposal.design, key, proposal.memo, tuple(certify(realised, spec, budgets)))
        for key, (proposal, realised) in applied.items()
    ]
    trials = add_trials(session, search, new, baseline=baseline)
    for trial in trials:
        outcome = judge_costs(applied[trial.design_key][1], spec)
        if outcome is not None:
            attempt = leases.claim(session, Trial, trial.id, _JUDGE, _LEASE_S)
            assert attempt is not None  # the row was added by this transaction
            finish_trial(session, trial.id, attempt, outcome)
    return trials


def judge_costs(applied: Network, spec: SearchSpec) -> Outcome | None:
    """The outcome of a design whose size or other cost misses a limit, else None."""
    values = {str(metric): value for metric, value in symbolic_values(applied).items()}
    reason = missed_limits(spec.limits, values)
    return Outcome(TrialState.INFEASIBLE, values, reason) if reason else None
